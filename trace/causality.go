package trace

import (
	"fmt"

	"assent/protocol"
)

// Untyped returns e with every message, record and value in it as Raw, as a Reader without a codec
// gives it. The codec may be nil where all of them are Raw already.
func Untyped(e Event, codec *protocol.Codec) (Event, error) {
	x := newValues(codec)
	var err error
	raw := func(v any) any {
		if err != nil || v == nil {
			return nil
		}
		if old, ok := v.(Raw); ok {
			return old
		}
		var r Raw
		if r.Name, err = x.name(v); err == nil {
			r.JSON, err = x.append(nil, v)
		}
		return r
	}
	switch v := e.Value.(type) {
	case nil, protocol.Timer, string, protocol.Start, protocol.Expire:
	case protocol.Recover:
		var records protocol.Records
		for key, record := range v.Records {
			if records == nil {
				records = protocol.Records{}
			}
			records[key] = raw(record)
		}
		e.Value = protocol.Recover{Records: records}
	case protocol.Receive:
		e.Value = protocol.Receive{From: v.From, Message: raw(v.Message)}
	case protocol.Input:
		e.Value = protocol.Input{Value: raw(v.Value)}
	case []protocol.Write:
		writes := make([]protocol.Write, len(v))
		for i, w := range v {
			writes[i] = protocol.Write{Key: w.Key, Record: raw(w.Record)}
		}
		e.Value = writes
	default:
		e.Value = raw(v)
	}
	if err != nil {
		return Event{}, fmt.Errorf("trace: %s at %s: %w", e.Kind, e.Node, err)
	}
	return e, nil
}

// Causes finds, for each event, the event that it is about: for the delivery of a message, and for
// what the network does to one, the Send that the message left with, or the Duplicate or Alter that
// made it what it is. It is -1 where there is none.
//
// Numbered messages are followed by their numbers. Where nobody numbers them, messages of equal
// content between the same nodes in the same scope are taken to arrive in the order in which they
// left; it makes no difference to what any machine knows.
//
// The events must be Untyped.
func Causes(events []Event) []int {
	c := causes{copies: map[uint64][]int{}, flying: map[flight][]int{}, newest: map[flight]int{}}
	found := make([]int, len(events))
	for i, e := range events {
		found[i] = c.of(i, e)
	}
	return found
}

// flight is what messages without a number are known by.
type flight struct {
	scope, name, json string
	from, to          protocol.NodeID
}

type causes struct {
	copies map[uint64][]int // of numbered messages: where each copy comes from, the oldest first
	flying map[flight][]int // of messages without a number
	newest map[flight]int   // where the newest message of this content comes from
}

func (c *causes) of(i int, e Event) int {
	switch e.Kind {
	case Send:
		c.launch(e, e.Node, e.Peer, e.Value, i)
	case Deliver:
		if r, ok := e.Value.(protocol.Receive); ok {
			return c.land(e, r.From, e.Node, r.Message)
		}
	case Lose:
		return c.land(e, e.Peer, e.Node, e.Value)
	case Duplicate:
		from := c.original(e)
		c.launch(e, e.Peer, e.Node, e.Value, i)
		return from
	case Alter:
		from := c.land(e, e.Peer, e.Node, nil)
		c.launch(e, e.Peer, e.Node, e.Value, i)
		return from
	}
	return -1
}

// launch notes that a copy of a message is on its way from event i on.
func (c *causes) launch(e Event, from, to protocol.NodeID, message any, i int) {
	f := flightOf(e, from, to, message)
	c.newest[f] = i
	if e.Message != 0 {
		c.copies[e.Message] = append(c.copies[e.Message], i)
		return
	}
	c.flying[f] = append(c.flying[f], i)
}

// land ends the way of the oldest copy. A message whose content is not known, since it is altered,
// is the oldest between the two nodes.
func (c *causes) land(e Event, from, to protocol.NodeID, message any) int {
	if e.Message != 0 {
		i := first(c.copies[e.Message])
		if i >= 0 {
			c.copies[e.Message] = c.copies[e.Message][1:]
		}
		return i
	}
	f := flightOf(e, from, to, message)
	if message == nil {
		f = c.oldest(f)
	}
	i := first(c.flying[f])
	if i >= 0 {
		c.flying[f] = c.flying[f][1:]
	}
	return i
}

// original returns where the message comes from that is copied. A copy may have a number of its own:
// then it is the newest message of this content.
func (c *causes) original(e Event) int {
	if all := c.copies[e.Message]; e.Message != 0 && len(all) > 0 {
		return all[len(all)-1]
	}
	if i, ok := c.newest[flightOf(e, e.Peer, e.Node, e.Value)]; ok {
		return i
	}
	return -1
}

func (c *causes) oldest(like flight) flight {
	best := -1
	for f, all := range c.flying {
		if f.scope == like.scope && f.from == like.from && f.to == like.to && len(all) > 0 && (best < 0 || all[0] < best) {
			best, like = all[0], f
		}
	}
	return like
}

func flightOf(e Event, from, to protocol.NodeID, message any) flight {
	raw, _ := message.(Raw)
	return flight{e.Scope, raw.Name, string(raw.JSON), from, to}
}

func first(all []int) int {
	if len(all) == 0 {
		return -1
	}
	return all[0]
}
