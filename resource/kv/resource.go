package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"assent/resource"
)

var (
	_ resource.Resource = (*Resource)(nil)
	_ resource.Doctor   = (*Resource)(nil)
)

// Resource is an open store. All its methods are safe for concurrent use.
type Resource struct {
	dir    string
	cfg    Config
	engine *engine
	codec  codec
	store  [16]byte
	locks  lockTable

	mu       sync.Mutex
	branches map[resource.ID]*Tx               // those that are not finished
	prepared map[resource.ID]resource.Prepared // those of them that have voted yes

	outcomes outcomes
}

// Open opens the store in the directory dir, and makes it, for this user alone, if there is none.
// When it returns, the branches that were prepared are prepared again and hold their locks. It
// fails when another process, or another Resource, has the store open, and when the store is
// damaged: then it names the record.
func Open(dir string, cfg Config) (*Resource, error) {
	cfg.setDefaults()
	err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	r := &Resource{dir: dir, cfg: cfg, branches: map[resource.ID]*Tx{}, prepared: map[resource.ID]resource.Prepared{}}
	if r.codec, err = newCodec(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if r.engine, err = openEngine(dir, cfg); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, unavailable("open", err))
	}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, errors.Join(err, r.engine.close()))
	}
	r.prune()
	return r, nil
}

// Close closes the store. Calls that wait for locks end with ErrClosed; those that write are
// waited for. Branches that are not prepared are gone; prepared ones are there after the next
// Open. A second Close does nothing.
func (r *Resource) Close() error {
	if err := r.engine.close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// load reads, or makes, what the store holds about itself.
func (r *Resource) load() error {
	data, ok, err := r.engine.get([]byte{metaKey})
	if err != nil {
		return unavailable("open", err)
	}
	if !ok {
		return r.create()
	}
	m, err := r.codec.decodeMeta(data)
	if err != nil {
		return damaged("meta", "the store", err)
	}
	r.store = m.Store
	if err := r.loadOutcomes(m.Pruned); err != nil {
		return err
	}
	return r.loadPrepared()
}

func (r *Resource) create() error {
	err := r.engine.each(nil, nil, func(key, _ []byte) (bool, error) {
		return false, fmt.Errorf("there is a key %.20q, but no meta record", key)
	})
	if err != nil {
		return damaged("meta", "the store", err)
	}
	if _, err := io.ReadFull(r.cfg.Random, r.store[:]); err != nil {
		return unavailable("open", err)
	}
	b := r.engine.db.NewBatch()
	if err := r.putMeta(b, 0); err != nil {
		return err
	}
	if err := r.engine.apply(b, true); err != nil {
		return unavailable("open", err)
	}
	return nil
}

func (r *Resource) putMeta(b *pebble.Batch, pruned uint64) error {
	data, err := r.codec.enc.Marshal(meta{Format: format, Store: r.store, Pruned: pruned})
	if err != nil {
		return err
	}
	return b.Set([]byte{metaKey}, data, nil)
}

func (r *Resource) loadPrepared() error {
	return r.engine.each([]byte{preparedKey}, []byte{preparedKey + 1}, func(key, value []byte) (bool, error) {
		id, ok := resource.ParseID(string(key[1:]))
		if !ok {
			return false, damaged("prepared", fmt.Sprintf("%.200q", key[1:]), errors.New("it is no branch id"))
		}
		p, err := r.codec.decodePrepared(value)
		if err != nil {
			return false, damaged("prepared", id.String(), err)
		}
		t := r.newTx(id)
		r.branches[id] = t
		t.adopt(p)
		return true, nil
	})
}

// Begin opens the branch id. Errors: Invalid for a bad id; Duplicate if the branch is unfinished,
// or was committed; Broken if it was rolled back; Capacity beyond Config.MaxBranches; Unavailable.
func (r *Resource) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	t, err := r.begin(ctx, id)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (r *Resource) begin(ctx context.Context, id resource.ID) (*Tx, error) {
	const op = "begin"
	if err := id.Validate(); err != nil {
		return nil, invalid(op, err)
	}
	if ctx.Err() != nil {
		return nil, ended(ctx, op)
	}
	if err := r.engine.enter(); err != nil {
		return nil, unavailable(op, err)
	}
	defer r.engine.leave()
	t := r.newTx(id)
	t.turn <- struct{}{} // nobody else has it
	defer t.yield()
	if err := r.register(t); err != nil {
		return nil, err
	}
	was, known, err := r.recorded(id)
	switch {
	case err != nil:
		t.state = unknown // whoever has found it meanwhile looks for itself
		t.leave()
		return nil, unavailable(op, err)
	case known:
		t.ballot = was.Ballot // for whoever has found it meanwhile and asks how it ended
		t.finished(was.outcome())
	}
	switch {
	case known && was.Committed:
		return nil, duplicate(op, "the branch was committed before")
	case known:
		return nil, broken(op, errors.New("the branch was rolled back before"))
	}
	return t, nil
}

// register enters t among the unfinished branches.
func (r *Resource) register(t *Tx) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.branches[t.id]; ok {
		return duplicate("begin", "the branch is not finished")
	}
	if len(r.branches) >= r.cfg.MaxBranches {
		return &resource.Error{Code: resource.Capacity, Op: "begin",
			Detail: fmt.Sprintf("%d branches are unfinished", len(r.branches)),
			Hint:   "finish the branches in doubt, or raise MaxBranches"}
	}
	r.branches[t.id] = t
	return nil
}

// Join joins the transaction tx and returns its branch in r. It fails as tx.Join does.
func (r *Resource) Join(ctx context.Context, tx resource.Transaction) (*Tx, error) {
	b, err := tx.Join(ctx, r)
	if err != nil {
		return nil, err
	}
	t, ok := b.(*Tx)
	if !ok || t.r != r {
		return nil, invalid("join", fmt.Errorf("the transaction answered with a branch of another resource (%T)", b))
	}
	return t, nil
}
