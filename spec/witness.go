package spec

import (
	"fmt"
	"slices"
	"sync"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/trace"
)

// The bounds of a Witness.
const (
	maxWatched  = 1 << 16 // transactions; the oldest is let go for a new one
	maxBreaches = 100
)

// Breach says that a claim did not hold of a transaction.
type Breach struct {
	Scope, Claim string
	// Event is after which it was seen first.
	Event trace.Event
}

// String returns the breach in one line.
func (b Breach) String() string {
	return fmt.Sprintf("%s: not so: %s, after %s", b.Scope, b.Claim, b.Event.Point())
}

// Witness judges the transactions of a run as it goes, from its events: a live manager's, given to it as
// its observer, or those that are read from a trace. It holds them to the same properties as the
// checker and the simulator do, which hold of every state: what it shows to a property is what machines
// and branches have said so far, and no more.
//
// It knows the transactions of two-phase commit, by what their machines are told and say: votes, the
// decision that stands, and what became of branches. It keeps the last 65,536 of them, and the first
// 100 breaches. It is safe for concurrent use.
type Witness struct {
	claims []Property

	mu       sync.Mutex
	scopes   map[string]*watched
	order    []string // of scopes, the oldest first
	breaches []Breach
}

var _ trace.Observer = (*Witness)(nil)

// NewWitness returns a witness of the claims: AC1, AC2 and AC3 where there are none.
func NewWitness(claims ...Property) *Witness {
	if len(claims) == 0 {
		claims = []Property{AC1(), AC2(), AC3()}
	}
	return &Witness{claims: claims, scopes: map[string]*watched{}}
}

// Observe implements trace.Observer. Values that are trace.Raw are not understood.
func (w *Witness) Observe(e trace.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Scope == "" || !w.of(e.Scope).learn(e) {
		return
	}
	for _, claim := range w.claims {
		known := slices.ContainsFunc(w.breaches, func(b Breach) bool { return b.Scope == e.Scope && b.Claim == claim.Name })
		if !known && len(w.breaches) < maxBreaches && !claim.Holds(w.scopes[e.Scope]) {
			e.Value = nil // it is lent
			w.breaches = append(w.breaches, Breach{Scope: e.Scope, Claim: claim.Name, Event: e})
		}
	}
}

// Breaches returns what was found wrong so far, in the order in which it was.
func (w *Witness) Breaches() []Breach {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.breaches)
}

// Judged returns how many transactions have been watched, of those that are kept.
func (w *Witness) Judged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.scopes)
}

// of returns what is known of a transaction.
func (w *Witness) of(scope string) *watched {
	if c := w.scopes[scope]; c != nil {
		return c
	}
	if len(w.order) == maxWatched {
		delete(w.scopes, w.order[0])
		w.order = w.order[1:]
	}
	c := &watched{}
	w.scopes[scope], w.order = c, append(w.order, scope)
	return c
}

// watched is what a transaction shows: a View of Sites. The first keeps the register, the others have
// branches or tell a decision.
type watched struct {
	stands   commit.Decision // in the register
	onePhase bool            // the register is not asked
	sites    []*shown
}

var _ View = (*watched)(nil)

// shown is what a node shows of itself.
type shown struct {
	node     protocol.NodeID // empty for one that tells a decision
	standing commit.Standing
}

// Step implements protocol.Machine; nobody steps it.
func (s *shown) Step(protocol.Event, *protocol.Effects) {}

// Standing implements Site.
func (s *shown) Standing() commit.Standing { return s.standing }

// Nodes implements View.
func (c *watched) Nodes() int { return 1 + len(c.sites) }

// Machine implements View. What was said is never unsaid, so nobody is ever down.
func (c *watched) Machine(i int) protocol.Machine {
	if i > 0 {
		return c.sites[i-1]
	}
	return &shown{standing: commit.Standing{Decision: c.stands, Unregistered: c.stands != commit.Commit && !c.onePhase}}
}

// Record implements View.
func (c *watched) Record(int, string) protocol.Record { return nil }

// site returns the node with a branch of that name, or a new one whose branch stands so.
func (c *watched) site(node protocol.NodeID, anew commit.Standing) *commit.Standing {
	i := slices.IndexFunc(c.sites, func(s *shown) bool { return s.node == node })
	if i < 0 {
		i = len(c.sites)
		c.sites = append(c.sites, &shown{node, anew})
	}
	return &c.sites[i].standing
}

// branch returns a branch. One that was not seen before it is finished was prepared in an earlier life.
func (c *watched) branch(node protocol.NodeID) *commit.Standing {
	return c.site(node, commit.Standing{Participant: true, Branch: commit.BranchInDoubt, Vote: commit.Yes})
}

// tell notes a decision that somebody has told to be final; another one before it stays.
func (c *watched) tell(d commit.Decision) {
	if d != commit.Undecided && !slices.ContainsFunc(c.sites, func(s *shown) bool { return s.node == "" && s.standing.Decision == d }) {
		c.sites = append(c.sites, &shown{standing: commit.Standing{Decision: d}})
	}
}

// learn takes what an event says of the transaction, and reports whether it says anything.
func (c *watched) learn(e trace.Event) bool {
	switch v := e.Value.(type) {
	case protocol.Input:
		return e.Kind == trace.Deliver && c.hear(e.Node, v.Value)
	case protocol.Receive:
		told, ok := v.Message.(commit.Finish)
		if !ok || e.Kind != trace.Deliver {
			return false
		}
		if b := c.branch(e.Node); b.Decision == commit.Undecided { // a late copy may be answered by presuming abort
			b.Decision = told.Decision
		}
		return true
	case commit.Prepare, commit.OnePhase:
		if e.Kind != trace.Send {
			return false
		}
		_, one := v.(commit.OnePhase)
		c.onePhase = c.onePhase || one
		c.site(e.Peer, commit.Standing{Participant: true, Branch: commit.BranchWorking})
		return true
	case commit.Concluded:
		if e.Kind == trace.Emit {
			c.tell(v.Decision)
			return true
		}
	}
	return false
}

// hear takes what a node's machine is told by what stands below it: the register, or the branch.
func (c *watched) hear(node protocol.NodeID, value protocol.Value) bool {
	switch v := value.(type) {
	case commit.Decided:
		c.stands = v.Decision
		c.tell(v.Decision)
	case commit.BranchPrepared:
		b := c.site(node, commit.Standing{Participant: true, Branch: commit.BranchWorking})
		if b.Vote = v.Vote; b.Branch == commit.BranchWorking && v.Vote == commit.Yes {
			b.Branch = commit.BranchInDoubt
		} else if b.Branch == commit.BranchWorking {
			b.Branch = commit.BranchLost // nothing is left to finish
		}
	case commit.BranchFinished:
		b := c.branch(node)
		switch {
		case b.Vote == commit.ReadOnly: // it had nothing to finish, and answers either way
		case v.Outcome == commit.Committed:
			b.Branch = commit.BranchCommitted
		case v.Outcome == commit.RolledBack:
			b.Branch = commit.BranchRolledBack
		}
	default:
		return false
	}
	return true
}
