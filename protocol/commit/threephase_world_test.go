package commit_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"assent/protocol"
	"assent/protocol/commit"
)

// sites is a system of nodes with every message held until it is let go. Nothing in it happens by
// itself. It is a spec.View.
type sites struct {
	nodes    []protocol.Node
	machines []protocol.Machine
	stable   []protocol.Records
	timers   []map[string]bool
	side     []int // of the partition; 0 while the network is whole
	inFlight []letter
	log      func(format string, args ...any)
}

// letter is a message under way.
type letter struct {
	from, to int
	message  protocol.Message
}

func newSites(nodes []protocol.Node, ways []int) *sites {
	w := &sites{nodes: nodes, side: make([]int, len(nodes)), log: func(string, ...any) {}}
	for i, n := range nodes {
		way := 0
		if len(n.New) > 1 {
			way = ways[i]
		}
		w.machines = append(w.machines, n.New[way]())
		w.stable = append(w.stable, protocol.Records{})
		w.timers = append(w.timers, map[string]bool{})
	}
	return w
}

func (w *sites) Nodes() int                               { return len(w.nodes) }
func (w *sites) Machine(i int) protocol.Machine           { return w.machines[i] }
func (w *sites) Record(i int, key string) protocol.Record { return w.stable[i][key] }

func (w *sites) index(id protocol.NodeID) int {
	return slices.IndexFunc(w.nodes, func(n protocol.Node) bool { return n.ID == id })
}

// whole says that a step is not cut short; 1+k that the node crashes after its writes and k sends.
const whole = -1

func (w *sites) step(i int, ev protocol.Event, cut int) {
	m := w.machines[i]
	if m == nil {
		w.log("%s is down", w.nodes[i].ID)
		return
	}
	var out protocol.Effects
	before := stands(m)
	m.Step(ev, &out)
	w.log("%s: %s → %s", w.nodes[i].ID, before, stands(m))
	for _, write := range out.Writes {
		if write.Record == nil {
			delete(w.stable[i], write.Key)
			continue
		}
		w.log("  force %s", brief(write.Record))
		w.stable[i][write.Key] = write.Record
	}
	for _, t := range out.Timers {
		w.timers[i][t.Name] = t.After > 0
	}
	for k, s := range out.Sends {
		if cut == 1+k {
			break
		}
		w.send(letter{i, w.index(s.To), s.Message})
	}
	if cut >= 1 {
		w.crash(i)
	}
}

func (w *sites) send(l letter) {
	if w.side[l.from] != w.side[l.to] {
		w.log("  send %s to %s: cut off", brief(l.message), w.nodes[l.to].ID)
		return
	}
	w.log("  send %s to %s", brief(l.message), w.nodes[l.to].ID)
	w.inFlight = append(w.inFlight, l)
}

func (w *sites) crash(i int) {
	w.log("%s crashes", w.nodes[i].ID)
	w.machines[i], w.timers[i] = nil, map[string]bool{}
}

func (w *sites) restart(i int) {
	w.log("%s restarts", w.nodes[i].ID)
	anew := w.nodes[i].Anew
	if anew == nil {
		anew = w.nodes[i].New[0]
	}
	w.machines[i] = anew()
	w.step(i, protocol.Recover{Records: maps.Clone(w.stable[i])}, whole)
}

func (w *sites) deliver(k, cut int) {
	l := w.inFlight[k]
	w.inFlight = slices.Delete(w.inFlight, k, k+1)
	w.log("%s gets %s from %s", w.nodes[l.to].ID, brief(l.message), w.nodes[l.from].ID)
	w.step(l.to, protocol.Receive{From: w.nodes[l.from].ID, Message: l.message}, cut)
}

func (w *sites) run() {
	for range 10_000 {
		if len(w.inFlight) == 0 {
			return
		}
		w.deliver(0, whole)
	}
	panic("the sites do not come to rest without their timers")
}

func (w *sites) expire(i int, timer string, cut int) bool {
	if w.machines[i] == nil || !w.timers[i][timer] {
		return false
	}
	w.timers[i][timer] = false
	w.log("%s: timer %s expires", w.nodes[i].ID, timer)
	w.step(i, protocol.Expire{Timer: timer}, cut)
	return true
}

// alarm is an armed timer.
type alarm struct {
	node  int
	timer string
}

func (w *sites) armed() (all []alarm) {
	for i := range w.nodes {
		for _, name := range slices.Sorted(maps.Keys(w.timers[i])) {
			if w.timers[i][name] {
				all = append(all, alarm{i, name})
			}
		}
	}
	return all
}

// split puts the nodes of one side apart from the others; what is under way between them is lost.
func (w *sites) split(apart ...int) {
	for i := range w.side {
		w.side[i] = 0
		if slices.Contains(apart, i) {
			w.side[i] = 1
		}
	}
	w.inFlight = slices.DeleteFunc(w.inFlight, func(l letter) bool { return w.side[l.from] != w.side[l.to] })
}

// stands writes where a machine stands.
func stands(m protocol.Machine) string {
	switch m := m.(type) {
	case *commit.ThreePhaseCoordinator:
		return m.State.String()
	case *commit.ThreePhaseNode:
		text := site(m.Participant.Site, m.Participant.Stage)
		if m.Participant.Recovered && m.Participant.State.InDoubt() {
			text += ", recovered"
		}
		return text
	case *commit.QuorumNode:
		text := site(m.Participant.Site, m.Participant.Stage)
		if m.Participant.Promised > 0 && m.Participant.State.InDoubt() {
			text += fmt.Sprintf(", promised %d", m.Participant.Promised)
		}
		return text
	}
	return "?"
}

func site(s commit.Site, stage commit.Stage) string {
	text := s.State.String()
	if s.State == commit.SiteFinished {
		text += fmt.Sprintf(" (%v)", s.Outcome)
	}
	if stage != commit.StageNone {
		text += ", " + stage.String()
	}
	return text
}

// brief names a message or record with the words and the round in it.
func brief(v any) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", v), "commit.")
	switch v := v.(type) {
	case commit.Voted:
		return fmt.Sprintf("%s(%v)", name, v.Vote)
	case commit.Finish:
		return fmt.Sprintf("%s(%v)", name, v.Decision)
	case commit.Acknowledge:
		return fmt.Sprintf("%s(%v)", name, v.Outcome)
	case commit.PreCommit:
		return fmt.Sprintf("%s(round %d)", name, v.Round)
	case commit.PreAbort:
		return fmt.Sprintf("%s(round %d)", name, v.Round)
	case commit.PreAcknowledge:
		return fmt.Sprintf("%s(round %d)", name, v.Round)
	case commit.StateRequest:
		return fmt.Sprintf("%s(round %d)", name, v.Round)
	case commit.StateReport:
		return fmt.Sprintf("%s(%v)", name, v.State)
	case commit.SiteRecord:
		return fmt.Sprintf("%s(%v)", name, v.State)
	case commit.DecisionRecord:
		return fmt.Sprintf("%s(%v)", name, v.Decision)
	case commit.BranchRecord:
		return fmt.Sprintf("%s(%v)", name, v.State)
	case commit.FinishedRecord:
		return fmt.Sprintf("%s(%v, %v)", name, v.Decision, v.Outcome)
	}
	return name
}
