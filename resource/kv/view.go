package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"assent/resource"
)

// View is a reader outside any transaction. What it has read stays as it is until the function
// that was given to Resource.View returns.
type View struct {
	r     *Resource
	ctx   context.Context
	owner *lockOwner
}

// View calls read with a reader and returns its error. The reader takes shared locks: it waits
// for values that are being changed, or gets resource.Unavailable where the wait exceeds
// Config.LockTimeout, because the branch that changes them is in doubt, say. It never reads
// what is not committed. The View is for one goroutine, and over when read returns.
func (r *Resource) View(ctx context.Context, read func(*View) error) error {
	v := &View{r: r, ctx: ctx, owner: r.locks.newOwner()}
	defer r.locks.release(v.owner, nil)
	return read(v)
}

// Get returns the value of key, and whether there is one. Errors: Invalid, Deadlock, Unavailable.
func (v *View) Get(key []byte) (value []byte, ok bool, err error) {
	const op = "view"
	if err := v.r.checkKey(op, key); err != nil {
		return nil, false, err
	}
	if err := v.r.engine.enter(); err != nil {
		return nil, false, unavailable(op, err)
	}
	defer v.r.engine.leave()
	if err := v.lock(op, point(string(key)), true); err != nil {
		return nil, false, err
	}
	value, ok, err = v.r.engine.get(keyOf(dataKey, string(key)))
	if err != nil {
		return nil, false, unavailable(op, err)
	}
	return value, ok, nil
}

// Scan yields the keys from from up to, not including, to, in order, with their values. A nil or
// empty to stands for no end. It locks the whole range. After an error it yields that and ends.
func (v *View) Scan(from, to []byte) iter.Seq2[Pair, error] {
	return scan(span{string(from), string(to)}, func(s span) (page []Pair, more bool, err error) {
		const op = "view"
		if err := v.r.checkSpan(op, s); err != nil {
			return nil, false, err
		}
		if err := v.r.engine.enter(); err != nil {
			return nil, false, unavailable(op, err)
		}
		defer v.r.engine.leave()
		if err := v.lock(op, s, false); err != nil {
			return nil, false, err
		}
		return v.r.page(op, s, nil)
	})
}

func (v *View) lock(op string, s span, single bool) error {
	if v.ctx.Err() != nil {
		return ended(v.ctx, op)
	}
	_, err := v.r.lock(v.ctx, op, v.owner, s, single, shared, nil)
	if resource.CodeOf(err) == resource.LockTimeout {
		return inFlux(op, s.from, err)
	}
	return err
}

func inFlux(op, key string, err error) error {
	return &resource.Error{Code: resource.Unavailable, Op: op, Err: err,
		Detail: fmt.Sprintf("%.40q is being changed", key),
		Hint:   "try again, or finish the branch that holds it"}
}

// Peek returns the value of key, and whether there is one, without waiting. The error is
// resource.Unavailable while an unfinished branch holds the key for changing.
func (r *Resource) Peek(key []byte) (value []byte, ok bool, err error) {
	const op = "peek"
	if err := r.checkKey(op, key); err != nil {
		return nil, false, err
	}
	if err := r.engine.enter(); err != nil {
		return nil, false, unavailable(op, err)
	}
	defer r.engine.leave()
	if r.locks.changing(string(key)) {
		return nil, false, inFlux(op, string(key), errors.New("an unfinished branch holds it"))
	}
	value, ok, err = r.engine.get(keyOf(dataKey, string(key)))
	if err != nil {
		return nil, false, unavailable(op, err)
	}
	return value, ok, nil
}
