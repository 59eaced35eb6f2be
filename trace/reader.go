package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"assent/protocol"
)

// errTruncated is what a line gives that says that the trace grew too long.
var errTruncated = errors.New("the trace was cut off at its limit")

// Reader reads a trace in either encoding. It is for one goroutine.
type Reader struct {
	in        *bufio.Reader
	parse     func(line []byte) (Event, error)
	text      bool
	header    Header
	number    int  // of the line read last
	whole     bool // the line read last has an end
	truncated bool
	err       error
}

// NewReader returns a reader of the trace in r, and reads its header. With a codec (not nil) each
// value is of a registered type; a name that is not registered is an error. Without one (nil) all
// messages, records and values are Raw.
func NewReader(r io.Reader, codec *protocol.Codec) (*Reader, error) {
	t := &Reader{in: bufio.NewReaderSize(r, bufferSize)}
	line, err := t.line()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("trace: it is empty")
	case err != nil:
		return nil, err
	case bytes.HasPrefix(line, []byte("{")):
		j := jsonLines{newValues(codec)}
		t.header, err = j.parseHeader(line)
		t.parse = j.parse
	case bytes.HasPrefix(line, []byte(textMark)):
		x := &textLines{values: newValues(codec)}
		t.text, t.parse = true, x.parse
		err = t.readHeader(x, line)
	default:
		err = fmt.Errorf("a trace begins with %q or %q, not with %q", `{"trace":1`, textMark+"1", clip(line))
	}
	if err == nil {
		err = t.header.validate()
	}
	if err != nil {
		return nil, t.fail(err)
	}
	return t, nil
}

// readHeader reads the lines of a header in text, of which line is the first.
func (t *Reader) readHeader(x *textLines, line []byte) error {
	version := string(bytes.TrimSpace(line[len(textMark):]))
	if version != strconv.Itoa(Version) {
		return fmt.Errorf("the trace is of version %q; this program reads version %d", version, Version)
	}
	for range 4 * MaxHeader {
		next, err := t.in.Peek(1)
		if err != nil || next[0] != '#' {
			return nil // Next meets the error again
		}
		if line, err = t.line(); err != nil {
			return err
		}
		if err := x.parseHeader(&t.header, line); err != nil {
			return err
		}
	}
	return errors.New("the header is too long")
}

// Header returns what the trace says of its run.
func (t *Reader) Header() Header { return t.header }

// Truncated reports, after io.EOF, whether the trace was cut off at the limit of its writer.
func (t *Reader) Truncated() bool { return t.truncated }

// Line returns the number of the line that was read last, from 1.
func (t *Reader) Line() int { return t.number }

// Next returns the next event, or io.EOF at the end of the trace. Any other error names the line.
// It wraps io.ErrUnexpectedEOF if the last line is cut off, as a process leaves it that died while it
// wrote.
func (t *Reader) Next() (Event, error) {
	if t.err != nil {
		return Event{}, t.err
	}
	e, err := t.next()
	if errors.Is(err, errTruncated) {
		t.truncated, err = true, io.EOF
	}
	t.err = err
	return e, err
}

func (t *Reader) next() (Event, error) {
	for {
		line, err := t.line()
		if err != nil {
			return Event{}, err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 || t.text && line[0] == '#' {
			continue
		}
		e, err := t.parse(line)
		if errors.Is(err, errTruncated) {
			return Event{}, err
		}
		if err == nil {
			err = e.validate()
		}
		if err == nil {
			return e, nil
		}
		if !t.whole {
			err = fmt.Errorf("the last line is cut off: %w: %w", io.ErrUnexpectedEOF, err)
		}
		return Event{}, t.fail(err)
	}
}

// line returns the next line without its end, or io.EOF.
func (t *Reader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := t.in.ReadSlice('\n')
		if len(part) == 0 && len(line) == 0 && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if len(line) == 0 {
			t.number++
		}
		line = append(line, part...)
		switch {
		case len(line) > MaxLine:
			return nil, t.fail(fmt.Errorf("the line is longer than %d bytes", MaxLine))
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, t.fail(err)
		case !utf8.Valid(line):
			return nil, t.fail(errors.New("the line is not UTF-8"))
		}
		t.whole = err == nil
		return bytes.TrimSuffix(line, []byte("\n")), nil
	}
}

// fail says in which line err is.
func (t *Reader) fail(err error) error {
	t.err = fmt.Errorf("trace: line %d: %w", t.number, err)
	return t.err
}
