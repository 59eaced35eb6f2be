package resource

import (
	"errors"
	"fmt"
)

// Code says what kind of error a resource met, so that a caller can act on it. The set is
// closed. There is no zero code: an error that fits no code is not an *Error.
type Code uint8

// The codes.
const (
	// Serialization: the work conflicts with a concurrent transaction; do it again from the start.
	Serialization Code = iota + 1
	// Deadlock: the work waited in a circle and was chosen to give way; do it again from the start.
	Deadlock
	// LockTimeout: a lock was not had in time; do it again from the start, later.
	LockTimeout
	// Constraint: the change breaks a rule of the resource, now or at prepare.
	Constraint
	// Unsupported: the branch used a feature that cannot be prepared.
	Unsupported
	// Capacity: the resource has no room for another prepared branch, or no room at all.
	Capacity
	// Disabled: the resource is set up not to prepare.
	Disabled
	// Permission: this user may not do it, or not in this database.
	Permission
	// Duplicate: a branch of this id is prepared already.
	Duplicate
	// Unavailable: the resource cannot be reached, or does not answer now; try again later.
	Unavailable
	// Invalid: the request itself is wrong: a statement, a key, a size.
	Invalid
	// Broken: the branch had an error before and can only be rolled back.
	Broken
)

var codeNames = [...]string{
	Serialization: "serialization failure", Deadlock: "deadlock", LockTimeout: "lock timeout",
	Constraint: "constraint violated", Unsupported: "unsupported", Capacity: "out of capacity",
	Disabled: "disabled", Permission: "permission denied", Duplicate: "duplicate branch",
	Unavailable: "unavailable", Invalid: "invalid", Broken: "branch broken",
}

// String returns the code's name.
func (c Code) String() string {
	if c == 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("invalid(%d)", uint8(c))
	}
	return codeNames[c]
}

// Retryable reports whether the same work, done again in a new transaction, may succeed.
func (c Code) Retryable() bool { return c == Serialization || c == Deadlock || c == LockTimeout }

// Error is a resource's error with its kind and what to do about it.
type Error struct {
	Code Code
	// Op is what failed: "prepare", "commit", "query".
	Op string
	// Detail is the resource's own text or code, "SQLSTATE 53200" say. It may be empty.
	Detail string
	// Hint says what a person can do. It may be empty.
	Hint string
	// Err is the cause. It may be nil.
	Err error
}

// Error returns what failed and why, on one line.
func (e *Error) Error() string {
	text := e.Op + ": " + e.Code.String()
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first *Error in err's chain, or 0.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

// HintOf returns the hint of the first *Error in err's chain, or "".
func HintOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}
