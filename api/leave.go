package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"assent/protocol"
)

// leavePatience bounds the time that a node which is to leave is given to finish its transactions among sites. It is
// longer than those who wait for one are silent.
const leavePatience = 8 * time.Second

// leaveQuestion asks a node to make itself ready to leave within a time, which is not longer than leavePatience.
func leaveQuestion(within time.Duration) []byte {
	return binary.BigEndian.AppendUint32([]byte{askLeave}, uint32(within.Milliseconds()))
}

// leaveAnswer answers leaveQuestion.
func (s *Server) leaveAnswer(question []byte) []byte {
	if len(question) != 5 {
		return nil // of a later version; what is asked of the cluster then is that node's to answer for
	}
	within := time.Duration(binary.BigEndian.Uint32(question[1:])) * time.Millisecond
	return []byte(s.leaves(min(within, leavePatience)))
}

// leaves makes this node ready to leave, and returns why it cannot, in words, or "".
func (s *Server) leaves(within time.Duration) (why string) {
	if s.opts.Sites == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := s.opts.Sites.Leave(ctx); err != nil {
		s.opts.Sites.Stay()
		return toldUpTo(maxError, err.Error())
	}
	return ""
}

// readyToLeave asks a node whether it can leave: whether no transaction among sites waits for it. Others cannot tell.
func (s *Server) readyToLeave(ctx context.Context, node protocol.NodeID) error {
	if s.opts.Sites == nil {
		return nil
	}
	within := leavePatience
	if end, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(end)/2) // the cluster is to be asked afterwards
	}
	var why string
	state := s.opts.Node.State()
	_, member := state.Member(node)
	switch {
	case !member:
		return nil // the cluster says so
	case node == s.opts.Node.Self():
		why = s.leaves(within)
	default: // one that is suspected to be down is asked, too: it may only be slow
		patient, cancel := context.WithTimeout(ctx, within+2*time.Second)
		defer cancel()
		answer, err := s.opts.Node.Ask(patient, node, leaveQuestion(within))
		if why = string(answer); err != nil {
			why = fmt.Sprintf("node %s does not say whether transactions among sites wait for it: %v", node, err)
		}
	}
	if why == "" {
		return nil
	}
	return refuse(connect.CodeFailedPrecondition, told(why),
		"try again when it is over (assent list shows what is); or, if the node has failed for good, use assent cluster exclude")
}

// stays tells a node that it does not leave after all.
func (s *Server) stays(ctx context.Context, node protocol.NodeID) {
	if s.opts.Sites == nil {
		return
	}
	if node == s.opts.Node.Self() {
		s.opts.Sites.Stay()
		return
	}
	patient, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := s.opts.Node.Ask(patient, node, []byte{askStay}); err != nil {
		s.opts.Logger.Warn("a node that does not leave after all takes no new work for half a minute", "node", node, "error", err)
	}
}
