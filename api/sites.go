package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	assentv1 "assent/api/assent/v1"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/site"
)

// runAmongSites does a whole transaction by the protocol that was asked for: every operation at the node
// that keeps its resource, and then the commitment among those nodes.
func (s *Server) runAmongSites(ctx context.Context, req *assentv1.RunRequest, timeout time.Duration) (*assentv1.RunResponse, error) {
	if s.opts.Sites == nil {
		return nil, refuse(connect.CodeFailedPrecondition, "a protocol can be chosen among the nodes of a cluster only",
			"give the server a cluster section (docs/cluster.md), or leave the protocol out")
	}
	if req.GetRetries() > 0 {
		return nil, refuse(connect.CodeInvalidArgument, "retries cannot be asked for together with a protocol", "ask for one of them")
	}
	if err := s.sessions.hold(); err != nil {
		return nil, err
	}
	defer s.sessions.drop()
	p := site.Protocol(req.GetProtocol())
	if err := p.Check(); err != nil {
		return nil, refuse(connect.CodeInvalidArgument, err.Error(), "")
	}
	t, err := s.opts.Sites.Begin(p)
	if err != nil {
		return nil, refuse(connect.CodeUnavailable, err.Error(), "ask another node of the cluster").anywhereElse()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response := &assentv1.RunResponse{}
	var nodes []protocol.NodeID
	bytes := s.opts.MaxResultBytes
	for i, op := range req.GetOperations() {
		node, err := s.keeperOf(op.GetResource())
		again := slices.Contains(nodes, node)
		if err == nil && !again {
			nodes = append(nodes, node)
		}
		if err == nil && len(nodes) > site.MaxSites {
			err = refuse(connect.CodeInvalidArgument, fmt.Sprintf("more than %d nodes would take part", site.MaxSites), "")
		}
		var result *assentv1.Result
		if err == nil {
			result, err = s.workAt(ctx, t, node, op, again, bytes)
		}
		if err != nil {
			failed := &operationError{number: i + 1, err: err}
			if err := s.opts.Sites.Abort(t, nodes, told(failed.Error())); err != nil {
				s.opts.Logger.Warn("work is left to be given up when its time is over", "transaction", t.ID, "error", err)
			}
			response.Outcome = abortedAmongSites(t, failed)
			return response, nil
		}
		bytes -= proto.Size(result)
		response.Results = append(response.Results, result)
	}
	r, err := s.opts.Sites.Commit(ctx, t, nodes, !req.GetEarlyReply())
	if err != nil && !errors.Is(err, site.ErrInDoubt) {
		_ = s.opts.Sites.Abort(t, nodes, "it cannot be committed") // else it is given up when its time is over
		if errors.Is(err, site.ErrAlone) {
			err = refuse(connect.CodeUnavailable, err.Error(), "assent cluster status tells who is there; try again").about(string(t.ID), true)
		}
		return nil, err
	}
	response.Outcome = outcomeAmongSites(t, r, err)
	return response, nil
}

// keeperOf returns the node that keeps the resource. One that all nodes reach is no site's: what a node that
// has died for good had prepared there, nobody else would take for its own.
func (s *Server) keeperOf(name string) (protocol.NodeID, error) {
	node, _, ok := s.opts.Node.Keeper(name)
	if !ok {
		return "", refuse(connect.CodeInvalidArgument, fmt.Sprintf("no node keeps a resource %.100q for itself", name),
			"a protocol is for the stores that nodes keep, whose names end in a hyphen and the node's; leave it out for databases that all nodes reach")
	}
	return node, nil
}

// Questions of one node to another begin with a byte that says what they are.
const (
	askTransaction = 't' // a GetRequest: what is known of a transaction that the node has begun
	askWork        = 'w' // an errand: an operation in a transaction among sites
	askLeave       = 'l' // whether the node is ready to leave; it makes itself so
	askStay        = 's' // that the node does not leave after all
)

// errand asks another node for an operation, and errandDone answers. The operation and the result are
// the contract's messages.
type errand struct {
	Transaction site.Transaction `json:"transaction"`
	Operation   []byte           `json:"operation"`
	// Again says that the transaction has worked at the node before.
	Again bool `json:"again,omitempty"`
	// Bytes is how long the result may be.
	Bytes int `json:"bytes"`
}

type errandDone struct {
	Result []byte        `json:"result,omitempty"`
	Error  string        `json:"error,omitempty"`
	Hint   string        `json:"hint,omitempty"`
	Code   resource.Code `json:"code,omitempty"`
}

// elsewhereError is what an operation met at another node.
type elsewhereError struct {
	node protocol.NodeID
	done errandDone
}

// Error returns the node and what it says.
func (e *elsewhereError) Error() string { return fmt.Sprintf("node %s: %s", e.node, e.done.Error) }

// Hint returns what to do. It may be empty.
func (e *elsewhereError) Hint() string { return e.done.Hint }

// maxErrandBytes bounds an operation at another node, and its result.
const maxErrandBytes = 1 << 20

// workAt does an operation at the node.
func (s *Server) workAt(ctx context.Context, t site.Transaction, node protocol.NodeID, op *assentv1.Operation, again bool, bytes int) (*assentv1.Result, error) {
	if node == s.opts.Node.Self() {
		return s.operate(ctx, s.opts.Sites.Branches(t, again), op, s.newBudget(op, bytes))
	}
	if size := proto.Size(op); size > maxErrandBytes {
		return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("the operation has %d bytes", size),
			fmt.Sprintf("at most %d are allowed for an operation at another node; ask node %s itself", maxErrandBytes, node))
	}
	if s.opts.Node.Suspected(node) {
		return nil, refuse(connect.CodeUnavailable, fmt.Sprintf("node %s, which keeps resource %q, is suspected to be down", node, op.GetResource()),
			"assent cluster status tells more; try again when it is up")
	}
	data, err := proto.Marshal(op)
	if err != nil {
		return nil, err
	}
	question, err := json.Marshal(errand{t, data, again, min(bytes, maxErrandBytes)})
	if err != nil {
		return nil, err
	}
	limit, err := duration("timeout", op.GetTimeout(), s.opts.StatementTimeout)
	if err != nil {
		return nil, err
	}
	patient, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := s.opts.Node.Ask(patient, node, append([]byte{askWork}, question...))
	if err != nil {
		return nil, err
	}
	var done errandDone
	if err := json.Unmarshal(answer, &done); err != nil {
		return nil, fmt.Errorf("node %s gives an answer that cannot be read: %w", node, err)
	}
	if done.Error != "" {
		return nil, &elsewhereError{node, done}
	}
	result := &assentv1.Result{}
	return result, proto.Unmarshal(done.Result, result)
}

