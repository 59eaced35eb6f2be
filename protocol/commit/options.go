package commit

import (
	"math/bits"
	"time"

	"assent/protocol"
)

// Options are the times and switches of both machines. They are part of the machines' state, so
// that a run can be repeated from it. The zero value means the defaults.
type Options struct {
	// Vote is how long the coordinator waits for votes before it asks again. Defaults to 10 s.
	Vote time.Duration `cbor:",omitempty" json:",omitempty"`
	// VoteRetries is how often the coordinator asks again before it gives up and aborts.
	// Defaults to 0: it gives up at once.
	VoteRetries int `cbor:",omitempty" json:",omitempty"`
	// Retry is the first pause before something is tried again: sending a decision, asking for
	// one, finishing a branch, writing the register. Each further pause is twice as long.
	// Defaults to 100 ms.
	Retry time.Duration `cbor:",omitempty" json:",omitempty"`
	// RetryMost bounds the pauses. Defaults to 30 s.
	RetryMost time.Duration `cbor:",omitempty" json:",omitempty"`
	// Cooperative lets a participant in doubt ask its peers too.
	Cooperative bool `cbor:",omitempty" json:",omitempty"`
	// Wait is how long a participant in three-phase commit waits for the coordinator's next word
	// before it takes it to be down. It must be longer than the coordinator's own waits. Defaults
	// to twice Vote. Under quorums the second in the succession waits twice as long, and so on.
	Wait time.Duration `cbor:",omitempty" json:",omitempty"`
	// Unilateral makes the machines of three-phase commit follow their timeout and failure
	// transitions alone, as the lessons have it: in w abort, in p commit, ask nobody. A crash while
	// PreCommit is being sent then splits two participants.
	Unilateral bool `cbor:",omitempty" json:",omitempty"`
	// Rounds is the highest round that a QuorumParticipant begins. It keeps the state space finite
	// for the checker; a transaction may then stay in doubt. Defaults to 0: no bound.
	Rounds int `cbor:",omitempty" json:",omitempty"`
	// Contested says that others may have commit decided without this coordinator, as in Paxos Commit:
	// it then has abort decided by the register, too, and presumes nothing.
	Contested bool `cbor:",omitempty" json:",omitempty"`
	// NoOnePhase makes a single participant go through both phases.
	NoOnePhase bool `cbor:",omitempty" json:",omitempty"`
}

func (o Options) vote() time.Duration {
	if o.Vote > 0 {
		return o.Vote
	}
	return 10 * time.Second
}

func (o Options) wait(rank int) time.Duration {
	if o.Wait > 0 {
		return o.Wait * time.Duration(max(rank, 1))
	}
	return 2 * o.vote() * time.Duration(max(rank, 1))
}

func (o Options) retry() (first, most time.Duration) {
	first, most = o.Retry, o.RetryMost
	if first <= 0 {
		first = 100 * time.Millisecond
	}
	if most <= 0 {
		most = 30 * time.Second
	}
	return first, max(first, most)
}

// pause returns the pause before try number attempt+2 and the attempt to remember. The attempt
// stops growing when the pause does, so that a machine that retries for ever has finitely many
// states.
func (o Options) pause(attempt int) (time.Duration, int) {
	first, most := o.retry()
	doublings := bits.Len64(uint64(most/first)) - 1
	if attempt >= doublings {
		return most, doublings
	}
	return first << attempt, attempt + 1
}

// retryAfter arms the timer for the pause that follows attempt earlier ones, and counts this one.
func (o Options) retryAfter(timer string, attempt *int, out *protocol.Effects) {
	pause, next := o.pause(*attempt)
	*attempt = next
	out.Arm(timer, pause)
}
