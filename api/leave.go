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
	until, why := s.leaves(min(within, leavePatience))
	if why != "" {
		return []byte(why)
	}
	return stayQuestion(until)
}

// stayQuestion tells a node that it does not leave, after it was to be ready for that until then. It is also the answer
// of a node that is ready: no word of why it is not begins so.
func stayQuestion(until time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{askStay, 0}, uint64(until.UnixNano()))
}

// stayOf reads a stayQuestion.
func stayOf(question []byte) (until time.Time, ok bool) {
	if len(question) != 10 || question[0] != askStay || question[1] != 0 {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(question[2:]))), true
}

// leaves makes this node ready to leave until a time, and returns why it cannot, in words, or "".
func (s *Server) leaves(within time.Duration) (until time.Time, why string) {
	if s.opts.Sites == nil {
		return time.Time{}, ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	until, err := s.opts.Sites.Leave(ctx)
	if err != nil {
		s.opts.Sites.Stay(until)
		return until, toldUpTo(maxError, err.Error())
	}
	return until, ""
}

// readyToLeave asks a node whether it can leave: whether no transaction among sites waits for it. Others cannot tell. It
// is ready until then.
func (s *Server) readyToLeave(ctx context.Context, node protocol.NodeID) (until time.Time, err error) {
	if s.opts.Sites == nil {
		return time.Time{}, nil
	}
	within := leavePatience
	if end, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(end)/2) // the cluster is to be asked afterwards
	}
	var why string
	state := s.opts.Node.State()
	_, member := state.Member(node)
	if !member { // as far as this node knows, which may lag
		if state, err = s.opts.Node.Barrier(ctx); err != nil {
			return time.Time{}, refuse(connect.CodeUnavailable, fmt.Sprintf("node %s does not learn whether node %s is a member: %v",
				s.opts.Node.Self(), node, err), "ask another node of the cluster")
		}
		_, member = state.Member(node)
	}
	switch {
	case !member:
		return time.Time{}, nil // the cluster says so
	case node == s.opts.Node.Self():
		until, why = s.leaves(within)
	default: // one that is suspected to be down is asked, too: it may only be slow
		patient, cancel := context.WithTimeout(ctx, within+2*time.Second)
		defer cancel()
		answer, err := s.opts.Node.Ask(patient, node, leaveQuestion(within))
		ready := false
		if until, ready = stayOf(answer); !ready {
			why = string(answer)
		}
		if err != nil {
			why = fmt.Sprintf("node %s does not say whether transactions among sites wait for it: %v", node, err)
		}
	}
	if why == "" {
		return until, nil
	}
	return until, refuse(connect.CodeFailedPrecondition, told(why),
		"try again when it is over (assent list shows what is); or, if the node has failed for good, use assent cluster exclude")
}

// stays tells a node, which was ready to leave until then, that it does not leave after all.
func (s *Server) stays(ctx context.Context, node protocol.NodeID, until time.Time) {
	if s.opts.Sites == nil || until.IsZero() {
		return
	}
	if node == s.opts.Node.Self() {
		s.opts.Sites.Stay(until)
		return
	}
	patient, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := s.opts.Node.Ask(patient, node, stayQuestion(until)); err != nil {
		s.opts.Logger.Warn("a node that does not leave after all takes no new work for half a minute", "node", node, "error", err)
	}
}
