package commit

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"assent/protocol"
)

// world is a coordinator c over a register, and participants over their branches, with every
// message and every request to a branch or to the register held until it is let go. Nothing in
// it happens by itself.
type world struct {
	id        TransactionID
	options   Options
	names     []protocol.NodeID // of the participants
	machines  map[protocol.NodeID]protocol.Machine
	stable    map[protocol.NodeID]protocol.Records
	timers    map[protocol.NodeID]map[string]bool
	branches  map[protocol.NodeID]*branch
	register  Decision
	members   []Member // that the register recorded with its decision
	refusing  bool     // the register answers with an error
	inFlight  []envelope
	pending   []request
	concluded []Concluded
	completed int
	log       func(format string, args ...any)
}

// envelope is a message under way.
type envelope struct {
	from, to protocol.NodeID
	message  protocol.Message
	held     bool
}

// request is what a machine emitted and what has not been answered.
type request struct {
	node  protocol.NodeID
	value protocol.Value
}

// branch is a resource that keeps what it has prepared.
type branch struct {
	state string // working, prepared, committed, rolled back, lost
	vote  Vote   // what it will answer
	deaf  bool   // it answers nothing for now
	// intended means that PREPARE carries the work: a crash before it loses nothing.
	intended bool
}

const coordinator = protocol.NodeID("c")

func newWorld(names []protocol.NodeID, options Options) *world {
	w := &world{id: "t1", options: options, names: names,
		machines: map[protocol.NodeID]protocol.Machine{},
		stable:   map[protocol.NodeID]protocol.Records{},
		timers:   map[protocol.NodeID]map[string]bool{},
		branches: map[protocol.NodeID]*branch{},
		log:      func(string, ...any) {},
	}
	w.machines[coordinator] = NewCoordinator(w.id, names, options)
	w.timers[coordinator] = map[string]bool{}
	for _, n := range names {
		w.machines[n] = NewParticipant(w.id, coordinator, options)
		w.stable[n] = protocol.Records{}
		w.timers[n] = map[string]bool{}
		w.branches[n] = &branch{state: "working", vote: Yes}
	}
	return w
}

// cut says how much of a step's effects is carried out before a crash: all of them where it is
// negative, 0 for none, 1 for the stable writes, 1+k for the writes and k sends.
const whole = -1

// step gives node an event, and crashes it part of the way where cut says so.
func (w *world) step(node protocol.NodeID, ev protocol.Event, cut int) {
	m := w.machines[node]
	if m == nil {
		w.log("%s is down", node)
		return
	}
	var out protocol.Effects
	before := state(m)
	m.Step(ev, &out)
	w.log("%s: %s → %s", node, before, state(m))
	if cut == 0 {
		w.crash(node)
		return
	}
	for _, write := range out.Writes {
		if write.Record == nil {
			w.log("  forget %s", write.Key)
			delete(w.stable[node], write.Key)
			continue
		}
		w.log("  force %s", describe(write.Record))
		w.stable[node][write.Key] = write.Record
	}
	for _, t := range out.Timers {
		w.timers[node][t.Name] = t.After > 0
		if t.After > 0 {
			w.log("  arm %s %v", t.Name, t.After)
		}
	}
	for i, s := range out.Sends {
		if cut == 1+i {
			w.crash(node)
			return
		}
		w.log("  send %s to %s", describe(s.Message), s.To)
		w.inFlight = append(w.inFlight, envelope{from: node, to: s.To, message: s.Message})
	}
	if cut >= 1 {
		w.crash(node)
		return
	}
	for _, v := range out.Emits {
		w.emit(node, v)
	}
}

func (w *world) emit(node protocol.NodeID, v protocol.Value) {
	w.log("  emit %s", describe(v))
	switch v := v.(type) {
	case Concluded:
		w.concluded = append(w.concluded, v)
	case Completed:
		w.completed++
	case Contradicted:
	default:
		w.pending = append(w.pending, request{node, v})
	}
}

func (w *world) crash(node protocol.NodeID) {
	w.log("%s crashes", node)
	w.machines[node] = nil
	w.timers[node] = map[string]bool{}
	kept := w.pending[:0]
	for _, r := range w.pending {
		if r.node != node {
			kept = append(kept, r)
		}
	}
	w.pending = kept
	if b := w.branches[node]; b != nil && b.state == "working" && !b.intended {
		b.state = "lost"
	}
}

