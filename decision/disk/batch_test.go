package disk

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"assent/decision"
	"assent/protocol/commit"
)

// A note on many transactions is on each that has an entry, and survives a restart.
func TestAnnotateAll(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	l, err := Open(dir, Config{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	var ids []commit.TransactionID
	for i := range 50 {
		id := commit.TransactionID(fmt.Sprint("tx", i))
		ids = append(ids, id)
		if i%5 == 0 {
			continue // of this there is no entry
		}
		if _, err := l.Decide(ctx, decision.Entry{ID: id, Decision: commit.Commit, Time: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	note := decision.Note{Kind: decision.Finished, Time: time.Unix(2, 0)}
	if err := l.AnnotateAll(ctx, ids, note); err != nil {
		t.Fatal(err)
	}
	if err := l.AnnotateAll(ctx, nil, note); err != nil {
		t.Error(err)
	}
	if err := l.AnnotateAll(ctx, append(ids[:1:1], ""), note); err == nil {
		t.Error("an empty id is taken")
	}
	if err := l.AnnotateAll(ctx, ids, decision.Note{}); err == nil {
		t.Error("an empty note is taken")
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.AnnotateAll(over, ids, note); !errors.Is(err, context.Canceled) {
		t.Errorf("in a context that has ended: %v", err)
	}
	for range 2 {
		for i, id := range ids {
			e, err := l.Lookup(ctx, id)
			if i%5 == 0 {
				if !errors.Is(err, decision.ErrNotFound) {
					t.Fatalf("%s: %+v, %v", id, e, err)
				}
			} else if err != nil || e.Status() != decision.Done || len(e.Notes) != 1 {
				t.Fatalf("%s: %+v, %v", id, e, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.AnnotateAll(ctx, ids, note); !errors.Is(err, decision.ErrClosed) {
			t.Errorf("a log that is closed: %v", err)
		}
		if l, err = Open(dir, Config{Logger: quiet()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
