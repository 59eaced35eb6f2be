package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"assent/resource"
)

// Pair is a key with its value.
type Pair struct{ Key, Value []byte }

// Get returns the value of key, and whether there is one. It takes a shared lock. Its errors, and
// those of the other methods that work: Invalid for a bad key, value or range; Deadlock;
// LockTimeout; Capacity beyond Config.MaxBranchSize; Broken after an earlier error; Unavailable.
func (t *Tx) Get(ctx context.Context, key []byte) (value []byte, ok bool, err error) {
	return t.get(ctx, "get", key, shared)
}

// GetForUpdate is Get with an exclusive lock, for a branch that will write the key: two branches
// that read first and write later are deadlocked.
func (t *Tx) GetForUpdate(ctx context.Context, key []byte) (value []byte, ok bool, err error) {
	return t.get(ctx, "get for update", key, exclusive)
}

func (t *Tx) get(ctx context.Context, op string, key []byte, m mode) (value []byte, ok bool, err error) {
	err = t.work(ctx, op, func() error {
		if err := t.r.checkKey(op, key); err != nil {
			return err
		}
		if err := t.lock(ctx, op, point(string(key)), true, m); err != nil {
			return err
		}
		if w, own := t.writes[string(key)]; own {
			value, ok = bytes.Clone(w.value), !w.delete
			return nil
		}
		value, ok, err = t.r.engine.get(keyOf(dataKey, string(key)))
		if err != nil {
			return unavailable(op, err)
		}
		return nil
	})
	return value, ok, err
}

// Put sets key to value. It takes an exclusive lock. An empty value is a value.
func (t *Tx) Put(ctx context.Context, key, value []byte) error {
	return t.write(ctx, "put", key, write{value: append([]byte{}, value...)})
}

// Delete removes key, if it is there. It takes an exclusive lock either way.
func (t *Tx) Delete(ctx context.Context, key []byte) error {
	return t.write(ctx, "delete", key, write{delete: true})
}

func (t *Tx) write(ctx context.Context, op string, key []byte, w write) error {
	return t.work(ctx, op, func() error {
		if err := t.r.checkKey(op, key); err != nil {
			return err
		}
		if len(w.value) > t.r.cfg.MaxValue {
			return invalid(op, fmt.Errorf("the value has %d bytes; at most %d are allowed", len(w.value), t.r.cfg.MaxValue))
		}
		if err := t.lock(ctx, op, point(string(key)), true, exclusive); err != nil {
			return err
		}
		grown := len(w.value)
		if old, ok := t.writes[string(key)]; ok {
			grown -= len(old.value)
		} else {
			grown += len(key) + overhead
		}
		if err := t.grow(op, grown); err != nil {
			return err
		}
		t.writes[string(key)] = w
		return nil
	})
}

// Scan yields the keys from from up to, not including, to, in order, with their values. A nil or
// empty to stands for no end. It takes a shared lock on the whole range when the loop begins,
// so that no other branch can change, add or remove a key in it. The loop may work in the branch;
// what it writes into the range ahead of the loop may be seen or not. After an error it yields
// that and ends.
func (t *Tx) Scan(ctx context.Context, from, to []byte) iter.Seq2[Pair, error] {
	return scan(span{string(from), string(to)}, func(s span) ([]Pair, bool, error) {
		const op = "scan"
		var page []Pair
		more := false
		err := t.work(ctx, op, func() (err error) {
			if err := t.r.checkSpan(op, s); err != nil {
				return err
			}
			if err := t.lock(ctx, op, s, false, shared); err != nil {
				return err
			}
			page, more, err = t.r.page(op, s, t.writes)
			return err
		})
		return page, more, err
	})
}

// ScanPrefix is Scan over the keys that begin with prefix.
func (t *Tx) ScanPrefix(ctx context.Context, prefix []byte) iter.Seq2[Pair, error] {
	return t.Scan(ctx, prefix, prefixEnd(prefix))
}

// prefixEnd returns the first key after all that begin with prefix, or nil if there is none.
func prefixEnd(prefix []byte) []byte {
	end := bytes.TrimRight(prefix, "\xff")
	if len(end) == 0 {
		return nil
	}
	end = bytes.Clone(end)
	end[len(end)-1]++
	return end
}

// work runs one step of the branch's work. An error condemns the branch.
func (t *Tx) work(ctx context.Context, op string, step func() error) error {
	release, err := t.call(ctx, op)
	if err != nil {
		t.condemn(err)
		return err
	}
	defer release()
	if t.state != active {
		return broken(op, errors.New("the branch takes no more work"))
	}
	if reason := t.condemned(); reason != nil {
		return broken(op, reason)
	}
	if err := step(); err != nil {
		t.condemn(err)
		return err
	}
	return nil
}

// What a key, a value or a lock takes beyond its bytes, roughly.
const overhead = 64

