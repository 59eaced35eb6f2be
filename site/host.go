package site

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// Host is an open site. All methods are safe for concurrent use.
type Host struct {
	cfg     Config
	codec   *protocol.Codec
	store   *store
	run     string
	counter atomic.Uint64

	mu       sync.Mutex
	works    map[commit.TransactionID]*work
	machines map[machineKey]*machine
	closed   bool
	stopped  bool                               // the records cannot be written any more
	begun    map[commit.TransactionID]time.Time // what began here and was not asked to commit or abort, since when
	barred   map[commit.TransactionID]int       // what is not begun here while leftovers of it are rolled back, in how many resources
	down     map[protocol.NodeID]time.Time      // coordinators of open work that seem to be down, since when
	leaving  time.Time                          // until then no new work is taken
	workers  sync.WaitGroup
	inbound  chan mail

	life context.Context
	end  context.CancelFunc
}

// Open opens the site and takes up whatever it had promised. What is found prepared in its name and was
// never promised is rolled back: no vote of it had left.
func Open(ctx context.Context, cfg Config) (h *Host, err error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	codec, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	run, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("site: make an id: %w", err)
	}
	h = &Host{cfg: cfg, codec: codec, run: run.String(), works: map[commit.TransactionID]*work{}, machines: map[machineKey]*machine{},
		begun: map[commit.TransactionID]time.Time{}, barred: map[commit.TransactionID]int{}, inbound: make(chan mail, mostMail)}
	h.life, h.end = context.WithCancel(context.Background())
	if h.store, err = openStore(ctx, cfg, codec); err != nil {
		return nil, err
	}
	found, err := h.store.all(ctx)
	if err != nil {
		return nil, errors.Join(err, h.store.close())
	}
	h.mu.Lock()
	var anew []*machine
	for _, k := range found {
		m := h.makeAnew(k.key, k.transaction)
		m.recover, m.promised = k.records, k.key.address == cfg.Self && isPromise(k.records[commit.BranchKey])
		m.remind()
		anew = append(anew, m)
	}
	h.mu.Unlock()
	cfg.Network.Receive(h.receive)
	for _, m := range anew {
		m.begin()
		for _, n := range m.notes {
			if n.Site == cfg.Self {
				m.act(n)
			}
		}
	}
	for range readers {
		h.workers.Go(h.read)
	}
	h.workers.Go(h.sweepForEver)
	h.workers.Go(h.watchCoordinators)
	for name := range cfg.Resources {
		h.workers.Go(func() { h.scanForEver(name) })
	}
	return h, nil
}

// Close stops the site. What is in doubt stays so until it is opened again; what was never promised is
// rolled back. The resources stay open.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	var works []*work
	for _, m := range h.machines {
		m.loop.Stop()
	}
	for _, w := range h.works {
		w.timer()
		if !w.asked {
			works = append(works, w)
		}
	}
	h.mu.Unlock()
	for _, w := range works {
		w.rollback(nil)
	}
	h.end()
	h.workers.Wait()
	return h.store.close()
}

// Announcement is what other nodes must be told of this site, again and again: Heard makes of it what their
// View.Members have for this one. It names the site's stable records and its incarnation, and says whether the node is
// about to leave.
func (h *Host) Announcement() string {
	text := h.store.owner + " " + h.run
	if h.isLeaving() {
		text += leavingMark
	}
	return text
}

