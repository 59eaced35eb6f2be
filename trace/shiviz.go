package trace

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"assent/protocol"
)

// ShiVizPattern is the expression by which ShiViz takes apart what WriteShiViz writes. It is also the
// first line of the file, where ShiViz looks for it when the file is uploaded.
const ShiVizPattern = `(?<event>.*)\n(?<host>\S*) (?<clock>{.*})`

// WriteShiViz writes the events as a log for ShiViz (Beschastnikh, Wang, Brun and Ernst, Debugging
// Distributed Systems, CACM 59(8), 2016). Each event of a node has a vector clock, made from the
// order of the events at the node and from the messages between nodes. What the network does is left
// out, and so is what repeats an event before it: force, and stepped. The events must be Untyped.
func WriteShiViz(w io.Writer, events []Event) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s\n\n", ShiVizPattern)
	now := map[string]map[string]uint64{} // each host's clock
	sent := map[int]map[string]uint64{}   // the clocks of messages on their way, by their event
	causes := Causes(events)
	for i, e := range events {
		switch e.Kind {
		case Force, Stepped, Lose, Cut, Heal:
			continue
		case Duplicate, Alter:
			sent[i] = sent[causes[i]]
			continue
		}
		host := hostName(e.Node)
		clock := now[host]
		if clock == nil {
			clock = map[string]uint64{}
			now[host] = clock
		}
		if e.Kind == Deliver && causes[i] >= 0 {
			for other, n := range sent[causes[i]] {
				clock[other] = max(clock[other], n)
			}
		}
		clock[host]++
		if e.Kind == Send {
			sent[i] = maps.Clone(clock)
		}
		stamp, err := json.Marshal(clock) // keys in order
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n%s %s\n", Describe(e), host, stamp)
	}
	return out.Flush()
}

// hostName returns a node's name without white space, which ends a name in ShiViz.
func hostName(n protocol.NodeID) string {
	return strings.Join(strings.Fields(plainName(n)), "_")
}

// plainName leaves out the ':' that keeps the names of roles apart from those of resources.
func plainName(n protocol.NodeID) string { return strings.TrimSuffix(string(n), ":") }

// Describe says in words what an event is, on one line: "receives Voted(yes) from p1". It reads the
// words of the field from values of registered types and from Raw ones alike.
func Describe(e Event) string {
	switch v := e.Value.(type) {
	case protocol.Start:
		return words(e, "starts")
	case protocol.Recover:
		if len(v.Records) == 0 {
			return words(e, "recovers without records")
		}
		return words(e, "recovers with "+strings.Join(named(v.Records), ", "))
	case protocol.Receive:
		return words(e, fmt.Sprintf("receives %s from %s", Brief(v.Message), plainName(v.From)))
	case protocol.Expire:
		return words(e, "timer "+v.Timer+" expires")
	case protocol.Input:
		return words(e, "is told "+Brief(v.Value))
	case []protocol.Write:
		return words(e, "stable storage: "+Brief(v))
	case protocol.Timer:
		if v.After == 0 {
			return "disarms the timer " + v.Name
		}
		return fmt.Sprintf("arms the timer %s for %v", v.Name, v.After)
	}
	switch e.Kind {
	case Crash:
		if n, within := SentBefore(e); within {
			return fmt.Sprintf("crashes within the step, after %d of its messages", n)
		}
		return "crashes"
	case Damage:
		return fmt.Sprintf("damage to stable storage: %v", e.Value)
	case Cut:
		return fmt.Sprintf("is cut off from what %s sends", plainName(e.Peer))
	case Heal:
		return fmt.Sprintf("hears from %s again", plainName(e.Peer))
	case Send:
		return fmt.Sprintf("sends %s to %s", Brief(e.Value), plainName(e.Peer))
	case Emit:
		return "says " + Brief(e.Value)
	case Lose:
		return fmt.Sprintf("%s from %s is lost", orMessage(e.Value), plainName(e.Peer))
	case Duplicate:
		return fmt.Sprintf("%s from %s is copied", orMessage(e.Value), plainName(e.Peer))
	case Alter:
		return fmt.Sprintf("what %s sends becomes %s", plainName(e.Peer), orMessage(e.Value))
	}
	return e.Kind.String()
}

// words puts what a step ended with, or failed with, before its event.
func words(e Event, text string) string {
	switch e.Kind {
	case Stepped:
		return "has done: " + text
	case Force:
		return "forces to " + text
	case Forced:
		return "forced to " + text
	case Failed:
		return "could not force to " + text
	}
	return text
}

func orMessage(v any) string {
	if v == nil {
		return "a message"
	}
	return Brief(v)
}

// named lists records by name, in the order of their keys.
func named(records protocol.Records) []string {
	all := make([]string, 0, len(records))
	for _, key := range slices.Sorted(maps.Keys(records)) {
		all = append(all, Brief(records[key]))
	}
	return all
}
