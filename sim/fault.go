package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"assent/protocol"
)

// Class is a class of faults. The classes are those of the interaction faults: omissive ones (crash,
// omission, timing), what networks add to them, the disk's, and assertive ones (syntactic and
// semantic). The zero value is invalid.
type Class uint8

// The classes.
const (
	// Crash: a node goes down and comes back, between two steps or within one.
	Crash Class = iota + 1
	// Loss: a link, one way, loses messages (omission).
	Loss
	// Delay: a link, one way, takes longer (timing).
	Delay
	// Slow: a node takes what happens to it late (timing).
	Slow
	// Drift: a node's clock runs at another speed (timing).
	Drift
	// Duplication: a link, one way, delivers messages twice.
	Duplication
	// Reordering: messages of a link, one way, overtake one another.
	Reordering
	// Partition: nothing passes between one side and the other.
	Partition
	// OneWay: nothing gets from one side to the other.
	OneWay
	// Flapping: a partition that comes and goes.
	Flapping
	// DiskFull: a node's next stable write is refused.
	DiskFull
	// FailedSync: a node's next stable write cannot be forced; all of it or nothing may be there.
	FailedSync
	// TornWrite: a node dies while it forces, and a part of what it wrote is there.
	TornWrite
	// Corruption: a stable record is changed while its node is down. The node must refuse to start,
	// until its disk is repaired when the faults end.
	Corruption
	// Garbling: what a node sends is not what it means to send, and no message at all (syntactic).
	Garbling
	// Lying: a node sends well-formed messages that are not true (semantic). No protocol here bears
	// it, so it is drawn only when it is asked for.
	Lying
	// Whim is no fault: the world outside gives a node one of its inputs.
	Whim
	// Gone: a node goes down for good, and its disk with it. Only what keeps its records on several nodes bears it, so it
	// is drawn for that alone (package cluster below this one) and else only when it is asked for.
	Gone
)

var classNames = [...]string{"", "crash", "loss", "delay", "slow", "drift", "duplicate", "reorder", "partition",
	"one-way", "flap", "disk-full", "sync", "torn", "corrupt", "garble", "lie", "whim", "gone"}

// String returns the class's name, as in the flag --faults.
func (c Class) String() string {
	if c > 0 && int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("invalid(%d)", uint8(c))
}

// ParseClass returns the class of that name.
func ParseClass(name string) (Class, error) {
	if i := slices.Index(classNames[:], name); i > 0 {
		return Class(i), nil
	}
	return 0, fmt.Errorf("no class of faults is named %q; they are %s", name, strings.Join(classNames[1:], ", "))
}

// Classes returns all classes that are drawn unless others are asked for: all but Lying and Gone.
func Classes() []Class {
	var all []Class
	for c := Crash; c <= Whim; c++ {
		if c != Lying {
			all = append(all, c)
		}
	}
	return all
}

// Fault is something that goes wrong from At on, for the time For. Which of the other fields count
// depends on the class.
type Fault struct {
	Class   Class
	At, For time.Duration
	// Node has the fault; of a link, it is the sender.
	Node protocol.NodeID
	// Peer is the receiver of a link's messages.
	Peer protocol.NodeID
	// Side are the nodes on one side of a cut.
	Side []protocol.NodeID
	// Rate is a percentage: of messages that are lost, repeated, garbled or lies; of its own speed at
	// which a clock runs; of an unforced write that a crash keeps.
	Rate int
	// By is the time that a message takes longer, at most, and the period of flapping.
	By time.Duration
	// Sends says where within a step a crash falls: after the stable writes and that many messages;
	// negative for between two steps. Of a Whim, it is the input's number.
	Sends int
}

// String returns the fault's text, which ParseFault reads: "crash at=120ms for=2s node=c sends=1".
func (f Fault) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at=%v for=%v", f.Class, f.At, f.For)
	if f.Node != "" {
		fmt.Fprintf(&b, " node=%s", f.Node)
	}
	if f.Peer != "" {
		fmt.Fprintf(&b, " peer=%s", f.Peer)
	}
	if len(f.Side) > 0 {
		b.WriteString(" side=")
		for i, n := range f.Side {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(string(n))
		}
	}
	if f.Rate != 0 {
		fmt.Fprintf(&b, " rate=%d", f.Rate)
	}
	if f.By != 0 {
		fmt.Fprintf(&b, " by=%v", f.By)
	}
	if f.Sends != 0 {
		fmt.Fprintf(&b, " sends=%d", f.Sends)
	}
	return b.String()
}

// ParseFault reads what Fault.String returns.
func ParseFault(text string) (f Fault, err error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return f, errors.New("a fault without a class")
	}
	if f.Class, err = ParseClass(words[0]); err != nil {
		return f, err
	}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		if err := f.set(name, value); err != nil {
			return f, fmt.Errorf("fault %q: %w", text, err)
		}
	}
	return f, nil
}

func (f *Fault) set(name, value string) (err error) {
	switch name {
	case "at":
		f.At, err = time.ParseDuration(value)
	case "for":
		f.For, err = time.ParseDuration(value)
	case "by":
		f.By, err = time.ParseDuration(value)
	case "rate":
		f.Rate, err = strconv.Atoi(value)
	case "sends":
		f.Sends, err = strconv.Atoi(value)
	case "node":
		f.Node = protocol.NodeID(value)
	case "peer":
		f.Peer = protocol.NodeID(value)
	case "side":
		for n := range strings.SplitSeq(value, ",") {
			f.Side = append(f.Side, protocol.NodeID(n))
		}
	default:
		err = fmt.Errorf("there is no field %q", name)
	}
	return err
}

// active reports whether the fault lasts at the moment now.
func (f *Fault) active(now time.Duration) bool { return f.At <= now && now < f.At+f.For }

// on reports whether the fault is the link's.
func (f *Fault) on(from, to protocol.NodeID) bool {
	return (f.Node == "" || f.Node == from) && (f.Peer == "" || f.Peer == to)
}

// cuts reports whether the fault keeps messages from getting from one node to another.
func (f *Fault) cuts(from, to protocol.NodeID, now time.Duration) bool {
	if !f.active(now) {
		return false
	}
	in, out := slices.Contains(f.Side, from), slices.Contains(f.Side, to)
	switch f.Class {
	case Partition:
		return in != out
	case OneWay:
		return in && !out
	case Flapping:
		return in != out && (now-f.At)/f.period()%2 == 0
	}
	return false
}

// period is how long flapping stays as it is.
func (f *Fault) period() time.Duration { return max(f.By, time.Millisecond) }

// valid reports whether the fault is within bounds. A Whim beyond its node's inputs has no effect, and
// so has a fault of a node that the stack does not have.
func (f *Fault) valid() bool {
	most := 100
	if f.Class == Drift {
		most = mostSpeed
	}
	return Crash <= f.Class && f.Class <= Gone && within(f.At) && within(f.For) && within(f.By) &&
		0 <= f.Rate && f.Rate <= most && (f.Class != Whim || f.Sends >= 0) && len(f.Side) <= maxNodes
}
