package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"assent"
	assentv1 "assent/api/assent/v1"
)

// Begin opens a transaction for the caller.
func (s *Server) Begin(ctx context.Context, req *assentv1.BeginRequest) (*assentv1.BeginResponse, error) {
	timeout, err := duration("timeout", req.GetTimeout(), s.opts.Timeout)
	if err != nil {
		return nil, err
	}
	if err := s.hold(); err != nil {
		return nil, err
	}
	tx, err := s.manager().Begin(ctx, assent.Timeout(timeout), assent.EarlyReply(req.GetEarlyReply()))
	if err != nil {
		s.sessions.drop()
		return nil, err
	}
	s.sessions.add(tx, callerOf(ctx).name)
	return &assentv1.BeginResponse{Id: tx.ID()}, nil
}

// Execute does one operation in an open transaction.
func (s *Server) Execute(ctx context.Context, req *assentv1.ExecuteRequest) (*assentv1.ExecuteResponse, error) {
	sess, past := s.sessions.find(req.GetId(), callerOf(ctx))
	if sess == nil {
		return nil, notOpen(req.GetId(), past)
	}
	opCtx, done, err := sess.work(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	op := req.GetOperation()
	result, err := s.operate(opCtx, sess.tx, op, s.newBudget(op, s.opts.MaxResultBytes))
	if err != nil {
		return nil, err
	}
	return &assentv1.ExecuteResponse{Result: result}, nil
}

// notOpen says why no work can be done in the transaction id.
func notOpen(id string, past *assentv1.Outcome) error {
	if past == nil {
		return refuse(connect.CodeNotFound, fmt.Sprintf("transaction %.100q is not open here", id),
			"it was never begun here, or ended long ago, or the server was started since; ask Get for its outcome").about(id, true)
	}
	text := fmt.Sprintf("transaction %s has ended", id)
	if a := past.GetAborted(); a != nil {
		text = fmt.Sprintf("transaction %s was rolled back: %s", id, a.GetReason())
	}
	return refuse(connect.CodeFailedPrecondition, text, "begin a new transaction").about(id, true)
}

// Commit ends a transaction and tells its outcome.
func (s *Server) Commit(ctx context.Context, req *assentv1.CommitRequest) (*assentv1.CommitResponse, error) {
	id := req.GetId()
	sess, past := s.sessions.find(id, callerOf(ctx))
	if sess == nil {
		outcome, err := s.known(ctx, id, past)
		return &assentv1.CommitResponse{Outcome: outcome}, err
	}
	if err := sess.take(); err != nil {
		return nil, err
	}
	outcome, err := outcomeOf(id, sess.tx.Commit(ctx))
	s.sessions.end(sess, outcome)
	if err != nil {
		return nil, err
	}
	return &assentv1.CommitResponse{Outcome: outcome}, nil
}

// known returns the outcome of a transaction that is not open, from what is remembered or what
// the manager knows.
func (s *Server) known(ctx context.Context, id string, past *assentv1.Outcome) (*assentv1.Outcome, error) {
	if past != nil {
		return past, nil
	}
	info, err := s.transaction(ctx, id)
	if t := s.living(ctx, id, err); t != nil {
		return outcomeOfLiving(t), nil
	}
	switch {
	case errors.Is(err, assent.ErrUnknown) || err == nil && info.State == assent.StateOpen:
		return nil, refuse(connect.CodeNotFound, fmt.Sprintf("transaction %.100q is not known here", id),
			"that is no outcome: look whether its changes are there").about(id, false)
	case err != nil:
		return nil, err
	}
	return outcomeOfInfo(info), nil
}

// Rollback ends a transaction and undoes its work.
func (s *Server) Rollback(ctx context.Context, req *assentv1.RollbackRequest) (*assentv1.RollbackResponse, error) {
	id, c := req.GetId(), callerOf(ctx)
	sess, outcome := s.sessions.find(id, c)
	var err error
	if sess != nil {
		outcome, err = s.rollback(ctx, sess, "")
		if err == nil && outcome == nil { // another call was quicker
			_, outcome = s.sessions.find(id, c)
		}
	}
	if err == nil && outcome == nil {
		outcome, err = s.known(ctx, id, nil)
	}
	if err != nil {
		return nil, err
	}
	if outcome.GetCommitted() != nil {
		return nil, refuse(connect.CodeFailedPrecondition, "transaction "+id+" is committed", "").about(id, true)
	}
	return &assentv1.RollbackResponse{Outcome: outcome}, nil
}

// rollback seizes and ends the session. The outcome is nil where another call has ended it. When
// ctx ends first the rest is done in the background.
func (s *Server) rollback(ctx context.Context, sess *session, reason string) (*assentv1.Outcome, error) {
	mine, err := sess.seize(ctx)
	if err != nil {
		go func() {
			late, cancel := context.WithTimeout(context.Background(), s.opts.StatementTimeout+finishPatience)
			defer cancel()
			if mine, err := sess.seize(late); err == nil && mine {
				_, _ = s.finish(late, sess, reason) // nobody waits for the outcome; it is remembered
			}
		}()
		return nil, err
	}
	if !mine {
		return nil, nil
	}
	return s.finish(ctx, sess, reason)
}

// finish rolls back the session, whose slot the caller holds. When ctx ends, the rest is undone in
// the background: it can end in no other way.
func (s *Server) finish(ctx context.Context, sess *session, reason string) (*assentv1.Outcome, error) {
	why := &assent.AbortedError{Cause: causeCancelled, By: "application", Reason: reason}
	if reason != "" {
		why.By = "server"
	}
	err := sess.tx.Rollback(ctx)
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = why
	}
	outcome, err := outcomeOf(sess.tx.ID(), err)
	s.sessions.end(sess, outcome)
	return outcome, err
}