// doErrand does an operation for another node.
func (s *Server) doErrand(from protocol.NodeID, question []byte) []byte {
	var done errandDone
	result, err := s.errand(from, question)
	if err == nil {
		done.Result, err = proto.Marshal(result)
	}
	if err != nil {
		done = errandDone{Error: toldUpTo(maxError, err.Error()), Hint: toldUpTo(maxError, hintOf(err)), Code: resource.CodeOf(err)}
	}
	answer, err := json.Marshal(done)
	if err != nil {
		return nil
	}
	return answer
}

func (s *Server) errand(from protocol.NodeID, question []byte) (*assentv1.Result, error) {
	var e errand
	if err := json.Unmarshal(question, &e); err != nil {
		return nil, fmt.Errorf("the question cannot be read: %w", err)
	}
	op := &assentv1.Operation{}
	if err := proto.Unmarshal(e.Operation, op); err != nil {
		return nil, fmt.Errorf("the operation cannot be read: %w", err)
	}
	if s.opts.Sites == nil {
		return nil, errors.New("the node takes no part in transactions among sites")
	}
	if node, err := s.keeperOf(op.GetResource()); err != nil || node != s.opts.Node.Self() {
		return nil, fmt.Errorf("node %s does not keep resource %.100q", s.opts.Node.Self(), op.GetResource())
	}
	if e.Transaction.Coordinator != from {
		return nil, fmt.Errorf("the transaction is of node %q, and node %q asks", e.Transaction.Coordinator, from)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.StatementTimeout)
	defer cancel()
	return s.operate(ctx, s.opts.Sites.Branches(e.Transaction, e.Again), op, s.newBudget(op, min(max(e.Bytes, 0), maxErrandBytes)))
}

func abortedAmongSites(t site.Transaction, err *operationError) *assentv1.Outcome {
	code := resource.CodeOf(err)
	if e, ok := errors.AsType[*elsewhereError](err.err); ok {
		code = e.done.Code
	}
	return &assentv1.Outcome{Id: string(t.ID), Kind: &assentv1.Outcome_Aborted{Aborted: &assentv1.Aborted{
		Cause: commit.Cancelled.String(), By: "application", Reason: told(err.Error()), Hint: told(hintOf(err.err)),
		Retryable: code.Retryable(), Code: assentv1.ErrorCode(code), FailedOperation: uint32(err.number),
	}}}
}

