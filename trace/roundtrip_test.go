package trace_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/trace"
)

func newCodec(t testing.TB) *protocol.Codec {
	t.Helper()
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	return codec
}

// every has an event of each kind and each form of value.
func every() (trace.Header, []trace.Event) {
	prepare := commit.Prepare{ID: "t1", Peers: []protocol.NodeID{"p2"}}
	writes := []protocol.Write{
		{Key: "branch", Record: commit.PreparedRecord{ID: "t1", Coordinator: "c", Evidence: []byte{0, 1, 255}}},
		{Key: "an odd key"},
	}
	h := trace.Header{Executor: trace.Sim, System: "2pc", Seed: 1<<64 - 1, Nodes: []protocol.NodeID{"c", "p1", "node 2"},
		Parameters: map[string]string{"participants": "2", "votes": "yes, no", "empty": ""}}
	return h, []trace.Event{
		{Scope: "t1", Node: "c", Kind: trace.Deliver, Value: protocol.Start{}},
		{Scope: "t1", Node: "c", Kind: trace.Timer, Value: protocol.Timer{Name: "vote", After: 10 * time.Second}, At: 1},
		{Scope: "t1", Node: "c", Kind: trace.Timer, Value: protocol.Timer{Name: "a timer", After: 1500 * time.Millisecond}, At: 1},
		{Scope: "t1", Node: "c", Kind: trace.Send, Peer: "p1", Value: prepare, Message: 1, At: 1},
		{Scope: "t1", Node: "c", Kind: trace.Stepped, Value: protocol.Start{}, At: 1},
		{Node: "p1", Kind: trace.Duplicate, Peer: "c", Value: prepare, Message: 1, At: 2},
		{Node: "node 2", Kind: trace.Lose, Peer: "c", Value: prepare, Message: 2, At: time.Minute},
		{Node: "p1", Kind: trace.Alter, Peer: "c", Value: commit.Finish{ID: "<&>\u2028", Decision: commit.Abort}, Message: 12345, At: time.Hour},
		{Node: "p1", Kind: trace.Cut, Peer: "c", At: time.Hour},
		{Node: "p1", Kind: trace.Heal, Peer: "c", At: time.Hour},
		{Node: "p1", Kind: trace.Damage, Value: "torn tail", At: time.Hour},
		{Node: "p1", Kind: trace.Crash, At: time.Hour + 1},
		{Scope: "-", Node: "p1", Kind: trace.Deliver, Value: protocol.Recover{}, At: time.Hour + 1},
		{Scope: "t 2", Node: "p1", Kind: trace.Deliver, Value: protocol.Recover{Records: protocol.Records{
			"branch": commit.PreparedRecord{ID: "t1"}, "a b": commit.Tombstone{Decision: commit.Abort}}}},
		{Node: "p1", Kind: trace.Deliver, Value: protocol.Receive{From: "c", Message: prepare}, Message: 1},
		{Node: "p1", Kind: trace.Deliver, Value: protocol.Expire{Timer: "ask"}},
		{Node: "to", Kind: trace.Deliver, Value: protocol.Input{Value: commit.BranchPrepared{Vote: commit.Yes}}},
		{Node: "p1", Kind: trace.Force, Value: writes},
		{Node: "p1", Kind: trace.Forced, Value: writes[:1]},
		{Node: "p1", Kind: trace.Failed, Value: []protocol.Write{}},
		{Node: "p1", Kind: trace.Timer, Value: protocol.Timer{Name: "ask"}},
		{Node: "p1", Kind: trace.Emit, Value: commit.PrepareBranch{}},
		{Node: "p1", Kind: trace.Stepped, At: 1<<63 - 1},
	}
}

func write(t testing.TB, codec *protocol.Codec, h trace.Header, events []trace.Event, options ...trace.Option) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, codec, h, options...)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		w.Observe(e)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(data []byte, codec *protocol.Codec) (trace.Header, []trace.Event, error) {
	r, err := trace.NewReader(bytes.NewReader(data), codec)
	if err != nil {
		return trace.Header{}, nil, err
	}
	var events []trace.Event
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Header(), events, nil
		}
		if err != nil {
			return r.Header(), events, err
		}
		events = append(events, e)
	}
}

// TestRoundTrip: both encodings give back what was written, with the codec and, byte for byte,
// without it; and the encodings can be turned into one another.
func TestRoundTrip(t *testing.T) {
	codec := newCodec(t)
	header, events := every()
	for name, option := range map[string][]trace.Option{"json": nil, "text": {trace.Text()}} {
		t.Run(name, func(t *testing.T) {
			data := write(t, codec, header, events, option...)
			h, got, err := read(data, codec)
			if err != nil {
				t.Fatalf("%v in\n%s", err, data)
			}
			if d := cmp.Diff(header, h); d != "" {
				t.Errorf("another header:\n%s", d)
			}
			if d := cmp.Diff(events, got); d != "" {
				t.Errorf("other events:\n%s", d)
			}
			h, raw, err := read(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			if again := write(t, nil, h, raw, option...); !bytes.Equal(data, again) {
				t.Errorf("without a codec it becomes\n%s\nand was\n%s", again, data)
			}
			_, raw, err = read(write(t, nil, h, raw, trace.Text()), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, got, err = read(write(t, nil, h, raw), codec); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(events, got); d != "" {
				t.Errorf("after text and JSON without a codec other events:\n%s", d)
			}
		})
	}
}

// TestEqualEventsEqualBytes: maps have no order, and a trace has one.
func TestEqualEventsEqualBytes(t *testing.T) {
	codec := newCodec(t)
	header, events := every()
	first := write(t, codec, header, events)
	for range 20 {
		if again := write(t, codec, header, events); !bytes.Equal(first, again) {
			t.Fatalf("two traces of the same events:\n%s\n%s", first, again)
		}
	}
}

// TestScriptByHand: what a person writes needs no alignment and little of a header.
func TestScriptByHand(t *testing.T) {
	script := strings.Join([]string{
		"# assent trace 1", "# a remark, \"half a string", "# node c", "",
		"0 t c deliver start", "  # another remark",
		"\t0.5 t p1 deliver #1 receive c commit.Prepare{ \"ID\": \"t\" }  ",
		"1 - p1 cut from c", "2 t p1 crash", "3 t p1 damage torn",
	}, "\n")
	h, events, err := read([]byte(script), newCodec(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []trace.Event{
		{Scope: "t", Node: "c", Kind: trace.Deliver, Value: protocol.Start{}},
		{Scope: "t", Node: "p1", Kind: trace.Deliver, Message: 1, At: time.Second / 2,
			Value: protocol.Receive{From: "c", Message: commit.Prepare{ID: "t"}}},
		{Node: "p1", Kind: trace.Cut, Peer: "c", At: time.Second},
		{Scope: "t", Node: "p1", Kind: trace.Crash, At: 2 * time.Second},
		{Scope: "t", Node: "p1", Kind: trace.Damage, Value: "torn", At: 3 * time.Second},
	}
	if d := cmp.Diff(want, events); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(trace.Header{Nodes: []protocol.NodeID{"c"}}, h); d != "" {
		t.Error(d)
	}
}
