package kv

import (
	"context"
	"errors"

	"assent/resource"
)

// Causes of failure that callers may want to tell apart. They come wrapped in a *resource.Error.
var (
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrStopped says that a write or a force failed before, and that the store does nothing
	// more until it is opened again. Nothing that was acknowledged is lost.
	ErrStopped = errors.New("the store has stopped after a failed write")
)

const hintStopped = "see to the disk (space, health), then open the store again"

func unavailable(op string, err error) error {
	e := &resource.Error{Code: resource.Unavailable, Op: op, Err: err}
	if errors.Is(err, ErrStopped) {
		e.Hint = hintStopped
	}
	return e
}

// ended is the error of a call whose context is over.
func ended(ctx context.Context, op string) error { return unavailable(op, ctx.Err()) }

func invalid(op string, err error) error {
	return &resource.Error{Code: resource.Invalid, Op: op, Err: err}
}

func broken(op string, cause error) error {
	return &resource.Error{Code: resource.Broken, Op: op, Err: cause,
		Hint: "roll the transaction back and begin anew"}
}

func duplicate(op, detail string) error {
	return &resource.Error{Code: resource.Duplicate, Op: op, Detail: detail,
		Hint: "a branch id is used once; make sure that no two coordinators share an owner"}
}
