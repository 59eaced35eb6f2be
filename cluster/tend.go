package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/membership"
	agreement "assent/protocol/paxos"
)

// tendEvery is how often what could not be done is tried again, and tendTime bounds one attempt.
const (
	tendEvery = 250 * time.Millisecond
	tendTime  = 10 * time.Second
)

// tend has this node's part of the decision log follow what the cluster has agreed on: it opens it, has it enter
// each epoch of the registers, and moves them, where this node leads, to the next.
func (n *Node) tend() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n.group.Go(func() {
		<-n.quit
		cancel()
	})
	told := ""
	for ticker := time.NewTicker(tendEvery); ; {
		select {
		case <-n.quit:
			ticker.Stop()
			return
		case <-n.moved:
		case <-ticker.C:
		}
		text := ""
		if err := n.keepUp(ctx); err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != "" && text != told { // the same reason is told once
			n.cfg.Logger.Warn("the decision log does not follow the members yet", "reason", text)
		}
		told = text
		n.mu.Lock()
		n.moving = text
		n.mu.Unlock()
	}
}

// keepUp does what is due.
func (n *Node) keepUp(ctx context.Context) error {
	if n.life.Load().machine.lost() {
		var err error
		if own := n.register(); own != nil {
			err = own.Close() // it decides nothing any more
		}
		return errors.Join(errors.New(membership.WhyLost), err)
	}
	if n.cfg.Log == nil && n.register() == nil {
		if err := n.openLog(); err != nil {
			return err
		}
	}
	l := n.life.Load()
	s, own := l.machine.state(), n.register()
	ctx, cancel := context.WithTimeout(ctx, tendTime)
	defer cancel()
	is := epochOf(s.Registers)
	if own != nil && own.Epoch().Number < is.Number {
		if err := own.Enter(ctx, is); err != nil {
			return err
		}
	}
	if is.Next == nil || l.machine.status().Role != agreement.Leading {
		return nil
	}
	if n.cfg.Log == nil {
		if own == nil {
			return errors.New("this node leads and has no part in the log")
		}
		if err := own.Move(ctx, is, paxos.Epoch{Number: is.Number + 1, Members: is.Next}); err != nil {
			return err
		}
	}
	l.loop.Deliver(protocol.Input{Value: membership.Moved{Number: is.Number}})
	return nil
}

// epochOf returns whose the registers are in the log's terms.
func epochOf(r membership.Registers) paxos.Epoch {
	members := func(all []membership.Member) (m []paxos.Member) {
		for _, x := range all {
			m = append(m, paxos.Member{Node: x.Node, Storage: x.Storage, Votes: x.Votes, Place: x.Place, Since: x.Since})
		}
		return m
	}
	return paxos.Epoch{Number: r.Number, Members: members(r.Members), Next: members(r.Next)}
}

// nodesOf returns the members' names.
func nodesOf(all []membership.Member) []protocol.NodeID {
	var nodes []protocol.NodeID
	for _, m := range all {
		nodes = append(nodes, m.Node)
	}
	slices.Sort(nodes)
	return nodes
}
