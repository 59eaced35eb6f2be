package crashtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"assent"
	"assent/cluster"
	"assent/decision"
	"assent/decision/disk"
	"assent/protocol"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
)

// kvName is the name of the kv store among the resources.
const kvName = "kv"

// coordinator is the process that is killed.
type coordinator struct {
	observer *observer
	setup    setup
	log      decision.Log
	node     *cluster.Node // nil where there is no cluster
	store    *kv.Resource  // nil in a cluster
	bases    map[string]*postgres.Resource
	m        *assent.Manager
	bank     *bank

	mu  sync.Mutex
	out *json.Encoder
}

// coordinate is the main function of a coordinator process. It ends when nobody speaks to it any
// more, if it is not killed before.
func coordinate() int {
	c := &coordinator{out: json.NewEncoder(os.NewFile(3, "messages"))}
	c.observer = newObserver(c.tell)
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			return 0
		}
		if r.Open != nil || r.Arm != nil || r.Release != "" || r.Bank != nil {
			c.serve(r) // in their order
		} else {
			go c.serve(r)
		}
	}
}

// tell says something to the test. Messages arrive in the order in which tell is called.
func (c *coordinator) tell(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.Encode(m); err != nil {
		os.Exit(3) // there is nobody left to work for
	}
}

func (c *coordinator) serve(r request) {
	m := message{ID: r.ID}
	var err error
	switch {
	case r.Open != nil:
		err = c.open(*r.Open)
	case r.Arm != nil:
		c.observer.arm(r.Arm)
	case r.Release != "":
		c.observer.release(r.Release)
	case r.Transfer != nil:
		m.Report = c.run(*r.Transfer)
	case r.Settle:
		if err = c.settle(); err == nil {
			m.State, err = c.state(true)
		}
	case r.State:
		m.State, err = c.state(false)
	case r.Cluster:
		status := c.node.Status()
		m.State = &state{Cluster: &status}
	case r.Info != "":
		var i assent.Info
		i, err = c.m.Transaction(context.Background(), r.Info)
		m.Info = &info{i.State, i.Branches, len(i.Notes)}
	case r.Bank != nil:
		c.bank = c.begin(*r.Bank)
	case r.Rest:
		c.bank.rest()
	}
	if err != nil {
		m.Err = err.Error()
	}
	c.tell(m)
}

func (c *coordinator) open(s setup) (err error) {
	c.setup = s
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c.observer.arm(s.Arms)
	cfg := assent.Config{
		Observer: c.observer, Logger: logger, FinishWait: s.FinishWait, PrepareTimeout: s.PrepareTimeout,
		OrphanGrace: s.OrphanGrace, Retry: s.Retry, RetryMost: 10 * s.Retry, ScanInterval: 50 * time.Millisecond,
	}
	switch {
	case s.Shared != nil:
		if c.log, err = s.Shared.open(logger); err != nil {
			return err
		}
	case s.Cluster == nil || s.Cluster.Alone:
		// Small segments, because a log is opened for each point of the protocol.
		if c.log, err = disk.Open(filepath.Join(s.Dir, "log"), disk.Config{Logger: logger, SegmentBytes: 64 << 10}); err != nil {
			return err
		}
	}
	if s.Cluster != nil {
		if err := c.join(&cfg); err != nil {
			return err
		}
	} else if c.store, err = kv.Open(filepath.Join(s.Dir, "kv"), kv.Config{LockTimeout: s.LockTimeout}); err != nil {
		return err
	}
	c.bases = map[string]*postgres.Resource{}
	for name, dsn := range s.DSN {
		if c.bases[name], err = postgres.Open(context.Background(), dsn, postgres.Config{LockTimeout: s.LockTimeout, Logger: logger}); err != nil {
			return err
		}
	}
	cfg.Log, cfg.Resources = c.log, c.resources()
	c.m, err = assent.Open(context.Background(), cfg)
	return err
}

// join makes the process a node of its cluster.
func (c *coordinator) join(cfg *assent.Config) (err error) {
	k := c.setup.Cluster
	config := cluster.Config{Name: "crashtest", Self: protocol.NodeID(k.Self), Members: map[protocol.NodeID]cluster.Member{},
		Log: c.log, Dir: filepath.Join(c.setup.Dir, "cluster"), AllowPlaintext: k.Exposed, Logger: cfg.Logger}
	for name, address := range k.Nodes {
		config.Members[protocol.NodeID(name)] = cluster.Member{Address: address}
	}
	if c.node, err = cluster.Open(config); err != nil {
		return err
	}
	c.log = c.node.Log()
	cfg.ScanInterval, cfg.RetryMost = 250*time.Millisecond, time.Second
	if !k.Alone {
		cfg.Alive, cfg.Elsewhere, cfg.OrphanGrace = c.node.Alive, c.node.Elsewhere, time.Minute
	}
	return nil
}

// run makes a transfer.
func (c *coordinator) run(t transfer) *report {
	id := ""
	err := c.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
		id = tx.ID()
		e := effect{ID: t.ID, Reads: map[string]account{}, Writes: map[string]int64{}}
		for _, l := range t.Legs {
			if err := c.do(ctx, tx, t, l, &e); err != nil {
				return err
			}
		}
		for _, s := range t.Then {
			b, err := c.bases[s.Resource].Join(ctx, tx)
			if err != nil {
				return err
			}
			if _, err := b.Exec(ctx, s.SQL); err != nil && !s.Ignore {
				return err
			}
		}
		c.observer.pass(worked)
		if t.Fail {
			return errGaveUp
		}
		return nil
	})
	return reportOf(id, err)
}

// worked is the point of the application at which its work is done and Commit is next.
const worked = "application worked"

var errGaveUp = errors.New("the application gave up")

