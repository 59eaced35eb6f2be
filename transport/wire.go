package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// wire is a connection, below TLS where there is TLS. It can be written to without waiting, and
// remembers when it was last heard of.
type wire struct {
	net.Conn
	raw   syscall.RawConn // nil where the connection has none
	epoch time.Time
	heard atomic.Int64 // nanoseconds since epoch

	// patience is for how long Read waits, or a quarter less; 0 for ever. It is set before there are
	// two goroutines.
	patience time.Duration
	bounded  time.Duration // when the deadline of Read was set last, since epoch

	eager atomic.Bool // Write does not wait
	mu    sync.Mutex  // one writer at a time: TLS may write an alert of its own
	late  []byte      // what an eager Write could not write

	attempt      attempt
	attemptWrite func(fd uintptr) bool // doAttempt, made once
}

func newWire(conn net.Conn, epoch time.Time) *wire {
	w := &wire{Conn: conn, epoch: epoch}
	w.hear()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return w
	}
	// A connection without it works: the streams' own pings find out too, only less surely where both
	// sides are busy.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
	w.raw, _ = tcp.SyscallConn()
	w.attemptWrite = w.doAttempt
	return w
}

func (w *wire) hear() { w.heard.Store(int64(time.Since(w.epoch))) }

// Read is net.Conn's. It does not count for its patience how long the reader takes between two calls.
func (w *wire) Read(p []byte) (int, error) {
	if w.patience > 0 {
		if now := time.Since(w.epoch); w.bounded == 0 || now-w.bounded > w.patience/4 {
			w.bounded = now
			if err := w.Conn.SetReadDeadline(time.Now().Add(w.patience)); err != nil {
				return 0, err
			}
		}
	}
	n, err := w.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("nothing was heard of it for %v", w.patience)
	}
	if n > 0 {
		w.hear()
	}
	return n, err
}

// Write is net.Conn's, but does not wait while the wire is eager: what cannot be written at once is
// kept for flush.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.eager.Load() {
		if err := w.flushLocked(); err != nil {
			return 0, err
		}
		return w.Conn.Write(p)
	}
	n := 0
	if len(w.late) == 0 && w.raw != nil {
		var err error
		if n, err = w.tryWrite(p); err != nil {
			return n, err
		}
	}
	w.late = append(w.late, p[n:]...)
	return len(p), nil
}

// flush writes what is late, and waits for that.
func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushLocked()
}

func (w *wire) flushLocked() error {
	if len(w.late) == 0 {
		return nil
	}
	n, err := w.Conn.Write(w.late)
	w.late = w.late[n:]
	if len(w.late) == 0 {
		w.late = nil
	}
	return err
}

// behind reports whether something is late.
func (w *wire) behind() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.late) > 0
}

// tryWrite writes what can be written without waiting.
func (w *wire) tryWrite(p []byte) (n int, err error) {
	for len(p) > n {
		w.attempt = attempt{rest: p[n:]}
		err = w.raw.Write(w.attemptWrite)
		wrote, werr := w.attempt.wrote, w.attempt.err
		w.attempt = attempt{}
		switch {
		case err != nil:
			return n, err
		case werr == syscall.EAGAIN:
			return n, nil
		case werr == syscall.EINTR:
		case werr != nil:
			return n, werr
		case wrote == 0:
			return n, io.ErrShortWrite
		default:
			n += wrote
		}
	}
	return n, nil
}

// attempt is one call of write(2) and what came of it. It is a part of the wire so that a message costs
// no memory.
type attempt struct {
	rest  []byte
	wrote int
	err   error
}

func (w *wire) doAttempt(fd uintptr) bool {
	w.attempt.wrote, w.attempt.err = writeDescriptor(fd, w.attempt.rest)
	return true // also where it would block: waiting is not our business
}
