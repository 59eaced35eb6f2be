// Package protocoltest is the test that every machine passes, whatever its protocol.
//
// It promises that a machine which passes is data and nothing else, so that any executor can
// copy, store, send and resume it: the same state and event always give the same effects and the
// same next state, and it makes no difference whether the state was encoded in between. It says
// nothing about the protocol's own properties.
package protocoltest

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"assent/protocol"
)

// Subject is a machine under test.
type Subject struct {
	// New returns machines to begin with: one for each role and setting worth testing.
	New []func() protocol.Machine
	// Events is the alphabet from which runs are drawn: all kinds of messages, inputs and
	// timers, those that make no sense included.
	Events []protocol.Event
	// Codec knows the machines' states and everything in their events and effects.
	Codec *protocol.Codec
	// Steps is the greatest length of a run. Defaults to 30.
	Steps int
}

// Run puts the subject to the test with random runs.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for i, fresh := range s.New {
		t.Run(fmt.Sprintf("%d-%T", i, fresh()), func(t *testing.T) {
			if err := protocol.CheckState(reflect.TypeOf(fresh()).Elem()); err != nil {
				t.Fatalf("the state is not plain data: %v", err)
			}
			rapid.Check(t, func(t *rapid.T) { s.run(t, fresh()) })
		})
	}
}

func (s Subject) run(t *rapid.T, m protocol.Machine) {
	steps := s.Steps
	if steps == 0 {
		steps = 30
	}
	var sent []kept
	for range rapid.IntRange(1, steps).Draw(t, "steps") {
		ev := s.Events[rapid.IntRange(0, len(s.Events)-1).Draw(t, "event")]
		before, event := s.encode(t, m), s.event(t, ev)
		twin := s.decode(t, before)

		var out, again protocol.Effects
		m.Step(ev, &out)
		twin.Step(ev, &again)

		if got, want := s.encode(t, twin), s.encode(t, m); !bytes.Equal(got, want) {
			t.Fatalf("a decoded machine steps to another state on %#v:\n%#v\n%#v", ev, twin, m)
		}
		if got, want := s.effects(t, &again), s.effects(t, &out); !bytes.Equal(got, want) {
			t.Fatalf("a decoded machine has other effects on %#v:\n%+v\n%+v", ev, again, out)
		}
		if !bytes.Equal(event, s.event(t, ev)) {
			t.Fatalf("the step changed its event: %#v", ev)
		}
		sent = append(sent, kept{out, s.effects(t, &out)})
	}
	for _, k := range sent {
		if !bytes.Equal(k.bytes, s.effects(t, &k.effects)) {
			t.Fatalf("an effect shares memory with the state of %T and was changed by a later step: %+v", m, k.effects)
		}
	}
}

// kept is what a step gave, with the bytes that it had then.
type kept struct {
	effects protocol.Effects
	bytes   []byte
}

func (s Subject) encode(t *rapid.T, v any) []byte {
	data, err := s.Codec.Encode(v)
	if err != nil {
		t.Fatalf("encode %#v: %v", v, err)
	}
	return data
}

// decode returns a pointer to the machine that data encodes, and checks that its bytes are the
// same: the encoding is canonical.
func (s Subject) decode(t *rapid.T, data []byte) protocol.Machine {
	v, err := s.Codec.Decode(data)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	if again := s.encode(t, v); !bytes.Equal(data, again) {
		t.Fatalf("the encoding of %T is not canonical:\n%x\n%x", v, data, again)
	}
	p := reflect.New(reflect.TypeOf(v))
	p.Elem().Set(reflect.ValueOf(v))
	m, ok := p.Interface().(protocol.Machine)
	if !ok {
		t.Fatalf("%T is no machine", p.Interface())
	}
	return m
}

// event returns the bytes of what an event carries.
func (s Subject) event(t *rapid.T, ev protocol.Event) []byte {
	var b bytes.Buffer
	switch ev := ev.(type) {
	case protocol.Receive:
		b.Write(s.roundTrip(t, ev.Message))
	case protocol.Input:
		b.Write(s.roundTrip(t, ev.Value))
	case protocol.Recover:
		for _, key := range slices.Sorted(maps.Keys(ev.Records)) {
			b.WriteString(key)
			b.Write(s.roundTrip(t, ev.Records[key]))
		}
	}
	return b.Bytes()
}

// effects returns bytes by which two lists of effects can be compared, and checks on the way
// that everything in them can be encoded and decoded.
func (s Subject) effects(t *rapid.T, e *protocol.Effects) []byte {
	var b bytes.Buffer
	for _, w := range e.Writes {
		fmt.Fprintf(&b, "write %q ", w.Key)
		if w.Record != nil {
			b.Write(s.roundTrip(t, w.Record))
		}
	}
	for _, timer := range e.Timers {
		fmt.Fprintf(&b, "timer %q %d ", timer.Name, timer.After)
	}
	for _, m := range e.Sends {
		fmt.Fprintf(&b, "send %q ", m.To)
		b.Write(s.roundTrip(t, m.Message))
	}
	for _, v := range e.Emits {
		b.WriteString("emit ")
		b.Write(s.roundTrip(t, v))
	}
	return b.Bytes()
}

func (s Subject) roundTrip(t *rapid.T, v any) []byte {
	data := s.encode(t, v)
	back, err := s.Codec.Decode(data)
	if err != nil {
		t.Fatalf("decode %#v: %v", v, err)
	}
	if again := s.encode(t, back); !bytes.Equal(data, again) {
		t.Fatalf("%T does not survive its encoding: %#v, %#v", v, v, back)
	}
	return data
}
