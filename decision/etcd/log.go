package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/protocol/commit"
)

var _ decision.Log = (*Log)(nil)

// Log is a decision log in an etcd cluster. All methods are safe for concurrent use.
type Log struct {
	cfg    Config
	keys   keys
	client *clientv3.Client
	owner  string
	record string // the value of the log's own key, on which every request depends
	stats  counters

	decisions *decision.Grouper[*decideCall]
	notes     *decision.Grouper[*noteCall]
	// life ends with Close.
	life   context.Context
	end    context.CancelFunc
	tasks  sync.WaitGroup
	closed sync.Once
	// retire has a value where so many entries are done that some may have to go.
	retire chan struct{}
	finish atomic.Int64 // entries done since the last search
	// replaced is set when the cluster turns out to hold another log.
	replaced atomic.Bool
	// away is why the last attempt failed; nil where it did not.
	away atomic.Pointer[error]
}

// The limits on a group. A request of etcd may have 128 operations, on all its levels together, and
// 1.5 MiB, unless it is configured otherwise. A single call may have more bytes.
const (
	groupCalls = 64
	groupBytes = 512 << 10
)

// decideWorkers is how many groups of decisions are on their way at a time.
const decideWorkers = 2

// Open opens the decision log in the cluster that cfg names, and makes it where there is none. It needs
// a majority of the members. Errors carry a hint (resource.HintOf).
func Open(ctx context.Context, cfg Config) (*Log, error) {
	const op = "open decision log"
	if err := cfg.validate(); err != nil {
		return nil, invalid(op, err)
	}
	client, err := clientv3.New(cfg.Client)
	if err != nil {
		return nil, explain(op, err)
	}
	l := &Log{cfg: cfg, keys: keys{cfg.Prefix}, client: client, retire: make(chan struct{}, 1)}
	l.life, l.end = context.WithCancel(context.Background())
	if err := l.attempt(ctx, l.meet); err != nil {
		err = l.told(ctx, op, err)
		l.end()
		return nil, errors.Join(err, client.Close())
	}
	l.decisions = decision.NewGrouper(decision.GrouperConfig[*decideCall]{
		Serve: l.serveDecisions, Workers: decideWorkers, Size: func(c *decideCall) int { return c.size },
		MostCalls: groupCalls, MostBytes: groupBytes, MostWaiting: cfg.MaxWaiting,
	})
	l.notes = decision.NewGrouper(decision.GrouperConfig[*noteCall]{
		Serve: l.serveNotes, Workers: 1, Size: func(c *noteCall) int { return len(c.data) },
		MostCalls: groupCalls, MostBytes: groupBytes, MostWaiting: cfg.MaxWaiting,
	})
	l.tasks.Go(l.retireForEver)
	return l, nil
}

// recordFormat is the value of the log's own key.
const recordFormat = "assent decision log\nformat 1\nowner %s\n"

// meet learns the owner, or makes the log: who is first draws it.
func (l *Log) meet(ctx context.Context, _ bool) error {
	if l.cfg.Existing {
		resp, err := l.client.Get(ctx, l.keys.log())
		if err != nil || len(resp.Kvs) == 0 {
			return cmp.Or(err, error(ErrMissing))
		}
		return l.recognize(string(resp.Kvs[0].Value))
	}
	owner, err := ulid.New(ulid.Timestamp(l.cfg.Clock()), l.cfg.Random)
	if err != nil {
		return fmt.Errorf("draw an owner: %w", err)
	}
	l.owner, l.record = owner.String(), fmt.Sprintf(recordFormat, owner)
	resp, err := l.client.Txn(ctx).If(absent(l.keys.log())).
		Then(clientv3.OpPut(l.keys.log(), l.record)).Else(clientv3.OpGet(l.keys.log())).Commit()
	if err != nil || resp.Succeeded {
		return err
	}
	return l.recognize(string(resp.Responses[0].GetResponseRange().Kvs[0].Value))
}

// recognize takes the owner from the log's record.
func (l *Log) recognize(record string) error {
	l.record = record
	before, after, _ := strings.Cut(recordFormat, "%s")
	if l.owner = strings.TrimSuffix(strings.TrimPrefix(l.record, before), after); before+l.owner+after != l.record || len(l.owner) != ulid.EncodedSize {
		return explain("open decision log", fmt.Errorf("%w: key %s", ErrFormat, l.keys.log()))
	}
	return nil
}

