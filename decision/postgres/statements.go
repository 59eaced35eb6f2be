package postgres

import "fmt"

// statements are the SQL of one schema. Each is one statement whose text does not depend on how many
// entries it is about, so that it is planned once. ROWS FROM is what PostgreSQL makes of unnest with several
// arrays; CockroachDB has known it for longer than that.
type statements struct {
	insert, read, annotate, forget string
	listOne, listAll               string
	retireOld, retireMany, border  string
}

func newStatements(t tables) statements {
	list := func(status string) string {
		return "SELECT seq, id, body, notes FROM " + t.entries + " WHERE status = " + status + " AND seq > $1 ORDER BY seq LIMIT $2"
	}
	// What is Done may be damaged again meanwhile, so the status is asked for where the row is locked, too.
	retire := "DELETE FROM " + t.entries + " WHERE status = 3 AND id IN (SELECT id FROM " + t.entries +
		" WHERE status = 3 AND done_at < %s ORDER BY done_at LIMIT 500)"
	return statements{
		insert: "INSERT INTO " + t.entries + ` (id, status, body, note_count, notes, done_at)
SELECT n.id, n.status, n.body, n.note_count, n.notes, CASE WHEN n.status = 3 THEN now() END
FROM ROWS FROM (unnest($1::text[]), unnest($2::int2[]), unnest($3::bytea[]), unnest($4::int4[]), unnest($5::bytea[])) AS n (id, status, body, note_count, notes)
ON CONFLICT (id) DO NOTHING RETURNING id`,
		read: "SELECT id, body, notes FROM " + t.entries + " WHERE id = ANY ($1::text[])",
		annotate: "UPDATE " + t.entries + ` AS e SET status = n.status, note_count = e.note_count + n.more, notes = e.notes || n.notes,
done_at = CASE WHEN n.status = 3 THEN coalesce(e.done_at, now()) END
FROM ROWS FROM (unnest($1::text[]), unnest($2::int4[]), unnest($3::int4[]), unnest($4::bytea[]), unnest($5::int2[])) AS n (id, was, more, notes, status)
WHERE e.id = n.id AND e.note_count = n.was RETURNING e.id`,
		forget:  "DELETE FROM " + t.entries + " WHERE id = $1",
		listOne: list("$3"),
		listAll: fmt.Sprintf("SELECT seq, id, body, notes FROM ((%s) UNION ALL (%s) UNION ALL (%s)) AS x ORDER BY seq LIMIT $2",
			list("1"), list("2"), list("3")),
		retireOld:  fmt.Sprintf(retire, "now() - $1::int8 * interval '1 millisecond'"),
		border:     "SELECT done_at FROM " + t.entries + " WHERE status = 3 ORDER BY done_at DESC OFFSET $1 LIMIT 1",
		retireMany: fmt.Sprintf(retire, "$1::timestamptz"),
	}
}
