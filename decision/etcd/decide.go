package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/protocol/commit"
)

// decideCall is one caller's proposal and, when it is done, the answer.
type decideCall struct {
	entry  decision.Entry // normal
	size   int            // in bytes
	put    []clientv3.Op  // what writes it
	stands decision.Entry
	err    error
}

// Decide implements decision.Log. Callers share requests. When ctx ends first, what was asked may still
// be done.
func (l *Log) Decide(ctx context.Context, e decision.Entry) (decision.Entry, error) {
	const op = "decide"
	if err := l.ready(ctx, op); err != nil {
		return decision.Entry{}, err
	}
	if err := e.Check(); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	c := &decideCall{entry: e.Normal()}
	if err := l.prepare(c); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	if err := l.decisions.Do(ctx, c); err != nil {
		return decision.Entry{}, l.told(ctx, op, err)
	}
	if c.err != nil {
		return decision.Entry{}, l.told(ctx, op, c.err)
	}
	return c.stands, nil
}

// prepare makes the operations that write c's entry.
func (l *Log) prepare(c *decideCall) error {
	bare := c.entry
	bare.Notes = nil
	body, err := bare.Encode()
	if err != nil {
		return err
	}
	c.put = []clientv3.Op{clientv3.OpPut(l.keys.entry(bare.ID), string(body))}
	if len(c.entry.Notes) > 0 {
		_, ops, err := l.write(bare.ID, &held{entry: bare}, c.entry.Notes)
		if err != nil {
			return err
		}
		for _, op := range ops {
			if !op.IsDelete() { // there is nothing yet
				c.put = append(c.put, op)
			}
		}
	}
	if c.entry.Status() != decision.Done {
		c.put = append(c.put, clientv3.OpPut(l.keys.open(bare.ID), ""))
	}
	for _, op := range c.put {
		c.size += len(op.KeyBytes()) + len(op.ValueBytes())
	}
	return nil
}

// serveDecisions has a group decided in one request: for each transaction the first proposal is written
// on condition that there is no entry, and else the entry is read. Each condition is judged for
// itself.
func (l *Log) serveDecisions(group []*decideCall) {
	var order []commit.TransactionID
	open := map[commit.TransactionID][]*decideCall{}
	for _, c := range group {
		id := c.entry.ID
		if open[id] == nil {
			order = append(order, id)
		}
		open[id] = append(open[id], c)
	}
	ops := make([]clientv3.Op, len(order))
	for i, id := range order {
		ops[i] = clientv3.OpTxn([]clientv3.Cmp{absent(l.keys.entry(id))}, open[id][0].put, l.keys.get(id))
	}
	// The work goes on when callers have left, but not for ever.
	err := l.attempt(context.WithoutCancel(l.life), func(ctx context.Context, _ bool) error {
		resp, err := l.request(ctx, ops...)
		if err != nil {
			return err
		}
		l.stats.groups.Add(1)
		for i, id := range order {
			stands := open[id][0].entry
			if one := resp.Responses[i].GetResponseTxn(); one.Succeeded {
				l.stats.decisions.Add(1)
			} else {
				h, err := l.parse(id, one.Responses)
				if err != nil {
					fail(open[id], err)
					continue
				}
				stands = h.entry
			}
			for _, c := range open[id] {
				c.stands = stands.Normal() // a copy for each
			}
		}
		return nil
	})
	if err != nil {
		fail(group, err)
	}
}

func fail(calls []*decideCall, err error) {
	for _, c := range calls {
		c.err = err
	}
}
