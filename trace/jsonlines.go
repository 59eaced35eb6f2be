package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"assent/protocol"
)

// jsonHeader is the first line of a trace in JSON lines.
type jsonHeader struct {
	Trace      int               `json:"trace"`
	Executor   string            `json:"executor,omitempty"`
	System     string            `json:"system,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
	// Seed is text, for many programs read numbers as floating point.
	Seed  uint64            `json:"seed,omitempty,string"`
	Nodes []protocol.NodeID `json:"nodes,omitempty"`
}

// jsonEvent is any other line. Truncated is set in the last line of a trace that grew too long.
type jsonEvent struct {
	At        int64           `json:"at"`
	Scope     string          `json:"scope"`
	Node      protocol.NodeID `json:"node"`
	Kind      string          `json:"kind"`
	Message   uint64          `json:"message"`
	Peer      protocol.NodeID `json:"peer"`
	Value     json.RawMessage `json:"value"`
	Truncated int64           `json:"truncated"`
}

// jsonStep is a protocol.Event: one of its fields is set.
type jsonStep struct {
	Start   *struct{}        `json:"start"`
	Recover *json.RawMessage `json:"recover"`
	Receive *jsonReceive     `json:"receive"`
	Expire  *string          `json:"expire"`
	Input   *json.RawMessage `json:"input"`
}

type jsonReceive struct {
	From    protocol.NodeID `json:"from"`
	Message json.RawMessage `json:"message"`
}

type jsonWrite struct {
	Key    string          `json:"key"`
	Record json.RawMessage `json:"record"`
}

type jsonTimer struct {
	Name  string        `json:"name"`
	After time.Duration `json:"after"`
}

// jsonLines is the encoding of a trace as JSON lines.
type jsonLines struct{ values values }

func (jsonLines) header(b []byte, h Header) []byte {
	line, err := json.Marshal(jsonHeader{Trace: Version, Executor: h.Executor, System: h.System,
		Parameters: h.Parameters, Seed: h.Seed, Nodes: h.Nodes})
	if err != nil { // strings and numbers always encode
		panic(err)
	}
	return append(append(b, line...), '\n')
}

func (jsonLines) time(b []byte, at time.Duration) []byte {
	return strconv.AppendInt(append(b, `{"at":`...), int64(at), 10)
}

func (jsonLines) truncated(b []byte, limit int64) []byte {
	return append(strconv.AppendInt(append(b, `{"truncated":`...), limit, 10), '}', '\n')
}

// event appends what follows the time of e.
func (j jsonLines) event(b []byte, e Event) ([]byte, error) {
	if e.Scope != "" {
		b = appendString(append(b, `,"scope":`...), e.Scope)
	}
	b = appendString(append(b, `,"node":`...), string(e.Node))
	b = appendString(append(b, `,"kind":`...), e.Kind.String())
	if e.Message != 0 {
		b = strconv.AppendUint(append(b, `,"message":`...), e.Message, 10)
	}
	if e.Peer != "" {
		b = appendString(append(b, `,"peer":`...), string(e.Peer))
	}
	if e.Value != nil {
		var err error
		if b, err = j.value(append(b, `,"value":`...), e); err != nil {
			return nil, err
		}
	}
	return append(b, '}', '\n'), nil
}

func (j jsonLines) value(b []byte, e Event) ([]byte, error) {
	switch v := e.Value.(type) {
	case protocol.Event:
		return j.step(b, v)
	case []protocol.Write:
		b = append(b, '[')
		for i, w := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(append(b, `{"key":`...), w.Key)
			if w.Record != nil {
				var err error
				if b, err = j.typed(append(b, `,"record":`...), w.Record); err != nil {
					return nil, err
				}
			}
			b = append(b, '}')
		}
		return append(b, ']'), nil
	case protocol.Timer:
		b = appendString(append(b, `{"name":`...), v.Name)
		if v.After != 0 {
			b = strconv.AppendInt(append(b, `,"after":`...), int64(v.After), 10)
		}
		return append(b, '}'), nil
	case string:
		return appendString(b, v), nil
	}
	return j.typed(b, e.Value)
}

func (j jsonLines) step(b []byte, ev protocol.Event) ([]byte, error) {
	var err error
	switch ev := ev.(type) {
	case protocol.Start:
		return append(b, `{"start":{}}`...), nil
	case protocol.Recover:
		b = append(b, `{"recover":{`...)
		for i, key := range sortedKeys(ev.Records) {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = j.typed(append(appendString(b, key), ':'), ev.Records[key]); err != nil {
				return nil, err
			}
		}
		return append(b, '}', '}'), nil
	case protocol.Receive:
		b = appendString(append(b, `{"receive":{"from":`...), string(ev.From))
		if b, err = j.typed(append(b, `,"message":`...), ev.Message); err != nil {
			return nil, err
		}
		return append(b, '}', '}'), nil
	case protocol.Expire:
		return append(appendString(append(b, `{"expire":`...), ev.Timer), '}'), nil
	case protocol.Input:
		if b, err = j.typed(append(b, `{"input":`...), ev.Value); err != nil {
			return nil, err
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("no machine knows the event %T", ev)
}

// typed appends a value as an object of one key, the name of its type.
func (j jsonLines) typed(b []byte, v any) ([]byte, error) {
	name, err := j.values.name(v)
	if err != nil {
		return nil, err
	}
	if b, err = j.values.append(append(appendString(append(b, '{'), name), ':'), v); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

func sortedKeys(r protocol.Records) []string {
	keys := make([]string, 0, len(r))
	for key := range r {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// appendString appends s as a JSON string. What is not UTF-8 is replaced.
func appendString(b []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(b, '"'), s...), '"')
	}
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // a string always encodes
		panic(err)
	}
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}

// parseHeader reads the first line.
func (jsonLines) parseHeader(line []byte) (Header, error) {
	var h jsonHeader
	if err := strict(line, &h); err != nil {
		return Header{}, err
	}
	if h.Trace != Version {
		return Header{}, fmt.Errorf("the trace is of version %d; this program reads version %d", h.Trace, Version)
	}
	return Header{Executor: h.Executor, System: h.System, Parameters: h.Parameters, Seed: h.Seed, Nodes: h.Nodes}, nil
}

// parse reads any other line.
func (j jsonLines) parse(line []byte) (e Event, err error) {
	var l jsonEvent
	if err := strict(line, &l); err != nil {
		return Event{}, err
	}
	if l.Truncated > 0 {
		return Event{}, errTruncated
	}
	e = Event{Scope: l.Scope, Node: l.Node, Peer: l.Peer, At: time.Duration(l.At), Message: l.Message}
	if e.Kind, err = kindOf(l.Kind); err != nil {
		return Event{}, err
	}
	if len(l.Value) > 0 {
		if e.Value, err = j.parseValue(e.Kind, l.Value); err != nil {
			return Event{}, fmt.Errorf("%s at %s: %w", e.Kind, e.Node, err)
		}
	}
	return e, nil
}

func (j jsonLines) parseValue(kind Kind, data []byte) (any, error) {
	switch shapes[kind] {
	case shapeStep:
		return j.parseStep(data)
	case shapeWrites:
		return j.parseWrites(data)
	case shapeTimer:
		var t jsonTimer
		err := strict(data, &t)
		return protocol.Timer{Name: t.Name, After: t.After}, err
	case shapeText:
		var s string
		err := strict(data, &s)
		return s, err
	case shapeTyped:
		return j.parseTyped(data)
	}
	return nil, errors.New("events of this kind have no value")
}

func (j jsonLines) parseStep(data []byte) (protocol.Event, error) {
	var s jsonStep
	if err := strict(data, &s); err != nil {
		return nil, err
	}
	switch {
	case s.Start != nil:
		return protocol.Start{}, nil
	case s.Recover != nil:
		return j.parseRecover(*s.Recover)
	case s.Receive != nil:
		m, err := j.parseTyped(s.Receive.Message)
		return protocol.Receive{From: s.Receive.From, Message: m}, err
	case s.Expire != nil:
		return protocol.Expire{Timer: *s.Expire}, nil
	case s.Input != nil:
		v, err := j.parseTyped(*s.Input)
		return protocol.Input{Value: v}, err
	}
	return nil, errors.New("the event is none of start, recover, receive, expire and input")
}

func (j jsonLines) parseRecover(data []byte) (protocol.Event, error) {
	var all map[string]json.RawMessage
	if err := strict(data, &all); err != nil {
		return nil, err
	}
	var records protocol.Records
	for key, raw := range all {
		record, err := j.parseTyped(raw)
		if err != nil {
			return nil, fmt.Errorf("record %q: %w", key, err)
		}
		if records == nil {
			records = protocol.Records{}
		}
		records[key] = record
	}
	return protocol.Recover{Records: records}, nil
}

func (j jsonLines) parseWrites(data []byte) (any, error) {
	var all []jsonWrite
	if err := strict(data, &all); err != nil {
		return nil, err
	}
	writes := make([]protocol.Write, len(all))
	for i, w := range all {
		writes[i].Key = w.Key
		if len(w.Record) == 0 {
			continue
		}
		record, err := j.parseTyped(w.Record)
		if err != nil {
			return nil, fmt.Errorf("record %q: %w", w.Key, err)
		}
		writes[i].Record = record
	}
	return writes, nil
}

func (j jsonLines) parseTyped(data []byte) (any, error) {
	var one map[string]json.RawMessage
	if err := strict(data, &one); err != nil {
		return nil, err
	}
	if len(one) != 1 {
		return nil, fmt.Errorf("a value is an object with one key, the name of its type; it has %d", len(one))
	}
	for name, raw := range one {
		return j.values.decode(name, raw)
	}
	return nil, nil
}
