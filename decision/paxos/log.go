package paxos

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/internal/journal"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

var (
	_ decision.Log      = (*Log)(nil)
	_ decision.Prefixer = (*Log)(nil)
)

// Log is a member's way to the decision log of its cluster. All methods are safe for concurrent use.
type Log struct {
	cfg  Config
	fs   vfs.FS
	self protocol.NodeID // this incarnation, as a proposer
	// roster is the latest epoch that is known. Who holds gate knows that it stays so, and that what is
	// delivered to the store meanwhile is of it.
	roster atomic.Pointer[roster]
	gate   sync.RWMutex
	stamps stamps
	opened time.Time
	lock   io.Closer
	stats  counters

	storage string // the name of the directory's storage
	// store is what keeps this member's copies; a failed one until another takes its place; nil
	// once the log is closed.
	store atomic.Pointer[store]
	// faulted says that storage has failed since Open, or had no room for what was decided: what was
	// begun before may be forgotten.
	faulted atomic.Bool

	outbox outbox

	mu        sync.Mutex
	proposals map[commit.TransactionID]*proposal
	calls     map[uint64]*call
	// lastCall numbers the calls. It begins anywhere: an answer to a Log's earlier life may still come.
	lastCall uint64
	closed   bool
	// early are payloads of an epoch that is not known yet.
	early      []earlyPayload
	earlyBytes int

	quit chan struct{}
	care sync.WaitGroup
}

// Open opens this node's part of the cluster's decision log. It holds a lock on the directory until
// Close, and serves the other members. It does not wait for them: calls do, in their own time.
//
// Open reads the directory and checks it. It fails, and changes nothing, where the directory is not
// this member's (ErrForeign), is in use (ErrLocked), was written by a newer Assent (ErrFormat), or is
// damaged (a *DamageError). Errors carry a hint (resource.HintOf).
func Open(cfg Config) (*Log, error) {
	const op = "open decision log"
	if err := cfg.validate(); err != nil {
		return nil, invalid(op, err)
	}
	l := &Log{
		cfg: cfg, fs: cfg.FS, opened: time.Now(),
		proposals: map[commit.TransactionID]*proposal{}, calls: map[uint64]*call{}, quit: make(chan struct{}),
	}
	l.stamps.now = cfg.Clock
	l.publishRoster(newRoster(cfg.Self, cfg.Epoch, nil))
	name, err := draw(cfg.Random, prefixLength)
	if err != nil {
		return nil, l.explain(op, err)
	}
	l.self = protocol.NodeID(name)
	if l.lastCall, err = drawNumber(cfg.Random); err != nil {
		return nil, l.explain(op, err)
	}
	if err := l.open(); err != nil {
		return nil, l.explain(op, err)
	}
	if cfg.Network != nil {
		cfg.Network.Receive(l.receive)
	}
	l.greet()
	l.care.Go(l.takeCare)
	return l, nil
}

func (l *Log) open() (err error) {
	if err := journal.MakeDir(l.fs, l.cfg.Dir); err != nil {
		return err
	}
	if l.lock, err = journal.Lock(l.fs, l.fs.PathJoin(l.cfg.Dir, lockName)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = l.lock.Close()
		}
	}()
	if l.storage, err = l.identify(); err != nil {
		return err
	}
	s, err := l.openStore(l.storage)
	if err != nil {
		return err
	}
	l.publishRoster(s.roster)
	l.store.Store(s)
	return nil
}

// Close forces what is known and closes the log. Calls under way fail. It is not an error to close it
// twice.
func (l *Log) Close() error {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	proposals := l.proposals
	l.proposals = map[commit.TransactionID]*proposal{}
	l.mu.Unlock()
	if was {
		return nil
	}
	close(l.quit)
	for _, p := range proposals {
		p.loop.Stop()
	}
	l.care.Wait()
	if err := l.store.Swap(nil).close(); err != nil {
		return err // a write may still reach the disk, so nobody else may have the directory
	}
	return l.lock.Close()
}

// close ends the store: what was delivered is served, if it has not failed.
func (s *store) close() error {
	rested := make(chan struct{})
	s.batch.Then(func() {
		s.rest()
		close(rested)
	})
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-rested:
	case <-s.failed:
	case <-timer.C:
		s.batch.Stop()
		return fmt.Errorf("close %s: the disk has not answered for %v", s.log.cfg.Dir, closeTime)
	}
	s.batch.Stop()
	return s.release()
}

// closeTime is how long a disk is given to answer before its storage is left as it is.
const closeTime = 10 * time.Second

