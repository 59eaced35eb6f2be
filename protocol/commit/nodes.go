package commit

import "assent/protocol"

// RegisterKey is the key of a Register's one stable record.
const RegisterKey = "decision"

// DecisionRecord is what a Register keeps.
type DecisionRecord struct {
	Decision Decision
	Members  []Member `cbor:",omitempty" json:",omitempty"`
}

// Register is a write-once register as a machine: the first proposal stands, and whoever proposes
// later is told what stands. It takes Propose and emits Decided.
type Register struct {
	Decision Decision `cbor:",omitempty" json:",omitempty"`
	Members  []Member `cbor:",omitempty" json:",omitempty"`
}

// Step takes Recover, or a Propose as Input.
func (r *Register) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		if record, ok := ev.Records[RegisterKey].(DecisionRecord); ok {
			r.Decision, r.Members = record.Decision, record.Members
			out.Emit(Decided{Decision: r.Decision, Members: r.Members})
		}
	case protocol.Input:
		p, ok := ev.Value.(Propose)
		if !ok || p.Decision == Undecided {
			return
		}
		if r.Decision == Undecided {
			r.Decision, r.Members = p.Decision, p.Members
			out.Put(RegisterKey, DecisionRecord{Decision: r.Decision, Members: r.Members})
		}
		out.Emit(Decided{Decision: r.Decision, Members: r.Members})
	}
}

// CoordinatorNode is a coordinator over a register of its own: two-phase commit in its classic
// form.
type CoordinatorNode struct {
	Coordinator Coordinator
	Register    Register
}

// Step routes the event to the parts, and what they say to each other between them.
func (n *CoordinatorNode) Step(ev protocol.Event, out *protocol.Effects) {
	var register protocol.Effects
	if _, ok := ev.(protocol.Recover); ok {
		n.Register.Step(ev, &register)
	}
	n.Coordinator.Step(ev, out)
	for {
		merge(out, &register, func(v protocol.Value) { n.Coordinator.Step(protocol.Input{Value: v}, out) })
		asked := false
		out.Emits = keep(out.Emits, func(v protocol.Value) bool {
			if _, ok := v.(Propose); ok {
				n.Register.Step(protocol.Input{Value: v}, &register)
				asked = true
				return false
			}
			return true
		})
		if !asked {
			return
		}
	}
}

// BranchState is where a Branch stands.
type BranchState uint8

// The states of a branch.
const (
	// BranchWorking has work that is not prepared; a crash undoes it.
	BranchWorking BranchState = iota
	// BranchLost has lost its work to a crash, or voted no or read-only: there is nothing left.
	BranchLost
	// BranchInDoubt is prepared.
	BranchInDoubt
	// BranchCommitted is committed.
	BranchCommitted
	// BranchRolledBack was prepared or working and is rolled back.
	BranchRolledBack
)

var branchStateNames = [...]string{"working", "lost", "prepared", "committed", "rolled back"}

// String returns the state's name.
func (s BranchState) String() string { return name(branchStateNames[:], s) }

// ResourceKey is the key of a Branch's one stable record.
const ResourceKey = "resource"

// BranchRecord is what a Branch keeps.
type BranchRecord struct{ State BranchState }

// Branch is a resource's part in a transaction as a machine: it prepares, commits and rolls back
// as a database does, and keeps the evidence. Its vote is settled beforehand.
type Branch struct {
	State BranchState
	Vote  Vote
	// Outside says that the branch is a real one, beside the machine: what the participant wants of it
	// is emitted, its answers are inputs, and State and Vote say nothing.
	Outside bool `cbor:",omitempty" json:",omitempty"`
}

// Step takes Recover, or what a Participant emits as Input, and emits its answer.
func (b *Branch) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		b.State = BranchLost
		if record, ok := ev.Records[ResourceKey].(BranchRecord); ok {
			b.State = record.State
		}
	case protocol.Input:
		switch ev.Value.(type) {
		case PrepareBranch:
			b.prepare(out)
		case CommitBranch:
			b.finish(b.State == BranchInDoubt, BranchCommitted, out)
		case CommitBranchOnePhase:
			b.finish(b.State == BranchWorking && b.Vote != No, BranchCommitted, out)
		case RollbackBranch:
			b.finish(b.State == BranchInDoubt || b.State == BranchWorking, BranchRolledBack, out)
		}
	}
}

func (b *Branch) prepare(out *protocol.Effects) {
	if b.State != BranchWorking {
		out.Emit(BranchPrepared{Vote: No, Reason: "the work is lost"})
		return
	}
	b.State = BranchLost
	if b.Vote == Yes {
		b.State = BranchInDoubt
		out.Put(ResourceKey, BranchRecord{State: b.State})
	}
	out.Emit(BranchPrepared{Vote: b.Vote})
}

func (b *Branch) finish(can bool, to BranchState, out *protocol.Effects) {
	if can {
		b.State = to
		out.Put(ResourceKey, BranchRecord{State: b.State})
	}
	outcome := RolledBack
	switch b.State {
	case BranchCommitted:
		outcome = Committed
	case BranchInDoubt:
		outcome = Hazard
	}
	out.Emit(BranchFinished{Outcome: outcome})
}

// ParticipantNode is a participant over its branch.
type ParticipantNode struct {
	Participant Participant
	Branch      Branch
}

// Step routes the event to the parts, and what they say to each other between them.
func (n *ParticipantNode) Step(ev protocol.Event, out *protocol.Effects) {
	stepOver(&n.Participant, &n.Branch, ev, out)
}

// stepOver gives ev to a participant, and carries what it and its branch say to each other.
func stepOver(participant protocol.Machine, b *Branch, ev protocol.Event, out *protocol.Effects) {
	if b.Outside {
		participant.Step(ev, out)
		return
	}
	var branch protocol.Effects
	if _, ok := ev.(protocol.Recover); ok {
		b.Step(ev, &branch)
	}
	participant.Step(ev, out)
	for len(out.Emits) > 0 {
		emits := out.Emits
		out.Emits = nil
		for _, v := range emits {
			b.Step(protocol.Input{Value: v}, &branch)
		}
		merge(out, &branch, func(v protocol.Value) { participant.Step(protocol.Input{Value: v}, out) })
	}
}

// merge moves the lower part's writes to out and hands its emits to the upper part.
func merge(out, lower *protocol.Effects, up func(protocol.Value)) {
	out.Writes = append(out.Writes, lower.Writes...)
	emits := lower.Emits
	lower.Writes, lower.Emits = nil, nil
	for _, v := range emits {
		up(v)
	}
}

func keep(values []protocol.Value, wanted func(protocol.Value) bool) []protocol.Value {
	var kept []protocol.Value
	for _, v := range values {
		if wanted(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
