package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/protocol/commit"
	"assent/site"
)

const maxList = 1000

// List returns transactions.
func (s *Server) List(ctx context.Context, req *assentv1.ListRequest) (*assentv1.ListResponse, error) {
	limit := int(min(req.GetLimit(), maxList))
	if limit == 0 {
		limit = maxList
	}
	infos, err := s.manager().Transactions(ctx, assent.Filter{Unfinished: req.GetUnfinished(), Limit: limit + 1})
	if err != nil {
		return nil, err
	}
	response := &assentv1.ListResponse{More: len(infos) > limit}
	open := s.sitesTransactions(func(m site.Status) bool { return !m.Done })
	response.More = response.More || len(open)+len(infos) > limit
	response.Transactions = open[:min(len(open), limit)]
	infos = infos[:min(len(infos), limit-len(response.Transactions))]
	for _, i := range infos[:min(len(infos), limit)] {
		response.Transactions = append(response.Transactions, Transaction(i))
	}
	return response, nil
}

// Get returns what is known of one transaction.
func (s *Server) Get(ctx context.Context, req *assentv1.GetRequest) (*assentv1.GetResponse, error) {
	found, err := s.here(ctx, req.GetId(), callerOf(ctx))
	if err == nil {
		return &assentv1.GetResponse{Transaction: found}, nil
	}
	if t := s.living(ctx, req.GetId(), err); t != nil {
		return &assentv1.GetResponse{Transaction: t}, nil
	}
	return nil, s.whyUnknown(req.GetId(), err)
}

// here returns what this server itself knows of the transaction, from memory or from the log.
func (s *Server) here(ctx context.Context, id string, c caller) (*assentv1.Transaction, error) {
	info, err := s.transaction(ctx, id)
	if err == nil {
		return Transaction(info), nil
	}
	if _, past := s.sessions.find(id, c); past != nil {
		return remember(past), nil
	}
	if t := s.amongSites(id); t != nil {
		return t, nil
	}
	return nil, err
}

// remember tells of a transaction of which nothing is on record but what its caller was told: it
// was committed in one phase, or never prepared.
func remember(o *assentv1.Outcome) *assentv1.Transaction {
	t := &assentv1.Transaction{Id: o.GetId(), State: assentv1.State_STATE_COMMITTED, Decision: assentv1.Decision_DECISION_COMMIT}
	if a := o.GetAborted(); a != nil {
		t.State, t.Decision = assentv1.State_STATE_ABORTED, assentv1.Decision_DECISION_ABORT
		t.By, t.Reason = a.GetBy(), a.GetReason()
	}
	if h := o.GetHeuristic(); h != nil {
		t.State, t.Decision = assentv1.State_STATE_HEURISTIC, h.GetDecision()
		for _, b := range h.GetBranches() {
			t.Branches = append(t.Branches, &assentv1.Branch{Resource: b.GetResource(), State: "finished", Outcome: b.GetOutcome()})
		}
	}
	return t
}

// Resolve records what an operator says. With tokens, the audit trail names the caller's too.
func (s *Server) Resolve(ctx context.Context, req *assentv1.ResolveRequest) (*assentv1.ResolveResponse, error) {
	if _, ok := assentv1.BranchOutcome_name[int32(req.GetOutcome())]; !ok {
		return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("there is no outcome %d", req.GetOutcome()), "")
	}
	by := req.GetBy()
	if len(s.opts.Tokens) > 0 && by != "" {
		by += " (token " + callerOf(ctx).name + ")"
	}
	if s.amongSites(req.GetId()) != nil {
		return s.resolveAmongSites(req, by)
	}
	info, err := s.manager().Resolve(ctx, assent.Resolution{
		ID: req.GetId(), Branch: req.GetBranch(), Outcome: commit.Outcome(req.GetOutcome()),
		By: by, Reason: req.GetReason(),
	})
	if err != nil {
		if codeOf(err) == connect.CodeUnknown { // the manager says why in words
			err = refuse(connect.CodeFailedPrecondition, err.Error(), "").about(req.GetId(), false)
		}
		return nil, err
	}
	return &assentv1.ResolveResponse{Transaction: Transaction(info)}, nil
}

