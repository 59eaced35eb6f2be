package api

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	assentv1 "assent/api/assent/v1"
)

// FuzzValue reads any JSON as a value: what is accepted survives a round trip through JSON and
// protobuf, and becomes an argument.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{}`, `{"null": true}`, `{"bool": true}`, `{"int64": "9223372036854775807"}`, `{"int64": 5}`,
		`{"double": "NaN"}`, `{"double": 1e400}`, `{"string": "\u0000"}`, `{"bytes": "AP8="}`, `{"text": "0.10"}`, `{"string": "\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := &assentv1.Value{}
		if (strictJSON{"json"}).Unmarshal(data, v) != nil {
			return
		}
		if _, err := argument(v); err != nil {
			t.Fatalf("no argument for %v: %v", v, err)
		}
		raw, err := protojson.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		again := &assentv1.Value{}
		if err := protojson.Unmarshal(raw, again); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if !proto.Equal(v, again) {
			t.Fatalf("%v became %v", v, again)
		}
	})
}

// FuzzValueOf turns what a driver may decode into values, which must be fit for the wire.
func FuzzValueOf(f *testing.F) {
	f.Add([]byte("text"), int64(1), 1.5, uint8(0))
	f.Add([]byte("\xff\xfe"), int64(math.MinInt64), math.NaN(), uint8(3))
	f.Add([]byte{}, int64(0), math.Inf(-1), uint8(8))
	f.Fuzz(func(t *testing.T, b []byte, i int64, d float64, kind uint8) {
		all := []any{nil, i%2 == 0, int16(i), int32(i), i, uint32(i), float32(d), d, string(b), b, struct{}{}}
		x := all[int(kind)%len(all)]
		v, err := valueOf(x, func(any) (string, bool, error) { return string(b), len(b) != 3, nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := proto.Marshal(v); err != nil {
			t.Fatalf("%T %v cannot be sent: %v", x, x, err)
		}
		back, err := argument(v)
		if err != nil {
			t.Fatal(err)
		}
		switch x := x.(type) {
		case string:
			if s, ok := back.(string); ok && s != x || ok != utf8.ValidString(x) {
				t.Fatalf("%q became %v", x, back)
			}
		case []byte:
			if !bytes.Equal(x, back.([]byte)) {
				t.Fatalf("%q became %v", x, back)
			}
		case float32:
			if f := back.(float64); float32(f) != x && x == x {
				t.Fatalf("%v became %v", x, f)
			}
		case int64, bool, nil:
			if x != back {
				t.Fatalf("%v became %v", x, back)
			}
		}
	})
}

func TestValueOfFails(t *testing.T) {
	broken := errors.New("no text form")
	if _, err := valueOf(struct{}{}, func(any) (string, bool, error) { return "", false, broken }); !errors.Is(err, broken) {
		t.Errorf("valueOf: %v", err)
	}
}

// What is told is UTF-8 and bounded, and no letter is cut in two.
func TestTold(t *testing.T) {
	for text, want := range map[string]string{
		"":               "",
		"Größe":          "Größe",
		"caf\xe9":        "caf\uFFFD",
		"\xff\xfe":       "\uFFFD",
		"0123456789":     "0123456789",
		"0123456789a":    "0123456789…",
		"012345678ä":     "012345678…",
		"01234567€uro":   "01234567…",
		"0123456😀7":      "0123456…",
		"0123456789\xff": "0123456789…",
		"\xff123456789a": "\uFFFD1234567…",
	} {
		if got := toldUpTo(10, text); got != want || !utf8.ValidString(got) {
			t.Errorf("%q is told as %q; want %q", text, got, want)
		}
	}
	for n := range 3 * maxText {
		if got := told(strings.Repeat("a\x80", n)); len(got) > maxText+len("…") {
			t.Fatalf("%d bytes are told in %d", n, len(got))
		}
	}
}
