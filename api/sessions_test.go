package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"assent"
)

// A session that nobody has ended who set out to is rolled back for idleness, also where calls have come since.
func TestNobodyEndsIt(t *testing.T) {
	expired := make(chan *session, 16)
	all := newSessions(Options{MaxOpen: 1, IdleTimeout: 50 * time.Millisecond}, func(sess *session) { expired <- sess })
	tx := &assent.Tx{}
	all.add(tx, "alice")
	sess, _ := all.find(tx.ID(), caller{name: "alice"})
	_, done, err := sess.work(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if mine, err := sess.seize(gone); mine || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, %v; want an operation under way", mine, err)
	}
	done()
	if err := sess.take(); err == nil {
		t.Error("the session was to be ended")
	}
	<-expired
}
