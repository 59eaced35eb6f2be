package etcd

import (
	"context"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/protocol/commit"
)

// finished counts an entry that is done; after some hundredths of RetainCount the oldest may have to go.
func (l *Log) finished() {
	if l.finish.Add(1)%int64(max(256, l.cfg.RetainCount/64)) == 0 {
		select {
		case l.retire <- struct{}{}:
		default:
		}
	}
}

// retireForEver drops what is not to be kept any longer, now and then. Several processes may do it at
// the same time.
func (l *Log) retireForEver() {
	for {
		// Processes that were started together shall not search together.
		timer := time.NewTimer(l.cfg.RetireInterval/2 + rand.N(l.cfg.RetireInterval/2+1))
		select {
		case <-timer.C:
		case <-l.retire:
		case <-l.life.Done():
		}
		timer.Stop()
		if l.life.Err() != nil {
			return
		}
		if err := l.retireOnce(l.life); err != nil && l.life.Err() == nil {
			l.cfg.Logger.Warn("old entries of the decision log are kept for now", "prefix", l.cfg.Prefix, "cause", err)
		}
	}
}

// retireOnce drops the Done entries that are too old or too many, oldest first. Done keys, whose order
// is that of time, lead to them.
func (l *Log) retireOnce(ctx context.Context) error {
	prefix := l.keys.prefix + "done/"
	for {
		var resp *clientv3.GetResponse
		err := l.attempt(ctx, func(ctx context.Context, _ bool) (err error) {
			l.stats.requests.Add(1)
			resp, err = l.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithLimit(pageEntries))
			return err
		})
		if err != nil {
			return err
		}
		var old []retired
		for i, kv := range resp.Kvs {
			at, id, ok := l.keys.parseDone(string(kv.Key))
			if tooMany := int64(i) < resp.Count-int64(l.cfg.RetainCount); ok && (tooMany || l.cfg.Clock().Sub(at) > l.cfg.Retention) {
				old = append(old, retired{listed{kv.ModRevision, id}, string(kv.Key)})
			}
		}
		if len(old) == 0 {
			return nil
		}
		if err := l.attempt(ctx, func(ctx context.Context, _ bool) error { return l.drop(ctx, old) }); err != nil {
			return err
		}
	}
}

// retired is a done key, with the revision at which it was written.
type retired struct {
	listed
	key string
}

// drop deletes the keys and, with each, the entry that it leads to, provided that nothing was noted
// about it since.
func (l *Log) drop(ctx context.Context, old []retired) error {
	page := make([]commit.TransactionID, len(old))
	for i, r := range old {
		page[i] = r.id
	}
	found, err := l.read(ctx, page)
	if err != nil {
		return err
	}
	dropped := map[commit.TransactionID]bool{}
	var ops []clientv3.Op
	for i, r := range old {
		ops = append(ops, clientv3.OpDelete(r.key))
		h := found[i]
		if h == nil || h.noted() != r.revision || h.entry.Status() != decision.Done || dropped[r.id] {
			continue
		}
		dropped[r.id] = true
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{
			clientv3.Compare(clientv3.CreateRevision(l.keys.entry(r.id)), "=", h.revision),
			clientv3.Compare(clientv3.ModRevision(l.keys.sheet(r.id, len(h.sheets)-1)), "=", h.noted()),
		}, l.keys.drop(r.id), nil))
	}
	if _, err := l.request(ctx, ops...); err != nil {
		return err
	}
	l.stats.retired.Add(uint64(len(dropped)))
	return nil
}
