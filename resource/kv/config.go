package kv

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Config says how a store behaves. The zero value is ready to use.
type Config struct {
	// FS is the file system that holds the directory. Tests pass one that crashes. Defaults to
	// the operating system's.
	FS vfs.FS

	// LockTimeout is the longest wait for one lock. Deadlocks within the store are found at once;
	// this ends those that pass through other resources. At most an hour. Defaults to 5 s.
	LockTimeout time.Duration

	// MaxKey is the greatest length of a key in bytes, at most 64 KiB. Defaults to 4 KiB.
	MaxKey int

	// MaxValue is the greatest length of a value in bytes, at most 64 MiB. Defaults to 1 MiB.
	MaxValue int

	// MaxBranchSize bounds what one branch holds in memory, and writes at once: the bytes of its
	// keys, values and locks, with an allowance of 64 bytes for each. At most 1 GiB. Defaults to
	// 64 MiB.
	MaxBranchSize int

	// MaxBranches is how many branches may be unfinished at once, prepared ones included.
	// Defaults to 10,000.
	MaxBranches int

	// KeepFor is how long the store remembers the outcome of a finished branch: for that long it
	// can prove to a coordinator what became of the branch, and it refuses to begin the branch
	// anew. Defaults to seven days.
	KeepFor time.Duration

	// KeepOutcomes is how many outcomes the store remembers at most, whatever their age. One
	// takes some 300 bytes on disk. Defaults to 1,000,000.
	KeepOutcomes int

	// Logger hears of failures, and of Pebble's business at the debug level. Defaults to none.
	Logger *slog.Logger

	// Clock tells the time at which branches prepare and finish. Defaults to time.Now.
	Clock func() time.Time

	// Random is what the store's identity and its ballots are drawn from. It must not fail, and must
	// be safe for concurrent use. Anything but the default is for repeatable runs (package sim).
	// Defaults to crypto/rand.Reader.
	Random io.Reader
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	defaultTo(&c.LockTimeout, 5*time.Second)
	defaultTo(&c.MaxKey, 4<<10)
	defaultTo(&c.MaxValue, 1<<20)
	defaultTo(&c.MaxBranchSize, 64<<20)
	defaultTo(&c.MaxBranches, 10_000)
	defaultTo(&c.KeepFor, 7*24*time.Hour)
	defaultTo(&c.KeepOutcomes, 1_000_000)
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	for _, f := range [...]struct {
		name        string
		value, most int64
	}{
		{"LockTimeout", int64(c.LockTimeout), int64(time.Hour)},
		{"MaxKey", int64(c.MaxKey), 64 << 10},
		{"MaxValue", int64(c.MaxValue), 64 << 20},
		{"MaxBranchSize", int64(c.MaxBranchSize), 1 << 30},
		{"MaxBranches", int64(c.MaxBranches), 1 << 24},
		{"KeepFor", int64(c.KeepFor), 1<<63 - 1},
		{"KeepOutcomes", int64(c.KeepOutcomes), 1 << 32},
	} {
		if f.value < 1 || f.value > f.most {
			return fmt.Errorf("config: %s is %d; it must be from 1 to %d", f.name, f.value, f.most)
		}
	}
	return nil
}
