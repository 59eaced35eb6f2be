package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"assent"
)

// demo is the client: it asks, listens, kills and compares.
type demo struct {
	o         options
	arguments []string // that run the registrar
	progress  *progress
	setup     setup
	ledger    *ledger
	random    *rand.Rand // of the kills
	began     time.Time

	kills, killsRecovering int
	found                  map[string]bool // transactions that a registrar found unfinished
	restarts               []time.Duration // from the start of the process until it is ready
	opens, recoveries      []time.Duration // the parts of it
	served                 time.Duration
	interrupted            bool
}

func newDemo(o options, arguments []string, p *progress) *demo {
	return &demo{
		o: o, arguments: arguments, progress: p, ledger: newLedger(o),
		random: rand.New(rand.NewPCG(o.seed, 1)), began: time.Now(), found: map[string]bool{},
	}
}

// run runs the whole demonstration. When it fails, or finds mismatches, what there is is kept.
func (d *demo) run(ctx context.Context) (v *verdict, err error) {
	remove, err := d.directory()
	if err != nil {
		return nil, err
	}
	if err := d.furnish(ctx); err != nil {
		if errors.Is(err, assent.ErrInDoubt) { // without the log nobody could finish it
			return nil, fmt.Errorf("%w; everything is kept in %s", err, d.setup.Dir)
		}
		return nil, errors.Join(err, remove())
	}
	defer d.progress.done()
	for over := false; !over; {
		if over, err = d.live(ctx); err != nil {
			return nil, fmt.Errorf("%w; everything is kept in %s", err, d.setup.Dir)
		}
	}
	d.progress.say("comparing")
	background, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	v, err = d.judge(background)
	if err != nil {
		return nil, fmt.Errorf("compare the machines: %w; everything is kept in %s", err, d.setup.Dir)
	}
	if d.o.keep || len(v.Mismatches) > 0 {
		v.Directory = d.setup.Dir
		return v, nil
	}
	if err := d.drop(background); err != nil {
		return nil, fmt.Errorf("drop the schema %s: %w; everything is kept in %s", schema, err, d.setup.Dir)
	}
	return v, remove()
}

// directory makes the demo's directory, and returns what removes it.
func (d *demo) directory() (remove func() error, err error) {
	dir := d.o.dir
	if dir == "" {
		dir, err = os.MkdirTemp("", "assent-demo-")
		d.setup = setup{Dir: dir, Postgres: d.o.postgres, Workers: d.o.workers, Trace: d.o.trace}
		return func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	_, before := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("--dir %s is not empty", dir)
	}
	d.setup = setup{Dir: dir, Postgres: d.o.postgres, Workers: d.o.workers, Trace: d.o.trace}
	return func() error {
		if before != nil { // it was not there
			return os.RemoveAll(dir)
		}
		for _, name := range []string{"decisions", machineA, machineB, machineC, logName} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// visit opens the machines in this process and calls work.
func (d *demo) visit(ctx context.Context, work func(*campus) error) error {
	log, err := openLog(d.setup.Dir)
	if err != nil {
		return err
	}
	c, err := openCampus(ctx, d.setup, log)
	if err == nil {
		err = errors.Join(work(c), c.close())
	}
	return errors.Join(err, log.Close())
}

// change is visit for work in one transaction.
func (d *demo) change(ctx context.Context, work func(context.Context, *campus, *assent.Tx) error) error {
	return d.visit(ctx, func(c *campus) error {
		if err := c.manage(ctx); err != nil {
			return err
		}
		return c.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) error { return work(ctx, c, tx) })
	})
}

// furnish makes the courses, and the schemas in PostgreSQL: all of it or nothing.
func (d *demo) furnish(ctx context.Context) error {
	return d.change(ctx, func(ctx context.Context, c *campus, tx *assent.Tx) error {
		for _, m := range []machine{c.a, c.b} {
			if m, ok := m.(*postgresMachine); ok {
				if err := m.create(ctx, tx); err != nil {
					return err
				}
			}
		}
		branch, err := c.courses.Join(ctx, tx)
		if err != nil {
			return err
		}
		seats := []byte(strconv.Itoa(d.o.seats))
		for n := range d.o.courses {
			for _, what := range []string{"capacity", "free"} {
				if err := branch.Put(ctx, courseKey(courseName(n), what), seats); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// drop takes the schemas away.
func (d *demo) drop(ctx context.Context) error {
	if len(d.setup.Postgres) == 0 {
		return nil
	}
	return d.change(ctx, func(ctx context.Context, c *campus, tx *assent.Tx) error {
		for _, m := range []machine{c.a, c.b} {
			if m, ok := m.(*postgresMachine); ok {
				if err := m.drop(ctx, tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// judge opens the machines and compares.
func (d *demo) judge(ctx context.Context) (v *verdict, err error) {
	err = d.visit(ctx, func(c *campus) error {
		if d.o.sabotage != "" {
			if err := c.spoil(ctx, d.o.sabotage, d.ledger); err != nil {
				return err
			}
		}
		doubts, err := c.doubts(ctx)
		if err != nil {
			return err
		}
		// Only now may a manager look: it would finish what it found.
		if err := c.manage(ctx); err != nil {
			return err
		}
		if err := c.settle(ctx); err != nil {
			return err
		}
		b, err := c.read(ctx)
		if err != nil {
			return err
		}
		v = d.verdict(compare(d.ledger, b, doubts), doubts)
		return nil
	})
	return v, err
}

func (d *demo) verdict(c *comparison, doubts []doubt) *verdict {
	n := d.ledger.counts
	v := &verdict{
		Transactions: d.ledger.ended(),
		Enrolled:     n.enrolled, Withdrawn: n.withdrawn, Refused: n.full, Aborted: n.aborted,
		Contradicted: n.contradicted, Heuristic: n.heuristic,
		Unanswered: len(d.ledger.unanswered), UnansweredCommitted: c.committed,
		UnansweredAborted: len(d.ledger.unanswered) - c.committed,
		Kills:             d.kills, KillsRecovering: d.killsRecovering, Recovered: len(d.found),
		InDoubt: len(doubts), Mismatches: c.mismatches,
		Seconds: time.Since(d.began).Seconds(), ServedSeconds: d.served.Seconds(),
		Interrupted: d.interrupted, Seed: d.o.seed,
	}
	v.PerSecond = float64(v.Transactions) / max(v.ServedSeconds, 1e-9)
	v.RestartMS = milliseconds(median(d.restarts))
	v.RecoveryMS = milliseconds(median(d.recoveries))
	for _, r := range d.restarts {
		v.RestartSlowestMS = max(v.RestartSlowestMS, milliseconds(r))
	}
	return v
}

// median returns the median of all, or 0 of nothing.
func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(all))[len(all)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
