package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"assent"
)

const registrarName = "registrar"

// patience bounds what takes much less where all is well: a recovery, a shutdown.
const patience = time.Minute

// request asks the registrar to enrol students in a course, all or none, or to take them out.
type request struct {
	ID       uint64   `json:"id"`
	Withdraw bool     `json:"withdraw,omitempty"`
	Students []string `json:"students"`
	Course   string   `json:"course"`
}

func (r request) pairs() []pair {
	all := make([]pair, len(r.Students))
	for i, s := range r.Students {
		all[i] = pair{s, r.Course}
	}
	return all
}

// result is how a request ended.
type result string

const (
	// done: committed.
	done result = "done"
	// full: aborted, for the course has too few seats.
	full result = "full"
	// aborted: aborted for another reason, such as a conflict.
	aborted result = "aborted"
	// contradicted: aborted, for the records are not as the client was told.
	contradicted result = "contradicted"
	// unknown: not known, to the registrar either.
	unknown result = "unknown"
	// heuristic: the transaction manager reports a heuristic outcome.
	heuristic result = "heuristic"
)

// message is what the registrar says, one per line. One field is set.
type message struct {
	// Opening: the process runs and begins to open the machines.
	Opening bool `json:"opening,omitempty"`
	// Found are the transactions that an earlier registrar left unfinished.
	Found []string `json:"found,omitempty"`
	// Ready: all that was found is finished, and requests are served.
	Ready *readiness `json:"ready,omitempty"`
	// Answer is the answer to one request.
	Answer *answer `json:"answer,omitempty"`
}

// readiness says how long it took to open the machines and then to recover.
type readiness struct {
	Opening  time.Duration `json:"opening"`
	Recovery time.Duration `json:"recovery"`
}

type answer struct {
	ID          uint64 `json:"id"`
	Result      result `json:"result"`
	Transaction string `json:"transaction,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

func registrarCommand() *cobra.Command {
	return &cobra.Command{
		Use: registrarName, Hidden: true, Args: cobra.NoArgs,
		Short: "serve requests from standard input until it ends; for demo's own use",
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(os.Interrupt) // Ctrl-C is for the client, who closes standard input
			return serve(context.Background(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// registrar serves requests.
type registrar struct {
	*campus
	mu  sync.Mutex
	out io.Writer
}

func serve(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	lines := json.NewDecoder(bufio.NewReader(in))
	var s setup
	if err := lines.Decode(&s); err != nil {
		return fmt.Errorf("read the setup: %w", err)
	}
	r := &registrar{out: out}
	if err := r.say(message{Opening: true}); err != nil {
		return err
	}
	began := time.Now()
	if r.campus, err = openCampus(ctx, s, os.Stderr); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	opened := time.Now()
	if err := r.recover(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := r.say(message{Ready: &readiness{opened.Sub(began), time.Since(opened)}}); err != nil {
		return err
	}
	if err := r.work(ctx, lines, s.Workers); err != nil {
		return err
	}
	if err := r.manager.Quiesce(ctx); err != nil {
		return err
	}
	settle, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return r.settle(settle)
}

func (r *registrar) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	left, err := r.doubts(ctx)
	if err != nil {
		return err
	}
	if found := transactionsOf(left); len(found) > 0 {
		if err := r.say(message{Found: found}); err != nil {
			return err
		}
	}
	if err := r.manage(ctx); err != nil {
		return err
	}
	return r.settle(ctx)
}

// work serves requests until there are no more.
func (r *registrar) work(ctx context.Context, lines *json.Decoder, workers int) error {
	requests := make(chan request)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for q := range requests {
				a := r.handle(ctx, q)
				_ = r.say(message{Answer: &a}) // who does not listen is told nothing
			}
		})
	}
	defer group.Wait()
	defer close(requests)
	for {
		var q request
		err := lines.Decode(&q)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		requests <- q
	}
}

// say writes m as one line, at once.
func (r *registrar) say(m message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.out.Write(append(line, '\n'))
	return err
}

// handle does what q asks in one transaction.
func (r *registrar) handle(ctx context.Context, q request) answer {
	a := answer{ID: q.ID, Result: done}
	err := r.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		a.Transaction = tx.ID()
		if q.Withdraw {
			return r.withdraw(ctx, tx, q)
		}
		return r.enrol(ctx, tx, q)
	}, assent.Retry(10))
	if err == nil {
		return a
	}
	a.Reason = err.Error()
	switch {
	case errors.Is(err, assent.ErrHeuristic):
		a.Result = heuristic
	case !errors.Is(err, assent.ErrAborted):
		a.Result = unknown
	case errors.Is(err, errFull):
		a.Result = full
	case errors.Is(err, errRecords):
		a.Result = contradicted
	default:
		a.Result = aborted
	}
	return a
}

// enrol writes the students' records first and takes the seats last, for the number of free seats
// is what requests wait for.
func (c *campus) enrol(ctx context.Context, tx *assent.Tx, q request) error {
	r := record{Request: q.ID, Transaction: tx.ID()}
	for _, p := range q.pairs() {
		if err := c.machineOf(p.student).add(ctx, tx, p, r); err != nil {
			return err
		}
	}
	branch, err := c.courses.Join(ctx, tx)
	if err != nil {
		return err
	}
	if err := changeFree(ctx, branch, q.Course, -len(q.Students)); err != nil {
		return err
	}
	for _, p := range q.pairs() {
		if err := put(ctx, branch, seatKey(p), r); err != nil {
			return err
		}
	}
	return nil
}

func (c *campus) withdraw(ctx context.Context, tx *assent.Tx, q request) error {
	for _, p := range q.pairs() {
		if err := c.machineOf(p.student).remove(ctx, tx, p); err != nil {
			return err
		}
	}
	branch, err := c.courses.Join(ctx, tx)
	if err != nil {
		return err
	}
	if err := changeFree(ctx, branch, q.Course, len(q.Students)); err != nil {
		return err
	}
	for _, p := range q.pairs() {
		if err := branch.Delete(ctx, seatKey(p)); err != nil {
			return err
		}
	}
	return nil
}
