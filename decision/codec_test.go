package decision

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"assent/protocol/commit"
)

func noted() Entry {
	at := time.Date(2024, 2, 29, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	return Entry{
		ID: "tx-1", Decision: commit.Commit, By: "coordinator", Time: at,
		Branches: []Branch{{Resource: "orders", Evidence: []byte{0, 255}}, {Resource: "stock", Evidence: []byte{}}},
		Notes: []Note{
			{Kind: Heuristic, Time: at, Branch: "orders", Outcome: commit.Hazard, Reason: "nobody knows", Forced: true},
			{Kind: Resolved, Time: at, Branch: "orders", By: "operator Zoë"},
			{Kind: Finished, Time: at},
		},
	}
}

// What is encoded comes back as what a reader is to see.
func TestEncodingKeepsEntries(t *testing.T) {
	e := noted()
	data, err := e.Normal().Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e.Normal(), back); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if back.Time.Location() != time.UTC || !back.Time.Equal(e.Time) || back.Notes[0].Forced || back.Branches[1].Evidence != nil {
		t.Errorf("not normal: %+v", back)
	}
	for cut := range data {
		if _, err := DecodeEntry(data[:cut]); err == nil {
			t.Fatalf("the first %d of %d bytes are accepted", cut, len(data))
		}
	}
	if _, err := DecodeEntry(append(data, 0)); err == nil {
		t.Error("a byte too many is accepted")
	}
}

// Notes that are appended are found, in their order.
func TestNotesAreASequence(t *testing.T) {
	notes := noted().Normal().Notes
	var all []byte
	for i, n := range notes {
		more, err := EncodeNotes([]Note{n})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, more...)
		got, err := DecodeNotes(all)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(notes[:i+1], got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	if got, err := DecodeNotes(nil); err != nil || len(got) != 0 {
		t.Errorf("no notes: %v, %v", got, err)
	}
	if _, err := DecodeNotes(all[:len(all)-1]); err == nil {
		t.Error("a torn note is accepted")
	}
	few, err := notes[2].Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeNotes(bytes.Repeat(few, MaxNotes)); err != nil || len(got) != MaxNotes {
		t.Errorf("%d notes: %d, %v", MaxNotes, len(got), err)
	}
	if _, err := DecodeNotes(bytes.Repeat(few, MaxNotes+1)); err == nil {
		t.Errorf("%d notes are accepted", MaxNotes+1)
	}
}

func FuzzNotes(f *testing.F) {
	seed, err := EncodeNotes(noted().Normal().Notes)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		notes, err := DecodeNotes(data)
		if err != nil {
			return
		}
		again, err := EncodeNotes(notes)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeNotes(again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(notes, back, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("(-first +second):\n%s", d)
		}
	})
}
