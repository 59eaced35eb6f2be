package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/protocol/commit"
)

// noteCall is one caller's note and, when it is done, the answer.
type noteCall struct {
	id   commit.TransactionID
	note decision.Note // normal
	data []byte
	err  error
}

// Annotate implements decision.Log. Every note is stable when it returns, Forced or not.
func (l *Log) Annotate(ctx context.Context, id commit.TransactionID, n decision.Note) error {
	const op = "annotate"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := errors.Join(decision.CheckID(id), n.Check()); err != nil {
		return invalid(op, err)
	}
	c := &noteCall{id: id, note: n.Normal()}
	var err error
	if c.data, err = c.note.Encode(); err != nil {
		return invalid(op, err)
	}
	if err := l.notes.Do(ctx, c); err != nil {
		return l.told(ctx, op, err)
	}
	return l.told(ctx, op, c.err)
}

// annotated is what a group knows of one transaction: what is held, as far as is known, and the notes
// that come.
type annotated struct {
	id    commit.TransactionID
	known *held
	calls []*noteCall
}

// serveNotes appends a group's notes in one request. It guesses that their entries have none, which is
// so for almost all; the answer to a wrong guess is what is held, with which it tries again.
func (l *Log) serveNotes(group []*noteCall) {
	var open []*annotated
	at := map[commit.TransactionID]*annotated{}
	for _, c := range group {
		a := at[c.id]
		if a == nil {
			a = &annotated{id: c.id, known: &held{}}
			at[c.id], open = a, append(open, a)
		}
		a.calls = append(a.calls, c)
	}
	err := l.attempt(context.WithoutCancel(l.life), func(ctx context.Context, unknown bool) error {
		for len(open) > 0 {
			left, err := l.appendNotes(ctx, open, unknown)
			if err != nil {
				return err
			}
			open = left
		}
		return nil
	})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrRequestTooLarge) && len(open) > 1 {
		for _, a := range open { // their sheets are long; each alone is not too much
			l.serveNotes(a.calls)
		}
		return
	}
	for _, a := range open {
		for _, c := range a.calls {
			c.err = err
		}
	}
}

// appendNotes tries once to append the notes of each, and returns those for which it must try again.
func (l *Log) appendNotes(ctx context.Context, open []*annotated, unknown bool) (left []*annotated, err error) {
	ops := make([]clientv3.Op, len(open))
	for i, a := range open {
		var more []decision.Note
		for _, c := range a.calls {
			more = append(more, c.note)
		}
		conditions, puts, err := l.write(a.id, a.known, more)
		if err != nil {
			return nil, err
		}
		ops[i] = clientv3.OpTxn(append(conditions, present(l.keys.entry(a.id))), puts, l.keys.get(a.id))
	}
	resp, err := l.request(ctx, ops...)
	if err != nil {
		return nil, err
	}
	l.stats.groups.Add(1)
	for i, a := range open {
		one := resp.Responses[i].GetResponseTxn()
		if one.Succeeded {
			continue
		}
		h, err := l.parse(a.id, one.Responses)
		if err != nil {
			return nil, err
		}
		if a.learn(h, unknown) {
			left = append(left, a)
		}
	}
	return left, nil
}

// learn takes in what is held. It answers the calls whose entry is not there, or is full, and, where
// they may have been carried out before, those whose note is there; it reports whether any is left.
func (a *annotated) learn(h *held, unknown bool) bool {
	var left []*noteCall
	for _, c := range a.calls {
		switch {
		case h == nil:
			c.err = fmt.Errorf("%q: %w", a.id, decision.ErrNotFound)
		case unknown && slices.Contains(h.entry.Notes, c.note):
		case len(h.entry.Notes)+len(left) >= decision.MaxNotes:
			c.err = invalid("annotate", fmt.Errorf("%q has %d notes; no more are allowed", a.id, len(h.entry.Notes)+len(left)))
		default:
			left = append(left, c)
		}
	}
	a.known, a.calls = h, left
	return len(left) > 0
}
