package trace_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"assent/protocol"
	"assent/trace"
)

const (
	textHead = "# assent trace 1\n"
	jsonHead = `{"trace":1}` + "\n"
)

// TestMalformed: an error says what is wrong and in which line.
func TestMalformed(t *testing.T) {
	codec := newCodec(t)
	long := strings.Repeat("x", trace.MaxLine+1)
	for _, c := range []struct{ name, in, want string }{
		{"empty", "", "it is empty"},
		{"something else", "GIF89a", `line 1: a trace begins with`},
		{"no version", "{}", "line 1: the trace is of version 0"},
		{"later version", `{"trace":2}`, "this program reads version 1"},
		{"later version in text", "# assent trace 2\n", `version "2"`},
		{"seed", textHead + "# seed many\n", `line 2: the seed "many"`},
		{"long line", jsonHead + long, "line 2: the line is longer than"},
		{"not UTF-8", jsonHead + "{\"node\":\"\xff\"}", "line 2: the line is not UTF-8"},
		{"no JSON", jsonHead + "node\n", "line 2: invalid character"},
		{"unknown field", jsonHead + `{"at":0,"node":"c","kind":"crash","colour":1}` + "\n", `unknown field "colour"`},
		{"two values", jsonHead + `{"node":"c","kind":"crash"} {}` + "\n", "something stands after"},
		{"kind", jsonHead + `{"node":"c","kind":"jump"}` + "\n", `line 2: no kind of event is named "jump"`},
		{"invalid kind", jsonHead + `{"node":"c","kind":"invalid"}` + "\n", "no kind of event"},
		{"no node", jsonHead + "\n" + `{"kind":"crash"}` + "\n", "line 3: the event has no node"},
		{"no value", jsonHead + `{"node":"c","kind":"deliver"}` + "\n", "the event has no value"},
		{"negative time", jsonHead + `{"at":-1,"node":"c","kind":"crash"}` + "\n", "before the run"},
		{"no event", jsonHead + `{"node":"c","kind":"deliver","value":{}}` + "\n", "none of start"},
		{"two types", jsonHead + `{"node":"c","kind":"emit","value":{"a":{},"b":{}}}` + "\n", "one key"},
		{"unknown type", jsonHead + `{"node":"c","kind":"emit","value":{"a.B":{}}}` + "\n", `no type is named "a.B"`},
		{"unknown word", jsonHead + `{"node":"c","kind":"emit","value":{"commit.Completed":{"Decision":"maybe"}}}` + "\n", `"maybe" is not a`},
		{"value of a cut", jsonHead + `{"node":"c","kind":"cut","value":{}}` + "\n", "have no value"},
		{"null", jsonHead + `{"node":"c","kind":"emit","value":{"commit.Prepare":null}}` + "\n", "no JSON object"},
		{"torn", jsonHead + `{"node":"c","ki`, "cut off"},
		{"time", textHead + "now t c crash\n", `line 2: "now" is no time`},
		{"late time", textHead + "9223372036.9 t c crash\n", "is no time"},
		{"short", textHead + "0 t c\n", "line 2: the line ends too early"},
		{"number", textHead + "0 t c crash #x\n", `"#x" is no number`},
		{"string", textHead + "0 \"t c crash\n", "is no string"},
		{"words", textHead + "0 t c deliver sings\n", `the event is "sings"`},
		{"writes", textHead + "0 t c force change a\n", "begins with put or delete"},
		{"timer", textHead + "0 t c timer set a\n", "armed or disarmed"},
		{"duration", textHead + "0 t c timer arm a now\n", "no duration"},
		{"JSON", textHead + "0 t c emit commit.Completed\n", "there is no JSON"},
		{"rest", textHead + "0 t c deliver start up\n", `"up" stands after the end`},
		{"torn text", textHead + "0 t c deliver sta", "cut off"},
	} {
		_, _, err := read([]byte(c.in), codec)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if torn := errors.Is(err, io.ErrUnexpectedEOF); torn != strings.HasPrefix(c.name, "torn") {
			t.Errorf("%s: wraps io.ErrUnexpectedEOF: %v", c.name, torn)
		}
	}
}

// TestErrorStays: after an error a reader gives the same error, and no further events.
func TestErrorStays(t *testing.T) {
	r, err := trace.NewReader(strings.NewReader(textHead+"0 t c jump\n0 t c crash\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, first := r.Next()
	if _, second := r.Next(); first == nil || first != second {
		t.Errorf("got %v, then %v", first, second)
	}
}

// TestTooLongHeader: a header has no more nodes and lines than are allowed.
func TestTooLongHeader(t *testing.T) {
	var many strings.Builder
	for i := range trace.MaxHeader + 1 {
		fmt.Fprintf(&many, "# node n%d\n", i)
	}
	for name, in := range map[string]string{
		"nodes":   textHead + many.String(),
		"remarks": textHead + strings.Repeat("#\n", 4*trace.MaxHeader+1),
	} {
		if _, _, err := read([]byte(in), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	nodes := make([]protocol.NodeID, trace.MaxHeader+1)
	for i := range nodes {
		nodes[i] = "n"
	}
	for name, h := range map[string]trace.Header{"many": {Nodes: nodes}, "empty": {Nodes: []protocol.NodeID{""}}} {
		if _, err := trace.NewWriter(io.Discard, nil, h); err == nil {
			t.Errorf("%s: the writer takes the header", name)
		}
	}
}

// FuzzReader: whatever is read can be written in both encodings, and is then read as the same
// events again.
func FuzzReader(f *testing.F) {
	codec := newCodec(f)
	header, events := every()
	f.Add(write(f, codec, header, nil))
	f.Add(write(f, codec, header, nil, trace.Text()))
	for _, e := range events { // one by one, for short inputs are tried faster
		f.Add(write(f, codec, trace.Header{}, []trace.Event{e}))
		f.Add(write(f, codec, trace.Header{}, []trace.Event{e}, trace.Text()))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, codec := range []*protocol.Codec{nil, codec} {
			h, events, err := read(data, codec)
			if err != nil {
				continue
			}
			text := write(t, codec, h, events, trace.Text())
			lines := write(t, codec, h, events)
			for _, form := range [][]byte{text, lines} {
				h, again, err := read(form, codec)
				if err != nil {
					t.Fatalf("%v in\n%s", err, form)
				}
				if got := write(t, codec, h, again, trace.Text()); !bytes.Equal(got, text) {
					t.Fatalf("it was\n%s\nand became\n%s", text, got)
				}
			}
		}
	})
}
