package trace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"assent/protocol"
)

// flushEvery bounds how much of a trace in a file is lost with the process.
const flushEvery = 100 * time.Millisecond

// beganParameter is the parameter of a header that says, by the wall clock, when a live run began.
const beganParameter = "began"

// File is the trace of a live run in a file, in JSON lines. It is an Observer and safe for
// concurrent use. What was observed is in the file at the latest 100 ms later; what is in the file
// survives the death of the process, and not that of the machine, for nothing is forced.
type File struct {
	*Writer
	file *os.File
	stop chan struct{}
	done sync.WaitGroup
}

// OpenFile opens the trace in the file path, which is made with mode 0600 where there is none. A
// trace that is there is continued, for it is an earlier process of the same run that wrote it:
// OpenFile cuts off what that one left half written and adds a Crash of every node, for whatever
// it had in memory is gone. One process at a time may have the file open.
//
// The times of the events count from when the run began, by the wall clock of the first process.
// The size is bounded by Limit. It fails on a file that holds something else.
func OpenFile(path string, codec *protocol.Codec, h Header, options ...Option) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	f, err := openFile(file, codec, h, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(err, file.Close()))
	}
	f.done.Go(f.flushing)
	return f, nil
}

func openFile(file *os.File, codec *protocol.Codec, h Header, options []Option) (*File, error) {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	fresh := size == 0
	if fresh {
		parameters := map[string]string{beganParameter: time.Now().Format(time.RFC3339Nano)}
		for name, value := range h.Parameters {
			parameters[name] = value
		}
		h.Parameters = parameters
	} else if h, size, err = resume(file, size); err != nil {
		return nil, err
	}
	began, err := time.Parse(time.RFC3339Nano, h.Parameters[beganParameter])
	if err != nil {
		return nil, errors.New("trace: it is not the trace of a live run, for it does not say when it began")
	}
	options = append(options[:len(options):len(options)], Since(began), Lean())
	if !fresh {
		options = append(options, Continue(size))
	}
	w, err := NewWriter(file, codec, h, options...)
	if err != nil {
		return nil, err
	}
	if !fresh {
		for _, n := range h.Nodes {
			w.Observe(Event{Node: n, Kind: Crash})
		}
	}
	return &File{Writer: w, file: file, stop: make(chan struct{})}, w.Flush()
}

// resume reads the header of a trace that is there and cuts off a last line without an end, or one
// that says that the trace hit its limit: whoever goes on hits it again, or has a greater one.
func resume(file *os.File, size int64) (Header, int64, error) {
	r, err := NewReader(io.NewSectionReader(file, 0, size), nil)
	if err != nil {
		return Header{}, 0, err
	}
	if r.text || r.Header().Executor != Live {
		return Header{}, 0, errors.New("trace: it is not the trace of a live run in JSON lines; give the name of a new file")
	}
	tail := make([]byte, min(size, MaxLine))
	if _, err := file.ReadAt(tail, size-int64(len(tail))); err != nil {
		return Header{}, 0, err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 {
		return Header{}, 0, fmt.Errorf("trace: its last line has more than %d bytes", MaxLine)
	}
	if last := bytes.LastIndexByte(tail[:whole-1], '\n') + 1; bytes.HasPrefix(tail[last:], []byte(`{"truncated"`)) {
		whole = last
	}
	size -= int64(len(tail) - whole)
	if err := file.Truncate(size); err != nil {
		return Header{}, 0, err
	}
	_, err = file.Seek(size, io.SeekStart)
	return r.Header(), size, err
}

func (f *File) flushing() {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = f.Flush() // Close tells the error
		case <-f.stop:
			return
		}
	}
}

// Close ends the trace, closes the file and returns the first error of the trace.
func (f *File) Close() error {
	close(f.stop)
	f.done.Wait()
	return errors.Join(f.Writer.Close(), f.file.Close())
}
