package skeen

import "assent/protocol/commit"

// Analysis is what was found.
type Analysis struct {
	Protocol string `json:"protocol"`
	Sites    int    `json:"sites"`
	// Nodes are the names of the sites, which vectors number from 1.
	Nodes []string `json:"nodes"`
	// States and Transitions count the machines' global states that were looked at, messages and all,
	// and what leads from one to another. Of those that differ only in which of the sites of a role
	// is which, not all need looking at.
	States      int `json:"states"`
	Transitions int `json:"transitions"`
	// Nonblocking is the verdict of the theorem for the whole protocol.
	Nonblocking bool   `json:"nonblocking"`
	Roles       []Role `json:"roles"`
	// Crashes is how many were tried, to the end.
	Crashes int `json:"crashes"`
	// Global is the reachable global state graph, projected.
	Global Graph `json:"global"`
}

// Graph is what is left of the global states when each site's state is projected to its letter.
type Graph struct {
	// Vectors are the distinct vectors of local states, as "w1 w2 a3", the initial one first and
	// the others by their distance from it.
	Vectors []string `json:"vectors"`
	// Edges lead from one vector to another; steps that change no letter are left out.
	Edges []Edge `json:"edges"`
}

// Edge leads from the vector at the place From to the one at To, by a step of the site numbered Site,
// from 1.
type Edge struct {
	From int `json:"from"`
	To   int `json:"to"`
	Site int `json:"site"`
}

// Role is what was found of the sites of one role.
type Role struct {
	Name   string       `json:"role"`
	States []LocalState `json:"states"`
	Moves  []Move       `json:"moves"`
}

// Move is a transition of a role's state diagram.
type Move struct {
	From commit.Letter `json:"from"`
	To   commit.Letter `json:"to"`
	// On tells what brings it about, and after a slash what is sent by it.
	On []string `json:"on"`
}

// LocalState is a local state of a role.
type LocalState struct {
	Letter commit.Letter `json:"state"`
	// Machine are the states of the machine that the letter stands for, by the machine's own names,
	// as far as they last from one step to the next in runs without a fault.
	Machine []string `json:"machine_states"`
	// Concurrency is the concurrency set: the states in which other sites are while a site of this
	// role is in this one.
	Concurrency []commit.Letter `json:"concurrency"`
	// Beside is the same by the role of the other site.
	Beside map[string][]commit.Letter `json:"beside"`
	// Committable says that a site is in this state only when all sites have voted yes.
	Committable bool `json:"committable"`
	// Mixed says that the concurrency set holds both a commit and an abort state: condition 1 of the
	// theorem is broken.
	Mixed bool `json:"mixed"`
	// Risky says that the state is not committable, and that its concurrency set holds a commit
	// state: condition 2 is broken.
	Risky bool `json:"risky"`
	// Nonblocking says that neither condition is broken.
	Nonblocking bool `json:"nonblocking"`
	// Blocked is the shortest run with the fewest crashes after which a site that is up stays in
	// this state, whatever follows but another fault; nil where none was found.
	Blocked *Blocked `json:"blocked,omitempty"`
}

// Blocked is a run that blocks a site.
type Blocked struct {
	Crashes int      `json:"crashes"`
	Steps   []string `json:"steps"`
}

// State returns what was found of a role's local state, or nil if no site of the role is ever in it.
func (a *Analysis) State(role string, l commit.Letter) *LocalState {
	for i := range a.Roles {
		for j := range a.Roles[i].States {
			if s := &a.Roles[i].States[j]; a.Roles[i].Name == role && s.Letter == l {
				return s
			}
		}
	}
	return nil
}
