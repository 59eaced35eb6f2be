// Package disk keeps the decision log in a directory of this machine: a log of segments that many
// callers force together, and an index on Pebble of what was decided, written behind it.
//
// The package promises that nobody is told a decision before it is stable; that whatever was told
// is found again after any crash of the process or the machine; that damage to what was told is
// reported with its place and never passed over in silence; and that after a full disk or a failed
// sync nothing more is decided until the log has been opened again, which it does by itself when
// the disk recovers. It does not survive the loss of the disk: put the directory on storage that
// is as dependable as the databases whose transactions are decided here.
//
// The layout of the directory is described in docs/format/decision-log.md.
package disk

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Config says how a log is kept. The zero value is good for use.
type Config struct {
	// FS is the file system that holds the log. Everything goes through it; see SlowSync.
	// Defaults to vfs.Default, the operating system's.
	FS vfs.FS

	// Retention is for how long an entry is kept for information after it is Done. Entries that
	// are not Done are kept for ever. Defaults to 24 hours.
	Retention time.Duration

	// RetainCount is the greatest number of Done entries that are kept; those of the last second or two
	// may be found beside them. Where there are more, the oldest go before their time. Each takes some
	// 40 bytes of memory. Defaults to 100,000.
	RetainCount int

	// SegmentBytes is the size of the log's files, in bytes. Two or three of them exist at a time. What
	// they hold is in memory as well until the index has flushed it. Only the end of a segment waits, for
	// the flush of the one before, so that is up to about two segments' worth. At least 64 KiB. Defaults
	// to 8 MiB.
	SegmentBytes int64

	// MaxWaiting is the greatest number of calls that wait for a sync at a time; more are refused
	// with resource.Capacity. Defaults to 65,536.
	MaxWaiting int

	// RetryInterval is the least time between two attempts of a stopped log to open itself again.
	// An attempt is made only when the log is used. Defaults to one second.
	RetryInterval time.Duration

	// Logger receives what an operator should know: that the log has stopped, why, and that it
	// decides again. Defaults to slog.Default().
	Logger *slog.Logger

	// Clock tells the time by which Retention is counted. Defaults to time.Now.
	Clock func() time.Time

	// IdleTime is how long the log waits for more before it forces notes that nobody asked to be
	// forced, and testifies that what it wrote last is stable. Defaults to 20 ms.
	IdleTime time.Duration

	// Random is what the owner of a new log is drawn from. It must not fail. Anything but the
	// default is for repeatable runs (package sim). Defaults to crypto/rand.Reader.
	Random io.Reader
}

// validate fills in the defaults and reports what is wrong with c.
func (c *Config) validate() error {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Retention == 0 {
		c.Retention = 24 * time.Hour
	}
	if c.RetainCount == 0 {
		c.RetainCount = 100_000
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 8 << 20
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1 << 16
	}
	if c.RetryInterval == 0 {
		c.RetryInterval = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.IdleTime == 0 {
		c.IdleTime = 20 * time.Millisecond
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	switch {
	case c.Retention < 0:
		return fmt.Errorf("retention is %v; it cannot be negative", c.Retention)
	case c.RetainCount < 0:
		return fmt.Errorf("retain count is %d; it cannot be negative", c.RetainCount)
	case c.SegmentBytes < 64<<10 || c.SegmentBytes > 1<<30:
		return fmt.Errorf("segment size is %d bytes; it must be between 64 KiB and 1 GiB", c.SegmentBytes)
	case c.MaxWaiting < 0:
		return fmt.Errorf("the greatest number of waiting calls is %d; it cannot be negative", c.MaxWaiting)
	case c.IdleTime < 0:
		return fmt.Errorf("idle time is %v; it cannot be negative", c.IdleTime)
	case c.RetryInterval < 0:
		return fmt.Errorf("retry interval is %v; it cannot be negative", c.RetryInterval)
	}
	return nil
}
