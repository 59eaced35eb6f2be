package kv

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/protocol/commit"
	"assent/resource"
)

// sickDisk is a file system on which operations of some kinds fail while it is sick.
type sickDisk struct {
	*errorfs.FS
	sick atomic.Bool
}

func newSickDisk(fs vfs.FS, fails func(errorfs.Op) bool) *sickDisk {
	d := &sickDisk{}
	d.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if d.sick.Load() && fails(op) {
			return fmt.Errorf("%s: %w", op.Path, syscall.ENOSPC)
		}
		return nil
	}))
	return d
}

// When the disk fails, nothing is acknowledged that may be lost, the process lives, and the store
// goes on in the same process once the disk is well and it is opened again.
func TestDiskFails(t *testing.T) {
	kinds := map[string]func(errorfs.Op) bool{
		"force": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
		},
		"write":    func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite },
		"new log":  func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".log") },
		"new file": func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate },
		"manifest": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "MANIFEST")
		},
		"any change": func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
	}
	for name, fails := range kinds {
		t.Run(name, func(t *testing.T) {
			memory := vfs.NewCrashableMem()
			disk := newSickDisk(memory, fails)
			r, err := Open("store", Config{FS: disk})
			if err != nil {
				t.Fatal(err)
			}
			good := begin(t, r, "good")
			put(t, good, "good", "v")
			finish(t, good, commit.Committed)
			doubt := begin(t, r, "doubt")
			put(t, doubt, "doubt", "v")
			voted := prepare(t, doubt)

			disk.sick.Store(true)
			acknowledged, err := writeUntilFailure(t, r)
			if !errors.Is(err, ErrStopped) || resource.CodeOf(err) != resource.Unavailable || resource.HintOf(err) == "" {
				t.Fatalf("got %v; want ErrStopped, unavailable, with a hint", err)
			}
			stopped(t, r, voted)
			check(t, crash(t, on(memory), 0), acknowledged, voted)
			if err := r.Close(); err != nil {
				t.Errorf("close: %v", err)
			}

			disk.sick.Store(false)
			r = open(t, "store", Config{FS: disk})
			check(t, r, acknowledged, voted)
			check(t, crash(t, on(memory), 0), acknowledged, voted)
		})
	}
}

// on is the store as crash wants it: on the file system that is below the sick one.
func on(fs vfs.FS) *Resource { return &Resource{dir: "store", cfg: Config{FS: fs}} }

// writeUntilFailure commits branches until one fails, and returns the keys of those that did not.
func writeUntilFailure(t *testing.T, r *Resource) (keys []string, err error) {
	value := strings.Repeat("v", 1<<20)
	for i := range 100 {
		b, err := r.Begin(t.Context(), resource.ID{Owner: "owner", Transaction: fmt.Sprint("w", i), Branch: "kv"})
		if err != nil {
			return keys, err
		}
		tx := b.(*Tx)
		key := fmt.Sprint("w-", i)
		if err := tx.Put(t.Context(), []byte(key), []byte(value)); err != nil {
			return keys, err
		}
		if outcome, err := tx.CommitOnePhase(t.Context()); err != nil {
			if outcome != commit.Hazard {
				t.Errorf("commit failed with the outcome %v", outcome)
			}
			return keys, err
		}
		keys = append(keys, key)
	}
	return keys, errors.New("nothing failed")
}

// stopped checks that every call is refused.
func stopped(t *testing.T, r *Resource, voted resource.Prepared) {
	t.Helper()
	_, begun := r.Begin(t.Context(), resource.ID{Owner: "o", Transaction: "late", Branch: "kv"})
	_, committed := r.Commit(t.Context(), voted)
	_, rolledBack := r.Rollback(t.Context(), resource.Prepared{ID: resource.ID{Owner: "o", Transaction: "n", Branch: "kv"}})
	_, listed := r.Recover(t.Context())
	_, _, peeked := r.Peek([]byte("good"))
	_, examined := r.Doctor(t.Context())
	for what, err := range map[string]error{"begin": begun, "commit": committed, "rollback": rolledBack,
		"recover": listed, "peek": peeked, "doctor": examined} {
		if !errors.Is(err, ErrStopped) || resource.CodeOf(err) != resource.Unavailable {
			t.Errorf("%s: got %v; want ErrStopped", what, err)
		}
	}
}

func check(t *testing.T, r *Resource, acknowledged []string, voted resource.Prepared) {
	t.Helper()
	for _, key := range append(acknowledged, "good") {
		if _, ok, err := r.Peek([]byte(key)); !ok || err != nil {
			t.Errorf("%s was committed: got %v, %v", key, ok, err)
		}
	}
	list, err := r.Recover(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != voted.ID {
		t.Errorf("recover: got %v, %v; want %s", list, err, voted.ID)
	}
}

// The engine itself says that a write failed, even though Pebble is told that it went well.
func TestApplyFailsWithItsForce(t *testing.T) {
	disk := newSickDisk(vfs.NewMem(), func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync })
	r := open(t, "store", Config{FS: disk})
	disk.sick.Store(true)
	b := r.engine.db.NewBatch()
	if err := b.Set([]byte("x"), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.engine.apply(b, true); !errors.Is(err, ErrStopped) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v; want ErrStopped, because of ENOSPC", err)
	}
}

func TestDirectoryIsForThisUserAlone(t *testing.T) {
	r := open(t, t.TempDir()+"/new/store", Config{})
	info, err := r.cfg.FS.Stat(r.dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the mode is %v, %v; want 0700", info.Mode(), err)
	}
}

func TestDamagedRecordIsNamed(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, Config{})
	tx := begin(t, r, "victim")
	put(t, tx, "k", "v")
	prepare(t, tx)
	b := r.engine.db.NewBatch()
	if err := b.Set(keyOf(preparedKey, tx.ID().String()), []byte("\xa3garbage"), nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.engine.apply(b, true), r.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Config{})
	if err == nil || !strings.Contains(err.Error(), tx.ID().String()) || resource.HintOf(err) == "" {
		t.Errorf("got %v; want an error that names %s, with a hint", err, tx.ID())
	}
}

func TestForeignDatabaseIsRefused(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, Config{})
	b := r.engine.db.NewBatch()
	if err := errors.Join(b.Delete([]byte{metaKey}, nil), b.Set([]byte("x"), nil, nil), r.engine.apply(b, true), r.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Config{}); err == nil || resource.HintOf(err) == "" {
		t.Errorf("got %v; want an error with a hint", err)
	}
}
