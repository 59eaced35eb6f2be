package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"assent/decision"
	"assent/resource"
)

// ErrFormat says that the keys under the prefix were written by a newer Assent, or by something else.
// Open returns it, wrapped in a *resource.Error that carries a hint.
var ErrFormat = errors.New("the keys are not a decision log that this program knows")

// ErrMissing says that there is no log under the prefix. Open returns it where Config.Existing is set.
var ErrMissing = errors.New("etcd holds no decision log under this prefix")

// errReplaced says that the cluster holds another log than the one that was opened, or none.
var errReplaced = errors.New("etcd holds another decision log than when this one was opened, or none")

// invalid says that a request is wrong, and why.
func invalid(op string, err error) error {
	return &resource.Error{Code: resource.Invalid, Op: op, Err: err}
}

// damaged says that a value is not what this package writes.
func damaged(key string, err error) error {
	return &resource.Error{
		Code: resource.Unavailable, Op: "read " + key,
		Hint: "the key was changed by something else than Assent; do not delete anything, and restore it from a backup",
		Err:  fmt.Errorf("the value cannot be read: %w", err),
	}
}

// verdict is what an error means for what was tried.
type verdict struct {
	retry bool
	// unknown says that what was tried may have been done, or be done yet.
	unknown bool
	code    resource.Code
	hint    string
}

// judge classes an error by etcd's own codes (rpctypes). What is not listed says nothing about what was
// done.
func judge(err error) verdict {
	if e, ok := errors.AsType[*resource.Error](err); ok {
		return verdict{code: e.Code, hint: e.Hint}
	}
	if errors.Is(err, errReplaced) {
		return verdict{code: resource.Unavailable, hint: "give back the cluster that holds the decisions; transactions in doubt need it"}
	}
	if errors.Is(err, ErrMissing) {
		return verdict{code: resource.Unavailable, hint: "look at the endpoints and the prefix; a server that opens the log makes it"}
	}
	if errors.Is(err, ErrFormat) {
		return verdict{code: resource.Unsupported, hint: "use the program that wrote the keys, or a newer one, or give the log a prefix of its own"}
	}
	switch known := rpctypes.Error(err); {
	case errors.Is(known, rpctypes.ErrNoSpace):
		return verdict{code: resource.Capacity, hint: "raise etcd's --quota-backend-bytes, or compact and defragment it, and disarm its alarm: etcdctl alarm disarm"}
	case errors.Is(known, rpctypes.ErrRequestTooLarge), errors.Is(known, rpctypes.ErrTooManyOps):
		return verdict{code: resource.Capacity, hint: "raise etcd's --max-request-bytes and --max-txn-ops to their defaults at least"}
	case errors.Is(known, rpctypes.ErrPermissionDenied), errors.Is(known, rpctypes.ErrAuthFailed), errors.Is(known, rpctypes.ErrUserEmpty):
		return verdict{code: resource.Permission, hint: "grant the user the right to read and write all keys with the log's prefix"}
	case errors.Is(known, rpctypes.ErrTooManyRequests):
		return verdict{retry: true, code: resource.Capacity, hint: "etcd does not keep up; wait and repeat the call"}
	case errors.Is(known, rpctypes.ErrCompacted):
		return verdict{code: resource.Unavailable, hint: "list again: etcd keeps its history for a shorter time than the listing took"}
	case errors.Is(known, rpctypes.ErrCorrupt):
		return verdict{code: resource.Unavailable, hint: "an etcd member has found its data corrupt; repair it before anything else"}
	}
	return verdict{retry: true, unknown: true, code: resource.Unavailable,
		hint: "look whether a majority of etcd's members is up and can be reached: etcdctl endpoint status --cluster; nothing that was decided is lost"}
}

// explain adds to err what a person can do about it. Errors that are explained stay as they are, and so
// are those that callers ask for by name.
func explain(op string, err error) error {
	if errors.Is(err, decision.ErrClosed) || errors.Is(err, decision.ErrNotFound) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return err
	}
	v := judge(err)
	if errors.Is(err, errReplaced) {
		err = fmt.Errorf("%w: %w", decision.ErrStopped, err)
	}
	return &resource.Error{Code: v.code, Op: op, Hint: v.hint, Err: err}
}

// told puts an error into the words of op. Where it was the caller who gave up, it says what etcd had
// answered till then.
func (l *Log) told(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, decision.ErrNotFound), errors.Is(err, decision.ErrClosed):
		return fmt.Errorf("%s: %w", op, err)
	case l.life.Err() != nil:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	case ctx.Err() != nil:
		cause := context.Cause(ctx)
		last := l.away.Load()
		if last == nil {
			return fmt.Errorf("%s: %w", op, cause)
		}
		v := judge(*last)
		return &resource.Error{Code: v.code, Op: op, Hint: v.hint, Err: fmt.Errorf("%w; etcd's last answer was: %w", cause, *last)}
	}
	return explain(op, err)
}
