package trace_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/trace"
)

// TestLimit: a trace has at most its limit, and a last line that says that it was hit.
func TestLimit(t *testing.T) {
	codec := newCodec(t)
	header, events := every()
	whole := write(t, codec, header, events)
	for _, option := range [][]trace.Option{nil, {trace.Text()}} {
		const limit = 1000
		data := write(t, codec, header, events, append(option, trace.Limit(limit))...)
		end := bytes.LastIndexByte(bytes.TrimSpace(data), '\n')
		if end+1 > limit || len(data) > limit+64 || len(data) >= len(whole) {
			t.Errorf("%d bytes, the last line beginning at %d, at a limit of %d", len(data), end, limit)
		}
		r, err := trace.NewReader(bytes.NewReader(data), codec)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for err == nil {
			if _, err = r.Next(); err == nil {
				n++
			}
		}
		if !errors.Is(err, io.EOF) || !r.Truncated() || n == 0 {
			t.Errorf("read %d events, then %v; truncated %v", n, err, r.Truncated())
		}
	}
}

// TestConcurrentObservers: events of many goroutines are whole, and each goroutine's in its order.
func TestConcurrentObservers(t *testing.T) {
	codec := newCodec(t)
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, codec, trace.Header{}, trace.Since(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	const observers, each = 8, 200
	var group sync.WaitGroup
	for i := range observers {
		group.Go(func() {
			for n := range each {
				w.Observe(trace.Event{Node: protocol.NodeID(fmt.Sprint(i)), Kind: trace.Send, Peer: "x",
					Message: uint64(n + 1), Value: commit.Prepare{ID: "t"}})
			}
		})
	}
	group.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, events, err := read(b.Bytes(), codec)
	if err != nil || len(events) != observers*each {
		t.Fatalf("%d events, %v", len(events), err)
	}
	last, at := map[protocol.NodeID]uint64{}, time.Duration(0)
	for _, e := range events {
		if e.Message != last[e.Node]+1 || e.At < at {
			t.Fatalf("event %+v after %d at %v", e, last[e.Node], at)
		}
		last[e.Node], at = e.Message, e.At
	}
}

// TestWriterRefuses: what no reader would take ends the trace, and Flush and Close say why.
func TestWriterRefuses(t *testing.T) {
	for want, e := range map[string]trace.Event{
		"the event has no node":     {Kind: trace.Crash},
		"no kind of event":          {Node: "c", Kind: 99},
		"before the run":            {Node: "c", Kind: trace.Crash, At: -1},
		"has no value":              {Node: "c", Kind: trace.Send, Peer: "p"},
		"does not carry a string":   {Node: "c", Kind: trace.Send, Value: "x"},
		"does not carry a protocol": {Node: "c", Kind: trace.Emit, Value: protocol.Start{}},
		"struct {} is not regist":   {Node: "c", Kind: trace.Emit, Value: struct{}{}},
		"at most 4194304":           {Node: "c", Kind: trace.Emit, Value: commit.Cancel{Reason: strings.Repeat("x", trace.MaxLine)}},
		"has no name":               {Node: "c", Kind: trace.Emit, Value: trace.Raw{JSON: []byte("{}")}},
		"is no object":              {Node: "c", Kind: trace.Emit, Value: trace.Raw{Name: "a", JSON: []byte("1")}},
		"invalid character":         {Node: "c", Kind: trace.Emit, Value: trace.Raw{Name: "a", JSON: []byte("{x}")}},
	} {
		var b bytes.Buffer
		w, err := trace.NewWriter(&b, newCodec(t), trace.Header{})
		if err != nil {
			t.Fatal(err)
		}
		w.Observe(e)
		w.Observe(trace.Event{Node: "c", Kind: trace.Crash})
		for _, err := range []error{w.Flush(), w.Close()} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		if bytes.Contains(b.Bytes(), []byte("crash")) {
			t.Errorf("%s: an event after the error was written", want)
		}
	}
}

// TestLean: a step's end does not repeat its event, and everything else is as it was.
func TestLean(t *testing.T) {
	codec := newCodec(t)
	header, events := every()
	_, got, err := read(write(t, codec, header, events, trace.Lean()), codec)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if events[i].Kind == trace.Stepped {
			events[i].Value = nil
		}
	}
	if d := cmp.Diff(events, got); d != "" {
		t.Error(d)
	}
}

// full is a disk that takes no more.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestFirstErrorStays: an error of the disk is told by every later call.
func TestFirstErrorStays(t *testing.T) {
	w, err := trace.NewWriter(full{}, newCodec(t), trace.Header{})
	if err != nil {
		t.Fatal(err)
	}
	w.Observe(trace.Event{Node: "c", Kind: trace.Crash})
	for range 2 {
		if err := w.Flush(); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("got %v", err)
		}
	}
}

// TestClosed: what is observed after Close is dropped.
func TestClosed(t *testing.T) {
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, nil, trace.Header{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Observe(trace.Event{Node: "c", Kind: trace.Crash})
	if err := w.Close(); err != nil || strings.Contains(b.String(), "crash") {
		t.Errorf("%v in %s", err, b.String())
	}
}

// BenchmarkObserve is what an event costs the machine that is traced.
func BenchmarkObserve(b *testing.B) {
	w, err := trace.NewWriter(io.Discard, newCodec(b), trace.Header{}, trace.Since(time.Now()), trace.Limit(1<<62))
	if err != nil {
		b.Fatal(err)
	}
	e := trace.Event{Scope: "01M7Z1KY20KXGMBTGATBJ8XG2Q-236", Node: "orders", Kind: trace.Send, Peer: "coordinator:",
		Value: commit.Voted{ID: "01M7Z1KY20KXGMBTGATBJ8XG2Q-236", Vote: commit.Yes, Evidence: make([]byte, 25)}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Observe(e)
		}
	})
}
