package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/cluster"
	"assent/protocol"
)

// lookupPatience bounds the time in which a shared log must say what it knows, and another node what it
// does: a node that is cut off must not keep its callers waiting for ever.
const lookupPatience = 5 * time.Second

// Cluster tells how the cluster stands.
func (s *Server) Cluster(context.Context, *assentv1.ClusterRequest) (*assentv1.ClusterResponse, error) {
	if s.opts.Node == nil {
		return nil, notInCluster()
	}
	return Cluster(s.opts.Node.Status()), nil
}

// Cluster writes c as the contract's message.
func Cluster(c cluster.Status) *assentv1.ClusterResponse {
	response := &assentv1.ClusterResponse{
		Cluster: c.Cluster, Node: string(c.Self), Role: c.Role, Leader: string(c.Leader), View: c.View,
		Quorum: c.Quorum, Decides: c.Decides, Log: told(c.Log),
		Epoch: c.Epoch, Primary: c.Primary, Why: told(c.Why), Registers: told(c.Registers), Retired: c.Retired,
	}
	for _, m := range c.Members {
		member := &assentv1.ClusterMember{
			Node: string(m.Node), Votes: uint32(m.Votes), Address: m.Address, Api: m.API, State: m.State, Since: stamp(m.Since),
			Suspicion: m.Suspicion, Link: told(m.Words), Log: told(m.Log), Software: told(m.Software),
			Learns: told(m.Learns),
		}
		if m.Link != nil {
			member.Heard = stamp(m.Link.Heard)
			if m.Link.RoundTrip > 0 {
				member.RoundTrip = durationpb.New(m.Link.RoundTrip)
			}
		}
		response.Members = append(response.Members, member)
	}
	return response
}

// hold makes room for one more transaction, or says why there is none: here, or at this node.
func (s *Server) hold() error {
	if s.opts.Node != nil && s.opts.NeedsQuorum {
		if count, enough := s.opts.Node.Decides(); !enough {
			return refuse(connect.CodeUnavailable, fmt.Sprintf("node %s cannot decide anything: %s", s.opts.Node.Self(), count),
				"ask another node of the cluster").anywhereElse()
		}
	}
	return s.sessions.hold()
}

// keptElsewhere says which node keeps a resource that this server has not, or returns nil.
func (s *Server) keptElsewhere(resource string) error {
	if s.opts.Node == nil {
		return nil
	}
	node, api, ok := s.opts.Node.Keeper(resource)
	if !ok || node == s.opts.Node.Self() {
		return nil
	}
	if api == "" {
		api = "its address"
	}
	return refuse(connect.CodeInvalidArgument, fmt.Sprintf("resource %q is kept by node %s, and this is node %s", resource, node, s.opts.Node.Self()),
		"run the transaction at node "+string(node)+": "+api+"; or name a protocol, as --protocol paxos does: the nodes then commit among themselves")
}

// transaction is the manager's, which a shared log may keep waiting.
func (s *Server) transaction(ctx context.Context, id string) (assent.Info, error) {
	if s.opts.Node == nil {
		return s.manager().Transaction(ctx, id)
	}
	patient, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	info, err := s.manager().Transaction(patient, id)
	if err != nil && ctx.Err() == nil && patient.Err() != nil {
		count, _ := s.opts.Node.Decides()
		return info, refuse(connect.CodeUnavailable, fmt.Sprintf("the decision log does not say what became of transaction %.100q: %s", id, count),
			"ask a node that reaches more of the others").about(id, false).anywhereElse()
	}
	return info, err
}

// living returns what another node says of a transaction that it has begun and of which this one knows
// nothing: err says why. It returns nil where nobody says anything.
func (s *Server) living(ctx context.Context, id string, err error) *assentv1.Transaction {
	if err == nil || s.opts.Node == nil || ctx.Err() != nil {
		return nil
	}
	node, suspected, ok := s.opts.Node.Coordinator(id)
	if !ok || suspected || node == s.opts.Node.Self() {
		return nil
	}
	question, err := proto.Marshal(&assentv1.GetRequest{Id: id})
	if err != nil {
		return nil
	}
	patient, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	data, err := s.opts.Node.Ask(patient, node, append([]byte{askTransaction}, question...))
	if err != nil {
		return nil
	}
	response := &assentv1.GetResponse{}
	if proto.Unmarshal(data, response) != nil {
		return nil
	}
	return response.GetTransaction() // nil where it is not known there either
}

// answer answers another node's question.
func (s *Server) answer(from protocol.NodeID, question []byte) []byte {
	switch {
	case len(question) > 0 && question[0] == askTransaction:
		return s.tell(question[1:])
	case len(question) > 0 && question[0] == askWork:
		return s.doErrand(from, question[1:])
	case len(question) > 0 && question[0] == askLeave:
		return s.leaveAnswer(question)
	case len(question) > 0 && question[0] == askStay && s.opts.Sites != nil:
		if until, ok := stayOf(question); ok {
			s.opts.Sites.Stay(until)
		}
	}
	return nil // of a later version
}

// tell tells another node of a transaction that this one has begun.
func (s *Server) tell(question []byte) []byte {
	req, response := &assentv1.GetRequest{}, &assentv1.GetResponse{}
	if err := proto.Unmarshal(question, req); err == nil && s.manager() != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lookupPatience)
		defer cancel()
		if found, err := s.here(ctx, req.GetId(), caller{name: "cluster", roles: []Role{RoleAdmin}}); err == nil {
			response.Transaction = found
		}
	}
	data, err := proto.Marshal(response)
	if err != nil {
		return nil
	}
	return data
}

// whyUnknown says what it means that nothing is known of a transaction, where the cluster knows more of
// it than that.
func (s *Server) whyUnknown(id string, err error) error {
	if s.opts.Node == nil || !errors.Is(err, assent.ErrUnknown) {
		return err
	}
	node, suspected, ok := s.opts.Node.Coordinator(id)
	if !ok || !suspected {
		return err
	}
	return refuse(connect.CodeNotFound, fmt.Sprintf("nothing is decided about transaction %.100s, whose node %s is suspected to be down", id, node),
		"what it left prepared is rolled back by the other nodes; ask again in a few seconds").about(id, false)
}

// outcomeOfLiving tells the outcome of a transaction as another node sees it.
func outcomeOfLiving(t *assentv1.Transaction) *assentv1.Outcome {
	o := &assentv1.Outcome{Id: t.GetId()}
	switch t.GetState() {
	case assentv1.State_STATE_COMMITTED, assentv1.State_STATE_COMMITTING:
		o.Kind = &assentv1.Outcome_Committed{Committed: &assentv1.Committed{}}
	case assentv1.State_STATE_ABORTED, assentv1.State_STATE_ABORTING:
		o.Kind = &assentv1.Outcome_Aborted{Aborted: &assentv1.Aborted{Cause: "settled", By: t.GetBy(), Reason: t.GetReason()}}
	case assentv1.State_STATE_HEURISTIC:
		h := &assentv1.Heuristic{Decision: t.GetDecision(), Hint: "assent show " + t.GetId()}
		for _, b := range t.GetBranches() {
			h.Branches = append(h.Branches, &assentv1.Contradiction{Resource: b.GetResource(), Outcome: b.GetOutcome()})
		}
		o.Kind = &assentv1.Outcome_Heuristic{Heuristic: h}
	default:
		o.Kind = &assentv1.Outcome_InDoubt{InDoubt: &assentv1.InDoubt{
			Reason: "the transaction is not decided yet, and lives at another node",
			Hint:   "ask again, or that node",
		}}
	}
	return o
}
