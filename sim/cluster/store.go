package cluster

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim/bank"
)

// store is a node's store of accounts, with strict two-phase locking: a stand-in for resource/kv that keeps its
// records on the node's disk with everybody else's. A lock that is held is refused.
type store struct {
	n        *node
	accounts map[int]int64
	branches map[commit.TransactionID]PreparedBranch
	ended    map[commit.TransactionID]commit.Outcome
	sessions map[commit.TransactionID]*session
	locks    map[int]*lock
}

// session is a branch at work: a crash undoes it.
type session struct {
	writes  map[int]int64
	spoiled bool
}

// lock is who reads an account, or who writes it.
type lock struct {
	readers map[commit.TransactionID]bool
	writer  commit.TransactionID
}

const (
	branchKey = "branch/"
	endedKey  = "ended/"
)

func accountKey(n int) string { return "account/" + strconv.Itoa(n) }

// openStore takes back what the disk holds. What is prepared has its locks again.
func openStore(n *node, records protocol.Records) *store {
	s := &store{n: n, accounts: map[int]int64{}, branches: map[commit.TransactionID]PreparedBranch{},
		ended: map[commit.TransactionID]commit.Outcome{}, sessions: map[commit.TransactionID]*session{}, locks: map[int]*lock{}}
	for a := range n.accounts() {
		s.locks[a] = &lock{readers: map[commit.TransactionID]bool{}}
		s.accounts[a] = records[accountKey(a)].(Balance).Amount
	}
	for key, r := range records {
		switch v := r.(type) {
		case PreparedBranch:
			s.branches[v.ID] = v
			for _, w := range v.Writes {
				s.locks[w.Account].writer = v.ID
			}
		case Ended:
			s.ended[commit.TransactionID(strings.TrimPrefix(key, endedKey))] = v.Outcome
		}
	}
	return s
}

// prepared lists the branches in doubt.
func (s *store) prepared() []commit.TransactionID { return slices.Sorted(maps.Keys(s.branches)) }

// work does the work of a branch, or says why not.
func (s *store) work(id commit.TransactionID, coordinator protocol.NodeID, operations []bank.Operation) (values []int64, reason string) {
	if _, over := s.ended[id]; over || s.sessions[id] != nil {
		return nil, "it is over"
	}
	at := &session{writes: map[int]int64{}}
	s.sessions[id] = at
	for _, o := range operations {
		if o.Spoil {
			at.spoiled = true
			continue
		}
		if !s.lock(id, o.Account, o.Change != 0) {
			s.release(id)
			return nil, "locked"
		}
		value, ok := at.writes[o.Account]
		if !ok {
			value = s.accounts[o.Account]
		}
		values = append(values, value)
		if o.Change == 0 {
			continue
		}
		if value+o.Change < 0 {
			s.release(id)
			return nil, "not enough money"
		}
		at.writes[o.Account] = value + o.Change
	}
	return values, ""
}

// lock takes a lock for the branch, if it is free.
func (s *store) lock(id commit.TransactionID, account int, write bool) bool {
	l := s.locks[account]
	if l.writer != "" && l.writer != id {
		return false
	}
	if !write {
		l.readers[id] = true
		return true
	}
	if len(l.readers) > 1 || len(l.readers) == 1 && !l.readers[id] {
		return false
	}
	l.writer = id
	return true
}

// release ends a session, and gives up what the branch has locked.
func (s *store) release(id commit.TransactionID) {
	delete(s.sessions, id)
	for _, l := range s.locks {
		delete(l.readers, id)
		if l.writer == id {
			l.writer = ""
		}
	}
}

// prepare makes the branch able to commit, whatever happens, and votes. It fails where the disk does.
func (s *store) prepare(id commit.TransactionID, coordinator protocol.NodeID) (v commit.Vote, reason string, err error) {
	at := s.sessions[id]
	switch {
	case at == nil:
		return commit.No, "the work is lost", nil
	case at.spoiled:
		s.release(id)
		return commit.No, "it cannot be written", nil
	case len(at.writes) == 0:
		s.release(id)
		return commit.ReadOnly, "", nil
	}
	b := PreparedBranch{ID: id, Coordinator: coordinator}
	for _, a := range slices.Sorted(maps.Keys(at.writes)) {
		b.Writes = append(b.Writes, Entry{Account: a, Amount: at.writes[a]})
	}
	if err := s.n.force(storePart, []protocol.Write{{Key: branchKey + string(id), Record: b}}); err != nil {
		return 0, "", err
	}
	delete(s.sessions, id)
	s.branches[id] = b
	return commit.Yes, "", nil
}

// finish commits the branch or rolls it back, and says what became of it; asked again, it says the same. It
// fails where the disk does.
func (s *store) finish(id commit.TransactionID, commits bool) (commit.Outcome, error) {
	if outcome, over := s.ended[id]; over {
		return outcome, nil
	}
	b, prepared := s.branches[id]
	outcome := commit.RolledBack
	var writes []protocol.Write
	switch {
	case prepared && commits:
		outcome = commit.Committed
		for _, w := range b.Writes {
			writes = append(writes, protocol.Write{Key: accountKey(w.Account), Record: Balance{Amount: w.Amount}})
		}
	case commits:
		return commit.Hazard, nil // it has promised nothing, as far as is known here
	}
	if prepared {
		writes = append(writes, protocol.Write{Key: branchKey + string(id)})
	}
	writes = append(writes, protocol.Write{Key: endedKey + string(id), Record: Ended{Outcome: outcome}})
	if err := s.n.force(storePart, writes); err != nil {
		return 0, err
	}
	if outcome == commit.Committed {
		for _, w := range b.Writes {
			s.accounts[w.Account] = w.Amount
		}
	}
	delete(s.branches, id)
	s.ended[id] = outcome
	s.release(id)
	return outcome, nil
}
