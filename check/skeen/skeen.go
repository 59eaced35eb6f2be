// Package skeen analyses commit protocols as Skeen did (Nonblocking Commit Protocols, SIGMOD 1981),
// but from the machines that run: which local states there are, what the other sites may be in
// beside each (its concurrency set), which are committable, and whether the protocol is nonblocking.
//
// It promises that the sets are those of the machines' own reachable states, all of them, in runs
// without a fault, and that a schedule which it gives for a blocking state is a shortest one. A
// machine's state is projected onto a letter, which the machine itself shows; the package knows no
// protocol's states. What it says of crashes holds for as many crashes as it was asked to try, where
// suspicion is never wrong and the network does not split. It says nothing of restarts.
package skeen

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
)

// Site is a machine that shows which local state of the papers it is in, and where its branch
// stands: a branch that is prepared, or committed, tells that the site has voted yes.
type Site interface {
	// Letter returns the local state, or "" for one that the papers do not have.
	Letter() commit.Letter
	// StateName returns the machine's own name of the state that it is in.
	StateName() string
	// Standing returns where the site stands. A site without a branch has no vote.
	Standing() commit.Standing
}

// Protocol is what is analysed.
type Protocol struct {
	Name string
	// Codec encodes the machines, as check.System's.
	Codec *protocol.Codec
	// Roles names each node's role. At most 8 nodes can be analysed.
	Roles []string
	// Alike says that the nodes of one role are interchangeable while nothing fails, in the sense of
	// check.System.Symmetric. It makes the analysis several times shorter.
	Alike bool
	// Quiet are the nodes where nobody gives up by itself: from them come the sets.
	Quiet []protocol.Node
	// Crashing are the same nodes as they run. From them come the schedules that block.
	Crashing []protocol.Node
}

// Options bound an analysis.
type Options struct {
	// Crashes is the greatest number of crashes to try, at most one for each site. Where it is 0
	// nothing is said of schedules.
	Crashes int
	// Limits are those of each run of the checker.
	Limits check.Limits
}

// ErrProtocol says that a protocol cannot be analysed; the text says why.
var ErrProtocol = errors.New("protocol cannot be analysed")

// maxSites is the greatest number of sites that can be analysed.
const maxSites = 8

// Analyse explores p and returns what it finds. It returns an ErrProtocol where a machine is no
// Site, and the errors of package check, check.ErrLimit among them. With an error there is an analysis
// only where its sets are complete; its Crashes then says how many crashes were tried to the end.
func Analyse(ctx context.Context, p Protocol, o Options) (*Analysis, error) {
	if len(p.Roles) != len(p.Quiet) || len(p.Quiet) != len(p.Crashing) {
		return nil, fmt.Errorf("%w: %d roles, %d and %d nodes", ErrProtocol, len(p.Roles), len(p.Quiet), len(p.Crashing))
	}
	if len(p.Roles) > maxSites {
		return nil, fmt.Errorf("%w: %d sites; at most %d are allowed", ErrProtocol, len(p.Roles), maxSites)
	}
	if o.Crashes < 0 || o.Crashes > len(p.Roles) {
		return nil, fmt.Errorf("%w: %d crashes of %d sites", ErrProtocol, o.Crashes, len(p.Roles))
	}
	g, err := explore(ctx, p, o.Limits)
	if err != nil {
		return nil, err
	}
	a := &Analysis{Protocol: p.Name, Sites: len(p.Roles), States: g.states, Transitions: g.transitions,
		Nonblocking: true, Global: g.global()}
	for _, n := range p.Quiet {
		a.Nodes = append(a.Nodes, string(n.ID))
	}
	for _, name := range distinct(p.Roles) {
		role := Role{Name: name, Moves: g.diagram(name)}
		for _, l := range commit.Letters() {
			if seen := g.seen[inRole{name, l}]; seen != nil {
				state := seen.judge(l)
				a.Nonblocking = a.Nonblocking && state.Nonblocking
				role.States = append(role.States, state)
			}
		}
		a.Roles = append(a.Roles, role)
	}
	for crashes := 1; crashes <= o.Crashes; crashes++ {
		if err := a.block(ctx, p, crashes, o.Limits); err != nil {
			return a, err
		}
		a.Crashes = crashes
	}
	return a, nil
}

// judge applies the fundamental nonblocking theorem (Skeen 1981, section 4).
func (s *seen) judge(l commit.Letter) LocalState {
	state := LocalState{Letter: l, Machine: sorted(s.machine), Committable: s.committable, Beside: map[string][]commit.Letter{}}
	all := map[commit.Letter]bool{}
	for role, letters := range s.beside {
		state.Beside[role] = inOrder(letters)
		for l := range letters {
			all[l] = true
		}
	}
	state.Concurrency = inOrder(all)
	state.Mixed = all[commit.LetterCommitted] && all[commit.LetterAborted]
	state.Risky = !s.committable && all[commit.LetterCommitted]
	state.Nonblocking = !state.Mixed && !state.Risky
	return state
}

// block looks for the states in which a site stays for ever after a number of crashes, among those
// that no smaller number blocks.
func (a *Analysis) block(ctx context.Context, p Protocol, crashes int, limits check.Limits) error {
	sys := check.System{Nodes: p.Crashing, Codec: p.Codec, Model: check.Synchronous, Faults: check.Faults{Crashes: crashes}}
	run := func(stuck func(role string, l commit.Letter) bool) (*check.Counterexample, error) {
		r, err := check.Run(ctx, sys, check.Claims{Decided: func(node int, m protocol.Machine) bool {
			s, ok := m.(Site)
			return !ok || !stuck(p.Roles[node], s.Letter())
		}}, limits)
		switch {
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !r.BlockingKnown:
			return nil, fmt.Errorf("%w: %d are known with %d crashes", check.ErrLimit, r.States, crashes)
		}
		return r.Blocked, nil
	}
	open := func(role string, l commit.Letter) bool {
		s := a.State(role, l)
		return !l.Final() && (s == nil || s.Blocked == nil)
	}
	if found, err := run(open); found == nil || err != nil {
		return err
	}
	for i := range a.Roles {
		role := &a.Roles[i]
		for j := range role.States {
			s := &role.States[j]
			if !open(role.Name, s.Letter) {
				continue
			}
			c, err := run(func(r string, l commit.Letter) bool { return r == role.Name && l == s.Letter })
			if err != nil {
				return err
			}
			if c == nil {
				continue
			}
			s.Blocked = &Blocked{Crashes: crashes}
			for _, step := range c.Steps[1:] {
				s.Blocked.Steps = append(s.Blocked.Steps, step.What)
			}
		}
	}
	return nil
}

// inOrder lists a set of letters in the order of tables.
func inOrder(set map[commit.Letter]bool) []commit.Letter {
	all := []commit.Letter{}
	for _, l := range commit.Letters() {
		if set[l] {
			all = append(all, l)
		}
	}
	return all
}

// distinct returns each value once, in the order in which they first stand.
func distinct(values []string) (all []string) {
	for _, v := range values {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}