func (t *Tx) grow(op string, n int) error {
	if t.size+n > t.r.cfg.MaxBranchSize {
		return &resource.Error{Code: resource.Capacity, Op: op,
			Detail: fmt.Sprintf("the branch would hold %d bytes; at most %d are allowed", t.size+n, t.r.cfg.MaxBranchSize),
			Hint:   "split the work into several transactions, or raise MaxBranchSize"}
	}
	t.size += n
	return nil
}

func (t *Tx) lock(ctx context.Context, op string, s span, single bool, m mode) error {
	added, err := t.r.lock(ctx, op, t.owner, s, single, m, t.doomed)
	if err != nil || !added {
		return err
	}
	return t.grow(op, len(s.from)+len(s.to)+overhead)
}

// lock takes a lock for o and waits for it as long as it may. doomed, if not nil, ends the wait.
func (r *Resource) lock(ctx context.Context, op string, o *lockOwner, s span, single bool, m mode,
	doomed <-chan struct{},
) (added bool, err error) {
	wait, added := r.locks.lock(o, s, single, m)
	if wait == nil {
		return added, nil
	}
	timeout := time.NewTimer(r.cfg.LockTimeout)
	defer timeout.Stop()
	var gaveUp error
	select {
	case err := <-wait.done:
		return added, lockError(op, err)
	case <-ctx.Done():
		gaveUp = ended(ctx, op)
	case <-timeout.C:
		gaveUp = &resource.Error{Code: resource.LockTimeout, Op: op,
			Detail: fmt.Sprintf("no lock on %.40q after %v", s.from, r.cfg.LockTimeout)}
	case <-doomed:
		gaveUp = broken(op, errors.New("the branch was rolled back meanwhile"))
	case <-r.engine.closing:
		gaveUp = unavailable(op, ErrClosed)
	case <-r.engine.failed:
		gaveUp = unavailable(op, r.engine.failure())
	}
	if r.locks.abandon(wait) {
		return false, gaveUp
	}
	return added, lockError(op, <-wait.done) // it was answered in the same instant
}

func lockError(op string, err error) error {
	if err != nil {
		return &resource.Error{Code: resource.Deadlock, Op: op, Err: err}
	}
	return nil
}

func (r *Resource) checkKey(op string, key []byte) error {
	if len(key) == 0 || len(key) > r.cfg.MaxKey {
		return invalid(op, fmt.Errorf("the key has %d bytes; 1 to %d are allowed", len(key), r.cfg.MaxKey))
	}
	return nil
}

func (r *Resource) checkSpan(op string, s span) error {
	if len(s.from) > r.cfg.MaxKey+1 || len(s.to) > r.cfg.MaxKey+1 {
		return invalid(op, fmt.Errorf("an end of the range has more than %d bytes", r.cfg.MaxKey))
	}
	if s.to != "" && s.to < s.from {
		return invalid(op, fmt.Errorf("the range ends at %.40q, before it begins at %.40q", s.to, s.from))
	}
	return nil
}

// A page is what a scan reads at once, at most.
const (
	pagePairs = 256
	pageBytes = 256 << 10
)

// scan yields what next returns for s, page by page.
func scan(s span, next func(span) (page []Pair, more bool, err error)) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		rest := s
		for {
			page, more, err := next(rest)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			for _, p := range page {
				if !yield(p, nil) {
					return
				}
			}
			if !more {
				return
			}
			rest.from = string(page[len(page)-1].Key) + "\x00"
		}
	}
}

// page reads the first pairs in s, as they are after writes. more says whether there are others.
func (r *Resource) page(op string, s span, writes map[string]write) (page []Pair, more bool, err error) {
	if s.to != "" && s.to <= s.from {
		return nil, false, nil
	}
	own := keysIn(s, writes)
	size := 0
	add := func(key string, value []byte) bool {
		if len(page) >= pagePairs || size >= pageBytes {
			more = true
			return false
		}
		page = append(page, Pair{Key: []byte(key), Value: append([]byte{}, value...)})
		size += len(key) + len(value)
		return true
	}
	ownBefore := func(key string, last bool) bool {
		for len(own) > 0 && (last || own[0] < key) {
			if w := writes[own[0]]; !w.delete && !add(own[0], w.value) {
				return false
			}
			own = own[1:]
		}
		return true
	}
	to := []byte{dataKey + 1}
	if s.to != "" {
		to = keyOf(dataKey, s.to)
	}
	err = r.engine.each(keyOf(dataKey, s.from), to, func(k, value []byte) (bool, error) {
		key := string(k[1:])
		if !ownBefore(key, false) {
			return false, nil
		}
		if w, ok := writes[key]; ok {
			own = own[1:]
			return w.delete || add(key, w.value), nil
		}
		return add(key, value), nil
	})
	if err != nil {
		return nil, false, unavailable(op, err)
	}
	if !more {
		ownBefore("", true)
	}
	return page, more, nil
}

// keysIn returns the keys of writes in s, in order.
func keysIn(s span, writes map[string]write) []string {
	var keys []string
	for key := range writes {
		if s.from <= key && endsAfter(s.to, key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
