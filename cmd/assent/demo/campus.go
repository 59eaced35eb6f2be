package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"assent"
	"assent/decision"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
	"assent/trace"
)

// The names of the machines, as the transaction manager knows them.
const (
	machineA = "students-a"
	machineB = "students-b"
	machineC = "courses"
)

// setup says where the machines are. It is the first line that the registrar is sent: connection
// strings do not belong into a list of arguments that everybody can read.
type setup struct {
	Dir      string   `json:"dir"`
	Postgres []string `json:"postgres,omitempty"`
	Workers  int      `json:"workers"`
	// Trace is the file that takes the trace of all registrars, one after the other.
	Trace string `json:"trace,omitempty"`
}

// campus is the three machines and the decision log, open in this process.
type campus struct {
	traceTo string
	trace   *trace.File
	logger  *slog.Logger
	log     *disk.Log
	a, b    machine
	courses *kv.Resource
	manager *assent.Manager
}

// openCampus opens everything at once, for each store has its own log to read.
func openCampus(ctx context.Context, s setup, log io.Writer) (*campus, error) {
	c := &campus{traceTo: s.Trace, logger: slog.New(slog.NewTextHandler(log, nil))}
	var group sync.WaitGroup
	errs := make([]error, 4)
	for i, open := range [...]func() error{
		func() (err error) {
			c.log, err = disk.Open(filepath.Join(s.Dir, "decisions"), disk.Config{Logger: c.logger})
			return err
		},
		func() (err error) {
			c.courses, err = kv.Open(filepath.Join(s.Dir, machineC), kv.Config{Logger: c.logger})
			return err
		},
		func() (err error) {
			c.a, err = openMachine(ctx, s, 0, machineA, c.logger)
			return err
		},
		func() (err error) {
			c.b, err = openMachine(ctx, s, 1, machineB, c.logger)
			return err
		},
	} {
		group.Go(func() { errs[i] = open() })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// openMachine opens the students' machine number i, in a store or in a database.
func openMachine(ctx context.Context, s setup, i int, name string, logger *slog.Logger) (machine, error) {
	if len(s.Postgres) == 0 {
		r, err := kv.Open(filepath.Join(s.Dir, name), kv.Config{Logger: logger})
		if err != nil {
			return nil, err
		}
		return &kvMachine{r}, nil
	}
	// No branch waits for a connection: a worker has at most one branch here.
	r, err := postgres.Open(ctx, s.Postgres[i], postgres.Config{MaxConns: int32(s.Workers) + 1, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	return &postgresMachine{r}, nil
}

// manage opens the transaction manager, which begins to recover.
func (c *campus) manage(ctx context.Context) (err error) {
	cfg := assent.Config{Log: c.log, Resources: c.resources(), Logger: c.logger, ScanInterval: time.Second}
	if c.traceTo != "" { // the log is open, so no other process writes it
		if c.trace, err = assent.OpenTrace(c.traceTo, cfg.Resources); err != nil {
			return err
		}
		cfg.Observer = c.trace
	}
	c.manager, err = assent.Open(ctx, cfg)
	return err
}

func (c *campus) resources() map[string]resource.Resource {
	return map[string]resource.Resource{machineA: c.a.resource(), machineB: c.b.resource(), machineC: c.courses}
}

// machineOf returns the machine that the student's records are on.
func (c *campus) machineOf(student string) machine {
	if homeOf(student) == machineA {
		return c.a
	}
	return c.b
}

// close closes what is open. A manager gives what is unfinished some time.
func (c *campus) close() (err error) {
	if c.manager != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = c.manager.Close(ctx)
	}
	if c.trace != nil {
		err = errors.Join(err, c.trace.Close())
	}
	for _, m := range []machine{c.a, c.b} {
		if m != nil {
			err = errors.Join(err, m.close())
		}
	}
	if c.courses != nil {
		err = errors.Join(err, c.courses.Close())
	}
	if c.log != nil {
		err = errors.Join(err, c.log.Close())
	}
	return err
}

// doubt is something that is not finished: a prepared branch, or an entry of the log.
type doubt struct {
	Transaction string
	Where       string
	What        string
	Damaged     bool // nothing can finish it but a person
}

// doubts lists what is unfinished, as the stores and the log tell, whatever a manager thinks.
func (c *campus) doubts(ctx context.Context) (all []doubt, err error) {
	for _, status := range []decision.Status{decision.Unfinished, decision.Damaged} {
		for e, err := range c.log.List(ctx, status) {
			if err != nil {
				return nil, err
			}
			all = append(all, doubt{string(e.ID), "the decision log",
				fmt.Sprintf("%v is recorded, and it is %v", e.Decision, status), status == decision.Damaged})
		}
	}
	for name, r := range c.resources() {
		prepared, err := r.Recover(ctx)
		if err != nil {
			return nil, fmt.Errorf("list what is prepared on %s: %w", name, err)
		}
		for _, p := range prepared {
			if p.Foreign == "" && p.ID.Owner == c.log.Owner() {
				all = append(all, doubt{p.ID.Transaction, name, "a branch is prepared", false})
			}
		}
	}
	return all, nil
}

// settle makes recovery finish everything that an earlier registrar left. Nothing else may be
// under way.
func (c *campus) settle(ctx context.Context) error {
	for {
		if err := c.manager.Scan(ctx); err != nil {
			return err
		}
		if err := c.manager.Quiesce(ctx); err != nil {
			return err
		}
		left, err := c.doubts(ctx)
		left = slices.DeleteFunc(left, func(d doubt) bool { return d.Damaged })
		if err != nil || len(left) == 0 {
			return err
		}
		c.logger.Info("recovery needs another round", "left", len(left), "first", left[0])
	}
}

// transactionsOf returns the transactions that the doubts are about, each once.
func transactionsOf(doubts []doubt) []string {
	seen := map[string]bool{}
	var ids []string
	for _, d := range doubts {
		if !seen[d.Transaction] {
			seen[d.Transaction] = true
			ids = append(ids, d.Transaction)
		}
	}
	return ids
}
