package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/resource"
	"assent/resource/resourcetest"
)

func open(t testing.TB, dir string, cfg Config) *Resource {
	t.Helper()
	r, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// crash returns a store opened on what r's disk, a crashable one, holds for certain, and on a
// part of what it may have lost.
func crash(t testing.TB, r *Resource, keep int) *Resource {
	t.Helper()
	fs := r.cfg.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(1, 2))})
	cfg := r.cfg
	cfg.FS = fs
	return open(t, r.dir, cfg)
}

func number(value []byte) int64 {
	if len(value) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(value))
}

func add(ctx context.Context, b resource.Branch, key string, delta int64) error {
	t := b.(*Tx)
	value, _, err := t.GetForUpdate(ctx, []byte(key))
	if err != nil {
		return err
	}
	return t.Put(ctx, []byte(key), binary.BigEndian.AppendUint64(nil, uint64(number(value)+delta)))
}

func get(ctx context.Context, b resource.Branch, key string) (int64, error) {
	value, _, err := b.(*Tx).Get(ctx, []byte(key))
	return number(value), err
}

func read(ctx context.Context, r resource.Resource, key string) (n int64, err error) {
	err = r.(*Resource).View(ctx, func(v *View) error {
		value, _, err := v.Get([]byte(key))
		n = number(value)
		return err
	})
	return n, err
}

func harness(openStore func(*testing.T) resource.Resource) resourcetest.Harness {
	return resourcetest.Harness{
		Open: openStore,
		Add:  add, Get: get, Read: read,
		Break: func(ctx context.Context, b resource.Branch) {
			_ = b.(*Tx).Put(ctx, nil, nil) // an empty key is invalid
		},
		Serializable: true,
	}
}

func TestConformanceOnCrashableDisk(t *testing.T) {
	h := harness(func(t *testing.T) resource.Resource {
		return open(t, "data/store", Config{FS: vfs.NewCrashableMem()})
	})
	h.Crash = func(t *testing.T, r resource.Resource) resource.Resource {
		return crash(t, r.(*Resource), 0)
	}
	resourcetest.Run(t, h)
}

func TestConformanceOnFiles(t *testing.T) {
	h := harness(func(t *testing.T) resource.Resource {
		return open(t, t.TempDir()+"/a/b/store", Config{})
	})
	h.Crash = func(t *testing.T, r resource.Resource) resource.Resource {
		old := r.(*Resource)
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t, old.dir, old.cfg)
	}
	resourcetest.Run(t, h)
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Config{})
	_, err := Open(dir, Config{})
	if resource.CodeOf(err) != resource.Unavailable {
		t.Fatalf("a second open: got error %v; want one with the code %q", err, resource.Unavailable)
	}
}

// A store that is closed leaves no goroutine behind that waits for its failure.
func TestCloseLeavesNothing(t *testing.T) {
	const stores = 30
	for range stores {
		r, err := Open("store", Config{FS: vfs.NewCrashableMem()})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	left := stores
	for wait := 0; left > 0 && wait < 500; wait++ { // they end at once, but in their own time
		stacks := make([]byte, 4<<20)
		left = strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*engine).abandoned.func")
		time.Sleep(time.Millisecond)
	}
	if left >= stores {
		t.Errorf("%d goroutines wait for the failure of a store that is closed", left)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	b, err := r.Begin(t.Context(), resource.ID{Owner: "o", Transaction: "t", Branch: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := add(t.Context(), b, "a", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("work: got error %v; want ErrClosed", err)
	}
	if _, _, err := r.Peek([]byte("a")); !errors.Is(err, ErrClosed) {
		t.Errorf("peek: got error %v; want ErrClosed", err)
	}
	if _, err := r.Recover(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("recover: got error %v; want ErrClosed", err)
	}
}
