package site

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

// store holds the stable records of all machines of a site, in an embedded store of their own. A key
// is the transaction's id, the machine's address and the machine's own key, with a zero byte between
// them; what stands under the machine's empty key is the transaction.
type store struct {
	kv    *kv.Resource
	codec *protocol.Codec
	run   string
	// owner is part of the names of this site's branches. It was drawn when the store was made: whoever
	// has lost the records has lost the name, too, and does not touch what was promised under it.
	owner  string
	writes atomic.Uint64
}

// ownerKey holds the owner, formatKey the format. No machine's key is without a zero byte.
var (
	ownerKey  = []byte("owner")
	formatKey = []byte("format")
)

// format is the format of the records. The first one had no key that says so, and its transactions did not name their
// parts: every node took those that its configuration named.
const format = "2"

// ErrFormat says that a site's records are of a format that this version does not read.
var ErrFormat = errors.New("the records are of another format")

// machineKey names a machine: a transaction, and its address at it.
type machineKey struct {
	id      commit.TransactionID
	address protocol.NodeID
}

func (k machineKey) prefix() []byte {
	return append(append(append([]byte(k.id), 0), k.address...), 0)
}

func openStore(ctx context.Context, cfg Config, codec *protocol.Codec) (*store, error) {
	run, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("site: make an id: %w", err)
	}
	r, err := kv.Open(cfg.Dir, kv.Config{FS: cfg.FS, Logger: cfg.Logger, KeepOutcomes: 1, KeepFor: time.Second})
	if err != nil {
		return nil, fmt.Errorf("site: records: %w", err)
	}
	s := &store{kv: r, codec: codec, run: run.String()}
	if err := s.identify(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("site: records: %w", err), r.Close())
	}
	return s, nil
}

// identify finds the owner, or draws one for a new store. It refuses a store of another format, unless nothing is in it.
func (s *store) identify(ctx context.Context) error {
	known, used := "", false
	err := s.kv.View(ctx, func(v *kv.View) error {
		owner, _, err := v.Get(ownerKey)
		if err != nil {
			return err
		}
		written, _, err := v.Get(formatKey)
		if err != nil {
			return err
		}
		s.owner, known = string(owner), string(written)
		for p, err := range v.Scan(nil, nil) {
			if err != nil {
				return err
			}
			used = used || bytes.IndexByte(p.Key, 0) >= 0
		}
		return nil
	})
	switch {
	case err != nil || known == format:
		return err
	case known != "":
		return fmt.Errorf("%w: %q, and this version reads %s: use the version that wrote them", ErrFormat, known, format)
	case used:
		return fmt.Errorf("%w: an earlier version wrote them, in which transactions did not name who takes part: "+
			"finish them with that version, and when assent list shows none at any node, stop it, and remove this directory", ErrFormat)
	case s.owner == "":
		s.owner = "site-" + s.run // 31 bytes
	}
	return s.change(func(ctx context.Context, b *kv.Tx) error {
		return errors.Join(b.Put(ctx, ownerKey, []byte(s.owner)), b.Put(ctx, formatKey, []byte(format)))
	})
}

// force makes the writes of one step stable, as one.
func (s *store) force(k machineKey, t Transaction, writes []protocol.Write) error {
	prefix := k.prefix()
	err := s.change(func(ctx context.Context, b *kv.Tx) error {
		err := s.put(ctx, b, prefix, "", t)
		for _, w := range writes {
			if w.Record == nil {
				err = errors.Join(err, b.Delete(ctx, append(bytes.Clone(prefix), w.Key...)))
				continue
			}
			err = errors.Join(err, s.put(ctx, b, prefix, w.Key, w.Record))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("site: record %q: %w", k.id, err)
	}
	return nil
}

// cannotRecord notes that a write has failed. A store that has stopped writes nothing more.
func (h *Host) cannotRecord(err error) {
	if !errors.Is(err, kv.ErrStopped) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
}

// change makes a change of the store stable.
func (s *store) change(do func(context.Context, *kv.Tx) error) error {
	ctx := context.Background() // a machine's writes are made whoever waits
	branch, err := s.kv.Begin(ctx, resource.ID{Owner: "site", Branch: "records",
		Transaction: s.run + "-" + strconv.FormatUint(s.writes.Add(1), 36)})
	if err != nil {
		return err
	}
	b := branch.(*kv.Tx)
	if err := do(ctx, b); err != nil {
		_, undo := b.Rollback(ctx)
		return errors.Join(err, undo)
	}
	outcome, err := b.CommitOnePhase(ctx)
	if err == nil && outcome != commit.Committed {
		err = fmt.Errorf("the write was %v", outcome)
	}
	return err
}

func (s *store) put(ctx context.Context, b *kv.Tx, prefix []byte, key string, record any) error {
	data, err := s.codec.Encode(record)
	if err != nil {
		return err
	}
	return b.Put(ctx, append(bytes.Clone(prefix), key...), data)
}

// forget drops the records of machines, in one write.
func (s *store) forget(keys []machineKey) error {
	return s.change(func(ctx context.Context, b *kv.Tx) error {
		for _, k := range keys {
			for p, err := range b.ScanPrefix(ctx, k.prefix()) {
				if err != nil {
					return err
				}
				if err := b.Delete(ctx, p.Key); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// kept is what is on record of one machine.
type kept struct {
	key         machineKey
	transaction Transaction
	records     protocol.Records
}

// all returns what is on record, in the order of the keys.
func (s *store) all(ctx context.Context) (found []kept, err error) {
	err = s.kv.View(ctx, func(v *kv.View) error {
		for p, err := range v.Scan(nil, nil) {
			if err != nil {
				return err
			}
			if bytes.Equal(p.Key, ownerKey) || bytes.Equal(p.Key, formatKey) {
				continue
			}
			parts := bytes.SplitN(p.Key, []byte{0}, 3)
			if len(parts) != 3 {
				return fmt.Errorf("the record %.40q is damaged: its key cannot be read", p.Key)
			}
			record, err := s.codec.Decode(p.Value)
			if err != nil {
				return fmt.Errorf("the record %.40q is damaged: %w", p.Key, err)
			}
			k := machineKey{commit.TransactionID(parts[0]), protocol.NodeID(parts[1])}
			if len(found) == 0 || found[len(found)-1].key != k {
				found = append(found, kept{key: k, records: protocol.Records{}})
			}
			last := &found[len(found)-1]
			if len(parts[2]) > 0 {
				last.records[string(parts[2])] = record
				continue
			}
			t, ok := record.(Transaction)
			if !ok {
				return fmt.Errorf("the record %.40q is damaged: it is a %T", p.Key, record)
			}
			last.transaction = t
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("site: read the records: %w", err)
	}
	return found, nil
}

func (s *store) close() error { return s.kv.Close() }
