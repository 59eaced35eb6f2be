package election_test

import (
	"cmp"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/election"
	"assent/protocol/protocoltest"

	"pgregory.net/rapid"
)

// letter is a message under way.
type letter struct {
	from, to protocol.NodeID
	message  protocol.Message
}

// world runs a Bully system. When it is left alone, messages arrive at once and timers run out in the
// order of their times.
type world struct {
	nodes []protocol.Node
	up    map[protocol.NodeID]*election.Elector
	due   map[protocol.NodeID]time.Duration // armed timers
	now   time.Duration
	mail  []letter
	sent  int
}

func newWorld(tb fatal, size int, options election.Options) *world {
	nodes, err := election.Bully{Size: size, Options: options}.Nodes()
	if err != nil {
		tb.Fatal(err)
	}
	return &world{nodes: nodes, up: map[protocol.NodeID]*election.Elector{}, due: map[protocol.NodeID]time.Duration{}}
}

func (w *world) start(id protocol.NodeID) {
	i := slices.IndexFunc(w.nodes, func(n protocol.Node) bool { return n.ID == id })
	w.up[id] = w.nodes[i].New[0]().(*election.Elector)
}

func (w *world) step(id protocol.NodeID, ev protocol.Event) {
	e := w.up[id]
	if e == nil {
		return
	}
	var out protocol.Effects
	e.Step(ev, &out)
	for _, t := range out.Timers {
		delete(w.due, id)
		if t.After > 0 {
			w.due[id] = w.now + t.After
		}
	}
	for _, s := range out.Sends {
		w.sent++
		w.mail = append(w.mail, letter{id, s.To, s.Message})
	}
}

func (w *world) crash(id protocol.NodeID) { delete(w.up, id); delete(w.due, id) }

func (w *world) deliver(i int) {
	l := w.mail[i]
	w.mail = slices.Delete(w.mail, i, i+1)
	w.step(l.to, protocol.Receive{From: l.from, Message: l.message})
}

// fatal is a test of either kind.
type fatal interface{ Fatal(...any) }

// quiet runs until nothing is under way and no timer is armed, or for a minute.
func (w *world) quiet(tb fatal) {
	end := w.now + time.Minute
	for range 10_000 {
		if len(w.mail) > 0 {
			w.deliver(0)
			continue
		}
		if len(w.due) == 0 {
			return
		}
		next := slices.MinFunc(slices.Sorted(maps.Keys(w.due)), func(a, b protocol.NodeID) int { return cmp.Compare(w.due[a], w.due[b]) })
		if w.due[next] > end {
			return
		}
		w.now = w.due[next]
		delete(w.due, next)
		w.step(next, protocol.Expire{Timer: election.Timer})
	}
	tb.Fatal("elections without an end")
}

// agreed holds every node that is up to follow the highest that is.
func (w *world) agreed(tb interface{ Errorf(string, ...any) }) {
	var highest protocol.NodeID
	for _, n := range w.nodes {
		if w.up[n.ID] != nil {
			highest = n.ID
		}
	}
	for id, e := range w.up {
		want := election.Following
		if id == highest {
			want = election.Leading
		}
		if e.Leader != highest || e.State != want {
			tb.Errorf("%s is %v and follows %q, want %q", id, e.State, e.Leader, highest)
		}
	}
}

// The highest of n nodes is down and the lowest notices: n² − n − 1 messages, 19 for five.
func TestWorstCaseTakesNSquaredMessages(t *testing.T) {
	for n := 2; n <= 9; n++ {
		w := newWorld(t, n, election.Options{})
		for _, node := range w.nodes {
			w.start(node.ID)
		}
		highest := w.nodes[n-1].ID
		for _, e := range w.up {
			e.Leader = highest
		}
		w.crash(highest)
		w.step("n1", protocol.Input{Value: election.Suspect{Node: highest}})
		w.quiet(t)
		w.agreed(t)
		if want := n*n - n - 1; w.sent != want {
			t.Errorf("%d nodes: %d messages, want %d", n, w.sent, want)
		}
	}
}

func TestEverybodyStartsAtOnce(t *testing.T) {
	w := newWorld(t, 5, election.Options{})
	for _, n := range w.nodes {
		w.start(n.ID)
	}
	for _, n := range w.nodes {
		w.step(n.ID, protocol.Start{})
	}
	w.quiet(t)
	w.agreed(t)
}