func outcomeAmongSites(t site.Transaction, r site.Result, err error) *assentv1.Outcome {
	o := &assentv1.Outcome{Id: string(t.ID)}
	switch {
	case err != nil:
		o.Kind = &assentv1.Outcome_InDoubt{InDoubt: &assentv1.InDoubt{Reason: told(err.Error()), Hint: "ask for it later: assent show " + string(t.ID)}}
	case len(r.Heuristic) > 0:
		h := &assentv1.Heuristic{Decision: assentv1.Decision(r.Decision), Hint: "look at the resources of the nodes that are named"}
		for _, c := range r.Heuristic {
			h.Mixed = h.Mixed || c.Outcome != commit.Hazard
			h.Branches = append(h.Branches, &assentv1.Contradiction{Resource: nodeWord + string(c.Node), Outcome: assentv1.BranchOutcome(c.Outcome)})
		}
		o.Kind = &assentv1.Outcome_Heuristic{Heuristic: h}
	case r.Decision == commit.Commit:
		o.Kind = &assentv1.Outcome_Committed{Committed: &assentv1.Committed{}}
	default:
		o.Kind = &assentv1.Outcome_Aborted{Aborted: &assentv1.Aborted{Cause: r.Cause.String(), By: string(r.By), Reason: told(r.Reason)}}
	}
	return o
}

// amongSites returns what this node's sites know of the transaction, or nil.
func (s *Server) amongSites(id string) *assentv1.Transaction {
	all := s.sitesTransactions(func(m site.Status) bool { return string(m.ID) == id })
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// nodeWord begins the name of a node's part, where a branch has its resource's.
const nodeWord = "node "

// resolveAmongSites takes an operator's word for the part of a node in a transaction among sites.
func (s *Server) resolveAmongSites(req *assentv1.ResolveRequest, by string) (*assentv1.ResolveResponse, error) {
	err := s.opts.Sites.Resolve(site.Resolution{ID: commit.TransactionID(req.GetId()),
		Site:    protocol.NodeID(strings.TrimPrefix(req.GetBranch(), nodeWord)),
		Outcome: commit.Outcome(req.GetOutcome()), By: by, Reason: req.GetReason()})
	if err != nil {
		return nil, refuse(connect.CodeFailedPrecondition, err.Error(),
			"it is a transaction among sites: --branch names a node that is awaited, as assent show says, or this one where it is in doubt").about(req.GetId(), false)
	}
	return &assentv1.ResolveResponse{Transaction: s.amongSites(req.GetId())}, nil
}

// sitesTransactions returns the transactions of this node's sites that are wanted, by their ids.
func (s *Server) sitesTransactions(wanted func(site.Status) bool) []*assentv1.Transaction {
	if s.opts.Sites == nil {
		return nil
	}
	var all []*assentv1.Transaction
	for _, m := range s.opts.Sites.List() {
		if !wanted(m) {
			continue
		}
		if len(all) == 0 || all[len(all)-1].GetId() != string(m.ID) {
			all = append(all, &assentv1.Transaction{Id: string(m.ID), State: assentv1.State_STATE_PREPARING,
				Reason: "among sites by " + string(m.Protocol) + ", begun at node " + string(m.Coordinator)})
		}
		t := all[len(all)-1]
		if m.Missing != "" && !strings.Contains(t.GetReason(), m.Missing) {
			t.Reason += "; it cannot be decided without nodes that " + m.Missing
		}
		for _, n := range m.Awaits {
			t.Branches = append(t.Branches, &assentv1.Branch{Resource: nodeWord + string(n), State: "told"})
		}
		for _, n := range m.Notes {
			t.Notes = append(t.Notes, &assentv1.Note{Kind: "resolved", Time: stamp(time.UnixMilli(n.Time)), Branch: nodeWord + string(n.Site),
				Outcome: assentv1.BranchOutcome(n.Outcome), By: told(n.By), Reason: told(n.Reason)})
		}
		switch {
		case m.Decision == commit.Commit:
			t.State, t.Decision = assentv1.State_STATE_COMMITTED, assentv1.Decision_DECISION_COMMIT
		case m.Decision == commit.Abort:
			t.State, t.Decision = assentv1.State_STATE_ABORTED, assentv1.Decision_DECISION_ABORT
		case m.InDoubt && t.GetDecision() == assentv1.Decision_DECISION_UNSPECIFIED:
			t.State = assentv1.State_STATE_IN_DOUBT
		}
	}
	return all
}
