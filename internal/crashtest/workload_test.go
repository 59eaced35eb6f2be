package crashtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"assent"
	"assent/resource"
)

// bank is the workload of a coordinator process: workers that make transfers and audits, and tell
// what they do.
//
// Every operation locks what it reads, exclusively or for sharing, and every resource keeps the
// locks until the branch is finished: kv by two-phase locking, PostgreSQL by row locks, which a
// prepared transaction keeps over a crash. All work ends before the first branch prepares. That is
// strict two-phase locking over all resources together, so what commits is strictly serializable
// as a whole. (PostgreSQL's SERIALIZABLE in each cluster would not give that: each would find an
// order of its own.)
type bank struct {
	c       *coordinator
	w       workload
	resting chan struct{}
	workers sync.WaitGroup
}

func (c *coordinator) begin(w workload) *bank {
	b := &bank{c: c, w: w, resting: make(chan struct{})}
	for worker := range w.Workers {
		b.workers.Go(func() { b.work(worker) })
	}
	return b
}

// rest ends the workload after the operations that are under way.
func (b *bank) rest() {
	close(b.resting)
	b.workers.Wait()
}

func (b *bank) work(worker int) {
	random := rand.New(rand.NewPCG(b.w.Seed, uint64(worker)))
	for n := 0; ; n++ {
		select {
		case <-b.resting:
			return
		default:
		}
		id := fmt.Sprintf("%s-%d-%d", b.w.Prefix, worker, n)
		b.c.tell(message{Invoke: id})
		r := b.operate(id, random)
		b.c.tell(message{Done: id, Report: r})
		if r.Kind != committed {
			time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond) // as an application does
		}
	}
}

// operate makes one operation.
func (b *bank) operate(id string, random *rand.Rand) *report {
	ctx := context.Background()
	if random.IntN(20) == 0 { // an impatient caller
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(1+random.IntN(40))*time.Millisecond)
		defer cancel()
	}
	t, audit := b.choose(id, random), random.IntN(8) == 0
	tx := ""
	err := b.c.m.Run(ctx, func(ctx context.Context, x *assent.Tx) error {
		tx = x.ID()
		e := effect{ID: id, Reads: map[string]account{}, Writes: map[string]int64{}}
		if audit {
			if err := b.audit(ctx, x, &e); err != nil {
				return err
			}
			b.c.tell(message{Did: &e})
			return nil
		}
		for _, l := range t.Legs {
			if err := b.c.do(ctx, x, t, l, &e); err != nil {
				return err
			}
		}
		for _, s := range t.Then {
			p, err := b.c.bases[s.Resource].Join(ctx, x)
			if err == nil {
				_, err = p.Exec(ctx, s.SQL)
			}
			if err != nil {
				return err
			}
		}
		if t.Fail {
			return errGaveUp
		}
		b.c.tell(message{Did: &e})
		return nil
	})
	if errors.Is(err, assent.ErrNotOpen) && !errors.Is(err, assent.ErrAborted) {
		err = fmt.Errorf("no outcome: %w", err)
	}
	return reportOf(tx, err)
}

// choose returns a transfer of two or three legs: mostly between resources, and mostly with its
// accounts in one order for all, so that deadlocks are rare but come.
func (b *bank) choose(id string, random *rand.Rand) transfer {
	t := transfer{ID: id}
	names := []string{kvName, "pg1", "pg2"}
	legs := 2 + random.IntN(2)
	alone := random.IntN(7) == 0
	seen := map[string]bool{}
	for len(t.Legs) < legs {
		l := leg{Resource: names[random.IntN(3)], Account: random.IntN(accounts)}
		if alone && len(t.Legs) > 0 {
			l.Resource = t.Legs[0].Resource
		}
		if name := fmt.Sprint(l.Resource, l.Account); !seen[name] {
			seen[name] = true
			t.Legs = append(t.Legs, l)
		}
	}
	sum := int64(0)
	for i := range t.Legs[1:] {
		d := int64(1 + random.IntN(20))
		if random.IntN(2) == 0 {
			d = -d
		}
		t.Legs[i].Delta = d
		sum += d
	}
	if sum == 0 {
		t.Legs[0].Delta++
		sum++
	}
	t.Legs[legs-1].Delta = -sum
	if random.IntN(10) > 0 {
		slices.SortFunc(t.Legs, func(a, b leg) int {
			if c := strings.Compare(a.Resource, b.Resource); c != 0 {
				return c
			}
			return a.Account - b.Account
		})
	}
	switch random.IntN(40) {
	case 0:
		t.Fail = true
	case 1:
		t.Then = []statement{orphan(baseNames[random.IntN(2)])}
	}
	return t
}

// audit reads all accounts, in the order in which transfers lock theirs.
func (b *bank) audit(ctx context.Context, tx *assent.Tx, e *effect) error {
	k, err := b.c.store.Join(ctx, tx)
	if err != nil {
		return err
	}
	for i := range accounts {
		e.Reads[fmt.Sprintf("%s/%d", kvName, i)] = account{Balance: initial}
	}
	for pair, err := range k.ScanPrefix(ctx, []byte("account/")) {
		if err != nil {
			return err
		}
		a, err := accountOf(pair.Value)
		if err != nil {
			return err
		}
		e.Reads[kvName+"/"+strings.TrimPrefix(string(pair.Key), "account/")] = a
	}
	for _, name := range baseNames {
		p, err := b.c.bases[name].Join(ctx, tx)
		if err != nil {
			return err
		}
		rows, err := p.Query(ctx, "SELECT id, balance, version, writer FROM account ORDER BY id FOR SHARE")
		if err != nil {
			return err
		}
		var number int
		var a account
		_, err = pgx.ForEachRow(rows, []any{&number, &a.Balance, &a.Version, &a.Writer}, func() error {
			e.Reads[fmt.Sprintf("%s/%d", name, number)] = a
			return nil
		})
		if err != nil {
			return err
		}
		if len(e.Reads)%accounts != 0 {
			return &resource.Error{Code: resource.Broken, Op: "audit", Detail: fmt.Sprintf("%d accounts", len(e.Reads))}
		}
	}
	return nil
}