// Close carries out what was asked before and closes the connections. It is not an error to close a
// log twice. Where etcd does not answer, it takes Config.Patience and an attempt, however much waits: what has not
// been tried by then is not, and its callers are told ErrClosed.
func (l *Log) Close() (err error) {
	l.closed.Do(func() {
		late := time.AfterFunc(l.cfg.Patience, l.end)
		l.decisions.Close()
		l.notes.Close()
		late.Stop()
		l.end()
		l.tasks.Wait()
		if err = l.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("close the connections to etcd: %w", err)
		} else {
			err = nil
		}
	})
	return err
}

// Owner implements decision.Log. It is 26 letters and digits.
func (l *Log) Owner() string { return l.owner }

// ready reports why nothing can be asked of l, or nil.
func (l *Log) ready(ctx context.Context, op string) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case l.life.Err() != nil:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	case l.replaced.Load():
		return explain(op, errReplaced)
	}
	return nil
}

// attempt calls try until it succeeds, fails for good or Patience is over. Each try has AttemptTimeout,
// and its request is refused at once by a member that knows of no leader. unknown tells try whether an
// earlier one may have been carried out.
func (l *Log) attempt(ctx context.Context, try func(ctx context.Context, unknown bool) error) error {
	begin, unknown := time.Now(), false
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		if l.life.Err() != nil {
			return decision.ErrClosed
		}
		once, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), l.cfg.AttemptTimeout)
		err := try(once, unknown)
		cancel()
		if err == nil || errors.Is(err, decision.ErrNotFound) {
			l.reached()
			return err
		}
		v := judge(err)
		l.stats.failures.Add(1)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if v.unknown {
			l.missed(err)
			unknown = true
		}
		if !v.retry || time.Since(begin) >= l.cfg.Patience {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// missed and reached tell the operator when etcd goes away and when it is back.
func (l *Log) missed(err error) {
	if l.away.Swap(&err) == nil {
		l.cfg.Logger.Error("the decision log does not decide", "prefix", l.cfg.Prefix, "cause", err)
	}
}

func (l *Log) reached() {
	if l.away.Load() != nil && l.away.Swap(nil) != nil {
		l.cfg.Logger.Info("the decision log decides again", "prefix", l.cfg.Prefix)
	}
}

// request carries out ops, all or none, provided that the cluster still holds this log.
func (l *Log) request(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	l.stats.requests.Add(1)
	resp, err := l.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(l.keys.log()), "=", l.record)).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	if !resp.Succeeded {
		if !l.replaced.Swap(true) {
			l.cfg.Logger.Error("the decision log does not decide", "cause", errReplaced, "owner", l.owner)
		}
		return nil, errReplaced
	}
	return resp, nil
}

// Lookup implements decision.Register. It is linearizable.
func (l *Log) Lookup(ctx context.Context, id commit.TransactionID) (e decision.Entry, err error) {
	const op = "look up"
	if err := l.ready(ctx, op); err != nil {
		return e, err
	}
	if err := decision.CheckID(id); err != nil {
		return e, invalid(op, err)
	}
	err = l.attempt(ctx, func(ctx context.Context, _ bool) error {
		found, err := l.read(ctx, []commit.TransactionID{id})
		if err == nil && found[0] == nil {
			err = decision.ErrNotFound
		}
		if err == nil {
			e = found[0].entry
		}
		return err
	})
	return e, l.told(ctx, op, err)
}

// read returns what is held of each transaction, nil where there is nothing.
func (l *Log) read(ctx context.Context, ids []commit.TransactionID) ([]*held, error) {
	var ops []clientv3.Op
	for _, id := range ids {
		ops = append(ops, l.keys.get(id)...)
	}
	resp, err := l.request(ctx, ops...)
	if err != nil {
		return nil, err
	}
	all := make([]*held, len(ids))
	for i, id := range ids {
		if all[i], err = l.parse(id, resp.Responses[2*i:]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Forget implements decision.Log.
func (l *Log) Forget(ctx context.Context, id commit.TransactionID) error {
	const op = "forget"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := decision.CheckID(id); err != nil {
		return invalid(op, err)
	}
	err := l.attempt(ctx, func(ctx context.Context, unknown bool) error {
		resp, err := l.request(ctx, clientv3.OpTxn([]clientv3.Cmp{present(l.keys.entry(id))}, l.keys.drop(id), nil))
		if err == nil && !resp.Responses[0].GetResponseTxn().Succeeded && !unknown {
			return decision.ErrNotFound
		}
		return err
	})
	return l.told(ctx, op, err)
}
