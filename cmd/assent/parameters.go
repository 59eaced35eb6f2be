package main

import (
	"fmt"
	"strconv"
	"strings"

	"assent/protocol/commit"
)

// parameters are what a command line may say of a system. The zero values mean the defaults of the
// protocol's own package, but for the number of participants. Those that a protocol has no use for
// mean nothing to it.
type parameters struct {
	participants int           // or sites, where all are peers
	votes        []commit.Vote // that each branch may give
	cooperative  bool          // participants in doubt ask one another
	voteRetries  int
	steadfast    bool // participants do not give up by themselves
	unilateral   bool // three-phase commit without election: each follows its timeout transitions
	rounds       int  // the highest round of q3pc, paxos and what agrees by ballots; 0 is no bound
	// Of what agrees: how many nodes or acceptors there are and how many propose; 0 is what the executor can
	// bear, which differs.
	nodes, proposers int
	simulated        bool
	// Of a cluster.
	weights []int
	log     string
	config  string
}

func (p parameters) options() commit.Options {
	return commit.Options{Cooperative: p.cooperative, VoteRetries: p.voteRetries, Unilateral: p.unilateral, Rounds: p.rounds}
}

// refuseNegative says which number makes no sense.
func (p parameters) refuseNegative() error {
	for flag, n := range map[string]int{"rounds": p.rounds, "nodes": p.nodes, "proposers": p.proposers} {
		if err := notNegative(flag, n); err != nil {
			return err
		}
	}
	return notNegative("vote-retries", p.voteRetries)
}

// notNegative refuses the value of a flag that counts something.
func notNegative(flag string, n int) error {
	if n >= 0 {
		return nil
	}
	return misuse("say 0 or more", "--%s is %d", flag, n)
}

// text returns the parameters as they stand in the header of a trace: those that are not zero.
func (p parameters) text() map[string]string {
	m := map[string]string{}
	var votes []string
	for _, v := range p.votes {
		votes = append(votes, v.String())
	}
	if len(votes) > 0 {
		m["votes"] = strings.Join(votes, ",")
	}
	for name, n := range p.numbers() {
		if *n > 0 {
			m[name] = strconv.Itoa(*n)
		}
	}
	for name, on := range map[string]bool{"cooperative": p.cooperative, "steadfast": p.steadfast, "unilateral": p.unilateral} {
		if on {
			m[name] = "true"
		}
	}
	return m
}

// numbers are the parameters that are numbers, by the names that they have in a header.
func (p *parameters) numbers() map[string]*int {
	return map[string]*int{"participants": &p.participants, "vote-retries": &p.voteRetries, "rounds": &p.rounds,
		"nodes": &p.nodes, "proposers": &p.proposers}
}

// readParameters reads what text returns.
func readParameters(m map[string]string) (p parameters, err error) {
	for name, n := range p.numbers() {
		if text, given := m[name]; given {
			if *n, err = strconv.Atoi(text); err != nil {
				return p, fmt.Errorf("parameter %s: %w", name, err)
			}
			if *n < 0 {
				return p, fmt.Errorf("parameter %s is %d, less than 0", name, *n)
			}
		}
	}
	p.cooperative, p.steadfast, p.unilateral = m["cooperative"] == "true", m["steadfast"] == "true", m["unilateral"] == "true"
	if text := m["votes"]; text != "" {
		p.votes, err = parseVotes(strings.Split(text, ","))
	}
	return p, err
}

func parseVotes(texts []string) (votes []commit.Vote, err error) {
	if len(texts) == 0 {
		return nil, misuse("yes, no and read-only are the votes", "--votes names no vote")
	}
	for _, text := range texts {
		var v commit.Vote
		if err := v.UnmarshalText([]byte(text)); err != nil || v == commit.NoVote {
			return nil, misuse("yes, no and read-only are the votes", "there is no vote %q", text)
		}
		votes = append(votes, v)
	}
	return votes, nil
}
