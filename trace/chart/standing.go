package chart

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"assent/protocol"
	"assent/trace"
)

// standing is where a node stands in its transaction, as far as the trace tells.
type standing uint8

// The standings, in the order in which they follow one another.
const (
	working standing = iota
	inDoubt
	preAborted
	preCommitted
	aborted
	committed
	hazard
	down
)

var standingNames = [...]string{"working", "in doubt", "pre-aborted", "pre-committed", "aborted", "committed", "hazard", "down"}

// String returns the standing's name.
func (s standing) String() string { return standingNames[s] }

// class is the standing's class in the style sheet.
func (s standing) class() string { return strings.ReplaceAll(s.String(), " ", "-") }

// final reports whether the standing is one that a correct node does not leave.
func (s standing) final() bool { return s == aborted || s == committed || s == hazard }

// tells returns where a node stands after e, or false where e says nothing about it.
func tells(e trace.Event) (standing, bool) {
	switch v := e.Value.(type) {
	case protocol.Recover:
		if e.Kind != trace.Deliver {
			return working, false
		}
		best := working
		for _, key := range slices.Sorted(maps.Keys(v.Records)) {
			if s, ok := fromRecord(v.Records[key]); ok {
				best = max(best, s)
			}
		}
		return best, true
	case protocol.Receive:
		if e.Kind == trace.Deliver {
			return fromMessage(v.Message)
		}
	case protocol.Input:
		if e.Kind == trace.Deliver {
			return fromInput(v.Value)
		}
	case []protocol.Write:
		if e.Kind == trace.Forced {
			return fromWrites(v)
		}
	case trace.Raw:
		if e.Kind == trace.Emit {
			return fromMessage(v)
		}
	}
	return working, false
}

func fromWrites(writes []protocol.Write) (s standing, ok bool) {
	for _, w := range writes {
		if found, is := fromRecord(w.Record); is {
			s, ok = max(s, found), true
		}
	}
	return s, ok
}

// words are the fields by which values tell where a node stands.
type words struct {
	name                           string
	Decision, Vote, Outcome, State string
	Ready                          bool
}

// wordsOf reads the words of a value. A field of another type is as good as none.
func wordsOf(v any) words {
	raw, ok := v.(trace.Raw)
	if !ok {
		return words{}
	}
	w := words{name: strings.ToLower(raw.Name[strings.LastIndexByte(raw.Name, '.')+1:])}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw.JSON, &fields) != nil {
		return w
	}
	for name, to := range map[string]any{"Decision": &w.Decision, "Vote": &w.Vote, "Outcome": &w.Outcome,
		"State": &w.State, "Ready": &w.Ready} {
		_ = json.Unmarshal(fields[name], to)
	}
	return w
}

func (w words) decision() (standing, bool) {
	switch w.Decision {
	case "commit":
		return committed, true
	case "abort":
		return aborted, true
	}
	return working, false
}

// fromRecord: a record of a site in doubt is a promise, a tombstone the promise never to prepare.
func fromRecord(v any) (standing, bool) {
	w := wordsOf(v)
	s, ok := w.decision()
	switch {
	case w.Outcome == "hazard":
		return hazard, true
	case ok:
		return s, true
	case w.State == "pre-committed", w.name == "peerrecord" && w.Ready:
		return preCommitted, true
	case w.State == "pre-aborted":
		return preAborted, true
	case w.State == "prepared", w.name == "preparedrecord", w.name == "peerrecord":
		return inDoubt, true
	case strings.Contains(w.name, "tombstone"):
		return aborted, true
	}
	return working, false
}

// fromMessage: a decision that one is told, or tells upwards. A proposal is none.
func fromMessage(v any) (standing, bool) {
	w := wordsOf(v)
	switch {
	case strings.HasPrefix(w.name, "propose"):
		return working, false
	case strings.HasPrefix(w.name, "contradict"):
		return hazard, true
	case w.name == "precommit":
		return preCommitted, true
	case w.name == "preabort":
		return preAborted, true
	}
	return w.decision()
}

// fromInput: what a node is told by the register above it or the branch below it.
func fromInput(v any) (standing, bool) {
	w := wordsOf(v)
	switch {
	case w.Outcome == "hazard":
		return hazard, true
	case w.Outcome == "committed":
		return committed, true
	case w.Outcome == "rolled back", w.Vote == "no":
		return aborted, true
	case w.Vote == "yes":
		return inDoubt, true
	}
	return w.decision()
}
