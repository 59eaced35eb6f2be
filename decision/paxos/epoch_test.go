package paxos

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestEpochsThatCannotBe: an epoch that breaks a rule is refused with the reason.
func TestEpochsThatCannotBe(t *testing.T) {
	with := func(change func(*Epoch)) Epoch {
		e := Epoch{Number: 2,
			Members: []Member{{"a", "s1", 1, 0, 0}, {"b", "s2", 1, 1, 0}, {"c", "", 1, 2, 0}},
			Next:    []Member{{"b", "s2", 1, 1, 0}, {"c", "s3", 1, 2, 0}, {"d", "s4", 1, 3, 0}, {"e", "s5", 0, 4, 0}}}
		change(&e)
		return e
	}
	if err := with(func(*Epoch) {}).Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Epoch){
		"no number":                  func(e *Epoch) { e.Number = 0 },
		"0 bytes":                    func(e *Epoch) { e.Members[1].Node = "" },
		"name of 300 bytes":          func(e *Epoch) { e.Members[1].Storage = strings.Repeat("s", 300) },
		"place 64":                   func(e *Epoch) { e.Next[2].Place = 64 },
		"-1 votes":                   func(e *Epoch) { e.Members[0].Votes = -1 },
		"a and b have the same":      func(e *Epoch) { e.Members[1].Place = 0 },
		"a and d have the same":      func(e *Epoch) { e.Next[2].Place = 0 },
		"a is a member twice":        func(e *Epoch) { e.Members[1] = Member{"a", "s1", 1, 7, 0} },
		"stands twice among":         func(e *Epoch) { e.Next[3] = e.Next[2] },
		"has place 1 and then":       func(e *Epoch) { e.Next[0].Place = 9 },
		"change to members without":  func(e *Epoch) { e.Next[0].Storage = "s9" },
		"no members":                 func(e *Epoch) { e.Members = nil },
		"epoch 2: invalid quorum sy": func(e *Epoch) { e.Next = e.Next[3:] },
	} {
		if err := with(change).Validate(); !errors.Is(err, ErrEpoch) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
}

// TestNamed: who is in both sets is named once, with the storage that is known.
func TestNamed(t *testing.T) {
	e := Epoch{Number: 2, Members: []Member{{"c", "", 1, 2, 0}, {"a", "s1", 1, 0, 0}}, Next: []Member{{"d", "s4", 1, 3, 0}, {"c", "s3", 2, 2, 0}}}
	if got, want := e.named(), []Member{{"a", "s1", 1, 0, 0}, {"c", "s3", 2, 2, 0}, {"d", "s4", 1, 3, 0}}; !slices.Equal(got, want) {
		t.Errorf("got %v; want %v", got, want)
	}
}

// TestSameEpoch: to enter the epoch that is, or one that is over, changes nothing.
func TestSameEpoch(t *testing.T) {
	g := newGroup(t, 1, Config{Storage: "named"})
	l := g.log("a")
	if l.Storage() != "named" {
		t.Errorf("the storage is called %q", l.Storage())
	}
	if err := l.Enter(t.Context(), g.cfg.Epoch); err != nil {
		t.Error(err)
	}
	if err := l.Enter(t.Context(), Epoch{Number: 9}); !errors.Is(err, ErrEpoch) {
		t.Errorf("without members: got %v; want %v", err, ErrEpoch)
	}
	if got := l.Epoch(); !got.equal(g.cfg.Epoch) {
		t.Errorf("the epoch is %v; want %v", got, g.cfg.Epoch)
	}
}
