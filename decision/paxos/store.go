package paxos

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"assent/decision"
	"assent/engine"
	"assent/internal/journal"
	"assent/protocol"
	"assent/protocol/commit"
)

// instance is a copy in a store's table.
type instance struct {
	Copy
	store *store
	// base is the segment that holds the first record which is needed to restore it; 0 for none.
	base uint64
	// status is its entry's, and since is when that became Done, in Unix milliseconds.
	status decision.Status
	since  int64
	// version counts its changes. Of the peers whose bits are set in owed, it is not known that they
	// hold the last one; it stands in the queues of those in queued.
	version      uint64
	owed, queued uint64 // a bit for each place
	bytes        int64  // roughly, in the journal
	dropped      bool
}

// Step implements protocol.Machine. Others may look at the table meanwhile.
func (in *instance) Step(ev protocol.Event, out *protocol.Effects) {
	s := in.store
	s.mu.Lock()
	defer s.mu.Unlock()
	in.Copy.Step(ev, out)
	told := false
	for _, w := range out.Writes {
		if _, ok := w.Record.(acceptorRecord); !ok {
			told = true
		}
	}
	if len(out.Writes) > 0 {
		s.measure(in)
	}
	if told {
		s.changed(in, ev.(protocol.Receive).From)
	} else if in.status == decision.Done && !in.Chosen {
		s.setStatus(in, 0) // a grave is one no more when it has promised or accepted
	}
}

// store is the open storage of a member: the copies of all transactions, and the journal that keeps
// them. After the first failure it says nothing any more; a new one takes its place.
type store struct {
	log   *Log
	batch *engine.Batch
	name  string // tells this directory from every other

	mu    sync.Mutex
	table map[commit.TransactionID]*instance
	done  []doneItem // the instances that were Done, oldest first; some are so no more
	// settled is how many are Done now, and bytes the sum of all in the journal, roughly.
	settled int
	bytes   int64
	// horizon is the latest stamp of what was dropped, which need not come back.
	horizon uint64
	// roster is the epoch of the acceptors. The working goroutine changes it, and may read it unguarded.
	roster *roster
	feeds  [MaxMembers]feed // one for each place
	// inventory is what a change of the members has yet to see to.
	inventory *inventory
	// members are the storages of the other members that are known to have been up, and admitted says
	// that the others have written this one down.
	members  map[protocol.NodeID]string
	welcomes map[protocol.NodeID]bool
	admitted bool
	stranger string // why it is not admitted and will not be

	failed chan struct{} // closed after the first failure
	once   sync.Once
	cause  error // valid once failed is closed
	// released gives the files back, once.
	released   sync.Once
	releaseErr error

	// The working goroutine's own.
	journal  *journal.Journal
	segments []uint64               // that exist, oldest first
	unkept   [MaxMembers]uint64     // by place: the feed of which there was no room for something
	based    map[uint64][]*instance // for each segment, the instances that may have their base there
	group    []byte
	count    int
	touched  []*instance
	out      map[protocol.NodeID][]byte // payloads that are being put together
	outSize  int                        // of the latest
	// later waits for what is written to be stable, and ripe has waited for it: see settle. Forced says that
	// something was forced since the last time that the working goroutine was asked to tend.
	later, ripe []func()
	forced      bool
	telling     bool // tell waits in one of them
	// compactAt is the number of segments above which the oldest go.
	compactAt int
	// tending is since when the working goroutine has been asked to tend; 0 when it has done so.
	tending atomic.Int64
}

// doneItem is an instance that became Done at that time.
type doneItem struct {
	in    *instance
	since int64
}

// failure returns why the store has stopped, or nil.
func (s *store) failure() error {
	select {
	case <-s.failed:
		return s.cause
	default:
		return nil
	}
}

// fail stops the store. Only the first call has an effect.
func (s *store) fail(err error) {
	s.once.Do(func() {
		s.cause = err
		close(s.failed)
		s.batch.Stop()
		s.log.storageFailed(s, err)
	})
}