// Begin names a new transaction that this site coordinates.
func (h *Host) Begin(p Protocol) (Transaction, error) {
	if err := p.Check(); err != nil {
		return Transaction{}, fmt.Errorf("site: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case h.stopped:
		return Transaction{}, fmt.Errorf("site: %w", ErrStopped)
	case now.Before(h.leaving):
		return Transaction{}, fmt.Errorf("site: %w", ErrLeaving)
	case len(h.begun) >= h.cfg.MaxTransactions:
		return Transaction{}, fmt.Errorf("site: %d transactions have begun here, and nobody has asked for them to be committed; no more are allowed at a time", len(h.begun))
	}
	id := commit.TransactionID(h.run + "-" + strconv.FormatUint(h.counter.Add(1), 36))
	h.begun[id] = now
	return Transaction{ID: id, Protocol: p, Coordinator: h.cfg.Self}, nil
}

// Join begins the transaction's branch in the resource name at this site, or returns the one that it
// has. It is open for work until the site is asked for its vote, or for Config.Timeout. again says that
// the transaction has worked here before: work that was lost since, in a crash, is then not begun anew, for the
// site would vote on half of it.
func (h *Host) Join(ctx context.Context, t Transaction, name string, again bool) (resource.Branch, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	r, ok := h.cfg.Resources[name]
	if !ok {
		return nil, fmt.Errorf("site: no resource of node %q is named %q", h.cfg.Self, name)
	}
	w, err := h.workOf(t, again)
	if err != nil {
		return nil, err
	}
	defer w.joining.Add(-1)
	return w.join(ctx, name, r)
}

// Branches returns the transaction's way to its branches in this site's resources. again is that of Join.
func (h *Host) Branches(t Transaction, again bool) resource.Transaction { return branches{h, t, again} }

type branches struct {
	h     *Host
	t     Transaction
	again bool
}

// Join implements resource.Transaction.
func (b branches) Join(ctx context.Context, r resource.Resource) (resource.Branch, error) {
	for name, known := range b.h.cfg.Resources {
		if known == r {
			return b.h.Join(ctx, b.t, name, b.again)
		}
	}
	return nil, fmt.Errorf("site: the resource is not one of node %q", b.h.cfg.Self)
}

// workOf returns the transaction's work, which begins with the first call. It counts the caller as one that joins.
func (h *Host) workOf(t Transaction, again bool) (*work, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, ErrClosed
	case h.stopped:
		return nil, fmt.Errorf("site: %q: %w", t.ID, ErrStopped)
	}
	if w := h.works[t.ID]; w != nil && h.barred[t.ID] == 0 {
		if w.asked {
			return nil, fmt.Errorf("site: %q: %w", t.ID, ErrOver)
		}
		w.joining.Add(1)
		return w, nil
	}
	if h.machines[machineKey{t.ID, h.cfg.Self}] != nil || h.barred[t.ID] > 0 {
		return nil, fmt.Errorf("site: %q: %w", t.ID, ErrOver)
	}
	if time.Now().Before(h.leaving) {
		return nil, fmt.Errorf("site: %q: %w", t.ID, ErrLeaving)
	}
	if again {
		return nil, fmt.Errorf("site: %q: the work that it has done at node %q is lost: %w", t.ID, h.cfg.Self, ErrOver)
	}
	if len(h.works)+len(h.machines) >= h.cfg.MaxTransactions {
		return nil, fmt.Errorf("site: %d transactions are remembered; no more are allowed at a time", h.cfg.MaxTransactions)
	}
	w := &work{h: h, t: t, branches: map[string]*part{}}
	w.timer = h.cfg.Clock.AfterFunc(h.cfg.Timeout, func() {
		h.input(t, h.cfg.Self, commit.Abandon{Reason: fmt.Sprintf("not asked for a vote within %v", h.cfg.Timeout)})
	})
	w.joining.Add(1)
	h.works[t.ID] = w
	return w, nil
}

// Commit has the transaction, which began here, committed at the sites, and waits until it is decided
// and, if wait says so, until every site has done as decided. Its parts are settled here, by Config.Cluster. It
// returns ErrAlone, and nothing was asked of anybody, where they cannot be, and ErrInDoubt if ctx ends first.
func (h *Host) Commit(ctx context.Context, t Transaction, sites []protocol.NodeID, wait bool) (Result, error) {
	if err := t.check(); err != nil {
		return Result{}, err
	}
	if t.Coordinator != h.cfg.Self {
		return Result{}, fmt.Errorf("site: %q began at node %q; only that may ask for it to be committed", t.ID, t.Coordinator)
	}
	if len(sites) == 0 || len(sites) > MaxSites {
		return Result{}, fmt.Errorf("site: %d sites take part; 1 to %d are allowed", len(sites), MaxSites)
	}
	if h.has(machineKey{t.ID, t.headOf()}) {
		return Result{}, fmt.Errorf("site: %q: %w", t.ID, ErrOver)
	}
	t, err := h.awaitParts(ctx, t, sites)
	if err != nil {
		return Result{}, err
	}
	m, err := h.head(t, sites)
	if err != nil {
		return Result{}, err
	}
	m.begin()
	return m.await(ctx, wait)
}