// do does the work of one leg: it locks the account, reads it and changes it.
func (c *coordinator) do(ctx context.Context, tx *assent.Tx, t transfer, l leg, e *effect) error {
	if l.Resource == kvName {
		return c.doKV(ctx, tx, t, l, e)
	}
	name := fmt.Sprintf("%s/%d", l.Resource, l.Account)
	var options []postgres.JoinOptions
	if t.Serializable {
		options = append(options, postgres.JoinOptions{Isolation: pgx.Serializable})
	}
	b, err := c.bases[l.Resource].Join(ctx, tx, options...)
	if err != nil {
		return err
	}
	sql := "SELECT balance, version, writer FROM account WHERE id = $1"
	if !l.Peek {
		sql += " FOR UPDATE"
	}
	var a account
	if err := b.QueryRow(ctx, sql, l.Account).Scan(&a.Balance, &a.Version, &a.Writer); err != nil {
		return err
	}
	e.Reads[name] = a
	if l.Delta == 0 {
		return nil
	}
	_, err = b.Exec(ctx, `WITH changed AS (
		UPDATE account SET balance = balance + $2, version = version + 1, writer = $3 WHERE id = $1 RETURNING id, version)
		INSERT INTO move SELECT $3, id, version, $2 FROM changed`, l.Account, l.Delta, t.ID)
	e.Writes[name] = a.Version + 1
	return err
}

func (c *coordinator) doKV(ctx context.Context, tx *assent.Tx, t transfer, l leg, e *effect) error {
	name := fmt.Sprintf("%s/%d", kvName, l.Account)
	b, err := c.store.Join(ctx, tx)
	if err != nil {
		return err
	}
	key := fmt.Appendf(nil, "account/%d", l.Account)
	value, _, err := b.GetForUpdate(ctx, key)
	if err != nil {
		return err
	}
	a, err := accountOf(value)
	if err != nil {
		return err
	}
	e.Reads[name] = a
	if l.Delta == 0 {
		return nil
	}
	a.Balance, a.Version, a.Writer = a.Balance+l.Delta, a.Version+1, t.ID
	e.Writes[name] = a.Version
	if value, err = json.Marshal(a); err != nil {
		return err
	}
	moved, err := json.Marshal(move{Transfer: t.ID, Account: name, Version: a.Version, Delta: l.Delta})
	if err != nil {
		return err
	}
	if err := b.Put(ctx, key, value); err != nil {
		return err
	}
	return b.Put(ctx, fmt.Appendf(nil, "move/%s/%d", t.ID, l.Account), moved)
}

// accountOf reads an account of the kv store. One that was never changed is not there.
func accountOf(value []byte) (account, error) {
	a := account{Balance: initial}
	if value == nil {
		return a, nil
	}
	err := json.Unmarshal(value, &a)
	return a, err
}

// settle waits until nothing is in doubt or unfinished.
func (c *coordinator) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := c.m.Scan(ctx)
		if err == nil {
			err = c.m.Quiesce(ctx)
		}
		left := 0
		for name := range c.resources() {
			own, _, rerr := c.prepared(ctx, name)
			err = errors.Join(err, rerr)
			left += len(own)
		}
		if err == nil && left == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not settled after %v, %d branches are prepared: %w", patience, left, err)
		}
		time.Sleep(5 * time.Millisecond) // polling the databases, which may be down
	}
}

func (c *coordinator) resources() map[string]resource.Resource {
	all := map[string]resource.Resource{}
	if c.store != nil {
		all[kvName] = c.store
	}
	for name, r := range c.bases {
		all[name] = r
	}
	return all
}

func (c *coordinator) prepared(ctx context.Context, name string) (own, foreign []string, err error) {
	list, err := c.resources()[name].Recover(ctx)
	for _, p := range list {
		switch {
		case p.Foreign != "":
			foreign = append(foreign, p.Foreign)
		case p.ID.Owner != c.log.Owner():
			foreign = append(foreign, p.ID.String())
		default:
			own = append(own, p.ID.String())
		}
	}
	return own, foreign, err
}

// state looks at everything; with books, also at what the kv store holds.
func (c *coordinator) state(books bool) (*state, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := &state{Points: c.observer.seen(), Prepared: map[string][]string{}, Foreign: map[string][]string{},
		Accounts: map[string]account{}, Seen: map[string]string{}}
	for status, list := range map[decision.Status]*[]string{decision.Unfinished: &s.Unfinished, decision.Damaged: &s.Damaged} {
		for e, err := range c.log.List(ctx, status) {
			if err != nil {
				return nil, err
			}
			*list = append(*list, string(e.ID))
		}
	}
	for name, scan := range c.m.Scans() {
		if scan.Err != "" {
			s.Seen[name] = scan.Err
		}
	}
	if !books {
		return s, nil
	}
	for name := range c.resources() {
		own, foreign, err := c.prepared(ctx, name)
		if err != nil {
			return nil, err
		}
		s.Prepared[name], s.Foreign[name] = own, foreign
	}
	if c.store == nil {
		return s, nil
	}
	err := c.store.View(ctx, func(v *kv.View) error {
		for pair, err := range v.Scan(nil, nil) {
			if err != nil {
				return err
			}
			if err := s.book(string(pair.Key), pair.Value); err != nil {
				return err
			}
		}
		return nil
	})
	return s, err
}

// book enters a pair of the kv store.
func (s *state) book(key string, value []byte) (err error) {
	if number, ok := strings.CutPrefix(key, "account/"); ok {
		s.Accounts[kvName+"/"+number], err = accountOf(value)
		return err
	}
	var m move
	err = json.Unmarshal(value, &m)
	s.Moves = append(s.Moves, m)
	return err
}
