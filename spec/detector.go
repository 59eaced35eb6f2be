package spec

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/trace"
)

// Suspicions is the report card of a failure detector: how good it was in one run. Times are those of
// the trace, so the trace must have times.
type Suspicions struct {
	// Nodes are the nodes of the run, sorted.
	Nodes []protocol.NodeID
	// Detections is how often a watcher came to suspect a node that was down, and Detection the
	// mean and the greatest time that it took from the crash, or from when the watcher was up again.
	Detections               int
	Detection, DetectionMost time.Duration
	// Mistakes is how often a watcher suspected a node that was up; Mistake is the mean time until
	// it was taken back, or until the end of the run.
	Mistakes int
	Mistake  time.Duration
	// Rate is the number of mistakes in a second, of one watcher about one node that is up.
	Rate float64

	// StrongCompleteness: in the end every node that is down is suspected by every node that is up;
	// WeakCompleteness: by some node that is up.
	StrongCompleteness, WeakCompleteness bool
	// StrongAccuracy: no node was suspected before it went down; WeakAccuracy: some node that
	// is up in the end never was.
	StrongAccuracy, WeakAccuracy bool
	// EventualStrongAccuracy: in the end no node that is up is suspected by a node that is up;
	// EventualWeakAccuracy: some node that is up is suspected by none.
	EventualStrongAccuracy, EventualWeakAccuracy bool
}

// Class returns the names of the classes of failure detectors (Chandra and Toueg 1996, figure 1) whose
// properties the run had, the strongest first; none if completeness fails. A run is finite: that it
// had a property shows that the property was not broken in it, and no more.
func (s Suspicions) Class() []string {
	var classes []string
	for _, c := range []struct {
		name string
		has  bool
	}{
		{"perfect", s.StrongCompleteness && s.StrongAccuracy},
		{"strong", s.StrongCompleteness && s.WeakAccuracy},
		{"eventually perfect", s.StrongCompleteness && s.EventualStrongAccuracy},
		{"eventually strong", s.StrongCompleteness && s.EventualWeakAccuracy},
		{"weak", s.WeakCompleteness && s.WeakAccuracy},
		{"eventually weak", s.WeakCompleteness && s.EventualWeakAccuracy},
	} {
		if c.has {
			classes = append(classes, c.name)
		}
	}
	return classes
}

// String returns the report card as lines of text.
func (s Suspicions) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes, %d detections", len(s.Nodes), s.Detections)
	if s.Detections > 0 {
		fmt.Fprintf(&b, " in %v on the mean, %v at most", s.Detection, s.DetectionMost)
	}
	fmt.Fprintf(&b, "\n%d mistakes", s.Mistakes)
	if s.Mistakes > 0 {
		fmt.Fprintf(&b, " of %v on the mean, %.3g a second and pair", s.Mistake, s.Rate)
	}
	for _, p := range []struct {
		name string
		held bool
	}{
		{"strong completeness", s.StrongCompleteness}, {"weak completeness", s.WeakCompleteness},
		{"strong accuracy", s.StrongAccuracy}, {"weak accuracy", s.WeakAccuracy},
		{"eventual strong accuracy", s.EventualStrongAccuracy}, {"eventual weak accuracy", s.EventualWeakAccuracy},
	} {
		word := "no"
		if p.held {
			word = "yes"
		}
		fmt.Fprintf(&b, "\n%s: %s", p.name, word)
	}
	classes := "none"
	if c := s.Class(); len(c) > 0 {
		classes = strings.Join(c, ", ")
	}
	fmt.Fprintf(&b, "\nclass: %s", classes)
	return b.String()
}

// pair is a node and another that it watches.
type pair struct{ watcher, node protocol.NodeID }

// judge follows a run.
type judge struct {
	Suspicions
	since    map[pair]time.Duration // suspicions, and when they began
	mistaken map[pair]bool          // those of nodes that were up when they began
	down     map[protocol.NodeID]bool
	crashed  map[protocol.NodeID]time.Duration // when last
	ever     map[protocol.NodeID]bool          // suspected while up
	upTime   map[protocol.NodeID]time.Duration
	upSince  map[protocol.NodeID]time.Duration
	missed   time.Duration // the sum of mistakes' times
	took     time.Duration // the sum of detections' times
}

