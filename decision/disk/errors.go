package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"assent/decision"
	"assent/resource"
)

// Errors that Open returns, wrapped in a *resource.Error that carries a hint.
var (
	// ErrForeign says that the directory holds something else than a decision log.
	ErrForeign = errors.New("the directory is not a decision log")
	// ErrFormat says that the log was written in a format that this program does not know.
	ErrFormat = errors.New("the decision log has an unknown format")
	// ErrLocked says that another process, or another Log of this one, holds the directory.
	ErrLocked = errors.New("the decision log is in use")
)

// DamageError says that what the log holds is not what was written.
type DamageError struct {
	// Path is the file, or the directory of the index.
	Path string
	// Offset is the place in the file, in bytes; -1 where it is not known.
	Offset int64
	// Key is the key in the index; empty where the damage is not in a value.
	Key string
	// Reason says what was found.
	Reason string
	// Err is the cause. It may be nil.
	Err error
}

// Error returns the place and what was found there.
func (e *DamageError) Error() string {
	text := "damage in " + e.Path
	if e.Offset >= 0 {
		text += fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Key != "" {
		text += fmt.Sprintf(" at key %q", e.Key)
	}
	return text + ": " + e.Reason
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// invalid says that a request is wrong, and why.
func invalid(op string, err error) error {
	return &resource.Error{Code: resource.Invalid, Op: op, Err: err}
}

func busy(most int) error {
	return &resource.Error{
		Code: resource.Capacity, Op: "decide", Detail: fmt.Sprintf("%d calls are waiting for the disk", most),
		Hint: "the disk does not keep up; wait and repeat the call",
	}
}

// stop says that the log decides nothing now, because of cause.
func (l *Log) stop(op string, cause error) error {
	code, hint := l.advice(cause)
	return &resource.Error{
		Code: code, Op: op, Hint: hint + "; nothing that was decided is lost",
		Err: fmt.Errorf("%w: %w", decision.ErrStopped, cause),
	}
}

// explain adds to err what a person can do about it. Errors that are explained stay as they are.
func (l *Log) explain(op string, err error) error {
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return err
	}
	code, hint := l.advice(err)
	return &resource.Error{Code: code, Op: op, Hint: hint, Err: err}
}

func (l *Log) advice(err error) (resource.Code, string) {
	_, damaged := errors.AsType[*DamageError](err)
	switch {
	case errors.Is(err, ErrLocked):
		return resource.Unavailable, "end the other process that uses " + l.dir + ", or give this one a directory of its own"
	case errors.Is(err, ErrForeign):
		return resource.Invalid, "name an empty directory, or one that holds a decision log"
	case errors.Is(err, ErrFormat):
		return resource.Unsupported, "use the version of this program that wrote " + l.dir + ", or a newer one"
	case damaged:
		return resource.Unavailable, "do not delete anything; look for a failing disk, and restore " + l.dir +
			" from a copy that is not older than the last decision"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return resource.Capacity, "make room on the disk that holds " + l.dir
	case errors.Is(err, fs.ErrPermission):
		return resource.Permission, "give this user the right to read and write " + l.dir
	}
	return resource.Unavailable, "look at the disk that holds " + l.dir
}