// A process with a higher address that comes back bullies the leader into submission (reference,
// leader election).
func TestReturningNodeTakesOver(t *testing.T) {
	w := newWorld(t, 3, election.Options{})
	w.start("n1")
	w.start("n2")
	w.step("n1", protocol.Start{})
	w.step("n2", protocol.Start{})
	w.quiet(t)
	w.agreed(t)
	w.start("n3")
	w.step("n3", protocol.Recover{})
	w.quiet(t)
	w.agreed(t)
	w.step("n3", protocol.Receive{From: "n2", Message: election.Leader{}}) // it was late
	w.quiet(t)
	w.agreed(t)
}

func TestWhatMeansNothingHasNoEffect(t *testing.T) {
	w := newWorld(t, 3, election.Options{})
	for _, n := range w.nodes {
		w.start(n.ID)
		w.step(n.ID, protocol.Start{})
	}
	w.quiet(t)
	w.sent = 0
	for _, ev := range []protocol.Event{
		protocol.Expire{Timer: election.Timer}, protocol.Expire{Timer: "another"},
		protocol.Receive{From: "stranger", Message: election.Leader{}},
		protocol.Receive{From: "n2", Message: election.Leader{}},
		protocol.Receive{From: "n1", Message: election.Answer{}},
		protocol.Receive{From: "n3", Message: election.Election{}},
		protocol.Receive{From: "n3", Message: election.Answer{}},
		protocol.Input{Value: election.Suspect{Node: "n1"}},
	} {
		w.step("n2", ev)
	}
	if w.sent > 0 {
		t.Errorf("%d messages", w.sent)
	}
	w.agreed(t)
}

// Whatever crashes, is lost, repeated or late: once the world is quiet and the failed leader is
// suspected, all follow the highest node that is up.
func TestRandomSchedules(t *testing.T) {
	for range 10 {
		rapid.Check(t, func(t *rapid.T) {
			w := newWorld(t, rapid.IntRange(1, 6).Draw(t, "nodes"), election.Options{Again: time.Second})
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
			for range rapid.IntRange(0, 300).Draw(t, "steps") {
				w.randomly(rng)
			}
			if len(w.up) == 0 {
				w.start("n1")
				w.step("n1", protocol.Recover{})
			}
			w.quiet(t)
			for _, n := range w.nodes { // what a failure detector says in the end
				if e := w.up[n.ID]; e != nil && w.up[e.Leader] == nil {
					w.step(n.ID, protocol.Input{Value: election.Suspect{Node: e.Leader}})
				}
			}
			w.quiet(t)
			w.agreed(t)
		})
	}
}

func (w *world) randomly(rng *rand.Rand) {
	n := w.nodes[rng.IntN(len(w.nodes))].ID
	switch k := rng.IntN(100); {
	case k < 60 && len(w.mail) > 0:
		i := rng.IntN(len(w.mail))
		switch rng.IntN(10) {
		case 0: // lost
			w.mail = slices.Delete(w.mail, i, i+1)
		case 1: // arrives again
			w.mail = append(w.mail, w.mail[i])
		}
		if i < len(w.mail) {
			w.deliver(i)
		}
	case k < 75 && w.due[n] > 0:
		delete(w.due, n)
		w.step(n, protocol.Expire{Timer: election.Timer})
	case k < 85 && w.up[n] != nil:
		w.step(n, protocol.Input{Value: election.Suspect{Node: w.up[n].Leader}})
	case k < 90:
		w.crash(n)
	case w.up[n] == nil:
		w.start(n)
		w.step(n, protocol.Recover{})
	}
}

func TestSystemsThatCannotBeAreRefused(t *testing.T) {
	for _, size := range []int{0, 10} {
		if _, err := (election.Bully{Size: size}).Nodes(); !errors.Is(err, election.ErrSystem) {
			t.Errorf("%d nodes: %v", size, err)
		}
	}
}

func TestMachines(t *testing.T) {
	codec, err := protocol.NewCodec(election.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	events := []protocol.Event{protocol.Start{}, protocol.Recover{}, protocol.Expire{Timer: election.Timer},
		protocol.Input{Value: election.Hold{}}, protocol.Input{Value: election.Suspect{Node: "n3"}}}
	for _, from := range []protocol.NodeID{"n1", "n2", "n3", "n4"} {
		for _, m := range []protocol.Message{election.Election{}, election.Answer{}, election.Leader{}} {
			events = append(events, protocol.Receive{From: from, Message: m})
		}
	}
	nodes, err := election.Bully{Size: 3}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	protocoltest.Run(t, protocoltest.Subject{New: []func() protocol.Machine{nodes[0].New[0], nodes[1].New[0], nodes[2].New[0]},
		Events: events, Codec: codec})
}