// release waits for the working goroutine to end, after Stop, and gives the journal's files back.
func (s *store) release() error {
	s.batch.Wait()
	s.released.Do(func() { s.releaseErr = s.journal.Close() })
	if s.failure() != nil {
		return nil // why it failed is known
	}
	return s.releaseErr
}

// storageFailed is called once for a store that has failed.
func (l *Log) storageFailed(s *store, err error) {
	l.faulted.Store(true)
	l.cfg.Logger.Error("the storage of this member has stopped; the others go on",
		"member", l.cfg.Self, "dir", l.cfg.Dir, "cause", err)
	var decided []*proposal // they waited for the storage to know
	l.mu.Lock()
	for id, p := range l.proposals {
		if p.decided() {
			delete(l.proposals, id)
			decided = append(decided, p)
		}
	}
	l.mu.Unlock()
	for _, p := range decided {
		if p.err == nil {
			l.publish(held{id: p.id, chosen: true, value: p.stands})
		}
	}
}

// takeCare looks after what nobody asks for: what is written is forced, peers are told, storage that
// has failed is opened again.
func (l *Log) takeCare() {
	tick := time.NewTicker(restTime)
	defer tick.Stop()
	greeted, reopened := time.Now(), time.Now()
	for {
		select {
		case <-l.quit:
			return
		case <-tick.C:
		}
		now := time.Now()
		s := l.store.Load()
		every := helloTime
		if s.failure() == nil {
			s.tend()
			if s.waits() {
				every = 2 * restTime
			}
		} else if now.Sub(reopened) >= l.cfg.RetryInterval {
			l.reopen(s)
			reopened = now
		}
		if now.Sub(greeted) >= every {
			l.greet()
			greeted = now
		}
	}
}

// tend lets the working goroutine force, tell and drop what is due.
func (s *store) tend() {
	if !s.tending.CompareAndSwap(0, time.Now().UnixNano()) {
		return // it is busy with the last
	}
	s.batch.Then(func() {
		defer s.tending.Store(0)
		s.retire()
		if !s.forced {
			s.rest()
		}
		s.compact()
		if s.failure() == nil {
			s.tellSettled()
		}
		s.forced = false
	})
}

// stuck returns for how long the disk has not answered, where that is long.
func (s *store) stuck() (d time.Duration, is bool) {
	since := s.tending.Load()
	if since == 0 {
		return 0, false
	}
	d = time.Duration(time.Now().UnixNano() - since)
	return d, d > 5*time.Second
}

// reopen puts another store in place of one that has failed, if its disk lets it.
func (l *Log) reopen(failed *store) {
	_ = failed.release()
	s, err := l.openStore(l.storage)
	if err != nil {
		l.cfg.Logger.Warn("the storage of this member stays stopped", "member", l.cfg.Self, "dir", l.cfg.Dir, "cause", err)
		return
	}
	l.gate.Lock()
	if r := l.roster.Load(); r.number() > s.roster.number() {
		s.enterEpoch(r) // it began meanwhile
	}
	l.store.Store(s)
	l.gate.Unlock()
	l.cfg.Logger.Info("the storage of this member serves again", "member", l.cfg.Self, "dir", l.cfg.Dir)
}

// serving returns the store if it serves, or nil.
func (l *Log) serving() *store {
	if s := l.store.Load(); s != nil && s.failure() == nil {
		return s
	}
	return nil
}

// Owner implements decision.Log.
func (l *Log) Owner() string { return l.cfg.Owner }

// Prefix implements decision.Prefixer: the ids that begin with it, and are longer, are decided about in
// one round trip. It is 20 letters and digits.
func (l *Log) Prefix() string { return string(l.self) }

// now is the log's clock in Unix milliseconds.
func (l *Log) now() int64 { return l.cfg.Clock().UnixMilli() }

// ready reports why nothing can be asked of the log, or nil.
func (l *Log) ready(ctx context.Context, op string) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	select {
	case <-l.quit:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	default:
		return nil
	}
}

// invalid says that a request is wrong, and why.
func invalid(op string, err error) error {
	return &resource.Error{Code: resource.Invalid, Op: op, Err: err}
}

// payloadOf begins a payload of that epoch that will be about that long.
func (l *Log) payloadOf(size int, epoch uint64) []byte {
	return appendEnvelope(make([]byte, 0, size), envelope{
		owner: l.cfg.Owner, incarnation: l.self, stamp: l.stamps.last.Load(), epoch: epoch,
	})
}

// peerOf returns the peer whose Log is of that incarnation, or nil.
func (l *Log) peerOf(incarnation protocol.NodeID) *peer {
	for _, p := range l.roster.Load().peers {
		if is := p.incarnation.Load(); is != nil && *is == incarnation {
			return p
		}
	}
	return nil
}
