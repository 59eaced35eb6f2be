package stack

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
	"assent/sim"
	"assent/sim/bank"
)

// site hosts a store, and the participants of the transactions that have a branch there.
type site struct {
	*process
	random   *entropy
	store    *kv.Resource
	branches map[commit.TransactionID]*branch
}

const (
	storeDir = "store"
	// sessionTime is how long a branch may be at work before the site gives it up: its client is gone.
	sessionTime = 4 * time.Second
	// memory is how long a participant that has come to its end is kept for those who ask.
	memory = 2 * time.Second
)

func (s *site) dir() string { return storeDir }

// open opens the store and makes anew a participant for each branch that is prepared there.
func (s *site) open() (err error) {
	s.branches = map[commit.TransactionID]*branch{}
	s.store, err = kv.Open(storeDir, kv.Config{FS: s.disk.fs, LockTimeout: 1, Clock: s.w.Clock, Random: s.random})
	if err != nil {
		return err
	}
	list, err := s.store.Recover(context.Background())
	if err != nil {
		return err
	}
	for _, p := range list {
		s.w.Reach("recovery: a branch in doubt")
		s.w.book.Voted(commit.TransactionID(p.ID.Transaction), s.ID, commit.Yes) // the answer may have been lost
		if s.w.stack.flaw == forgetsPrepared {
			continue
		}
		b := s.branch(commit.TransactionID(p.ID.Transaction), p.ID.Owner)
		b.evidence, b.prepared = p.Evidence, true
		b.actor.Deliver(protocol.Recover{Records: protocol.Records{commit.BranchKey: commit.PreparedRecord{
			ID: b.id, Coordinator: s.w.owners[p.ID.Owner], Peers: nil, Evidence: p.Evidence}}})
	}
	return nil
}

func (s *site) close() {
	if s.store == nil {
		return
	}
	for _, b := range s.branches {
		b.actor.Stop()
	}
	if err := s.store.Close(); err != nil && !errors.Is(err, kv.ErrStopped) {
		s.w.Fail(err)
	}
	s.store = nil
}

// branch returns the participant of the transaction, made now if there is none.
func (s *site) branch(id commit.TransactionID, owner string) *branch {
	if b := s.branches[id]; b != nil {
		return b
	}
	b := &branch{s: s, id: id, rid: resource.ID{Owner: owner, Transaction: string(id), Branch: string(s.ID)}}
	b.machine = commit.NewParticipant(id, s.w.owners[owner], s.w.options)
	b.actor = s.Actor(string(id), b.machine, b)
	s.branches[id] = b
	return b
}

// receive takes a packet.
func (s *site) receive(p sim.Packet) {
	if m, ok := p.Message.(Work); ok {
		s.w.Heard(p)
		s.work(p.From, m)
		return
	}
	id := commit.TransactionID(p.Scope)
	b := s.branches[id]
	if b == nil {
		// It is finished and forgotten, or was never here: the machine finds out which.
		b = s.branch(id, s.w.homes[id])
		b.actor.Deliver(protocol.Recover{})
		b.expire()
	}
	b.actor.Deliver(protocol.Receive{From: p.From, Message: p.Message})
}

// work does what a client asks, once: a copy that comes again or late is not of this connection.
func (s *site) work(from protocol.NodeID, m Work) {
	if time.Duration(m.Sent) < s.Since || s.branches[m.ID] != nil {
		return
	}
	b := s.branch(m.ID, m.Owner)
	b.actor.Deliver(protocol.Start{})
	s.process.Work(string(m.ID), func() (then func()) {
		answer := bank.Worked{ID: m.ID}
		values, err := b.do(m.Operations)
		if answer.Done = err == nil; err != nil {
			answer.Reason = reason(err)
		}
		answer.Values = values
		return func() { s.w.Say(string(m.ID), s.ID, from, answer) }
	})
	s.After(sessionTime, func() { b.actor.Deliver(protocol.Input{Value: commit.Abandon{Reason: "the session is over"}}) })
	b.expire()
}

