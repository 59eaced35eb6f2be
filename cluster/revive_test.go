package cluster

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"assent/internal/ports"
	"assent/protocol"
	"assent/protocol/membership"
)

// A node whose records cannot be written says nothing more until they can, and then goes on with what is there.
func TestRecordsThatFail(t *testing.T) {
	address := ports.Address(t)
	n, err := Open(Config{Name: "test", Self: "a", Members: map[protocol.NodeID]Member{"a": {Address: address}},
		Dir: filepath.Join(t.TempDir(), "cluster"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	set := func(value string) {
		for end := time.Now().Add(20 * time.Second); ; {
			_, err := n.Change(t.Context(), membership.Change{Kind: membership.Set, Key: "k", Value: value})
			if err == nil {
				return
			}
			if !errors.Is(err, ErrUnsure) || time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	set("before")
	first := n.life.Load()
	first.records.mu.Lock()
	if err := first.records.journal.Close(); err != nil { // as if the disk had gone
		t.Fatal(err)
	}
	first.records.mu.Unlock()
	set("after")
	s := n.State()
	if v, _ := s.Setting("k"); v != "after" || n.life.Load() == first {
		t.Errorf("k is %q", v)
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// Where the disk does not answer, what others say does not pile up without end.
func TestRecordsThatHang(t *testing.T) {
	n, err := Open(Config{Name: "test", Self: "a", Members: map[protocol.NodeID]Member{"a": {Address: ports.Address(t)}},
		Dir: filepath.Join(t.TempDir(), "cluster"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := n.life.Load()
	change := func(key string) error {
		_, err := n.Change(t.Context(), membership.Change{Kind: membership.Set, Key: key, Value: "v"})
		return err
	}
	for end := time.Now().Add(20 * time.Second); ; {
		if err := change("before"); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	question, err := n.codec.Encode(fetch{From: 1})
	if err != nil {
		t.Fatal(err)
	}
	l.records.mu.Lock() // as if the disk did not answer
	changed := make(chan error, 1)
	go func() { changed <- change("meanwhile") }()
	var said, heard atomic.Int64
	say := func() {
		said.Add(1)
		go func() {
			n.receive("b", append([]byte{machined}, question...))
			heard.Add(1)
		}()
	}
	until := func(what string, is func() bool) {
		for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Error(what)
				return
			}
		}
	}
	until("nothing waits for the disk", func() bool {
		for range 64 {
			say()
		}
		return l.loop.Waiting() >= mostWaiting
	})
	for range 2 * mostWaiting {
		say()
	}
	until("what is said is not heard", func() bool { return heard.Load() >= said.Load()-1 }) // one may be the one who waits
	if w := l.loop.Waiting(); w > 2*mostWaiting {
		t.Errorf("%d wait", w)
	}
	l.records.mu.Unlock()
	if err := <-changed; err != nil && !errors.Is(err, ErrUnsure) {
		t.Error(err)
	}
}