// Machine implements engine.BatchHands. A transaction of which nothing is held gets a copy.
func (s *store) Machine(name string) protocol.Machine {
	if name == fenceName {
		return fence{s}
	}
	id := commit.TransactionID(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in, ok := s.table[id]; ok {
		return in
	}
	if s.overfull() {
		return nil // its proposer asks again; it is told why by its own storage
	}
	in := &instance{Copy: Copy{ID: id}, store: s}
	s.table[id] = in
	return in
}

// overfull reports whether not even what others propose can be held. Those propose no more when they are full
// themselves, and they hold much the same; so there is room for what they have under way. While the members
// change there is always room: that is the way out where one of them is away for good. The caller holds s.mu.
func (s *store) overfull() bool {
	most := s.log.cfg.MaxOpen + s.log.cfg.RetainCount
	return len(s.table) >= most+most/8+s.log.cfg.MaxWaiting && s.roster.system.Next == nil
}

// full returns why no further transaction may be proposed here, or nil. The caller holds s.mu.
func (s *store) full() error {
	if len(s.table) < s.log.cfg.MaxOpen+s.log.cfg.RetainCount {
		return nil
	}
	owed := uint64(0)
	for _, d := range s.done[:min(len(s.done), 64)] {
		owed |= d.in.owed
	}
	return fmt.Errorf("%d entries are held, %d of them done%s", len(s.table), s.settled, s.log.awaited(owed))
}

// Force implements engine.BatchHands.
func (s *store) Force(steps []engine.Step) error {
	hard := false
	for i := range steps {
		if len(steps[i].Out.Writes) == 0 {
			continue
		}
		in, ok := steps[i].Machine.(*instance)
		if !ok {
			e := steps[i].Out.Writes[0].Record.(epochRecord)
			s.putEpoch(e.Blank, e.Epoch)
			hard = true
			continue
		}
		if s.enter(in, steps[i].Out.Writes) {
			hard = true
		}
	}
	s.flushGroup()
	if hard && s.failure() == nil {
		s.log.stats.forces.Add(1)
		s.forced = true
		s.sync()
	}
	if len(s.segments) > s.compactAt {
		s.compact()
	}
	return s.failure()
}

// enter adds what a step of in writes to the present group, all of it. It reports whether that must be
// stable before anything follows.
func (s *store) enter(in *instance, writes []protocol.Write) (hard bool) {
	s.room(int(in.bytes))
	for _, w := range writes {
		h := false
		s.group, h = appendWrite(s.group, in.ID, w)
		s.count++
		hard = hard || h
		if _, ok := w.Record.(acceptorRecord); ok && in.Forgotten == 0 && len(in.Notes) == 0 {
			in.base = 0 // nothing before is needed
		}
	}
	s.touched = append(s.touched, in)
	return hard
}

// sync forces what was written.
func (s *store) sync() {
	s.log.stats.syncs.Add(1)
	if err := s.journal.Sync(); err != nil {
		s.fail(err)
		return
	}
	s.ripen()
}

// room makes a new group where the present one would grow too long.
func (s *store) room(more int) {
	if s.count > 0 && len(s.group)+more > maxGroup {
		s.flushGroup()
	}
}

const maxGroup = 1 << 20 // bytes

// put adds a record that no copy's step has made. The caller is the working goroutine.
func (s *store) put(record func([]byte) []byte) {
	s.room(0)
	s.group = record(s.group)
	s.count++
}

// flushGroup writes the records that were put together, and does not force them. A failure stops the
// store.
func (s *store) flushGroup() {
	if s.count == 0 || s.failure() != nil {
		return
	}
	_, err := s.journal.Write(s.group, s.count, s.log.now())
	s.log.stats.groups.Add(1)
	s.log.stats.bytes.Add(uint64(len(s.group)))
	if cap(s.group) > 4*maxGroup {
		s.group = make([]byte, journal.GroupHeader, maxGroup)
	}
	s.group, s.count = s.group[:journal.GroupHeader], 0
	if err != nil {
		s.fail(err)
		return
	}
	at := s.journal.Segment()
	if at != s.segments[len(s.segments)-1] {
		s.segments = append(s.segments, at)
	}
	for _, in := range s.touched {
		if in.base == 0 {
			in.base = at
			s.based[at] = append(s.based[at], in)
		}
	}
	clear(s.touched)
	s.touched = s.touched[:0]
}

// compact copies forward what is needed of the oldest segments and removes them, while there are more
// than what is held needs. It does a little at a time, for everybody waits.
func (s *store) compact() {
	if s.failure() != nil {
		return
	}
	s.mu.Lock()
	s.compactAt = 4 + int(2*s.bytes/s.log.cfg.SegmentBytes)
	s.mu.Unlock()
	for n := 0; n < 2 && len(s.segments) > s.compactAt && s.failure() == nil; n++ {
		s.compactOldest()
	}
}

func (s *store) compactOldest() {
	oldest, first := s.segments[0], s.segments[1]
	for _, in := range s.based[oldest] {
		if in.base != oldest || in.dropped {
			continue
		}
		s.room(int(in.bytes))
		s.mu.Lock()
		s.group = appendState(s.group, &in.Copy)
		s.mu.Unlock()
		s.count++
		in.base = 0
		s.touched = append(s.touched, in)
	}
	delete(s.based, oldest)
	s.putStanding()
	s.put(func(b []byte) []byte { return appendBegin(b, first) })
	s.flushGroup()
	if s.failure() != nil {
		return
	}
	s.sync()
	if s.failure() != nil {
		return
	}
	if err := s.journal.Drop(oldest); err != nil {
		s.fail(err)
		return
	}
	s.segments = s.segments[1:]
}

// putStanding writes what is known of the members.
func (s *store) putStanding() {
	s.mu.Lock()
	members, admitted, r := maps.Clone(s.members), s.admitted, s.roster
	s.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(members)) {
		s.put(func(b []byte) []byte { return appendMember(b, node, members[node]) })
	}
	if admitted {
		s.put(appendAdmitted)
	}
	if r.number() > 0 {
		s.put(func(b []byte) []byte { return appendEpoch(b, byte(recordEpoch), r.epoch) })
	}
}

