package protocol

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

type sample struct {
	Name string
	Tags map[string]uint8
	Next *sample
}

func TestCodecRefusesWhatIsNotData(t *testing.T) {
	for name, tc := range map[string]struct {
		types []Type
		want  string
	}{
		"unexported":  {[]Type{{"a", struct{ x int }{}}}, "unexported"},
		"interface":   {[]Type{{"a", struct{ X any }{}}}, "cannot be part of a state"},
		"function":    {[]Type{{"a", struct{ X func() }{}}}, "cannot be part of a state"},
		"channel":     {[]Type{{"a", struct{ X []chan int }{}}}, "cannot be part of a state"},
		"float":       {[]Type{{"a", struct{ X float64 }{}}}, "cannot be part of a state"},
		"integer key": {[]Type{{"a", struct{ X map[int]bool }{}}}, "keys of a map"},
		"not struct":  {[]Type{{"a", 1}}, "not a struct"},
		"no name":     {[]Type{{"", sample{}}}, "needs a name"},
		"nil":         {[]Type{{"a", nil}}, "needs a name and a zero value"},
		"name twice":  {[]Type{{"a", sample{}}, {"a", struct{}{}}}, "given twice"},
		"type twice":  {[]Type{{"a", sample{}}, {"b", sample{}}}, "two names"},
	} {
		if _, err := NewCodec(tc.types...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
}

func newSampleCodec(t testing.TB) *Codec {
	t.Helper()
	c, err := NewCodec(Type{"sample", sample{}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCodecIsCanonical(t *testing.T) {
	c := newSampleCodec(t)
	v := sample{Name: "x", Tags: map[string]uint8{"bb": 2, "a": 1, "c": 3}, Next: &sample{}}
	first, err := c.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := c.Encode(&v)
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("two encodings of one value: %x, %x (%v)", first, again, err)
		}
	}
	back, err := c.Decode(first)
	if err != nil || !reflect.DeepEqual(back, v) {
		t.Fatalf("got %#v, %v, want %#v", back, err, v)
	}
}

func TestCodecNames(t *testing.T) {
	c := newSampleCodec(t)
	for _, v := range []any{sample{}, &sample{}} {
		if name, ok := c.Name(v); name != "sample" || !ok {
			t.Errorf("%T is named %q, %v", v, name, ok)
		}
	}
	for _, v := range []any{nil, (*sample)(nil), 1, struct{}{}} {
		if name, ok := c.Name(v); ok {
			t.Errorf("%T is named %q", v, name)
		}
	}
	if v, ok := c.New("sample").(*sample); !ok || !reflect.DeepEqual(*v, sample{}) {
		t.Errorf("New gives %#v", v)
	}
	if v := c.New("other"); v != nil {
		t.Errorf("New gives %#v for a name that nobody has", v)
	}
}

func TestCodecRefusesBadInput(t *testing.T) {
	c := newSampleCodec(t)
	good, err := c.Encode(sample{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Encode(struct{}{}); err == nil {
		t.Error("a type that is not registered was encoded")
	}
	if _, err := c.Encode(nil); err == nil {
		t.Error("nil was encoded")
	}
	for n := range good {
		if _, err := c.Decode(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were decoded", n, len(good))
		}
	}
	if _, err := c.Decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("trailing bytes were not noticed")
	}
	if _, err := c.Decode(make([]byte, MaxEncoded+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too long a value: %v", err)
	}
}

// FuzzDecode: no bytes make Decode panic, and what it takes it gives back the same.
func FuzzDecode(f *testing.F) {
	c := newSampleCodec(f)
	seed, err := c.Encode(sample{Name: "x", Tags: map[string]uint8{"a": 1}, Next: &sample{Name: "y"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0x82, 0x66})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := c.Decode(data)
		if err != nil {
			return
		}
		once, err := c.Encode(v)
		if err != nil {
			t.Fatalf("decoded value %#v does not encode: %v", v, err)
		}
		back, err := c.Decode(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := c.Encode(back); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x (%v)", once, twice, err)
		}
	})
}
