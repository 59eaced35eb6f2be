package skeen

import (
	"fmt"

	"assent/protocol"
	"assent/protocol/commit"
)

// The roles of Assent's own protocols.
const (
	// Coordinator is the first node of a central protocol.
	Coordinator = "coordinator"
	// Participant is every other node of a central protocol.
	Participant = "participant"
	// Peer is every site of a decentralised protocol.
	Peer = "site"
)

// TwoPhase returns two-phase commit with a coordinator that has a node of its own and no vote. It
// returns an ErrProtocol for fewer than two participants, as the vote of one is the decision, and an
// error of commit for too many.
func TwoPhase(participants int, options commit.Options) (Protocol, error) {
	if participants < 2 {
		return Protocol{}, alone()
	}
	p := Protocol{Name: "two-phase commit", Roles: roles(participants+1, Coordinator, Participant), Alike: true}
	return p.of(func(votes []commit.Vote, steadfast bool) noder {
		return commit.TwoPhase{Participants: participants, Votes: votes, Steadfast: steadfast, Options: options}
	})
}

// ThreePhase returns three-phase commit with a coordinator that has a node of its own and no vote. It
// returns errors as TwoPhase does.
func ThreePhase(participants int, options commit.Options) (Protocol, error) {
	if participants < 2 {
		return Protocol{}, alone()
	}
	p := Protocol{Name: "three-phase commit", Roles: roles(participants+1, Coordinator, Participant)}
	return p.of(func(votes []commit.Vote, steadfast bool) noder {
		return commit.ThreePhase{Participants: participants, Votes: votes, Steadfast: steadfast, Options: options}
	})
}

// CentralTwoPhase returns two-phase commit as the papers draw it: the coordinator is one of the sites,
// and votes. It returns an error of commit if the number of sites is out of bounds.
func CentralTwoPhase(sites int, options commit.Options) (Protocol, error) {
	p := Protocol{Name: "central two-phase commit", Roles: roles(sites, Coordinator, Participant), Alike: true}
	return p.of(func(votes []commit.Vote, steadfast bool) noder {
		return commit.Central{Sites: sites, Phases: 2, Votes: votes, Steadfast: steadfast, Options: options}
	})
}

// CentralThreePhase returns three-phase commit as the papers draw it: the coordinator is one of the
// sites, and votes. It returns an error of commit if the number of sites is out of bounds.
func CentralThreePhase(sites int, options commit.Options) (Protocol, error) {
	p := Protocol{Name: "central three-phase commit", Roles: roles(sites, Coordinator, Participant)}
	return p.of(func(votes []commit.Vote, steadfast bool) noder {
		return commit.Central{Sites: sites, Phases: 3, Votes: votes, Steadfast: steadfast, Options: options}
	})
}

// DecentralisedTwoPhase returns two-phase commit without a coordinator. It returns an error of commit
// if the number of sites is out of bounds.
func DecentralisedTwoPhase(sites int, options commit.Options) (Protocol, error) {
	p := Protocol{Name: "decentralised two-phase commit", Roles: roles(sites, Peer, Peer), Alike: true}
	return p.of(func(votes []commit.Vote, steadfast bool) noder {
		return commit.Decentralised{Sites: sites, Phases: 2, Votes: votes, Steadfast: steadfast, Options: options}
	})
}

// DecentralisedThreePhase returns three-phase commit without a coordinator. It returns an error of
// commit if the number of sites is out of bounds. The order of the sites counts only when one fails.
func DecentralisedThreePhase(sites int, options commit.Options) (Protocol, error) {
	p := Protocol{Name: "decentralised three-phase commit", Roles: roles(sites, Peer, Peer), Alike: true}
	return p.of(func(votes []commit.Vote, steadfast bool) noder {
		return commit.Decentralised{Sites: sites, Phases: 3, Votes: votes, Steadfast: steadfast, Options: options}
	})
}

func alone() error {
	return fmt.Errorf("%w: a single participant's vote is the decision; two or more are needed", ErrProtocol)
}

// roles names the first site's role, and that of the others.
func roles(sites int, first, others string) (all []string) {
	for i := range sites {
		role := others
		if i == 0 {
			role = first
		}
		all = append(all, role)
	}
	return all
}

// noder is a system of package commit.
type noder interface {
	Nodes() ([]protocol.Node, error)
}

// of makes both forms of the protocol's nodes. Read-only is a vote in none of the papers' models. Where
// sites may give up by themselves the no vote is one way of doing so, and is not tried besides.
func (p Protocol) of(system func(votes []commit.Vote, steadfast bool) noder) (Protocol, error) {
	var err error
	if p.Codec, err = protocol.NewCodec(commit.Types()...); err != nil {
		return Protocol{}, err
	}
	if p.Quiet, err = system([]commit.Vote{commit.Yes, commit.No}, true).Nodes(); err != nil {
		return Protocol{}, err
	}
	p.Crashing, err = system([]commit.Vote{commit.Yes}, false).Nodes()
	return p, err
}
