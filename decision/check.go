package decision

import (
	"fmt"
	"unicode/utf8"

	"assent/protocol/commit"
	"assent/resource"
)

// Check reports why no Log accepts e, or nil. Every implementation's Decide refuses what Check
// refuses, with Check's reason, before anything is written.
func (e Entry) Check() error {
	if err := CheckID(e.ID); err != nil {
		return err
	}
	if e.Decision != commit.Commit && e.Decision != commit.Abort {
		return fmt.Errorf("%v is not a decision; commit and abort are", e.Decision)
	}
	if len(e.Branches) > MaxBranches {
		return fmt.Errorf("%d branches; at most %d are allowed", len(e.Branches), MaxBranches)
	}
	for _, b := range e.Branches {
		if err := resource.CheckName(b.Resource); err != nil {
			return err
		}
		if len(b.Evidence) > resource.MaxEvidence {
			return fmt.Errorf("evidence of branch %q has %d bytes; at most %d are allowed",
				b.Resource, len(b.Evidence), resource.MaxEvidence)
		}
	}
	if len(e.Notes) > MaxNotes {
		return fmt.Errorf("%d notes; at most %d are allowed", len(e.Notes), MaxNotes)
	}
	for _, n := range e.Notes {
		if err := n.Check(); err != nil {
			return err
		}
	}
	return checkTexts(e.By, e.Reason)
}

// Check reports why no Log accepts n, or nil. Every implementation's Annotate refuses what Check
// refuses, with Check's reason, before anything is written.
func (n Note) Check() error {
	switch n.Kind {
	case Finished:
		if n.Branch != "" {
			return fmt.Errorf("a finished note concerns no single branch, but names %.80q", n.Branch)
		}
	case Heuristic, Resolved:
		if err := resource.CheckName(n.Branch); err != nil {
			return fmt.Errorf("%v note: %w", n.Kind, err)
		}
	default:
		return fmt.Errorf("%d is not a kind of note", uint8(n.Kind))
	}
	if n.Outcome > commit.Hazard {
		return fmt.Errorf("%d is not an outcome", uint8(n.Outcome))
	}
	return checkTexts(n.By, n.Reason)
}

// CheckID reports why id cannot name a transaction, or nil: it must be a valid part of a
// resource.ID.
func CheckID(id commit.TransactionID) error {
	return resource.ID{Owner: "o", Transaction: string(id), Branch: "b"}.Validate()
}

func checkTexts(by, reason string) error {
	for _, t := range [...]struct{ what, text string }{{"by", by}, {"reason", reason}} {
		if len(t.text) > MaxReason {
			return fmt.Errorf("%s has %d bytes; at most %d are allowed", t.what, len(t.text), MaxReason)
		}
		if !utf8.ValidString(t.text) {
			return fmt.Errorf("%s is not UTF-8: %.40q", t.what, t.text)
		}
	}
	return nil
}
