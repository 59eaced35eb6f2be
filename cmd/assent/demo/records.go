package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
)

// pair is a student and a course.
type pair struct{ student, course string }

// record is what a machine holds of an enrolment: which request made it, in which transaction.
type record struct {
	Request     uint64 `json:"request"`
	Transaction string `json:"transaction"`
}

var (
	// errFull refuses an enrolment.
	errFull = errors.New("the course is full")
	// errRecords says that the records are not as the client was told.
	errRecords = errors.New("the records contradict what was acknowledged")
)

// machine holds students' records.
type machine interface {
	place
	// add makes the record; errRecords if there is one.
	add(ctx context.Context, tx resource.Transaction, p pair, r record) error
	// remove takes the record away; errRecords if there is none.
	remove(ctx context.Context, tx resource.Transaction, p pair) error
	// all returns all records.
	all(ctx context.Context, tx resource.Transaction) (map[pair]record, error)
}

// place is where a machine's records are.
type place interface {
	resource() resource.Resource
	close() error
}

// kvMachine is a machine in an embedded store, under keys like student/a-017/course/c-03.
type kvMachine struct{ store *kv.Resource }

func (m *kvMachine) resource() resource.Resource { return m.store }

func (m *kvMachine) close() error { return m.store.Close() }

func studentKey(p pair) []byte {
	return []byte("student/" + p.student + "/course/" + p.course)
}

func (m *kvMachine) add(ctx context.Context, tx resource.Transaction, p pair, r record) error {
	branch, err := m.store.Join(ctx, tx)
	if err != nil {
		return err
	}
	old, ok, err := branch.GetForUpdate(ctx, studentKey(p))
	if err != nil {
		return err
	}
	if ok {
		return fmt.Errorf("%w: %s is enrolled in %s: %s", errRecords, p.student, p.course, old)
	}
	return put(ctx, branch, studentKey(p), r)
}

func (m *kvMachine) remove(ctx context.Context, tx resource.Transaction, p pair) error {
	branch, err := m.store.Join(ctx, tx)
	if err != nil {
		return err
	}
	_, ok, err := branch.GetForUpdate(ctx, studentKey(p))
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s is not enrolled in %s", errRecords, p.student, p.course)
	}
	return branch.Delete(ctx, studentKey(p))
}

func (m *kvMachine) all(ctx context.Context, tx resource.Transaction) (map[pair]record, error) {
	branch, err := m.store.Join(ctx, tx)
	if err != nil {
		return nil, err
	}
	records := map[pair]record{}
	for kvPair, err := range branch.ScanPrefix(ctx, []byte("student/")) {
		if err != nil {
			return nil, err
		}
		parts := strings.Split(string(kvPair.Key), "/")
		if len(parts) != 4 {
			return nil, fmt.Errorf("%q is no student's record", kvPair.Key)
		}
		var r record
		if err := json.Unmarshal(kvPair.Value, &r); err != nil {
			return nil, fmt.Errorf("the record %q: %w", kvPair.Key, err)
		}
		records[pair{parts[1], parts[3]}] = r
	}
	return records, nil
}

func put(ctx context.Context, branch *kv.Tx, key []byte, r record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return branch.Put(ctx, key, value)
}

// schema is where the students' records are in a PostgreSQL database.
const schema = "assent_demo"

// postgresMachine is a machine in a PostgreSQL database.
type postgresMachine struct{ database *postgres.Resource }

func (m *postgresMachine) resource() resource.Resource { return m.database }

func (m *postgresMachine) close() error { return m.database.Close() }

// exec runs one statement and returns how many rows it concerned.
func (m *postgresMachine) exec(ctx context.Context, tx resource.Transaction, sql string, arguments ...any) (int64, error) {
	branch, err := m.database.Join(ctx, tx)
	if err != nil {
		return 0, err
	}
	tag, err := branch.Exec(ctx, sql, arguments...)
	return tag.RowsAffected(), err
}