// expire ends a session that has been idle for too long.
func (s *Server) expire(sess *session) {
	if sess.slotTaken() {
		return // a call has come in time; its end starts the wait anew
	}
	reason := fmt.Sprintf("idle for longer than %v", s.opts.IdleTimeout)
	s.opts.Logger.Warn("transaction rolled back", "transaction", sess.tx.ID(), "caller", sess.owner, "reason", reason)
	ctx, cancel := context.WithTimeout(context.Background(), finishPatience)
	defer cancel()
	if _, err := s.finish(ctx, sess, reason); err != nil {
		s.opts.Logger.Error("cannot roll back an idle transaction", "transaction", sess.tx.ID(), "error", err)
	}
}

// finishPatience is for how long an idle session's slot is kept for the sake of its outcome.
const finishPatience = 10 * time.Second

// Run does a whole transaction.
func (s *Server) Run(ctx context.Context, req *assentv1.RunRequest) (*assentv1.RunResponse, error) {
	timeout, err := duration("timeout", req.GetTimeout(), s.opts.Timeout)
	if err != nil {
		return nil, err
	}
	ops := req.GetOperations()
	if len(ops) == 0 || len(ops) > s.opts.MaxOperations {
		return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("there are %d operations", len(ops)),
			fmt.Sprintf("give from 1 to %d", s.opts.MaxOperations))
	}
	if req.GetProtocol() != "" {
		return s.runAmongSites(ctx, req, timeout)
	}
	for i, op := range ops {
		if _, err := s.executorFor(op); err != nil {
			return nil, &operationError{number: i + 1, err: err}
		}
	}
	if req.GetRetries() > maxRetries {
		return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("retries is %d", req.GetRetries()), fmt.Sprintf("at most %d are allowed", maxRetries))
	}
	if err := s.hold(); err != nil {
		return nil, err
	}
	defer s.sessions.drop()
	response := &assentv1.RunResponse{}
	id := ""
	err = s.manager().Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		id, response.Results = tx.ID(), nil
		bytes := s.opts.MaxResultBytes
		for i, op := range ops {
			b := s.newBudget(op, bytes)
			result, err := s.operate(ctx, tx, op, b)
			if err != nil {
				return &operationError{number: i + 1, err: err}
			}
			bytes = b.bytes
			response.Results = append(response.Results, result)
		}
		return nil
	}, assent.Timeout(timeout), assent.EarlyReply(req.GetEarlyReply()), assent.Retry(int(req.GetRetries())))
	if response.Outcome, err = outcomeOf(id, err); err != nil {
		return nil, err
	}
	return response, nil
}

const maxRetries = 10

// operationError says which operation of a Run failed.
type operationError struct {
	number int
	err    error
}

// Error returns the operation's number and what it met.
func (e *operationError) Error() string { return fmt.Sprintf("operation %d: %v", e.number, e.err) }

// Unwrap returns what the operation met.
func (e *operationError) Unwrap() error { return e.err }
