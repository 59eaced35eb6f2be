package trace

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"assent/protocol"
)

// bufferSize is how much a Writer keeps before it writes.
const bufferSize = 64 << 10

// keptLine is the greatest line whose memory is used again.
const keptLine = 16 << 10

// encoding is one of the two forms of a trace. Its methods append to what they are given.
type encoding interface {
	header([]byte, Header) []byte
	time([]byte, time.Duration) []byte
	event([]byte, Event) ([]byte, error)
	truncated([]byte, int64) []byte
}

// Writer writes a trace. It is an Observer and safe for concurrent use. Events stand in the trace
// in the order in which they were observed. Equal events give equal bytes.
//
// It buffers whole lines: what was flushed survives the end of the process, and a process that
// dies without Close leaves no half of a line behind unless it dies within a write.
type Writer struct {
	enc   encoding
	began time.Time // zero: the time of an event is taken as it is
	limit int64
	lean  bool
	lines sync.Pool // of *[]byte, in which lines are made

	mu      sync.Mutex
	out     io.Writer
	buf     []byte
	size    int64 // of what was written and what is in buf
	full    bool  // the limit is hit
	closed  bool
	err     error
	scratch []byte
}

var _ Observer = (*Writer)(nil)

// settings are what options change.
type settings struct {
	text     bool
	began    time.Time
	limit    int64
	size     int64
	headless bool
	lean     bool
}

// Option changes how a Writer writes.
type Option func(*settings)

// Text makes the writer write text for people instead of JSON lines.
func Text() Option { return func(s *settings) { s.text = true } }

// Since makes the writer set the time of each event, counted from began.
func Since(began time.Time) Option { return func(s *settings) { s.began = began } }

// Lean makes the writer leave out the value of each Stepped, which is that of the Deliver before it.
func Lean() Option { return func(s *settings) { s.lean = true } }

// Limit bounds the size of the trace in bytes. An event that would exceed it is not written, nor is
// any after it; a last line says so. Defaults to DefaultLimit.
func Limit(bytes int64) Option { return func(s *settings) { s.limit = bytes } }

// Continue makes the writer go on with a trace of the given size in bytes that has its header.
func Continue(size int64) Option {
	return func(s *settings) { s.headless, s.size = true, size }
}

// NewWriter returns a writer of a trace to w. The codec knows the types of the values; without one
// (nil) only Raw values can be written. It fails on a header that is out of bounds.
func NewWriter(w io.Writer, codec *protocol.Codec, h Header, options ...Option) (*Writer, error) {
	if err := h.validate(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	s := settings{limit: DefaultLimit}
	for _, o := range options {
		o(&s)
	}
	t := &Writer{out: w, began: s.began, limit: s.limit, size: s.size, enc: jsonLines{newValues(codec)}}
	t.lean, t.lines.New = s.lean, func() any { return new([]byte) }
	if s.text {
		t.enc = &textLines{values: newValues(codec)}
	}
	head := t.enc.header(nil, h)
	if !s.headless {
		t.append(head)
	}
	return t, nil
}

// Observe adds e to the trace. An event that cannot be written ends the trace: Flush and Close
// return why.
func (w *Writer) Observe(e Event) {
	if w.lean && e.Kind == Stepped {
		e.Value = nil
	}
	space := w.lines.Get().(*[]byte)
	defer w.lines.Put(space)
	line, err := w.enc.event((*space)[:0], e)
	if cap(line) <= keptLine {
		*space = line
	}
	if err == nil {
		err = e.validate()
	}
	if err == nil && len(line) > MaxLine-64 {
		err = fmt.Errorf("its line has %d bytes; at most %d are allowed", len(line), MaxLine)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.full || w.closed {
		return
	}
	if err != nil {
		w.err = fmt.Errorf("trace: %s at %s: %w", e.Kind, e.Node, err)
		return
	}
	at := e.At
	if !w.began.IsZero() {
		at = max(0, time.Since(w.began))
	}
	w.scratch = append(w.enc.time(w.scratch[:0], at), line...)
	if w.size+int64(len(w.scratch)) > w.limit {
		w.full = true
		w.append(w.enc.truncated(nil, w.limit))
		w.flush()
		return
	}
	w.append(w.scratch)
}

// append adds whole lines to the buffer. The caller holds w.mu.
func (w *Writer) append(lines []byte) {
	if len(w.buf)+len(lines) > bufferSize {
		w.flush()
	}
	w.buf = append(w.buf, lines...)
	w.size += int64(len(lines))
}

// flush writes the buffer. The caller holds w.mu.
func (w *Writer) flush() {
	if len(w.buf) > 0 && w.err == nil {
		if _, err := w.out.Write(w.buf); err != nil {
			w.err = fmt.Errorf("trace: %w", err)
		}
	}
	w.buf = w.buf[:0]
}

// Flush writes what is buffered and returns the first error of the trace, of this call or an
// earlier one.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.err
	w.flush()
	return errors.Join(err, w.err)
}

// Close flushes and ends the trace: events that are observed later are dropped. It does not close
// what the trace is written to.
func (w *Writer) Close() error {
	err := w.Flush()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return err
}

// Truncated reports whether the trace has hit its limit.
func (w *Writer) Truncated() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full
}
