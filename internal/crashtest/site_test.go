package crashtest

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
)

// What there is at the beginning: accounts per resource, and money per account.
const (
	accounts = 8
	initial  = int64(1000)
)

const schema = `
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, version bigint NOT NULL, writer text NOT NULL);
CREATE TABLE move (transfer text NOT NULL, account int NOT NULL, version bigint NOT NULL, delta bigint NOT NULL);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (parent int NOT NULL REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO account SELECT id, 1000, 0, '' FROM generate_series(0, 7) AS id;`

// site is a coordinator with its log and its kv store, and a database of its own in each cluster.
type site struct {
	testing.TB
	clusters map[string]*pgcluster.Cluster
	db       string
	setup    setup
	p        *process // nil where none runs
	name     string   // of its coordinators' sessions
	launched int
	made     map[string]transfer
	reports  map[string]*report // nil where none came
	admin    map[string]*pgx.Conn
	// wanted are the transactions that may have a heuristic outcome on record, and those of their
	// transfers that need not be whole.
	wanted, torn map[string]bool
	record       func(message)
	within       []string // the command that runs its coordinators
}

func newSite(t testing.TB) *site {
	t.Helper()
	n := shared.sites.Add(1)
	s := &site{TB: t, clusters: clusters(t), db: fmt.Sprintf("site%d", n), name: fmt.Sprintf("coordinator%d", n), made: map[string]transfer{},
		reports: map[string]*report{}, admin: map[string]*pgx.Conn{}, wanted: map[string]bool{}, torn: map[string]bool{}}
	s.setup = setup{Dir: filepath.Join(t.TempDir(), "site"), DSN: map[string]string{}, FinishWait: patience,
		// So long that in an undisturbed run nothing is said twice.
		Retry:          500 * time.Millisecond,
		PrepareTimeout: 10 * time.Second, LockTimeout: 10 * time.Second}
	for name, c := range s.clusters {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		dsn, err := c.CreateDatabase(ctx, s.db)
		if err == nil {
			err = c.Exec(ctx, s.db, schema)
		}
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		s.setup.DSN[name] = dsn
	}
	t.Cleanup(func() {
		s.close()
		if !t.Failed() {
			s.drop()
		}
	})
	return s
}

// drop deletes the databases: there are two for each site, and they may be in memory.
func (s *site) drop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for name, c := range s.clusters {
		if err := c.Exec(ctx, "", "DROP DATABASE "+pgx.Identifier{s.db}.Sanitize()+" WITH (FORCE)"); err != nil {
			s.Logf("a database stays in %s: %v", name, err) // somebody else has left a branch prepared in it, say
		}
	}
}

// beside returns a coordinator with a log and a kv store of its own over the databases of s. What
// both have made is in the same books.
func (s *site) beside() *site {
	s.Helper()
	n := shared.sites.Add(1)
	other := *s
	other.name, other.p, other.launched, other.admin = fmt.Sprintf("coordinator%d", n), nil, 0, map[string]*pgx.Conn{}
	other.setup.Dir = filepath.Join(s.TempDir(), "beside")
	s.Cleanup(other.close)
	return &other
}

func (s *site) close() {
	if s.p != nil {
		s.p.kill()
		if s.Failed() && s.p.stderr.String() != "" {
			s.Logf("the last coordinator said:\n%s", s.p.stderr.String())
		}
	}
	for _, conn := range s.admin {
		_ = conn.Close(context.Background())
	}
}

// sub makes t, a subtest, the one that fails until it is over.
func (s *site) sub(t *testing.T) {
	parent := s.TB
	s.TB = t
	t.Cleanup(func() { s.TB = parent })
}

// open starts a coordinator, with arms in place before its recovery begins.
func (s *site) open(arms ...arm) {
	s.Helper()
	if _, ok := s.begin(arms...); !ok {
		s.Fatalf("the coordinator died (%v) before it was open\n%s", s.p.status, s.p.stderr.String())
	}
}

// begin is open for a coordinator that may die meanwhile.
func (s *site) begin(arms ...arm) (m message, ok bool) {
	s.Helper()
	m, ok = s.launch(arms...).answered()
	if ok && m.Err != "" {
		s.Fatalf("open: %s", m.Err)
	}
	return m, ok
}

// launch starts a coordinator and tells it to open everything.
func (s *site) launch(arms ...arm) *call {
	s.Helper()
	s.launched++
	s.p = launch(s, s.record, s.within...)
	return s.p.send(request{Open: s.opening(arms...)})
}

