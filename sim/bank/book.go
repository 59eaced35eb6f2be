package bank

import (
	"fmt"
	"slices"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
)

// The claims of a book, besides those of spec that it is given.
const (
	ClaimAgreement = "what the nodes hold to be decided agrees"
	ClaimHeuristic = "no outcome is heuristic"
	ClaimTold      = "what a client was told stands"
	ClaimMoney     = "money is conserved at every consistent read"
	ClaimPlace     = "money is where the decisions have put it"
)

// Book is what a run has seen of its transactions. It is for one goroutine.
type Book struct {
	run     *sim.Run
	entries map[commit.TransactionID]*Entry
	order   []*Entry // in which they began
	touched []*Entry // since they were judged last
}

// NewBook returns the book of a run.
func NewBook(run *sim.Run) *Book {
	return &Book{run: run, entries: map[commit.TransactionID]*Entry{}}
}

// Entry is what the run has seen of one transaction, from what stores, registers and coordinators have answered. It is a
// spec.View: node 0 is the register, the others are the branches.
type Entry struct {
	ID    commit.TransactionID
	Parts []Part
	// Alone says that its only participant decides, and the register is not asked.
	Alone bool
	// Stands is what stands in the register.
	Stands commit.Decision

	decision commit.Decision // that stands, or that its coordinator has concluded
	heard    commit.Decision // that a client was told
	branches []*standing
}

var _ spec.View = (*Entry)(nil)

// standing is what a branch, or the register, shows of itself.
type standing struct {
	node  protocol.NodeID
	shown commit.Standing
}

// Step implements protocol.Machine; nobody steps it.
func (s *standing) Step(protocol.Event, *protocol.Effects) {}

// Standing implements spec.Site.
func (s *standing) Standing() commit.Standing { return s.shown }

// Nodes implements spec.View.
func (t *Entry) Nodes() int { return 1 + len(t.branches) }

// Machine implements spec.View.
func (t *Entry) Machine(i int) protocol.Machine {
	if i > 0 {
		return t.branches[i-1]
	}
	return &standing{shown: commit.Standing{Decision: t.decision, Done: t.decision != commit.Undecided,
		Unregistered: t.Stands != commit.Commit && !t.Alone}}
}

// Record implements spec.View. Nobody is ever down: what is shown has been answered.
func (t *Entry) Record(int, string) protocol.Record { return nil }

func (t *Entry) branch(node protocol.NodeID) *standing {
	i := slices.IndexFunc(t.branches, func(b *standing) bool { return b.node == node })
	return t.branches[i]
}

// Committed reports whether the branch at the node has said that it is committed.
func (t *Entry) Committed(node protocol.NodeID) bool {
	return t.branch(node).shown.Branch == commit.BranchCommitted
}

// Begin enters a transaction that begins. One whose id is used again, which only a flaw does, has an entry for each time.
func (b *Book) Begin(id commit.TransactionID, parts []Part, alone bool) {
	t := &Entry{ID: id, Parts: parts, Alone: alone}
	for _, p := range parts {
		t.branches = append(t.branches, &standing{node: p.Node,
			shown: commit.Standing{Participant: true, Branch: commit.BranchWorking, Vote: commit.Yes}})
	}
	b.entries[id], b.order = t, append(b.order, t)
}

// Entry returns the transaction, which must have begun.
func (b *Book) Entry(id commit.TransactionID) *Entry { return b.entries[id] }

func (b *Book) touch(id commit.TransactionID) *Entry {
	t := b.entries[id]
	b.touched = append(b.touched, t)
	return t
}

// Refused notes that a store could not do the work: the branch would not vote yes.
func (b *Book) Refused(id commit.TransactionID, node protocol.NodeID) {
	b.touch(id).branch(node).shown.Vote = commit.No
}

// Voted notes what a store has answered to prepare.
func (b *Book) Voted(id commit.TransactionID, node protocol.NodeID, v commit.Vote) {
	s := &b.touch(id).branch(node).shown
	b.run.Reach("vote: " + v.String())
	if s.Branch == commit.BranchCommitted || s.Branch == commit.BranchRolledBack {
		return // a late PREPARE is refused: that is no vote any more
	}
	switch v {
	case commit.Yes:
		s.Vote, s.Branch = v, commit.BranchInDoubt
	case commit.ReadOnly:
		s.Vote, s.Branch = v, commit.BranchLost
	default:
		if s.Branch == commit.BranchWorking {
			s.Vote, s.Branch = commit.No, commit.BranchLost
		}
	}
}