// reason is why, in words that do not depend on which goroutine of the store was first.
func reason(err error) string { return resource.CodeOf(err).String() }

// branch is a transaction's part at a site: the hands of its participant.
type branch struct {
	s        *site
	id       commit.TransactionID
	rid      resource.ID
	actor    *sim.Actor
	machine  *commit.Participant
	tx       *kv.Tx // nil where the work was done by an earlier life of the site
	evidence []byte
	wrote    bool
	prepared bool
}

// expire forgets the participant some time after it has come to its end.
func (b *branch) expire() {
	b.s.After(memory, func() {
		if b.machine.State.Done() || b.machine.Blank && b.machine.State == commit.ParticipantWorking {
			delete(b.s.branches, b.id)
			return
		}
		b.expire()
	})
}

// do does the client's work.
func (b *branch) do(operations []bank.Operation) (values []int64, err error) {
	ctx := context.Background()
	begun, err := b.s.store.Begin(ctx, b.rid)
	if err != nil {
		return nil, err
	}
	b.tx = begun.(*kv.Tx)
	for _, o := range operations {
		key := account(o.Account)
		if o.Spoil {
			key = nil // it cannot be written, and breaks the branch
		}
		read := b.tx.Get
		if o.Change != 0 {
			read = b.tx.GetForUpdate
		}
		data, _, err := read(ctx, key)
		if o.Spoil {
			continue // the client does not look
		}
		if err != nil {
			return nil, err
		}
		value, err := strconv.ParseInt(string(data), 10, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		if o.Change == 0 {
			continue
		}
		if value+o.Change < 0 {
			return nil, &resource.Error{Code: resource.Constraint, Op: "withdraw"}
		}
		b.wrote = true
		if err := b.tx.Put(ctx, key, strconv.AppendInt(nil, value+o.Change, 10)); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func account(n int) []byte { return []byte("account-" + strconv.Itoa(n)) }

// Force implements engine.Hands. The participant's stable record is the prepared branch itself; see
// docs/decisions.
func (b *branch) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (b *branch) Send(to protocol.NodeID, message protocol.Message) { b.actor.Transmit(to, message) }

// Emit implements engine.Hands: the store does what the machine asks, and answers.
func (b *branch) Emit(value protocol.Value) {
	if !b.actor.Alive() {
		return
	}
	if _, ok := value.(commit.PrepareBranch); ok && b.wrote && b.s.w.stack.flaw == votesEarly {
		b.s.After(0, func() { b.actor.Deliver(protocol.Input{Value: commit.BranchPrepared{Vote: commit.Yes}}) })
	}
	b.s.process.Work(string(b.id), func() (then func()) {
		answer, failed := b.carryOut(value)
		if failed {
			return nil // the store has stopped, and the site with it
		}
		return func() { b.actor.Deliver(protocol.Input{Value: answer}) }
	})
}

// carryOut calls the store. It reports true where the store has stopped: then the site goes down, to
// open it again.
func (b *branch) carryOut(request protocol.Value) (answer protocol.Value, stopped bool) {
	switch request.(type) {
	case commit.PrepareBranch:
		return b.prepare()
	case commit.CommitBranch:
		return b.finish(true, b.commit)
	case commit.CommitBranchOnePhase:
		if b.tx == nil && b.s.w.stack.flaw == unknownIsDone {
			return commit.BranchFinished{Outcome: commit.Committed}, false
		}
		if b.tx == nil {
			return b.finish(true, b.rollback) // it says what became of the branch
		}
		return b.finish(b.wrote, func(ctx context.Context) (commit.Outcome, error) { return b.tx.CommitOnePhase(ctx) })
	}
	return b.finish(b.prepared || b.tx == nil, b.rollback)
}

func (b *branch) prepare() (answer protocol.Value, stopped bool) {
	if b.tx == nil {
		b.s.w.book.Voted(b.id, b.s.ID, commit.No)
		return commit.BranchPrepared{Vote: commit.No, Reason: "the work is lost"}, false
	}
	var vote resource.Vote
	stopped, err := b.call(b.wrote, func() (err error) {
		vote, err = b.tx.Prepare(context.Background())
		return err
	})
	switch {
	case stopped:
		return nil, true
	case err != nil:
		b.s.w.book.Voted(b.id, b.s.ID, commit.No)
		return commit.BranchPrepared{Vote: commit.No, Reason: reason(err)}, false
	}
	b.prepared, b.evidence = vote.Vote == commit.Yes, vote.Evidence
	b.s.w.book.Voted(b.id, b.s.ID, vote.Vote)
	if b.s.w.stack.flaw == ageAbort && b.prepared {
		b.s.After(time.Second, func() { b.carryOut(commit.RollbackBranch{}) })
	}
	return commit.BranchPrepared{Vote: vote.Vote, Evidence: vote.Evidence}, false
}

// finish makes one attempt to finish the branch.
func (b *branch) finish(forces bool, attempt func(context.Context) (commit.Outcome, error)) (answer protocol.Value, stopped bool) {
	outcome := commit.Unfinished
	stopped, err := b.call(forces, func() (err error) {
		outcome, err = attempt(context.Background())
		return err
	})
	if stopped || err != nil {
		return commit.BranchFailed{}, stopped
	}
	b.prepared = false
	b.s.w.book.Finished(b.id, b.s.ID, outcome)
	return commit.BranchFinished{Outcome: outcome}, false
}

// call calls the store. Where the store stops, so does the site.
func (b *branch) call(forces bool, call func() error) (stopped bool, err error) {
	if !forces {
		err = call()
	} else {
		var met *sim.Fault
		met, err = b.s.force(call)
		if met != nil {
			b.s.crash(-1, kept(met))
			return true, err
		}
	}
	if errors.Is(err, kv.ErrStopped) {
		b.s.w.Fail(err) // nothing was wrong with the disk
	}
	return false, err
}

// kept is the part of what a failed force has left that is found later.
func kept(f *sim.Fault) int {
	if f.Class == sim.DiskFull {
		return 0
	}
	return f.Rate
}

func (b *branch) commit(ctx context.Context) (commit.Outcome, error) {
	if b.tx != nil {
		return b.tx.Commit(ctx)
	}
	return b.s.store.Commit(ctx, resource.Prepared{ID: b.rid, Evidence: b.evidence})
}

func (b *branch) rollback(ctx context.Context) (commit.Outcome, error) {
	if b.tx != nil {
		return b.tx.Rollback(ctx)
	}
	return b.s.store.Rollback(ctx, resource.Prepared{ID: b.rid, Evidence: b.evidence})
}

// busy reports whether a transaction is unfinished here.
func (s *site) busy() bool {
	for _, b := range s.branches {
		if !b.machine.State.Done() && !b.machine.Blank {
			return true
		}
	}
	list, err := s.store.Recover(context.Background())
	if err != nil {
		s.w.Fail(err)
	}
	return len(list) > 0
}

// balances returns what the accounts hold. It fails where a branch in doubt holds one.
func (s *site) balances() (values []int64, err error) {
	for i := range s.w.stack.Accounts {
		data, _, err := s.store.Peek(account(i))
		if err != nil {
			return nil, err
		}
		value, err := strconv.ParseInt(string(data), 10, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

// fill opens the accounts, before the run.
func (s *site) fill() error {
	ctx := context.Background()
	begun, err := s.store.Begin(ctx, resource.ID{Owner: "opening", Transaction: "opening", Branch: string(s.ID)})
	if err != nil {
		return err
	}
	tx := begun.(*kv.Tx)
	for i := range s.w.stack.Accounts {
		if err := tx.Put(ctx, account(i), []byte(strconv.Itoa(bank.Opening))); err != nil {
			return err
		}
	}
	_, err = tx.CommitOnePhase(ctx)
	return err
}

// ids returns the transactions that have a branch here, in order.
func (s *site) ids() (ids []commit.TransactionID) {
	for id := range s.branches {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
