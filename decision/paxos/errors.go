package paxos

import (
	"errors"
	"io/fs"
	"syscall"

	"assent/resource"
)

// explain adds to err what a person can do about it. Errors that are explained stay as they are.
func (l *Log) explain(op string, err error) error {
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return err
	}
	code, hint := l.advice(err)
	return &resource.Error{Code: code, Op: op, Hint: hint, Err: err}
}

func (l *Log) advice(err error) (resource.Code, string) {
	dir := l.cfg.Dir
	_, damaged := errors.AsType[*DamageError](err)
	switch {
	case errors.Is(err, ErrLocked):
		return resource.Unavailable, "end the other process that uses " + dir + ", or give this one a directory of its own"
	case errors.Is(err, ErrForeign):
		return resource.Invalid, "name an empty directory, or this member's own"
	case errors.Is(err, ErrFormat):
		return resource.Unsupported, "use the program that wrote " + dir + ", or a newer one"
	case damaged:
		return resource.Unavailable, "do not delete anything, and look for a failing disk; the other members go on without this one"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return resource.Capacity, "make room on the disk that holds " + dir
	case errors.Is(err, fs.ErrPermission):
		return resource.Permission, "give this user the right to read and write " + dir
	}
	return resource.Unavailable, "look at the disk that holds " + dir
}
