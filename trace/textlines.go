package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"assent/protocol"
)

// textMark begins every trace in text.
const textMark = "# assent trace "

// textLines is the encoding of a trace as text. docs/format/trace.md is its legend.
type textLines struct {
	values values
	width  int // of the column of nodes
}

func (t *textLines) header(b []byte, h Header) []byte {
	b = fmt.Appendf(b, "%s%d\n", textMark, Version)
	line := func(words ...string) {
		b = append(b, '#')
		for i, w := range words {
			b = append(b, ' ')
			if i == 0 {
				b = append(b, w...)
			} else {
				b = appendWord(b, w)
			}
		}
		b = append(b, '\n')
	}
	if h.Executor != "" {
		line("executor", h.Executor)
	}
	if h.System != "" {
		line("system", h.System)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Parameters)) {
		line("parameter", name, h.Parameters[name])
	}
	if h.Seed != 0 {
		line("seed", strconv.FormatUint(h.Seed, 10))
	}
	for _, n := range h.Nodes {
		line("node", string(n))
		t.width = min(24, max(t.width, len(n)))
	}
	return append(b, "#\n#      seconds scope node kind #message peer value\n"...)
}

// time appends seconds with nine decimals, or 0.
func (t *textLines) time(b []byte, at time.Duration) []byte {
	if at == 0 {
		return fmt.Appendf(b, "%14s", "0")
	}
	return fmt.Appendf(b, "%4d.%09d", at/time.Second, at%time.Second)
}

func (t *textLines) truncated(b []byte, limit int64) []byte {
	return fmt.Appendf(b, "truncated %d\n", limit)
}

// event appends what follows the time of e.
func (t *textLines) event(b []byte, e Event) ([]byte, error) {
	b = appendWord(append(b, ' '), e.Scope)
	start := len(b)
	b = pad(appendWord(append(b, ' '), string(e.Node)), start+1+t.width)
	start = len(b)
	b = pad(append(append(b, ' '), e.Kind.String()...), start+10)
	start = len(b)
	if e.Message != 0 {
		b = strconv.AppendUint(append(b, ' ', '#'), e.Message, 10)
	}
	b = pad(b, start+5)
	if e.Peer != "" {
		way := " from "
		if e.Kind == Send {
			way = " to "
		}
		b = appendWord(append(b, way...), string(e.Peer))
	}
	if e.Value != nil {
		var err error
		if b, err = t.value(append(b, ' '), e); err != nil {
			return nil, err
		}
	}
	return append(bytes.TrimRight(b, " "), '\n'), nil
}

func (t *textLines) value(b []byte, e Event) (_ []byte, err error) {
	switch v := e.Value.(type) {
	case protocol.Event:
		return t.step(b, v)
	case []protocol.Write:
		if len(v) == 0 {
			return append(b, "nothing"...), nil
		}
		for i, w := range v {
			if i > 0 {
				b = append(b, ' ')
			}
			if w.Record == nil {
				b = appendWord(append(b, "delete "...), w.Key)
				continue
			}
			b = append(appendWord(append(b, "put "...), w.Key), ' ')
			if b, err = t.typed(b, w.Record); err != nil {
				return nil, err
			}
		}
		return b, nil
	case protocol.Timer:
		if v.After == 0 {
			return appendWord(append(b, "disarm "...), v.Name), nil
		}
		b = appendWord(append(b, "arm "...), v.Name)
		return append(append(b, ' '), v.After.String()...), nil
	case string:
		return appendString(b, v), nil
	}
	return t.typed(b, e.Value)
}

func (t *textLines) step(b []byte, ev protocol.Event) (_ []byte, err error) {
	switch ev := ev.(type) {
	case protocol.Start:
		return append(b, "start"...), nil
	case protocol.Recover:
		b = append(b, "recover"...)
		for _, key := range sortedKeys(ev.Records) {
			b = append(appendWord(append(b, ' '), key), ' ')
			if b, err = t.typed(b, ev.Records[key]); err != nil {
				return nil, err
			}
		}
		return b, nil
	case protocol.Receive:
		b = append(appendWord(append(b, "receive "...), string(ev.From)), ' ')
		return t.typed(b, ev.Message)
	case protocol.Expire:
		return appendWord(append(b, "expire "...), ev.Timer), nil
	case protocol.Input:
		return t.typed(append(b, "input "...), ev.Value)
	}
	return nil, fmt.Errorf("no machine knows the event %T", ev)
}

func (t *textLines) typed(b []byte, v any) ([]byte, error) {
	name, err := t.values.name(v)
	if err != nil {
		return nil, err
	}
	return t.values.append(appendWord(b, name), v)
}

// pad fills b with blanks up to length n.
func pad(b []byte, n int) []byte {
	for len(b) < n {
		b = append(b, ' ')
	}
	return b
}