// Doctor examines the resources.
func (s *Server) Doctor(ctx context.Context, _ *assentv1.DoctorRequest) (*assentv1.DoctorResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.StatementTimeout)
	defer cancel()
	response := &assentv1.DoctorResponse{}
	for _, d := range s.manager().Doctor(ctx) {
		response.Diagnoses = append(response.Diagnoses, Diagnosis(d))
	}
	return response, nil
}

// Diagnosis writes d as the contract's message.
func Diagnosis(d assent.Diagnosis) *assentv1.Diagnosis {
	diagnosis := &assentv1.Diagnosis{Resource: d.Resource, Error: told(d.Err)}
	for _, f := range d.Findings {
		diagnosis.Findings = append(diagnosis.Findings, &assentv1.Finding{
			Check: told(f.Check), Severity: assentv1.Severity(f.Severity), Detail: told(f.Detail), Hint: told(f.Hint),
		})
	}
	return diagnosis
}

// Status tells how the server is. Before it has a manager nothing is known of its resources.
func (s *Server) Status(context.Context, *assentv1.StatusRequest) (*assentv1.StatusResponse, error) {
	response := &assentv1.StatusResponse{
		Version: s.opts.Version, Owner: s.opts.Owner,
		Started: timestamppb.New(s.started), Uptime: durationpb.New(time.Since(s.started).Round(time.Millisecond)),
		Open: uint32(s.sessions.count()), MaxOpen: uint32(s.opts.MaxOpen),
	}
	if s.opts.LogStats != nil {
		response.Log = s.opts.LogStats()
	}
	m := s.manager()
	if m == nil {
		for _, name := range slices.Sorted(maps.Keys(s.executors)) {
			response.Resources = append(response.Resources, &assentv1.ResourceStatus{Name: name, Kind: s.executors[name].kind(), Error: told(s.starting().Error())})
		}
		return response, nil
	}
	scans := m.Scans()
	for _, name := range slices.Sorted(maps.Keys(s.executors)) {
		scan := scans[name]
		foreign := make([]string, len(scan.Foreign))
		for i, name := range scan.Foreign {
			foreign[i] = told(name)
		}
		response.Resources = append(response.Resources, &assentv1.ResourceStatus{
			Name: name, Kind: s.executors[name].kind(), Scanned: stamp(scan.Time), Error: told(scan.Err),
			Prepared: uint32(scan.Prepared), Settled: uint32(scan.Settled), Foreign: foreign,
		})
	}
	return response, nil
}

var states = map[assent.State]assentv1.State{
	assent.StateOpen:       assentv1.State_STATE_OPEN,
	assent.StatePreparing:  assentv1.State_STATE_PREPARING,
	assent.StateInDoubt:    assentv1.State_STATE_IN_DOUBT,
	assent.StateCommitting: assentv1.State_STATE_COMMITTING,
	assent.StateAborting:   assentv1.State_STATE_ABORTING,
	assent.StateCommitted:  assentv1.State_STATE_COMMITTED,
	assent.StateAborted:    assentv1.State_STATE_ABORTED,
	assent.StateHeuristic:  assentv1.State_STATE_HEURISTIC,
}

// Transaction writes i as the contract's message.
func Transaction(i assent.Info) *assentv1.Transaction {
	t := &assentv1.Transaction{
		Id: i.ID, State: states[i.State], Began: stamp(i.Began), Decision: assentv1.Decision(i.Decision),
		By: told(i.By), Reason: told(i.Reason), Decided: stamp(i.Decided), Recovered: i.Recovered,
	}
	for _, b := range i.Branches {
		t.Branches = append(t.Branches, &assentv1.Branch{
			Resource: b.Resource, State: b.State, Outcome: assentv1.BranchOutcome(b.Outcome), Error: told(b.Err),
		})
	}
	for _, n := range i.Notes {
		t.Notes = append(t.Notes, &assentv1.Note{
			Kind: n.Kind.String(), Time: stamp(n.Time), Branch: n.Branch,
			Outcome: assentv1.BranchOutcome(n.Outcome), By: told(n.By), Reason: told(n.Reason),
		})
	}
	return t
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
