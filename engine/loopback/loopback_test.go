package loopback

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
	"assent/trace"
	"assent/trace/chart"
)

// Word goes from node to node and is kept.
type Word struct{ Text string }

// Stray is of a type that no codec here knows.
type Stray struct{}

// echo keeps the last word that it was given, says what it keeps, and tells it to its peer.
type echo struct {
	Peer protocol.NodeID
	Kept string
}

func (e *echo) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		kept, _ := ev.Records["kept"].(Word)
		e.Kept = kept.Text
		out.Emit(Word{"recovered " + e.Kept})
	case protocol.Input:
		switch word := ev.Value.(type) {
		case Word:
			e.Kept = word.Text
			out.Put("kept", word)
			out.Emit(Word{"kept " + word.Text})
			out.Send(e.Peer, word)
		default:
			out.Send(e.Peer, word)
		}
	case protocol.Receive:
		out.Emit(Word{fmt.Sprintf("%s says %s", ev.From, ev.Message.(Word).Text)})
	case protocol.Expire:
		out.Emit(Word{"tick"})
	}
	if e.Kept == "tick" {
		out.Arm("tick", time.Millisecond)
	}
}

func node(id, peer protocol.NodeID) protocol.Node {
	return protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine { return &echo{Peer: peer} }}}
}

// said is what each node has emitted.
type said map[protocol.NodeID]chan string

// open starts a and b, each the other's peer; c's is nobody.
func open(t *testing.T, observer trace.Observer) (*Network, said) {
	t.Helper()
	codec, err := protocol.NewCodec(protocol.Type{Name: "word", Zero: Word{}})
	if err != nil {
		t.Fatal(err)
	}
	all := said{"a": make(chan string, 100), "b": make(chan string, 100), "c": nil}
	n, err := Start(Config{Nodes: []protocol.Node{node("a", "b"), node("b", "a"), node("c", "nobody")}, Codec: codec,
		Emit: func(node protocol.NodeID, v protocol.Value) {
			select {
			case all[node] <- v.(Word).Text:
			default: // more than the test will ask for
			}
		}, Observer: observer})
	if err != nil {
		t.Fatal(err)
	}
	return n, all
}

// expect takes the next that the node says.
func (s said) expect(t *testing.T, node protocol.NodeID, want string) {
	t.Helper()
	if got := <-s[node]; got != want {
		t.Fatalf("%s emits %q, want %q", node, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCrashAndRestart(t *testing.T) {
	log := &recorder{}
	n, all := open(t, log)
	must(t, n.Input("a", Word{"one"}))
	all.expect(t, "a", "kept one")
	all.expect(t, "b", "a says one")
	must(t, n.Restart("a")) // which is up: nothing happens
	must(t, n.Crash("a"))
	must(t, n.Crash("a"))
	must(t, n.Input("a", Word{"two"})) // lost, as a is down
	must(t, n.Restart("a"))
	all.expect(t, "a", "recovered one")
	must(t, n.Input("b", Word{"three"}))
	all.expect(t, "b", "kept three")
	all.expect(t, "a", "b says three")
	must(t, n.Close())
	must(t, n.Close())
	if crashes := log.count(func(e trace.Event) bool { return e.Kind == trace.Crash }); crashes != 1 {
		t.Errorf("the observer has seen %d crashes, want 1", crashes)
	}
}

// A datagram from elsewhere is dropped, be it as well made as it may.
func TestStranger(t *testing.T) {
	n, all := open(t, nil)
	conn, err := net.Dial("udp4", n.hosts["b"].address.String())
	must(t, err)
	defer conn.Close()
	data, err := n.cfg.Codec.Encode(Word{"from outside"})
	must(t, err)
	_, err = conn.Write(data)
	must(t, err)
	must(t, n.Input("a", Word{"from inside"}))
	all.expect(t, "a", "kept from inside")
	all.expect(t, "b", "a says from inside")
	must(t, n.Close())
}

// When Close has returned nothing is emitted any more, whatever timers were armed.
func TestCloseIsTheEnd(t *testing.T) {
	n, all := open(t, nil)
	must(t, n.Input("a", Word{"tick"}))
	all.expect(t, "a", "kept tick")
	all.expect(t, "b", "a says tick")
	all.expect(t, "a", "tick")
	must(t, n.Close())
	for len(all["a"]) > 0 {
		<-all["a"]
	}
	must(t, n.Input("a", Word{"after the end"}))
	must(t, n.Restart("b"))
	<-time.After(5 * time.Millisecond) // five times as long as the timer takes
	if late := len(all["a"]) + len(all["b"]); late > 0 {
		t.Errorf("a closed network emits %d values", late)
	}
}

func TestCloseTellsWhatWentWrong(t *testing.T) {
	for name, c := range map[string]struct {
		node  protocol.NodeID
		value protocol.Value
		want  string
	}{
		"too long":       {"a", Word{strings.Repeat("x", 9000)}, "at most 8192 are allowed"},
		"to nobody":      {"c", Word{"hello"}, `to "nobody", which is no node`},
		"an unknown one": {"b", Stray{}, "node b sends loopback.Stray to a"},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := open(t, nil)
			must(t, n.Input(c.node, c.value))
			if err := n.Close(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Close says %v, want %q", err, c.want)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	codec, err := protocol.NewCodec(protocol.Type{Name: "word", Zero: Word{}})
	must(t, err)
	for name, cfg := range map[string]Config{
		"no nodes":         {Codec: codec},
		"no codec":         {Nodes: []protocol.Node{node("a", "b")}},
		"one name twice":   {Nodes: []protocol.Node{node("a", "b"), node("a", "b")}, Codec: codec},
		"no way to begin":  {Nodes: []protocol.Node{{ID: "a"}}, Codec: codec},
		"a lot of sockets": {Nodes: make([]protocol.Node, maxNodes+1), Codec: codec},
	} {
		if _, err := Start(cfg); !errors.Is(err, ErrSystem) {
			t.Errorf("%s: %v, want ErrSystem", name, err)
		}
	}
	n, _ := open(t, nil)
	for name, err := range map[string]error{"input": n.Input("x", Word{}), "crash": n.Crash("x"), "restart": n.Restart("x")} {
		if !errors.Is(err, ErrSystem) {
			t.Errorf("%s at a node that there is not: %v, want ErrSystem", name, err)
		}
	}
	must(t, n.Close())
}

// TestClaims: a claim is judged in every state, of machines and of records, and also after a crash.
func TestClaims(t *testing.T) {
	codec, err := protocol.NewCodec(protocol.Type{Name: "word", Zero: Word{}})
	must(t, err)
	for name, c := range map[string]struct {
		holds func(spec.View) bool
		want  string
	}{
		"all is well": {func(v spec.View) bool { return v.Nodes() == 2 }, ""},
		"a machine": {func(v spec.View) bool {
			e, up := v.Machine(0).(*echo)
			return !up || e.Kept == ""
		}, "a claim is broken: a machine, after a deliver"},
		"a record":  {func(v spec.View) bool { return v.Record(0, "kept") == nil }, "a claim is broken: a record, after a deliver"},
		"no record": {func(v spec.View) bool { return v.Record(1, "kept") == nil }, ""},
		"a crash": {func(v spec.View) bool {
			return v.Machine(0) != nil || v.Record(0, "kept") == nil
		}, "a claim is broken: a crash, after a crash"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan string, 10)
			n, err := Start(Config{Nodes: []protocol.Node{node("a", "b"), node("b", "a")}, Codec: codec,
				Always: []spec.Property{{Name: name, Holds: c.holds}},
				Emit:   func(_ protocol.NodeID, v protocol.Value) { heard <- v.(Word).Text }})
			must(t, err)
			must(t, n.Input("a", Word{"hello"}))
			<-heard
			<-heard
			must(t, n.Crash("a"))
			must(t, n.Restart("a"))
			<-heard
			err = n.Close()
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrClaim) || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("Close says %v, want %q", err, c.want)
			}
		})
	}
}

// recorder keeps the events.
type recorder struct {
	mu     sync.Mutex
	events []trace.Event
}

func (r *recorder) Observe(e trace.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) count(which func(trace.Event) bool) (count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if which(e) {
			count++
		}
	}
	return count
}