func (w *world) restart(node protocol.NodeID) {
	w.log("%s restarts", node)
	if node == coordinator {
		w.machines[node] = NewCoordinator(w.id, nil, w.options)
		w.step(node, protocol.Recover{}, whole)
		if w.register != Undecided {
			w.step(node, protocol.Input{Value: Decided{Decision: w.register, Members: w.members}}, whole)
		}
		return
	}
	w.machines[node] = NewParticipant(w.id, coordinator, w.options)
	records := protocol.Records{}
	for k, r := range w.stable[node] {
		records[k] = r
	}
	// What the resource lists as prepared is a promise, whether or not the node lived to write it
	// down: see PreparedRecord.
	if len(records) == 0 && w.branches[node].state == "prepared" {
		records[BranchKey] = PreparedRecord{ID: w.id, Coordinator: coordinator}
	}
	w.step(node, protocol.Recover{Records: records}, whole)
}

// answer carries out pending request i. With lost, the answer does not come back: the node has
// crashed meanwhile.
func (w *world) answer(i int, cut int) {
	r := w.pending[i]
	if b := w.branches[r.node]; b != nil && b.deaf || r.node == coordinator && w.refusing {
		w.pending = append(w.pending[:i], w.pending[i+1:]...)
		if r.node == coordinator {
			w.log("the register fails")
			w.step(r.node, protocol.Input{Value: ProposeFailed{}}, cut)
			return
		}
		w.log("branch %s cannot be reached", r.node)
		if _, ok := r.value.(PrepareBranch); ok {
			w.step(r.node, protocol.Input{Value: BranchPrepared{Vote: No, Reason: "unavailable"}}, cut)
			return
		}
		w.step(r.node, protocol.Input{Value: BranchFailed{}}, cut)
		return
	}
	w.pending = append(w.pending[:i], w.pending[i+1:]...)
	switch v := r.value.(type) {
	case Propose:
		if w.register == Undecided {
			w.register, w.members = v.Decision, v.Members
		}
		w.log("register: %v stands", w.register)
		w.step(r.node, protocol.Input{Value: Decided{Decision: w.register, Members: w.members}}, cut)
	default:
		w.step(r.node, protocol.Input{Value: w.branches[r.node].do(v)}, cut)
	}
}

// do is what a resource does, with evidence of what it did.
func (b *branch) do(v protocol.Value) protocol.Value {
	switch v.(type) {
	case PrepareBranch:
		if b.state != "working" {
			return BranchPrepared{Vote: No, Reason: "the work is " + b.state}
		}
		switch b.vote {
		case Yes:
			b.state = "prepared"
			return BranchPrepared{Vote: Yes, Evidence: []byte("x7")}
		case ReadOnly:
			b.state = "read-only"
		}
		return BranchPrepared{Vote: b.vote}
	case CommitBranch:
		if b.state == "prepared" {
			b.state = "committed"
		}
	case CommitBranchOnePhase:
		switch {
		case b.state == "working" && b.vote != No:
			b.state = "committed"
		case b.state == "working":
			b.state = "rolled back"
		}
	case RollbackBranch:
		if b.state == "prepared" || b.state == "working" || b.state == "lost" {
			b.state = "rolled back"
		}
	}
	switch b.state {
	case "committed":
		return BranchFinished{Outcome: Committed}
	case "rolled back", "lost", "read-only":
		return BranchFinished{Outcome: RolledBack}
	}
	return BranchFinished{Outcome: Hazard}
}

// deliver takes message i off the network and gives it to its addressee.
func (w *world) deliver(i int, cut int) {
	e := w.inFlight[i]
	w.inFlight = append(w.inFlight[:i:i], w.inFlight[i+1:]...)
	w.log("%s gets %s from %s", e.to, describe(e.message), e.from)
	w.step(e.to, protocol.Receive{From: e.from, Message: e.message}, cut)
}