// Finished notes what a store has said of a branch's end.
func (b *Book) Finished(id commit.TransactionID, node protocol.NodeID, o commit.Outcome) {
	t := b.touch(id)
	s := &t.branch(node).shown
	switch {
	case o == commit.Committed && s.Branch == commit.BranchRolledBack,
		o == commit.RolledBack && s.Branch == commit.BranchCommitted:
		b.run.Broken(ClaimHeuristic, fmt.Sprintf("%s at %s was %s and is %s", id, node, s.Branch, o))
	case o == commit.Hazard:
		b.run.Broken(ClaimHeuristic, fmt.Sprintf("%s at %s: %s", id, node, o))
	case s.Vote == commit.ReadOnly:
		// It had nothing to finish, and answers either way.
	case o == commit.Committed:
		s.Branch = commit.BranchCommitted
		if t.Alone {
			b.run.Reach("a one-phase commit")
		}
	case o == commit.RolledBack:
		s.Branch = commit.BranchRolledBack
	}
}

// Contradicted notes that a coordinator was told of an outcome that contradicts the decision.
func (b *Book) Contradicted(id commit.TransactionID, v commit.Contradicted) {
	b.run.Broken(ClaimHeuristic, fmt.Sprintf("%s at %s: %s, %s", id, v.Node, v.Decision, v.Outcome))
}

// Decided notes what stands in the register, as somebody knows it.
func (b *Book) Decided(id commit.TransactionID, d commit.Decision) *Entry {
	t := b.touch(id)
	b.agree(t, t.Stands, d)
	b.agree(t, t.decision, d)
	t.Stands, t.decision = d, d
	return t
}

// Concluded notes what a coordinator holds to be settled and stable.
func (b *Book) Concluded(id commit.TransactionID, v commit.Concluded) {
	t := b.touch(id)
	b.run.Reach("concluded: " + v.Decision.String() + ", " + v.Cause.String())
	b.agree(t, t.decision, v.Decision)
	t.decision = v.Decision
}

// agree holds a decision against what was decided before.
func (b *Book) agree(t *Entry, before, now commit.Decision) {
	if before != commit.Undecided && before != now {
		b.run.Broken(ClaimAgreement, fmt.Sprintf("%s: %s, and then %s", t.ID, before, now))
	}
}

// Told notes what a client was told.
func (b *Book) Told(id commit.TransactionID, d commit.Decision) {
	t := b.touch(id)
	if t.heard != commit.Undecided && t.heard != d {
		b.run.Broken(ClaimTold, fmt.Sprintf("%s: %s, and then %s", id, t.heard, d))
	}
	t.heard = d
}

// Audited notes the sum of so many accounts, which are all that there are, as a transaction has read it.
func (b *Book) Audited(sum int64, accounts int) {
	b.run.Reach("a consistent read")
	if total := int64(accounts) * Opening; sum != total {
		b.run.Broken(ClaimMoney, fmt.Sprintf("%d was read of %d", sum, total))
	}
}

// Judge holds what has changed since it was called last to claims about each transaction.
func (b *Book) Judge(claims []spec.Property) {
	for _, t := range b.touched {
		for _, p := range claims {
			if b.run.Going() && !p.Holds(t) {
				b.run.Broken(p.Name, string(t.ID))
			}
		}
	}
	b.touched = b.touched[:0]
}

// Holder is a node with accounts.
type Holder struct {
	Node     protocol.NodeID
	Balances []int64
}

// Settle compares, at the end, what clients were told with what was committed, and what the accounts hold with what was
// done. What a node does that is not among the holders is not looked at.
func (b *Book) Settle(holders []Holder, committed func(*Entry) bool) {
	want := map[protocol.NodeID][]int64{}
	for _, h := range holders {
		want[h.Node] = slices.Repeat([]int64{Opening}, len(h.Balances))
	}
	for _, t := range b.order {
		done := committed(t)
		if t.heard != commit.Undecided && done != (t.heard == commit.Commit) && !Idle(t.Parts) {
			b.run.Broken(ClaimTold, fmt.Sprintf("%s: %s was told, and %s stands", t.ID, t.heard, t.Stands))
		}
		for _, p := range t.Parts {
			accounts := want[p.Node]
			for _, o := range p.Operations {
				if done && !o.Spoil && accounts != nil {
					accounts[o.Account] += o.Change
				}
			}
		}
	}
	for _, h := range holders {
		for a, got := range h.Balances {
			if got != want[h.Node][a] {
				b.run.Broken(ClaimPlace, fmt.Sprintf("account %d at %s holds %d; it should hold %d", a, h.Node, got, want[h.Node][a]))
			}
		}
	}
}
