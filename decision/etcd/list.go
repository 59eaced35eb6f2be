package etcd

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/protocol/commit"
)

// The limits on a page of keys, and on how many entries are read at a time.
const (
	pageKeys    = 1000
	pageEntries = 32
)

// listed is a transaction that is to be listed, by its place in the order of decision.
type listed struct {
	revision int64
	id       commit.TransactionID
}

// List implements decision.Log. It first reads the keys that are concerned, of one revision, which
// takes some hundred bytes of memory for each; the entries themselves are read as the list is read.
// What is not Done is found without reading the rest.
func (l *Log) List(ctx context.Context, status decision.Status) iter.Seq2[decision.Entry, error] {
	const op = "list"
	return func(yield func(decision.Entry, error) bool) {
		err := l.ready(ctx, op)
		var all []listed
		if err == nil {
			all, err = l.scan(ctx, status)
		}
		if err == nil && len(all) == 0 { // a store that was emptied has nothing either
			err = l.attempt(ctx, func(ctx context.Context, _ bool) error {
				_, err := l.request(ctx)
				return err
			})
		}
		for err == nil && len(all) > 0 {
			n := min(len(all), pageEntries)
			var page []*held
			if page, err = l.entries(ctx, all[:n]); err != nil {
				break
			}
			all = all[n:]
			for _, h := range page {
				if h == nil || status != 0 && h.entry.Status() != status {
					continue // it was forgotten, or has changed
				}
				if !yield(h.entry, nil) {
					return
				}
			}
			err = l.ready(ctx, op)
		}
		if err != nil {
			yield(decision.Entry{}, l.told(ctx, op, err))
		}
	}
}

// entries reads what is held of each.
func (l *Log) entries(ctx context.Context, page []listed) (all []*held, err error) {
	ids := make([]commit.TransactionID, len(page))
	for i, x := range page {
		ids[i] = x.id
	}
	err = l.attempt(ctx, func(ctx context.Context, _ bool) (err error) {
		all, err = l.read(ctx, ids)
		return err
	})
	return all, err
}

// scan returns the transactions that may have the status, in the order of decision.
func (l *Log) scan(ctx context.Context, status decision.Status) ([]listed, error) {
	for {
		all, err := l.scanOnce(ctx, status)
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) {
			slices.SortFunc(all, func(a, b listed) int { return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.id, b.id)) })
			return all, err
		}
		// The revision is gone: it took longer than etcd keeps its history. A new one is not.
	}
}

func (l *Log) scanOnce(ctx context.Context, status decision.Status) ([]listed, error) {
	open, revision, err := l.scanKeys(ctx, l.keys.open(""), 0)
	if err != nil || status == decision.Unfinished || status == decision.Damaged {
		return open, err
	}
	all, _, err := l.scanKeys(ctx, l.keys.entry(""), revision)
	if status == decision.Done && err == nil {
		is := map[commit.TransactionID]bool{}
		for _, x := range open {
			is[x.id] = true
		}
		all = slices.DeleteFunc(all, func(x listed) bool { return is[x.id] })
	}
	return all, err
}

// scanKeys reads the keys that begin with prefix, as they are at that revision of the store, or now
// where it is 0. It returns the revision.
func (l *Log) scanKeys(ctx context.Context, prefix string, revision int64) (all []listed, _ int64, err error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from, more := prefix, true; more; {
		var resp *clientv3.GetResponse
		err := l.attempt(ctx, func(ctx context.Context, _ bool) (err error) {
			l.stats.requests.Add(1)
			opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageKeys), clientv3.WithRev(revision)}
			if strings.HasPrefix(prefix, l.keys.entry("")) {
				opts = append(opts, clientv3.WithKeysOnly())
			}
			resp, err = l.client.Get(ctx, from, opts...)
			return err
		})
		if err != nil {
			return nil, revision, err
		}
		revision = cmp.Or(revision, resp.Header.Revision)
		for _, kv := range resp.Kvs {
			x := listed{kv.CreateRevision, commit.TransactionID(strings.TrimPrefix(string(kv.Key), prefix))}
			// A key of what is open again tells when it was decided.
			if n, err := strconv.ParseInt(string(kv.Value), 10, 64); err == nil {
				x.revision = n
			}
			if decision.CheckID(x.id) != nil {
				return nil, revision, damaged(string(kv.Key), errors.New("it names no transaction"))
			}
			all = append(all, x)
			from = string(kv.Key) + "\x00"
		}
		more = resp.More
	}
	return all, revision, nil
}