// run lets everything happen but timers, until nothing is left; requests come before messages.
func (w *world) run() {
	for range 10_000 {
		if len(w.pending) > 0 {
			w.answer(0, whole)
			continue
		}
		next := -1
		for i, e := range w.inFlight {
			if !e.held {
				next = i
				break
			}
		}
		if next < 0 {
			return
		}
		w.deliver(next, whole)
	}
	panic("the world does not come to rest without its timers")
}

// expire lets one armed timer run out; it reports whether there was one.
func (w *world) expire(node protocol.NodeID, timer string, cut int) bool {
	if !w.timers[node][timer] || w.machines[node] == nil {
		return false
	}
	w.timers[node][timer] = false
	w.log("%s: timer %s expires", node, timer)
	w.step(node, protocol.Expire{Timer: timer}, cut)
	return true
}

// armed lists the timers that can expire, in a fixed order.
func (w *world) armed() (all [][2]string) {
	for node, timers := range w.timers {
		for timer, on := range timers {
			if on && w.machines[node] != nil {
				all = append(all, [2]string{string(node), timer})
			}
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i][0]+all[i][1] < all[j][0]+all[j][1] })
	return all
}

// check reports what is wrong with the state of affairs, by the properties of atomic commitment.
func (w *world) check(t interface{ Fatalf(string, ...any) }) {
	committed, rolledBack := "", ""
	for _, n := range w.names {
		switch w.branches[n].state {
		case "committed":
			committed = string(n)
		case "rolled back":
			rolledBack = string(n)
		}
	}
	if committed != "" && rolledBack != "" {
		t.Fatalf("AC1: %s is committed and %s is rolled back", committed, rolledBack)
	}
	for i, c := range w.concluded {
		if c.Decision != w.concluded[0].Decision && len(w.names) > 1 {
			t.Fatalf("AC2: concluded %v, and then %v", w.concluded[0], w.concluded[i])
		}
	}
	if committed != "" {
		for _, n := range w.names {
			if b := w.branches[n]; b.state == "working" || b.state == "lost" {
				t.Fatalf("AC3: %s is committed and %s has not voted", committed, n)
			}
		}
	}
}

func state(m protocol.Machine) string {
	switch m := m.(type) {
	case *Coordinator:
		return m.State.String()
	case *Participant:
		if m.State == ParticipantFinished {
			return fmt.Sprintf("%v (%v)", m.State, m.Outcome)
		}
		return m.State.String()
	case *Peer:
		if m.Round != RoundNone {
			return fmt.Sprintf("%v (%v)", m.State, m.Round)
		}
		return m.State.String()
	}
	return "?"
}

// describe writes a message, record or value without the transaction's id, which never changes.
func describe(v any) string {
	text := strings.TrimPrefix(fmt.Sprintf("%T", v), "commit.")
	switch v := v.(type) {
	case Voted:
		return fmt.Sprintf("%s(%v)", text, v.Vote)
	case PeerVoted:
		return fmt.Sprintf("%s(%v)", text, v.Vote)
	case PeerStands:
		if v.Ready {
			return text + "(ready)"
		}
	case PeerRecord:
		if v.Ready {
			return text + "(ready)"
		}
	case Finish:
		return fmt.Sprintf("%s(%v)", text, v.Decision)
	case Acknowledge:
		return fmt.Sprintf("%s(%v)", text, v.Outcome)
	case Propose:
		return fmt.Sprintf("%s(%v)", text, v.Decision)
	case Concluded:
		by := ""
		if v.By != "" {
			by = " by " + string(v.By)
		}
		return fmt.Sprintf("%s(%v, %v%s)", text, v.Decision, v.Cause, by)
	case Contradicted:
		return fmt.Sprintf("%s(%v, %s is %v)", text, v.Decision, v.Node, v.Outcome)
	case Completed:
		return fmt.Sprintf("%s(%v)", text, v.Decision)
	case FinishedRecord:
		return fmt.Sprintf("%s(%v, %v)", text, v.Decision, v.Outcome)
	case Decided:
		return fmt.Sprintf("%s(%v)", text, v.Decision)
	case BranchPrepared:
		return fmt.Sprintf("%s(%v)", text, v.Vote)
	case BranchFinished:
		return fmt.Sprintf("%s(%v)", text, v.Outcome)
	}
	return text
}

func codec(t testing.TB) *protocol.Codec {
	t.Helper()
	c, err := protocol.NewCodec(Types()...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