// JudgeSuspicions returns the report card of the detectors (protocol/detector) in a run: what they emitted
// against what happened. Events must be in the order in which they happened. A node is there from its
// first event; it is down from a Crash until it is given its next event.
func JudgeSuspicions(events []trace.Event) Suspicions {
	j := judge{since: map[pair]time.Duration{}, mistaken: map[pair]bool{}, down: map[protocol.NodeID]bool{},
		crashed: map[protocol.NodeID]time.Duration{}, ever: map[protocol.NodeID]bool{},
		upTime: map[protocol.NodeID]time.Duration{}, upSince: map[protocol.NodeID]time.Duration{}}
	var end time.Duration
	for _, ev := range events {
		end = max(end, ev.At)
		j.take(ev)
	}
	return j.report(end)
}

func (j *judge) take(ev trace.Event) {
	switch ev.Kind {
	case trace.Crash:
		j.know(ev.Node, ev.At)
		if !j.down[ev.Node] {
			j.down[ev.Node], j.crashed[ev.Node] = true, ev.At
			j.upTime[ev.Node] += ev.At - j.upSince[ev.Node]
		}
		for p := range j.since { // its own suspicions go with it; those of it are right from now on
			if p.watcher == ev.Node {
				j.end(p, ev.At)
			} else if p.node == ev.Node && j.mistaken[p] {
				j.missed += ev.At - j.since[p]
				delete(j.mistaken, p)
			}
		}
	case trace.Deliver:
		j.know(ev.Node, ev.At)
		if j.down[ev.Node] {
			j.down[ev.Node], j.upSince[ev.Node] = false, ev.At
		}
	case trace.Emit:
		switch v := ev.Value.(type) {
		case detector.Suspect:
			j.suspect(pair{ev.Node, v.Node}, ev.At)
		case detector.Trust:
			j.end(pair{ev.Node, v.Node}, ev.At)
		}
	}
}

func (j *judge) know(node protocol.NodeID, at time.Duration) {
	if i, known := slices.BinarySearch(j.Nodes, node); !known {
		j.Nodes = slices.Insert(j.Nodes, i, node)
		j.upSince[node] = at
	}
}

func (j *judge) suspect(p pair, at time.Duration) {
	j.know(p.node, at)
	j.since[p] = at
	if j.down[p.node] {
		j.Detections++
		took := at - max(j.crashed[p.node], j.upSince[p.watcher])
		j.took += took
		j.DetectionMost = max(j.DetectionMost, took)
		return
	}
	j.Mistakes++
	j.mistaken[p], j.ever[p.node] = true, true
}

func (j *judge) end(p pair, at time.Duration) {
	if j.mistaken[p] {
		j.missed += at - j.since[p]
	}
	delete(j.since, p)
	delete(j.mistaken, p)
}

func (j *judge) report(end time.Duration) Suspicions {
	var up time.Duration
	for _, n := range j.Nodes {
		if !j.down[n] {
			j.upTime[n] += end - j.upSince[n]
		}
		up += j.upTime[n]
	}
	for p := range j.mistaken {
		j.missed += end - j.since[p]
	}
	if j.Detections > 0 {
		j.Detection = j.took / time.Duration(j.Detections)
	}
	if j.Mistakes > 0 {
		j.Mistake = j.missed / time.Duration(j.Mistakes)
	}
	if watchers := len(j.Nodes) - 1; watchers > 0 && up > 0 {
		j.Rate = float64(j.Mistakes) / (up.Seconds() * float64(watchers))
	}
	j.classify()
	return j.Suspicions
}

// classify looks at the end of the run, and at who was ever suspected.
func (j *judge) classify() {
	var correct, failed []protocol.NodeID
	for _, n := range j.Nodes {
		if j.down[n] {
			failed = append(failed, n)
		} else {
			correct = append(correct, n)
		}
	}
	suspectedBy := func(node protocol.NodeID) int {
		n := 0
		for _, w := range correct {
			if _, suspected := j.since[pair{w, node}]; suspected {
				n++
			}
		}
		return n
	}
	every := func(nodes []protocol.NodeID, is func(protocol.NodeID) bool) bool {
		return !slices.ContainsFunc(nodes, func(n protocol.NodeID) bool { return !is(n) })
	}
	trusted := func(n protocol.NodeID) bool { return suspectedBy(n) == 0 }
	j.StrongCompleteness = every(failed, func(n protocol.NodeID) bool { return suspectedBy(n) == len(correct) })
	j.WeakCompleteness = every(failed, func(n protocol.NodeID) bool { return suspectedBy(n) > 0 }) || len(correct) == 0
	j.StrongAccuracy = len(j.ever) == 0
	j.WeakAccuracy = slices.ContainsFunc(correct, func(n protocol.NodeID) bool { return !j.ever[n] })
	j.EventualStrongAccuracy = every(correct, trusted)
	j.EventualWeakAccuracy = slices.ContainsFunc(correct, trusted)
}
