package trace_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assent/protocol"
	"assent/trace"
)

func liveHeader() trace.Header {
	return trace.Header{Executor: trace.Live, System: "2pc", Nodes: []protocol.NodeID{"c", "p"}}
}

func openFile(t *testing.T, path string, options ...trace.Option) *trace.File {
	t.Helper()
	f, err := trace.OpenFile(path, newCodec(t), liveHeader(), options...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func kinds(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, events, err := read(data, newCodec(t))
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	var all []string
	for i, e := range events {
		all = append(all, string(e.Node)+" "+e.Kind.String())
		if i > 0 && e.At < events[i-1].At {
			t.Errorf("event %d is at %v, the one before at %v", i+1, e.At, events[i-1].At)
		}
	}
	return strings.Join(all, ", ")
}

// TestFileGoesOn: a process that finds its predecessor's trace goes on with it, whatever that one
// left half written, and says that all nodes went down.
func TestFileGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.trace")
	start := trace.Event{Scope: "t", Node: "c", Kind: trace.Deliver, Value: protocol.Start{}}

	f := openFile(t, path)
	f.Observe(start)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if got, want := kinds(t, path), "c deliver"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	appendTo(t, path, `{"at":7,"scope":"t","no`) // as a process leaves it that dies within a write

	f = openFile(t, path)
	f.Observe(start)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := kinds(t, path), "c deliver, c crash, p crash, c deliver"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

// TestFileLimit: the limit counts over all processes, and a greater one lets the next go on.
func TestFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.trace")
	start := trace.Event{Scope: "t", Node: "c", Kind: trace.Deliver, Value: protocol.Start{}}
	fill := func(limit int64) bool {
		f := openFile(t, path, trace.Limit(limit))
		for range 5 {
			f.Observe(start)
		}
		full := f.Truncated()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return full
	}
	for range 2 {
		if !fill(300) {
			t.Error("the limit was not hit")
		}
	}
	if got := strings.Count(kinds(t, path), "deliver"); got == 0 || got == 5 {
		t.Errorf("%d events within the limit", got)
	}
	if fill(100_000) || !strings.HasSuffix(kinds(t, path), strings.Repeat(", c deliver", 5)) {
		t.Errorf("with a greater limit: %s", kinds(t, path))
	}
}

// TestFileOfAnother: nothing else is written over.
func TestFileOfAnother(t *testing.T) {
	sim := string(write(t, nil, trace.Header{Executor: trace.Sim}, nil))
	text := string(write(t, nil, liveHeader(), nil, trace.Text()))
	noTime := string(write(t, nil, liveHeader(), nil))
	for name, content := range map[string]string{"notes": "remember the milk\n", "sim": sim, "text": text, "no time": noTime} {
		path := filepath.Join(t.TempDir(), "file")
		appendTo(t, path, content)
		if _, err := trace.OpenFile(path, newCodec(t), liveHeader()); err == nil {
			t.Errorf("%s: no error", name)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("%s: the file is now %q, %v", name, data, err)
		}
	}
	if _, err := trace.OpenFile(t.TempDir(), newCodec(t), liveHeader()); err == nil {
		t.Error("a directory was opened")
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
