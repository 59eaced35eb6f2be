package api

import (
	"errors"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/protocol/commit"
	"assent/resource"
)

const causeCancelled = commit.Cancelled

// outcomeOf turns what ended the transaction id into its outcome. It returns err itself where that
// tells no outcome.
func outcomeOf(id string, err error) (*assentv1.Outcome, error) {
	o := &assentv1.Outcome{Id: id}
	aborted, isAborted := errors.AsType[*assent.AbortedError](err)
	heuristic, isHeuristic := errors.AsType[*assent.HeuristicError](err)
	inDoubt, isInDoubt := errors.AsType[*assent.InDoubtError](err)
	switch {
	case err == nil:
		o.Kind = &assentv1.Outcome_Committed{Committed: &assentv1.Committed{}}
	case isHeuristic:
		o.Kind = &assentv1.Outcome_Heuristic{Heuristic: heuristicOf(heuristic)}
	case isInDoubt:
		o.Kind = &assentv1.Outcome_InDoubt{InDoubt: &assentv1.InDoubt{Reason: told(textOf(inDoubt.Err)), Hint: told(inDoubt.Hint())}}
	case isAborted:
		o.Kind = &assentv1.Outcome_Aborted{Aborted: abortedOf(aborted)}
	default:
		return nil, err
	}
	return o, nil
}

func abortedOf(e *assent.AbortedError) *assentv1.Aborted {
	code := resource.CodeOf(e.Err)
	a := &assentv1.Aborted{
		Cause: e.Cause.String(), By: e.By, Reason: e.Reason, Hint: e.Hint(),
		Retryable: code.Retryable(), Code: assentv1.ErrorCode(code),
	}
	if e.Err != nil {
		a.Reason, a.Hint = e.Err.Error(), hintOf(e.Err)
	}
	if a.Hint == "" {
		a.Hint = e.Hint()
	}
	if op, ok := errors.AsType[*operationError](e.Err); ok {
		a.FailedOperation = uint32(op.number)
	}
	a.By, a.Reason, a.Hint = told(a.By), told(a.Reason), told(a.Hint)
	return a
}

func heuristicOf(e *assent.HeuristicError) *assentv1.Heuristic {
	h := &assentv1.Heuristic{Decision: assentv1.Decision(e.Decision), Mixed: e.Mixed(), Hint: e.Hint()}
	for _, b := range e.Branches {
		h.Branches = append(h.Branches, &assentv1.Contradiction{Resource: b.Resource, Outcome: assentv1.BranchOutcome(b.Outcome)})
	}
	return h
}

// outcomeOfInfo tells the outcome of a transaction from what is known of it.
func outcomeOfInfo(i assent.Info) *assentv1.Outcome {
	var err error
	id := commit.TransactionID(i.ID)
	switch i.State {
	case assent.StateCommitted, assent.StateCommitting:
	case assent.StateAborted, assent.StateAborting:
		err = &assent.AbortedError{ID: id, Cause: commit.Settled, By: i.By, Reason: i.Reason}
	case assent.StateHeuristic:
		h := &assent.HeuristicError{ID: id, Decision: i.Decision}
		for _, b := range i.Branches {
			if i.Decision.Heuristic(b.Outcome) {
				h.Branches = append(h.Branches, assent.Contradiction{Resource: b.Resource, Outcome: b.Outcome})
			}
		}
		err = h
	default:
		err = &assent.InDoubtError{ID: id, Err: errors.New("the transaction is " + string(i.State))}
	}
	o, _ := outcomeOf(i.ID, err) // each of these tells an outcome
	return o
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