// opening returns what the present coordinator opens.
func (s *site) opening(arms ...arm) *setup {
	o := s.setup
	o.Arms, o.DSN = arms, maps.Clone(s.setup.DSN)
	for name := range o.DSN {
		o.DSN[name] += " application_name=" + s.tag()
	}
	return &o
}

// tag names the sessions of the present coordinator.
func (s *site) tag() string { return fmt.Sprintf("%s-%d", s.name, s.launched) }

// start begins a transfer.
func (s *site) start(t transfer) *call {
	s.Helper()
	s.made[t.ID] = t
	s.reports[t.ID] = nil
	return s.p.send(request{Transfer: &t})
}

// finish takes what became of a transfer. It returns nil where the coordinator died without a
// report.
func (s *site) finish(t transfer, c *call) *report {
	s.Helper()
	m, ok := c.answered()
	if !ok {
		if !c.p.slain() {
			s.Fatalf("the coordinator failed: %v\n%s", c.p.status, c.p.stderr.String())
		}
		return nil
	}
	s.reports[t.ID] = m.Report
	return m.Report
}

// run makes a transfer and returns the report.
func (s *site) run(t transfer) *report {
	s.Helper()
	return s.finish(t, s.start(t))
}

// new returns a transfer between all three resources.
func (s *site) new() transfer {
	n := len(s.made)
	return transfer{ID: fmt.Sprintf("t%d", n), Legs: []leg{
		{Resource: kvName, Account: n % accounts, Delta: 2},
		{Resource: "pg1", Account: n % accounts, Delta: -3},
		{Resource: "pg2", Account: n % accounts, Delta: 1},
	}}
}

// hold adds a hold to the present coordinator.
func (s *site) hold(points ...string) {
	s.Helper()
	var arms []arm
	for _, p := range points {
		arms = append(arms, arm{Point: p, Hold: true})
	}
	s.p.do(request{Arm: arms})
}

func (s *site) release(point string) {
	s.Helper()
	s.p.do(request{Release: point})
}

// conn returns the test's own connection to a database, made anew where the server was restarted.
func (s *site) conn(name string) *pgx.Conn {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if c := s.admin[name]; c != nil && c.Ping(ctx) == nil {
		return c
	}
	c, err := s.clusters[name].Conn(ctx, s.db)
	if err != nil {
		s.Fatalf("connect to %s: %v", name, err)
	}
	s.admin[name] = c
	return c
}

// exec runs a statement as the database's administrator.
func (s *site) exec(name, sql string, arguments ...any) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := s.conn(name).Exec(ctx, sql, arguments...); err != nil {
		s.Fatalf("%s: %s: %v", name, sql, err)
	}
}

// list returns the first column of a query's rows.
func (s *site) list(name, sql string, arguments ...any) []string {
	s.Helper()
	return query(s, name, pgx.RowTo[string], sql, arguments...)
}

func query[T any](s *site, name string, scan pgx.RowToFunc[T], sql string, arguments ...any) []T {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rows, err := s.conn(name).Query(ctx, sql, arguments...)
	if err != nil {
		s.Fatalf("%s: %s: %v", name, sql, err)
	}
	list, err := pgx.CollectRows(rows, scan)
	if err != nil {
		s.Fatalf("%s: %s: %v", name, sql, err)
	}
	return list
}