// Abort gives up the transaction, which began here and was not asked to commit: nobody has voted, so there is
// nothing to decide. It does not wait for the sites. One that is not reached, or not known, gives the work up when
// Config.Timeout is over.
func (h *Host) Abort(t Transaction, sites []protocol.NodeID, reason string) error {
	if err := t.check(); err != nil {
		return err
	}
	if t.Coordinator != h.cfg.Self {
		return fmt.Errorf("site: %q began at node %q; only that may ask for it to be aborted", t.ID, t.Coordinator)
	}
	h.mu.Lock()
	_, works := h.works[t.ID]
	delete(h.begun, t.ID)
	h.mu.Unlock()
	open := t
	t = t.settle(h.view(), sites)
	if _, ok := t.part(h.cfg.Self); !ok { // nobody would answer it
		if works {
			h.input(open, h.cfg.Self, commit.Abandon{Reason: reason})
		}
		return fmt.Errorf("site: %q: %w: node %s is no member of the cluster", t.ID, ErrAlone, h.cfg.Self)
	}
	sites = slices.DeleteFunc(slices.Clone(sites), func(n protocol.NodeID) bool { return !t.has(n) })
	if t.Protocol != PaxosCommit {
		m, err := h.head(t, sites)
		if err != nil {
			return err
		}
		m.loop.Deliver(protocol.Input{Value: commit.Cancel{Reason: reason}})
		m.begin()
		return nil
	}
	// The machine of this site is made here, so nobody can ask it to lead any more.
	m, err := h.alone(t)
	if err != nil {
		return err
	}
	m.begin()
	m.loop.Deliver(protocol.Input{Value: commit.Abandon{Reason: reason}})
	for _, n := range sites {
		if n != h.cfg.Self {
			h.send(t, t.headOf(), n, commit.Finish{ID: t.ID, Decision: commit.Abort})
		}
	}
	return nil
}

// Status is where a machine of a transaction stands at this site.
type Status struct {
	Transaction
	// Role is participant, coordinator or, in Paxos Commit, both and acceptor as one.
	Role string `json:"role"`
	// InDoubt says that this site has voted yes and does not know the decision.
	InDoubt  bool            `json:"inDoubt"`
	Decision commit.Decision `json:"decision"`
	// Done says that nothing is left to do here but to answer those who ask.
	Done bool `json:"done"`
	// Missing says of one that is not decided, as far as this site knows, which nodes it waits for that are gone from
	// the cluster, if it cannot be decided without them.
	Missing string `json:"missing,omitempty"`
	// Awaits are the sites that were told the decision here and have not said that they did as decided.
	Awaits []protocol.NodeID `json:"awaits,omitempty"`
	// Notes are what operators have said of it here, oldest first.
	Notes []Note `json:"notes,omitempty"`
}

// List returns where each machine of this site stands, in the order of the transactions' ids.
func (h *Host) List() []Status {
	h.mu.Lock()
	machines := slices.Collect(maps.Values(h.machines))
	h.mu.Unlock()
	all := make([]Status, 0, len(machines))
	view := h.view()
	for _, m := range machines {
		s := m.status()
		if s.Decision == commit.Undecided && !s.Done {
			s.Missing = s.Transaction.missing(view)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Role, b.Role)) })
	return all
}

// spawn runs f in a goroutine that Close waits for, unless the host is closed.
func (h *Host) spawn(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.workers.Go(f)
	}
}
