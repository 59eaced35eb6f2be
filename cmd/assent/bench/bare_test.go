package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"assent/decision/paxos"
)

// newDeciding returns a way that decides at d.
func newDeciding(d decider) *deciding { return &deciding{decider: d, prefix: "test"} }

// When a decision has been made it is in the first file, and in one of the two others.
func TestBareMajority(t *testing.T) {
	dir := t.TempDir()
	d, err := openBareMajority(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	w := newDeciding(d)
	held := func(member int) int64 {
		info, err := os.Stat(filepath.Join(dir, fmt.Sprint("file-", member)))
		if err != nil {
			t.Error(err)
			return 0
		}
		return info.Size()
	}
	const callers, each = 4, 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				before := held(1)
				if err := w.transact(t.Context(), 0); err != nil {
					t.Error(err)
				}
				if others := max(held(2), held(3)); others <= before {
					t.Errorf("the first file held %d bytes before a decision, and the others hold %d after it", before, others)
				}
			}
		})
	}
	wg.Wait()
	if n := held(1); n < callers*each*paxosBeside {
		t.Errorf("%d decisions take %d bytes", callers*each, n)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// majorityOfHands returns a bare majority whose followers' ends of the connections are the test's.
func majorityOfHands(t *testing.T) (m *bareMajority, far [2]net.Conn) {
	t.Helper()
	m = &bareMajority{told: make(chan struct{}, 1)}
	m.life, m.end = context.WithCancelCause(t.Context())
	var err error
	if m.own, err = createPlainFile(filepath.Join(t.TempDir(), "file")); err != nil {
		t.Fatal(err)
	}
	for i := range m.others {
		f := &follower{}
		if f.conn, far[i], err = connected(); err != nil {
			t.Fatal(err)
		}
		m.others[i] = f
		m.working.Go(func() { m.end(m.listen(f)) })
		t.Cleanup(func() { _ = far[i].Close() })
	}
	return m, far
}

func TestBareMajorityWaitsForOneFollower(t *testing.T) {
	m, far := majorityOfHands(t)
	done := make(chan error, 1)
	go func() { done <- m.force([]byte("decision")) }()
	for _, stable := range []uint64{3, 8} {
		select {
		case err := <-done:
			t.Fatalf("it went on with nothing stable at a follower: %v", err)
		default:
		}
		if err := binary.Write(far[1], binary.BigEndian, stable); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := make([]byte, 8)
	if _, err := io.ReadFull(far[0], got); err != nil || string(got) != "decision" {
		t.Errorf("the other one was sent %q, %v", got, err)
	}
	if err := m.close(); err != nil {
		t.Error(err)
	}
}

func TestBareMajorityWithoutFollowers(t *testing.T) {
	m, far := majorityOfHands(t)
	if err := errors.Join(far[0].Close(), far[1].Close()); err != nil {
		t.Fatal(err)
	}
	d := newBare(m, 0)
	for range 2 {
		if err := newDeciding(d).transact(t.Context(), 0); err == nil {
			t.Error("a decision was made by one of three")
		}
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// The bare majority writes about what decision/paxos writes.
func TestBareMajorityWritesAsMuch(t *testing.T) {
	const decisions = 16
	members, err := openMembers(t.Context(), t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	first := members.Log.(*paxos.Log)
	before := first.Stats().Bytes
	w := newDeciding(members)
	w.prefix = members.prefix() + "01JBD6QX8M2W7Z5K3T9N4R1C0V"
	for range decisions {
		if err := w.transact(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := members.close(); err != nil {
		t.Error(err)
	}
	paxosWrites := first.Stats().Bytes - before // all of it: the two others may have been ahead

	dir := t.TempDir()
	d, err := openBareMajority(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	w.decider = d
	for range decisions {
		if err := w.transact(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(dir, "file-1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d and %d bytes a decision", paxosWrites/decisions, info.Size()/decisions)
	// On a busy machine several decisions share a header, and an acceptor that is asked again writes again.
	if bare := uint64(info.Size()); bare > 2*paxosWrites || bare < paxosWrites/4 {
		t.Errorf("a bare majority writes %d bytes for a decision, and decision/paxos %d", bare/decisions, paxosWrites/decisions)
	}
}