// putEpoch writes which epoch it is, after that nothing is held any more where that is so; and whether the
// others have written this storage down, for one that was alone needed nobody until now.
func (s *store) putEpoch(blank bool, e Epoch) {
	if blank {
		s.later, s.ripe, s.telling = nil, nil, false // it was about what is held no more
		s.put(appendBlank)
	}
	s.mu.Lock()
	admitted := s.admitted
	s.mu.Unlock()
	if admitted {
		s.put(appendAdmitted)
	}
	s.put(func(b []byte) []byte { return appendEpoch(b, byte(recordEpoch), e) })
}

// rest forces what was written without being forced. The caller is the working goroutine.
func (s *store) rest() {
	s.flushGroup()
	if s.failure() != nil {
		return
	}
	if s.journal.Dirty() {
		s.log.stats.syncs.Add(1)
	}
	if err := s.journal.Rest(s.log.now()); err != nil {
		s.fail(err)
		return
	}
	s.ripen()
	s.reap()
}

// clean reports whether all that was written is stable. The caller is the working goroutine.
func (s *store) clean() bool { return s.count == 0 && !s.journal.Dirty() }

// settle calls f when all that is written by now is stable. Where promises are being forced all the time the
// next of them takes it along; else it is forced now. After a failure f is not called. The caller is the
// working goroutine, and f is called by it.
func (s *store) settle(f func()) {
	switch {
	case s.failure() != nil:
		return
	case s.clean():
		f()
		return
	}
	s.later = append(s.later, f)
	if !s.forced {
		s.rest()
	}
}

// ripen takes note that all that was written is stable.
func (s *store) ripen() {
	s.ripe = append(s.ripe, s.later...)
	clear(s.later)
	s.later = s.later[:0]
}

// reap calls those for whom what they waited for is stable.
func (s *store) reap() {
	for len(s.ripe) > 0 && s.failure() == nil {
		ripe := s.ripe
		s.ripe = nil
		for _, f := range ripe {
			f()
		}
	}
}

// Release implements engine.BatchHands.
func (s *store) Release(step *engine.Step) {
	for _, m := range step.Out.Sends {
		if m.To == s.log.self {
			s.log.answered(s.log.cfg.Self, commit.TransactionID(step.Name), m.Message)
			continue
		}
		if !s.mayVote() {
			continue
		}
		p := s.log.peerOf(m.To)
		if p == nil {
			continue // it has gone since, or is a proposer of another life
		}
		b := s.out[p.node]
		if b == nil {
			b = s.log.payloadOf(max(s.outSize+s.outSize/4, 256), s.roster.number())
		}
		if b = appendMessage(b, m.Message); len(b) > maxPayload {
			s.log.cfg.Network.Send(p.node, b)
			b = nil
		}
		s.out[p.node] = b
	}
}

// Flush implements engine.BatchHands.
func (s *store) Flush() {
	for node, b := range s.out {
		if b != nil {
			s.outSize = len(b)
			s.log.cfg.Network.Send(node, b)
			s.out[node] = nil
		}
	}
	s.reap()
}

var _ engine.BatchHands = (*store)(nil)

// look returns what is held of the transaction.
func (s *store) look(id commit.TransactionID) (h held, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.table[id]
	if !ok {
		return held{id: id}, false
	}
	return in.held(), true
}

// deliver gives the copy of the transaction a message.
func (s *store) deliver(id commit.TransactionID, from protocol.NodeID, message protocol.Message) {
	s.batch.Deliver(string(id), protocol.Receive{From: from, Message: message})
}

// maxBehind is how much may wait for a disk that does not answer.
const maxBehind = 1 << 16

// behind reports whether so much waits that what others say is as good as lost. Whoever wants something asks again.
func (s *store) behind() bool {
	return s.tending.Load() != 0 && s.batch.Waiting() >= maxBehind // the first says that it has not come round for a moment
}

const restTime = 20 * time.Millisecond
