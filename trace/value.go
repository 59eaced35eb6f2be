package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"

	"assent/protocol"
)

// Raw is a value whose type the reader of a trace does not know: it was read without a codec. It
// may be written again and keeps its bytes.
type Raw struct {
	// Name is the name under which the type was registered: "commit.Prepare".
	Name string
	// JSON is the value, a JSON object without white space around its parts.
	JSON json.RawMessage
}

// values writes and reads values of registered types. Without a codec it writes and reads Raw.
type values struct {
	codec *protocol.Codec
	pool  *sync.Pool // of *scratch
}

func newValues(codec *protocol.Codec) values { return values{codec, newScratches()} }

// scratch is an encoder with what it writes to. Making one takes longer than a value does.
type scratch struct {
	buf bytes.Buffer
	enc *json.Encoder
}

// newScratches returns a pool of encoders that leave <, > and & as they are.
func newScratches() *sync.Pool {
	return &sync.Pool{New: func() any {
		s := &scratch{}
		s.enc = json.NewEncoder(&s.buf)
		s.enc.SetEscapeHTML(false)
		return s
	}}
}

// name returns the name of v's type.
func (x values) name(v any) (string, error) {
	if raw, ok := v.(Raw); ok {
		if raw.Name == "" {
			return "", errors.New("a raw value has no name")
		}
		return raw.Name, nil
	}
	if x.codec != nil {
		if name, ok := x.codec.Name(v); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("%T is not registered", v)
}

// append appends the JSON of v.
func (x values) append(b []byte, v any) ([]byte, error) {
	s := x.pool.Get().(*scratch)
	defer x.pool.Put(s)
	s.buf.Reset()
	if raw, ok := v.(Raw); ok {
		if err := json.Compact(&s.buf, raw.JSON); err != nil {
			return nil, fmt.Errorf("%s: %w", raw.Name, err)
		}
		if s.buf.Len() == 0 || s.buf.Bytes()[0] != '{' {
			return nil, fmt.Errorf("raw value %q is no object", raw.Name)
		}
	} else if err := s.enc.Encode(v); err != nil {
		return nil, fmt.Errorf("%T: %w", v, err)
	}
	return append(b, bytes.TrimSuffix(s.buf.Bytes(), []byte("\n"))...), nil
}

// decode returns the value of the type with that name.
func (x values) decode(name string, data []byte) (any, error) {
	if name == "" {
		return nil, errors.New("a value without the name of its type")
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, fmt.Errorf("%s: the value is no JSON object", name)
	}
	if x.codec == nil {
		var b bytes.Buffer
		if err := json.Compact(&b, data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return Raw{Name: name, JSON: b.Bytes()}, nil
	}
	v := x.codec.New(name)
	if v == nil {
		return nil, fmt.Errorf("no type is named %q", name)
	}
	if err := strict(data, v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return indirect(v), nil
}

// strict decodes one JSON value without unknown fields, and nothing after it.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("the JSON ends too early")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands after the end of the JSON")
	}
	return nil
}

// indirect returns the value that the pointer v points to.
func indirect(v any) any { return reflect.ValueOf(v).Elem().Interface() }