// prepared returns the names of the branches that are prepared in the site's database.
func (s *site) prepared(name string) []string {
	s.Helper()
	return s.list(name, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid")
}

// await polls the databases until cond holds.
func (s *site) await(what string, cond func() bool) {
	s.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			s.Fatalf("not in %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond) // polling another process
	}
}

// books are what all resources hold.
type books struct {
	accounts map[string]account
	moves    []move
}

// check waits until everything is settled and looks whether the promises were kept.
func (s *site) check() books {
	s.Helper()
	b := s.books(s.settled())
	s.audit(b)
	return b
}

// settled waits until everything is settled, and looks whether anything is left behind.
func (s *site) settled() *state {
	s.Helper()
	// A statement of a coordinator that is dead may still be at work in a server.
	for _, name := range baseNames {
		s.await("the sessions of dead coordinators end in "+name, func() bool {
			return len(s.list(name, `SELECT application_name FROM pg_stat_activity WHERE datname = current_database()
				AND application_name LIKE $1 || '-%' AND application_name <> $2`, s.name, s.tag())) == 0
		})
	}
	st := s.p.do(request{Settle: true}).State
	if len(st.Unfinished) > 0 {
		s.Errorf("unfinished in the log: %q", st.Unfinished)
	}
	for _, id := range st.Damaged {
		if !s.wanted[id] {
			s.Errorf("a heuristic outcome on record, and nobody meddled: %s", id)
		}
	}
	for name, list := range st.Prepared {
		if len(list) > 0 {
			s.Errorf("left prepared in %s: %q", name, list)
		}
	}
	for _, name := range baseNames {
		if list := s.prepared(name); len(list) > len(st.Foreign[name]) {
			s.Errorf("left prepared in %s: %q; foreign are %q", name, list, st.Foreign[name])
		}
	}
	return st
}

// books reads what the databases hold, and takes what st tells of the kv store.
func (s *site) books(st *state) books {
	s.Helper()
	b := books{accounts: map[string]account{}, moves: st.Moves}
	for i := range accounts {
		b.accounts[fmt.Sprintf("%s/%d", kvName, i)] = account{Balance: initial}
	}
	maps.Copy(b.accounts, st.Accounts)
	for _, name := range baseNames {
		type row struct {
			ID int
			account
		}
		for _, r := range query(s, name, pgx.RowToStructByPos[row], "SELECT id, balance, version, writer FROM account") {
			b.accounts[fmt.Sprintf("%s/%d", name, r.ID)] = r.account
		}
		for _, m := range query(s, name, pgx.RowToStructByPos[move], "SELECT transfer, account::text, version, delta FROM move") {
			m.Account = name + "/" + m.Account
			b.moves = append(b.moves, m)
		}
	}
	return b
}

// audit compares the books with the transfers that were made and with what was reported of them.
func (s *site) audit(b books) {
	s.Helper()
	if sum := b.total(); len(s.torn) == 0 && sum != 3*accounts*initial {
		s.Errorf("all accounts hold %d together, and held %d", sum, 3*accounts*initial)
	}
	for _, line := range b.unbalanced() {
		s.Error(line)
	}
	happened := map[string][]string{}
	for _, m := range b.moves {
		happened[m.Transfer] = append(happened[m.Transfer], m.Account)
	}
	for id := range happened {
		if _, ok := s.made[id]; !ok {
			s.Errorf("nobody has made the transfer %s", id)
		}
	}
	for id, t := range s.made {
		want := t.accounts()
		got := happened[id]
		slices.Sort(got)
		whole, r := slices.Equal(got, want), s.reports[id]
		switch {
		case s.torn[id]:
		case !whole && len(got) > 0:
			s.Errorf("%s is torn: it changed %q of %q; the report was %+v", id, got, want, r)
		case r == nil || r.Kind == inDoubt:
		case r.Kind == committed && !whole:
			s.Errorf("%s was reported committed, and is not", id)
		case r.Kind == aborted && len(got) > 0:
			s.Errorf("%s was reported aborted (%s), and is committed", id, r.Text)
		case r.Kind != committed && r.Kind != aborted:
			s.Errorf("%s: the report was %s: %s", id, r.Kind, r.Text)
		}
	}
}

// accounts returns the names of the accounts that t changes, in order.
func (t transfer) accounts() (names []string) {
	for _, l := range t.Legs {
		if l.Delta != 0 {
			names = append(names, fmt.Sprintf("%s/%d", l.Resource, l.Account))
		}
	}
	slices.Sort(names)
	return names
}

// unbalanced returns where an account does not hold what the moves say.
func (b books) unbalanced() (found []string) {
	sums, versions := map[string]int64{}, map[string]int64{}
	for _, m := range b.moves {
		sums[m.Account] += m.Delta
		versions[m.Account]++
	}
	for name, a := range b.accounts {
		if a.Balance != initial+sums[name] || a.Version != versions[name] {
			found = append(found, fmt.Sprintf("%s holds %d in version %d; %d moves say %d", name, a.Balance, a.Version, versions[name], initial+sums[name]))
		}
	}
	return found
}

// happened reports whether the books show anything of the transfer id.
func (b books) happened(id string) bool {
	return slices.ContainsFunc(b.moves, func(m move) bool { return m.Transfer == id })
}

// total is the sum of all money.
func (b books) total() (sum int64) {
	for _, a := range b.accounts {
		sum += a.Balance
	}
	return sum
}

// mustReport fails the test unless r is of the kind wanted, and, for aborts, has the code wanted.
func (s *site) mustReport(r *report, kind string, by string, code fmt.Stringer, hint bool) {
	s.Helper()
	switch {
	case r == nil:
		s.Fatal("there is no report")
	case r.Kind != kind || code != nil && r.Code.String() != code.String() || by != "" && r.By != by:
		s.Fatalf("reported %s by %q with code %v: %s; want %s by %q with %v", r.Kind, r.By, r.Code, r.Text, kind, by, code)
	case hint && strings.TrimSpace(r.Hint) == "":
		s.Fatalf("no hint with %s: %s", r.Kind, r.Text)
	}
}