// appendWord appends s as it is, if it is a word of plain characters, else as a JSON string. No
// text at all is "-".
func appendWord(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	if s == "-" || strings.IndexFunc(s, func(r rune) bool { return !plainRune(r) }) >= 0 {
		return appendString(b, s)
	}
	return append(b, s...)
}

// plainRune reports whether r may stand in a word without quotes.
func plainRune(r rune) bool {
	return r < utf8.RuneSelf && (r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' ||
		strings.ContainsRune("-_.:/@+*", r))
}

// parseHeader reads a header's line into h. Lines that say nothing to it are remarks.
func (t *textLines) parseHeader(h *Header, line []byte) error {
	s := scanner{rest: line[1:]}
	var words []string
	for len(words) < 3 {
		s.blanks()
		if len(s.rest) == 0 {
			break
		}
		w, err := s.word()
		if err != nil {
			return nil // a remark
		}
		words = append(words, w)
	}
	if len(words) < 2 {
		return nil
	}
	switch {
	case words[0] == "executor":
		h.Executor = words[1]
	case words[0] == "system":
		h.System = words[1]
	case words[0] == "node":
		h.Nodes = append(h.Nodes, protocol.NodeID(words[1]))
	case words[0] == "seed":
		seed, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return fmt.Errorf("the seed %q is no number of 64 bits", words[1])
		}
		h.Seed = seed
	case words[0] == "parameter" && len(words) == 3:
		if h.Parameters == nil {
			h.Parameters = map[string]string{}
		}
		h.Parameters[words[1]] = words[2]
	}
	return nil
}

// parse reads the line of an event.
func (t *textLines) parse(line []byte) (e Event, err error) {
	s := scanner{rest: line}
	at, err := s.word()
	if err != nil {
		return Event{}, err
	}
	if at == "truncated" {
		return Event{}, errTruncated
	}
	if e.At, err = parseSeconds(at); err != nil {
		return Event{}, err
	}
	var node, kind string
	for _, to := range []*string{&e.Scope, &node, &kind} {
		if *to, err = s.word(); err != nil {
			return Event{}, err
		}
	}
	e.Node = protocol.NodeID(node)
	if e.Kind, err = kindOf(kind); err != nil {
		return Event{}, err
	}
	if number, ok := s.after("#"); ok {
		if e.Message, err = strconv.ParseUint(number, 10, 64); err != nil {
			return Event{}, fmt.Errorf("%q is no number of a message", "#"+number)
		}
	}
	if s.keyword("to") || s.keyword("from") {
		peer, err := s.word()
		if err != nil {
			return Event{}, err
		}
		e.Peer = protocol.NodeID(peer)
	}
	if s.blanks(); len(s.rest) == 0 {
		return e, nil
	}
	if e.Value, err = t.parseValue(e.Kind, &s); err != nil {
		return Event{}, fmt.Errorf("%s at %s: %w", e.Kind, e.Node, err)
	}
	if s.blanks(); len(s.rest) > 0 {
		return Event{}, fmt.Errorf("%q stands after the end of the event", clip(s.rest))
	}
	return e, nil
}

func (t *textLines) parseValue(kind Kind, s *scanner) (any, error) {
	switch shapes[kind] {
	case shapeStep:
		return t.parseStep(s)
	case shapeWrites:
		return t.parseWrites(s)
	case shapeTimer:
		return parseTimer(s)
	case shapeText:
		return s.word()
	case shapeTyped:
		return t.parseTyped(s)
	}
	return nil, fmt.Errorf("events of this kind have no value, and there is %q", clip(s.rest))
}

func (t *textLines) parseStep(s *scanner) (protocol.Event, error) {
	what, err := s.word()
	if err != nil {
		return nil, err
	}
	switch what {
	case "start":
		return protocol.Start{}, nil
	case "recover":
		var r protocol.Recover
		for s.blanks(); len(s.rest) > 0; s.blanks() {
			key, err := s.word()
			if err != nil {
				return nil, err
			}
			record, err := t.parseTyped(s)
			if err != nil {
				return nil, err
			}
			if r.Records == nil {
				r.Records = protocol.Records{}
			}
			r.Records[key] = record
		}
		return r, nil
	case "receive":
		from, err := s.word()
		if err != nil {
			return nil, err
		}
		m, err := t.parseTyped(s)
		return protocol.Receive{From: protocol.NodeID(from), Message: m}, err
	case "expire":
		name, err := s.word()
		return protocol.Expire{Timer: name}, err
	case "input":
		v, err := t.parseTyped(s)
		return protocol.Input{Value: v}, err
	}
	return nil, fmt.Errorf("the event is %q and none of start, recover, receive, expire and input", what)
}

