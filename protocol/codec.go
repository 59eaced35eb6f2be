package protocol

import (
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// MaxEncoded is the greatest length in bytes of a value that a Codec decodes.
const MaxEncoded = 1 << 20

// Type gives a struct type the name under which it is encoded. Names are for ever: a name that
// was once written to a disk or a network keeps its meaning.
type Type struct {
	Name string
	Zero any
}

// Codec is the one encoding of states, messages and records: CBOR in core deterministic form
// (RFC 8949, section 4.2.1), as a pair of name and value. The same bytes are the wire format, the
// stable record and the checker's fingerprint. A Codec is immutable and safe for concurrent use.
type Codec struct {
	types map[string]reflect.Type
	names map[reflect.Type]string
	enc   cbor.EncMode
	dec   cbor.DecMode
}

// NewCodec returns a codec of the given types. It fails on an empty or repeated name, and on a
// type that is not a struct or has unexported or interface-typed state.
func NewCodec(types ...Type) (*Codec, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, fmt.Errorf("encoding mode: %w", err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   16,
		MaxArrayElements:  1 << 16,
		MaxMapPairs:       1 << 16,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("decoding mode: %w", err)
	}
	c := &Codec{types: map[string]reflect.Type{}, names: map[reflect.Type]string{}, enc: enc, dec: dec}
	for _, t := range types {
		if err := c.add(t); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Codec) add(t Type) error {
	if t.Zero == nil || t.Name == "" {
		return fmt.Errorf("type %q needs a name and a zero value", t.Name)
	}
	rt := reflect.TypeOf(t.Zero)
	if err := CheckState(rt); err != nil {
		return fmt.Errorf("type %q: %w", t.Name, err)
	}
	if rt.Kind() != reflect.Struct {
		return fmt.Errorf("type %q: %v is not a struct", t.Name, rt)
	}
	if _, ok := c.types[t.Name]; ok {
		return fmt.Errorf("type name %q is given twice", t.Name)
	}
	if other, ok := c.names[rt]; ok {
		return fmt.Errorf("%v has two names, %q and %q", rt, other, t.Name)
	}
	c.types[t.Name], c.names[rt] = rt, t.Name
	return nil
}

// pair is the form of every encoded value.
type pair struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Value cbor.RawMessage
}

// Encode returns the canonical bytes of v, a value of a registered type or a pointer to one. It
// fails on any other type.
func (c *Codec) Encode(v any) ([]byte, error) {
	rv := reflect.Indirect(reflect.ValueOf(v))
	if !rv.IsValid() {
		return nil, fmt.Errorf("encode: nil %T", v)
	}
	name, ok := c.names[rv.Type()]
	if !ok {
		return nil, fmt.Errorf("encode: %T is not registered", v)
	}
	raw, err := c.enc.Marshal(rv.Interface())
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	return c.enc.Marshal(pair{Name: name, Value: raw})
}

// Decode returns the value (not a pointer) that data encodes. It fails on unknown names and
// fields, on damaged data and on data longer than MaxEncoded.
func (c *Codec) Decode(data []byte) (any, error) {
	if len(data) > MaxEncoded {
		return nil, fmt.Errorf("decode: %d bytes; at most %d are allowed", len(data), MaxEncoded)
	}
	var p pair
	if err := c.dec.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	rt, ok := c.types[p.Name]
	if !ok {
		return nil, fmt.Errorf("decode: no type is named %q", p.Name)
	}
	v := reflect.New(rt)
	if err := c.dec.Unmarshal(p.Value, v.Interface()); err != nil {
		return nil, fmt.Errorf("decode %s: %w", p.Name, err)
	}
	return v.Elem().Interface(), nil
}

// Name returns the name under which v is encoded, a value of a registered type or a pointer to one.
func (c *Codec) Name(v any) (name string, ok bool) {
	rv := reflect.Indirect(reflect.ValueOf(v))
	if !rv.IsValid() {
		return "", false
	}
	name, ok = c.names[rv.Type()]
	return name, ok
}

// New returns a pointer to a new zero value of the type that is registered under name, or nil.
func (c *Codec) New(name string) any {
	rt, ok := c.types[name]
	if !ok {
		return nil
	}
	return reflect.New(rt).Interface()
}

// CheckState reports why values of type t cannot be a state, message or record: state must be
// data, so unexported fields, interfaces, functions, channels, maps with other than string keys
// and floating-point numbers are refused.
func CheckState(t reflect.Type) error {
	return checkState(t, t.String(), map[reflect.Type]bool{})
}

func checkState(t reflect.Type, path string, seen map[reflect.Type]bool) error {
	if seen[t] {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return nil
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return checkState(t.Elem(), path+"[]", seen)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("%s: the keys of a map in a state must be strings", path)
		}
		return checkState(t.Elem(), path+"[]", seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				return fmt.Errorf("%s.%s: unexported state", path, f.Name)
			}
			if err := checkState(f.Type, path+"."+f.Name, seen); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s: a %v cannot be part of a state", path, t.Kind())
}
