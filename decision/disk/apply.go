package disk

import (
	"fmt"

	"assent/decision"
	"assent/protocol/commit"
)

// change is a record, with what its caller will be told.
type change struct {
	record
	entry *decision.Entry // what the body of a decide record says; it is not changed
	note  *decision.Note  // and that of a note record
	fresh bool            // there is no entry of its transaction
	err   error
}

// parse fills in what a change that was read from the log lacks.
func (c *change) parse() error {
	switch c.kind {
	case decideRecord:
		e, err := decision.DecodeEntry(c.body)
		if err != nil {
			return err
		}
		if e.ID != c.id {
			return fmt.Errorf("record of %q holds the entry of %q", c.id, e.ID)
		}
		c.entry = &e
	case noteRecord:
		n, err := decision.DecodeNote(c.body)
		if err != nil {
			return err
		}
		c.note = &n
	}
	return nil
}

// apply returns what c, recorded as seq at the time at (Unix milliseconds), makes of the entry was; nil
// stands for none.
func (c *change) apply(was *stored, seq uint64, at int64) (now *stored, err error) {
	switch c.kind {
	case decideRecord:
		now = &stored{id: c.id, status: c.entry.Status(), decided: seq, raw: c.body, known: c.entry}
	case noteRecord:
		if now, err = was.annotated(c.note); err != nil {
			return nil, err
		}
	case forgetRecord:
		if was == nil {
			return nil, decision.ErrNotFound
		}
	}
	if now != nil && now.status == decision.Done && now.done == 0 {
		now.done, now.doneAt = seq, at
	}
	return now, nil
}

// annotated returns the entry s with one more note.
func (s *stored) annotated(n *decision.Note) (*stored, error) {
	if s == nil {
		return nil, decision.ErrNotFound
	}
	e := *s.known
	if len(e.Notes) >= decision.MaxNotes {
		return nil, invalid("annotate", fmt.Errorf("%q has %d notes; no more are allowed", s.id, len(e.Notes)))
	}
	e.Notes = append(e.Notes[:len(e.Notes):len(e.Notes)], *n)
	now := *s
	now.raw, now.known = nil, &e
	if now.status = e.Status(); now.status != decision.Done {
		now.done, now.doneAt = 0, 0
	}
	return &now, nil
}

// apply applies changes that were recorded from seq on at the time at. loaded is what the index said of
// entries that are not recent; when version is not that of r any more, it may say otherwise by now, and apply does nothing and
// reports false.
func (r *recent) apply(changes []*change, seq uint64, at int64, loaded map[commit.TransactionID]*stored, version uint64) bool {
	r.Lock()
	defer r.Unlock()
	if r.dropped != version {
		return false
	}
	for i, c := range changes {
		was, elsewhere := r.get(c.id)
		if elsewhere {
			was = loaded[c.id]
		}
		now, err := c.apply(was, seq+uint64(i), at)
		if c.err = err; err == nil {
			r.set(c.id, was, now)
		}
	}
	if n := len(changes); n > 0 {
		r.active.last = seq + uint64(n) - 1
	}
	return true
}
