package kv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// engine is Pebble, made to stop for good at the first failed write instead of ending the process
// or going on. From then on every operation fails, and nothing more reaches the directory: a
// database that cannot be closed in an orderly way must not disturb the one opened after it.
type engine struct {
	db     *pebble.DB
	lock   io.Closer
	log    *slog.Logger
	stop   sync.Once
	failed chan struct{} // closed when cause is set
	cause  error

	// The calls under way; close waits for them.
	mu     sync.Mutex
	calls  int
	closed bool
	idle   chan struct{} // closed when closed and calls is 0
	// closing is closed when close is called: waits end.
	closing chan struct{}
}

// How long close waits for a failed database, which may never answer.
const patience = 2 * time.Second

func openEngine(dir string, cfg Config) (*engine, error) {
	e := &engine{log: cfg.Logger, failed: make(chan struct{}), idle: make(chan struct{}), closing: make(chan struct{})}
	if err := makeDir(cfg.FS, dir); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, cfg.FS)
	if err != nil {
		return nil, fmt.Errorf("lock the directory (is it open in another process?): %w", err)
	}
	e.lock = lock
	e.db, err = pebble.Open(dir, e.options(cfg, lock))
	if err == nil {
		err = e.failure() // Pebble may carry on after what it holds for fatal
	}
	if err != nil {
		e.fail(err)
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *engine) options(cfg Config, lock *pebble.Lock) *pebble.Options {
	o := &pebble.Options{
		FS:                 fence{cfg.FS, e},
		Lock:               lock,
		Logger:             pebbleLogger{e},
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       16 << 20,
		CacheSize:          32 << 20,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { e.fail(fmt.Errorf("in the background: %w", err)) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// makeDir makes dir and whatever lacks above it, for this user alone, and forces the entries.
func makeDir(fs vfs.FS, dir string) error {
	var above []string
	for d := dir; ; d = fs.PathDir(d) {
		if _, err := fs.Stat(d); err == nil || d == fs.PathDir(d) {
			break
		}
		above = append(above, fs.PathDir(d))
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range above {
		f, err := fs.OpenDir(d)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("force the directory %s: %w", d, err)
		}
	}
	return nil
}

// fail stops the engine because of err. The first cause stays.
func (e *engine) fail(err error) {
	e.stop.Do(func() {
		e.cause = fmt.Errorf("%w: %w", ErrStopped, err)
		close(e.failed)
		e.log.Error("the store has stopped", "cause", err)
	})
}

// failure returns why the engine has stopped, or nil.
func (e *engine) failure() error {
	select {
	case <-e.failed:
		return e.cause
	default:
		return nil
	}
}

// enter begins a call, which must leave. It fails when the engine has stopped or is closed.
func (e *engine) enter() error {
	if err := e.failure(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.calls++
	return nil
}

func (e *engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls--
	if e.closed && e.calls == 0 {
		close(e.idle)
	}
}

// apply applies the batch atomically and releases it; where forced, it is stable then. After an
// error it is not known whether it is: only opening the store again tells.
func (e *engine) apply(b *pebble.Batch, forced bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.fail(fmt.Errorf("write: %v", p))
			err = e.failure()
		}
	}()
	if err := e.failure(); err != nil {
		return err
	}
	option := pebble.NoSync
	if forced {
		option = pebble.Sync
	}
	if err := e.db.Apply(b, option); err != nil {
		e.fail(err)
	}
	if err := e.failure(); err != nil { // Apply may return nil after the logger was told
		return err
	}
	return b.Close()
}

// get returns a copy of the value of key.
func (e *engine) get(key []byte) (value []byte, ok bool, err error) {
	found, closer, err := e.db.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, false, e.failure()
	case err != nil:
		return nil, false, err
	}
	value = append([]byte{}, found...)
	if err := closer.Close(); err != nil {
		return nil, false, err
	}
	return value, true, e.failure()
}

// each calls visit for the keys from from up to to, in order, until it returns false or an error.
// The slices are valid during the call.
func (e *engine) each(from, to []byte, visit func(key, value []byte) (bool, error)) (err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if more, err := visit(it.Key(), value); err != nil || !more {
			return err
		}
	}
	return errors.Join(it.Error(), e.failure())
}

// last returns the last key from from up to to, with its value; nil if there is none.
func (e *engine) last(from, to []byte) (key, value []byte, err error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return nil, nil, it.Error()
	}
	value, err = it.ValueAndErr()
	return bytes.Clone(it.Key()), bytes.Clone(value), err
}

// close waits for the calls under way and closes the database. Where it has failed, and does not
// answer, it is left behind, unable to write.
func (e *engine) close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	close(e.closing)
	if e.calls == 0 {
		close(e.idle)
	}
	e.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		<-e.idle
		done <- e.closeDB()
	}()
	closed := make(chan struct{})
	defer close(closed)
	var err error
	select {
	case err = <-done:
	case <-e.abandoned(closed):
		e.log.Warn("the failed database was left behind open, cut off from its directory")
	}
	if e.failure() != nil {
		err = nil // it has been told, and the disorder is its consequence
	}
	return errors.Join(err, e.lock.Close())
}

// abandoned returns a channel that is closed some time after the engine has failed, unless it is closed
// before.
func (e *engine) abandoned(closed <-chan struct{}) <-chan struct{} {
	over := make(chan struct{})
	go func() {
		select {
		case <-e.failed:
		case <-closed:
			return
		}
		select {
		case <-time.After(patience):
			close(over)
		case <-closed:
		}
	}()
	return over
}

func (e *engine) closeDB() (err error) {
	if e.db == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("close the database: %v", p)
		}
	}()
	return e.db.Close()
}

// pebbleLogger passes on what Pebble says. What it holds for fatal stops the engine, where its
// own logger would end the process.
type pebbleLogger struct{ e *engine }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.e.log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.e.log.Warn("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.e.fail(fmt.Errorf(format, args...))
}