func (m *postgresMachine) create(ctx context.Context, tx resource.Transaction) error {
	_, err := m.exec(ctx, tx, `CREATE SCHEMA `+schema+`; CREATE TABLE `+schema+`.records
		(student text, course text, request bigint NOT NULL, transaction text NOT NULL, PRIMARY KEY (student, course))`)
	if err != nil {
		return fmt.Errorf("make the schema %s, which must not be there: %w", schema, err)
	}
	return nil
}

func (m *postgresMachine) drop(ctx context.Context, tx resource.Transaction) error {
	_, err := m.exec(ctx, tx, `DROP SCHEMA `+schema+` CASCADE`)
	return err
}

func (m *postgresMachine) add(ctx context.Context, tx resource.Transaction, p pair, r record) error {
	n, err := m.exec(ctx, tx, `INSERT INTO `+schema+`.records VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		p.student, p.course, int64(r.Request), r.Transaction)
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: %s is enrolled in %s", errRecords, p.student, p.course)
	}
	return err
}

func (m *postgresMachine) remove(ctx context.Context, tx resource.Transaction, p pair) error {
	n, err := m.exec(ctx, tx, `DELETE FROM `+schema+`.records WHERE student = $1 AND course = $2`, p.student, p.course)
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: %s is not enrolled in %s", errRecords, p.student, p.course)
	}
	return err
}

func (m *postgresMachine) all(ctx context.Context, tx resource.Transaction) (map[pair]record, error) {
	branch, err := m.database.Join(ctx, tx)
	if err != nil {
		return nil, err
	}
	rows, err := branch.Query(ctx, `SELECT student, course, request, transaction FROM `+schema+`.records`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	records := map[pair]record{}
	for rows.Next() {
		var p pair
		var r record
		var request int64
		if err := rows.Scan(&p.student, &p.course, &request, &r.Transaction); err != nil {
			return nil, err
		}
		r.Request = uint64(request)
		records[p] = r
	}
	return records, rows.Err()
}

// Machine C's keys: course/c-03/capacity and course/c-03/free hold numbers, and
// course/c-03/seat/a-017 the record of who sits there.
func courseKey(course, what string) []byte { return []byte("course/" + course + "/" + what) }

func seatKey(p pair) []byte { return courseKey(p.course, "seat/"+p.student) }

// changeFree adds n to the number of free seats; errFull if there are too few.
func changeFree(ctx context.Context, branch *kv.Tx, course string, n int) error {
	value, ok, err := branch.GetForUpdate(ctx, courseKey(course, "free"))
	if err != nil {
		return err
	}
	free, err := strconv.Atoi(string(value))
	if !ok || err != nil || free < 0 {
		return fmt.Errorf("%w: the free seats of %s are %q", errRecords, course, value)
	}
	if free+n < 0 {
		return errFull
	}
	return branch.Put(ctx, courseKey(course, "free"), strconv.AppendInt(nil, int64(free+n), 10))
}

// courseBook is what machine C holds.
type courseBook struct {
	seats          map[pair]record
	free, capacity map[string]int
}

func readCourses(ctx context.Context, store *kv.Resource, tx resource.Transaction) (courseBook, error) {
	b := courseBook{seats: map[pair]record{}, free: map[string]int{}, capacity: map[string]int{}}
	branch, err := store.Join(ctx, tx)
	if err != nil {
		return b, err
	}
	for kvPair, err := range branch.ScanPrefix(ctx, []byte("course/")) {
		if err != nil {
			return b, err
		}
		if err := b.take(string(kvPair.Key), kvPair.Value); err != nil {
			return b, fmt.Errorf("the record %q of a course: %w", kvPair.Key, err)
		}
	}
	return b, nil
}

func (b courseBook) take(key string, value []byte) (err error) {
	parts := strings.Split(key, "/")
	switch {
	case len(parts) == 3 && parts[2] == "free":
		b.free[parts[1]], err = strconv.Atoi(string(value))
	case len(parts) == 3 && parts[2] == "capacity":
		b.capacity[parts[1]], err = strconv.Atoi(string(value))
	case len(parts) == 4 && parts[2] == "seat":
		var r record
		err = json.Unmarshal(value, &r)
		b.seats[pair{parts[3], parts[1]}] = r
	default:
		err = errors.New("nobody writes such a key")
	}
	return err
}
