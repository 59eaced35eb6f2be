package stack

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/decision/disk"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
)

// coordinator hosts a decision log, the coordinators of the transactions that are decided there, and
// the clients that run them.
type coordinator struct {
	*process
	random *entropy
	log    *disk.Log
	active map[commit.TransactionID]*coordination
	jobs   map[commit.TransactionID]*job
	// kept counts the entries that are done and wait to be forgotten.
	kept int
}

const (
	logDir = "log"
	// retention is how long a finished entry is kept for those who ask: longer than any message lives,
	// by any clock, or an old copy of a vote would be answered as that of an unknown transaction.
	retention = 2 * time.Minute
)

// logConfig makes a log do nothing that depends on the real clock: it forces only what it is asked to.
func logConfig(fs vfs.FS, random *entropy, clock func() time.Time) disk.Config {
	return disk.Config{FS: fs, SegmentBytes: 64 << 10, Clock: clock, Random: random,
		IdleTime: time.Hour, RetryInterval: time.Hour, Logger: slog.New(slog.DiscardHandler)}
}

func (c *coordinator) dir() string { return logDir }

// open opens the log and goes on with what is unfinished in it.
func (c *coordinator) open() (err error) {
	c.active, c.jobs, c.kept = map[commit.TransactionID]*coordination{}, map[commit.TransactionID]*job{}, 0
	c.log, err = disk.Open(logDir, logConfig(c.process.disk.fs, c.random, c.w.Clock))
	if err != nil {
		return err
	}
	c.w.owners[c.log.Owner()] = c.ID
	for e, err := range c.log.List(context.Background(), decision.Done) {
		if err != nil {
			return err
		}
		c.forget(e.ID)
	}
	for e, err := range c.log.List(context.Background(), decision.Unfinished) {
		if err != nil {
			return err
		}
		c.w.Reach("recovery: an unfinished " + e.Decision.String())
		c.w.stands(e.ID, e.Decision) // the answer may have been lost
		t := c.recover(e.ID)
		t.decided(e)
	}
	return nil
}

func (c *coordinator) close() {
	if c.log == nil {
		return
	}
	for _, t := range c.active {
		t.actor.Stop()
	}
	if err := c.log.Close(); err != nil && !errors.Is(err, decision.ErrStopped) {
		c.w.Fail(err)
	}
	c.log = nil
}

// receive takes a packet.
func (c *coordinator) receive(p sim.Packet) {
	id := commit.TransactionID(p.Scope)
	if m, ok := p.Message.(bank.Worked); ok {
		c.w.Heard(p)
		if j := c.jobs[id]; j != nil {
			j.worked(p.From, m)
		}
		return
	}
	t := c.active[id]
	if t == nil {
		if v, ok := p.Message.(commit.Voted); !ok || v.Vote != commit.Yes {
			return
		}
		// Somebody is in doubt about a transaction that nobody drives: an orphan.
		c.w.Reach("recovery: an orphan")
		t = c.recover(id)
	}
	t.actor.Deliver(protocol.Receive{From: p.From, Message: p.Message})
}

// recover makes the coordinator of a transaction anew.
func (c *coordinator) recover(id commit.TransactionID) *coordination {
	t := c.coordination(id, nil)
	t.actor.Deliver(protocol.Recover{})
	return t
}

func (c *coordinator) coordination(id commit.TransactionID, among []protocol.NodeID) *coordination {
	t := &coordination{c: c, id: id}
	t.machine = commit.NewCoordinator(id, among, c.w.options)
	t.actor = c.Actor(string(id), t.machine, t)
	c.active[id] = t
	return t
}

// coordination is the hands of one transaction's coordinator.
type coordination struct {
	c       *coordinator
	id      commit.TransactionID
	machine *commit.Coordinator
	actor   *sim.Actor
	entry   *decision.Entry // what stands in the log, once it is known
}

// Force implements engine.Hands. The coordinator's only record is the decision, in the log.
func (t *coordination) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (t *coordination) Send(to protocol.NodeID, message protocol.Message) {
	t.actor.Transmit(to, message)
}