// acknowledgements closes done when the coordinator has heard of so many branches that they are committed.
type acknowledgements struct {
	mu   sync.Mutex
	from map[protocol.NodeID]bool
	want int
	done chan struct{}
}

func (a *acknowledgements) Observe(e trace.Event) {
	got, _ := e.Value.(protocol.Receive)
	ack, ok := got.Message.(commit.Acknowledge)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !ok || e.Kind != trace.Deliver || ack.Outcome != commit.Committed || a.from[got.From] {
		return
	}
	if a.from[got.From] = true; len(a.from) == a.want {
		close(a.done)
	}
}

// TestTraceIsDrawn: what the observer is told makes a trace, and the trace a chart with every message.
func TestTraceIsDrawn(t *testing.T) {
	codec, err := protocol.NewCodec(protocol.Type{Name: "word", Zero: Word{}})
	must(t, err)
	var text bytes.Buffer
	w, err := trace.NewWriter(&text, codec, trace.Header{Executor: trace.Live}, trace.Since(time.Now()))
	must(t, err)
	n, all := open(t, w)
	must(t, n.Input("a", Word{"hello"}))
	all.expect(t, "a", "kept hello")
	all.expect(t, "b", "a says hello")
	must(t, n.Crash("a"))
	must(t, n.Restart("a"))
	all.expect(t, "a", "recovered hello")
	must(t, n.Close())
	must(t, w.Close())
	r, err := trace.NewReader(&text, nil)
	must(t, err)
	var events []trace.Event
	for e, err := r.Next(); !errors.Is(err, io.EOF); e, err = r.Next() {
		must(t, err)
		events = append(events, e)
	}
	received := 0
	for i, cause := range trace.Causes(events) {
		if _, ok := events[i].Value.(protocol.Receive); ok && cause >= 0 {
			received++
		}
	}
	if received != 1 {
		t.Errorf("%d messages were received whose sending is in the trace, want 1", received)
	}
	drawn, err := chart.New(r.Header(), events, chart.Options{})
	must(t, err)
	var picture strings.Builder
	must(t, drawn.WriteSVG(&picture))
	for _, want := range []string{"word", "crash", "recover"} {
		if !strings.Contains(picture.String(), want) {
			t.Errorf("the chart does not show %q", want)
		}
	}
}

// TestTwoPhase runs the nodes that the checker takes for two-phase commit, and holds them to its claims.
func TestTwoPhase(t *testing.T) {
	system := commit.TwoPhase{Participants: 2, Votes: []commit.Vote{commit.Yes}}
	nodes, err := system.Nodes()
	must(t, err)
	codec, err := protocol.NewCodec(commit.Types()...)
	must(t, err)
	all := &acknowledgements{from: map[protocol.NodeID]bool{}, want: 2, done: make(chan struct{})}
	n, err := Start(Config{Nodes: nodes, Codec: codec, Observer: all, Always: []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}})
	must(t, err)
	<-all.done
	must(t, n.Close())
}