func (t *textLines) parseWrites(s *scanner) (any, error) {
	writes := []protocol.Write{}
	if s.keyword("nothing") {
		return writes, nil
	}
	for s.blanks(); len(s.rest) > 0; s.blanks() {
		put := s.keyword("put")
		if !put && !s.keyword("delete") {
			return nil, fmt.Errorf("a write begins with put or delete, not with %q", clip(s.rest))
		}
		key, err := s.word()
		if err != nil {
			return nil, err
		}
		w := protocol.Write{Key: key}
		if put {
			if w.Record, err = t.parseTyped(s); err != nil {
				return nil, err
			}
		}
		writes = append(writes, w)
	}
	return writes, nil
}

func parseTimer(s *scanner) (any, error) {
	arm := s.keyword("arm")
	if !arm && !s.keyword("disarm") {
		return nil, fmt.Errorf("a timer is armed or disarmed: arm NAME DURATION or disarm NAME, not %q", clip(s.rest))
	}
	name, err := s.word()
	if err != nil || !arm {
		return protocol.Timer{Name: name}, err
	}
	text, err := s.until(' ')
	if err != nil {
		return nil, err
	}
	after, err := time.ParseDuration(text)
	if err != nil || after == 0 {
		return nil, fmt.Errorf("the timer %q is armed for %q, which is no duration", name, text)
	}
	return protocol.Timer{Name: name, After: after}, nil
}

func (t *textLines) parseTyped(s *scanner) (any, error) {
	name, err := s.word()
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(s.rest))
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return nil, fmt.Errorf("after %s there is no JSON: %q", name, clip(s.rest))
	}
	s.rest = s.rest[d.InputOffset():]
	return t.values.decode(name, raw)
}

// parseSeconds reads seconds with up to nine decimals.
func parseSeconds(text string) (time.Duration, error) {
	whole, decimals, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseUint(whole, 10, 63)
	if err == nil && len(decimals) <= 9 && seconds <= math.MaxInt64/uint64(time.Second) {
		var nanoseconds uint64
		if decimals != "" {
			nanoseconds, err = strconv.ParseUint(decimals+strings.Repeat("0", 9-len(decimals)), 10, 63)
		}
		if at := seconds*uint64(time.Second) + nanoseconds; err == nil && at <= math.MaxInt64 {
			return time.Duration(at), nil
		}
	}
	return 0, fmt.Errorf("%q is no time in seconds", clip([]byte(text)))
}

// scanner takes a line apart.
type scanner struct{ rest []byte }

var errLineEnds = errors.New("the line ends too early")

func (s *scanner) blanks() { s.rest = bytes.TrimLeft(s.rest, " \t") }

// word takes a word or a string in quotes.
func (s *scanner) word() (string, error) {
	s.blanks()
	if len(s.rest) == 0 {
		return "", errLineEnds
	}
	if s.rest[0] == '"' {
		d := json.NewDecoder(bytes.NewReader(s.rest))
		var text string
		if err := d.Decode(&text); err != nil {
			return "", fmt.Errorf("%q is no string", clip(s.rest))
		}
		s.rest = s.rest[d.InputOffset():]
		return text, nil
	}
	n := bytes.IndexFunc(s.rest, func(r rune) bool { return !plainRune(r) })
	if n < 0 {
		n = len(s.rest)
	}
	if n == 0 {
		return "", fmt.Errorf("a word must stand where %q is", clip(s.rest))
	}
	text := string(s.rest[:n])
	s.rest = s.rest[n:]
	if text == "-" {
		return "", nil
	}
	return text, nil
}

// until takes what stands before the next byte that is end, or before the end of the line.
func (s *scanner) until(end byte) (string, error) {
	s.blanks()
	text, _, _ := bytes.Cut(s.rest, []byte{end})
	if len(text) == 0 {
		return "", errLineEnds
	}
	s.rest = s.rest[len(text):]
	return string(text), nil
}

// keyword takes the word w, if it is next and stands by itself.
func (s *scanner) keyword(w string) bool {
	s.blanks()
	after, ok := bytes.CutPrefix(s.rest, []byte(w))
	if !ok || len(after) > 0 && after[0] != ' ' && after[0] != '\t' {
		return false
	}
	s.rest = after
	return true
}

// after takes the word behind the prefix, if the prefix is next.
func (s *scanner) after(prefix string) (string, bool) {
	s.blanks()
	if !bytes.HasPrefix(s.rest, []byte(prefix)) {
		return "", false
	}
	s.rest = s.rest[len(prefix):]
	text, err := s.until(' ')
	return text, err == nil
}

// clip shortens what an error shows.
func clip(b []byte) string {
	const most = 40
	if len(b) <= most {
		return string(b)
	}
	return string(b[:most]) + "…"
}