// Emit implements engine.Hands.
func (t *coordination) Emit(value protocol.Value) {
	if !t.actor.Alive() {
		return
	}
	switch v := value.(type) {
	case commit.Propose:
		if t.c.w.stack.flaw == decidesEarly && v.Decision == commit.Commit {
			t.c.After(0, func() { t.decided(t.proposal(v)) })
		}
		t.c.process.Work(string(t.id), func() (then func()) { return t.decide(v) })
	case commit.Concluded:
		t.c.w.book.Concluded(t.id, v)
		if t.c.w.stack.flaw == forgetsEarly {
			t.c.After(0, func() { t.c.drop(t.id) })
		}
		if j := t.c.jobs[t.id]; j != nil {
			j.told(v)
		}
	case commit.Contradicted:
		t.c.w.book.Contradicted(t.id, v)
	case commit.Completed:
		t.retire()
	}
}

// proposal is the entry for what the machine proposes.
func (t *coordination) proposal(p commit.Propose) decision.Entry {
	e := decision.Entry{ID: t.id, Decision: p.Decision, By: "coordinator", Time: t.c.w.Clock()}
	if p.Decision == commit.Abort {
		e.By, e.Reason = "recovery", "a branch is prepared and no decision is recorded"
	}
	for _, m := range p.Members {
		e.Branches = append(e.Branches, decision.Branch{Resource: string(m.Node), Evidence: m.Evidence})
	}
	return e
}

// decide asks the log. Where the log has stopped it is opened again, in place where its disk was full
// and with the process where it is not known what is on it.
func (t *coordination) decide(p commit.Propose) (then func()) {
	var stands decision.Entry
	met, err := t.c.force(func() (err error) {
		stands, err = t.c.log.Decide(context.Background(), t.proposal(p))
		return err
	})
	switch {
	case met != nil && met.Class != sim.DiskFull:
		t.c.crash(-1, kept(met))
		return nil
	case met != nil:
		t.c.process.disk.ail(nil)
		if err := t.c.log.Reopen(context.Background()); err != nil {
			t.c.w.Fail(err)
		}
		t.c.w.Reach("the log was opened again in place")
		return func() { t.actor.Deliver(protocol.Input{Value: commit.ProposeFailed{}}) }
	case err != nil:
		t.c.w.Fail(err)
		return nil
	}
	t.c.w.stands(t.id, stands.Decision)
	if t.c.w.stack.flaw == ignoresAnswer {
		stands = t.proposal(p)
	}
	return func() { t.decided(stands) }
}

func (t *coordination) decided(stands decision.Entry) {
	t.entry = &stands
	v := commit.Decided{Decision: stands.Decision}
	for _, b := range stands.Branches {
		v.Members = append(v.Members, commit.Member{Node: protocol.NodeID(b.Resource), Evidence: b.Evidence})
	}
	t.actor.Deliver(protocol.Input{Value: v})
}

// retire notes that the transaction is finished, unforced, and drops it.
func (t *coordination) retire() {
	if t.entry == nil {
		t.c.After(0, func() { delete(t.c.active, t.id) })
		return
	}
	t.c.process.Work(string(t.id), func() (then func()) {
		err := t.c.log.Annotate(context.Background(), t.id, decision.Note{Kind: decision.Finished, Time: t.c.w.Clock()})
		if err != nil && !errors.Is(err, decision.ErrNotFound) { // that one was forgotten
			t.c.w.Fail(err)
		}
		return func() {
			delete(t.c.active, t.id)
			t.c.forget(t.id)
		}
	})
}

// forget drops a finished entry when nobody can ask any more.
func (c *coordinator) forget(id commit.TransactionID) {
	c.kept++
	c.After(retention, func() {
		c.kept--
		c.drop(id)
	})
}

func (c *coordinator) drop(id commit.TransactionID) {
	switch err := c.log.Forget(context.Background(), id); {
	case err == nil:
		c.w.Reach("a decision is forgotten")
	case !errors.Is(err, decision.ErrNotFound): // an earlier life had dropped that one
		c.w.Fail(err)
	}
}

// busy reports whether a transaction is unfinished here, or remembered.
func (c *coordinator) busy() bool {
	if len(c.active)+len(c.jobs)+c.kept > 0 {
		return true
	}
	for _, err := range c.log.List(context.Background(), 0) {
		if err != nil {
			c.w.Fail(err)
		}
		return true
	}
	return false
}
