package api

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/resource"
)

// refusal is an error of the server's own: what is refused, and what to do instead.
type refusal struct {
	code  connect.Code
	text  string
	hint  string
	id    string
	ended bool
	// elsewhere says that nothing was done, and that another node may be asked the same; unsure, that it
	// is not known whether anything was.
	elsewhere, unsure bool
}

func refuse(code connect.Code, text, hint string) *refusal {
	return &refusal{code: code, text: text, hint: hint}
}

// Error returns what is refused.
func (r *refusal) Error() string { return r.text }

// about says which transaction is refused, and whether it has ended.
func (r *refusal) about(id string, ended bool) *refusal {
	r.id, r.ended = id, ended
	return r
}

// anywhereElse says that another node may be asked the same.
func (r *refusal) anywhereElse() *refusal {
	r.elsewhere = true
	return r
}

// HeaderElsewhere is the header of an answer that says that nothing was done and that another node of the
// cluster may be asked the same.
const HeaderElsewhere = "Assent-Elsewhere"

// connectCodes says how a resource's errors are told.
var connectCodes = map[resource.Code]connect.Code{
	resource.Serialization: connect.CodeAborted,
	resource.Deadlock:      connect.CodeAborted,
	resource.LockTimeout:   connect.CodeAborted,
	resource.Constraint:    connect.CodeFailedPrecondition,
	resource.Unsupported:   connect.CodeFailedPrecondition,
	resource.Capacity:      connect.CodeResourceExhausted,
	resource.Disabled:      connect.CodeFailedPrecondition,
	resource.Permission:    connect.CodePermissionDenied,
	resource.Duplicate:     connect.CodeAlreadyExists,
	resource.Unavailable:   connect.CodeUnavailable,
	resource.Invalid:       connect.CodeInvalidArgument,
	resource.Broken:        connect.CodeFailedPrecondition,
}

// contractError turns err into an error of the contract: a code, a text and an ErrorDetail.
func contractError(err error) *connect.Error {
	if done, ok := errors.AsType[*connect.Error](err); ok {
		return done
	}
	code := codeOf(err)
	answer := connect.NewError(code, toldError{err})
	detail := &assentv1.ErrorDetail{
		Code: assentv1.ErrorCode(resource.CodeOf(err)), Hint: toldUpTo(maxError, hintOf(err)),
		Retryable: resource.CodeOf(err).Retryable(),
		Ended:     errors.Is(err, assent.ErrNotOpen),
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		detail.Id, detail.Ended, detail.Elsewhere, detail.Unsure = toldUpTo(maxError, r.id), r.ended, r.elsewhere, r.unsure
		if r.elsewhere {
			answer.Meta().Set(HeaderElsewhere, "1")
		}
	}
	if a, ok := errors.AsType[*assent.AbortedError](err); ok {
		detail.Id, detail.Ended = string(a.ID), true
	}
	if d, err := connect.NewErrorDetail(detail); err == nil {
		answer.AddDetail(d)
	}
	return answer
}

func codeOf(err error) connect.Code {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	if _, ok := errors.AsType[*lateError](err); ok {
		return connect.CodeDeadlineExceeded
	}
	if code, ok := connectCodes[resource.CodeOf(err)]; ok {
		return code
	}
	switch {
	case errors.Is(err, assent.ErrUnknown):
		return connect.CodeNotFound
	case errors.Is(err, assent.ErrNotOpen):
		return connect.CodeFailedPrecondition
	case errors.Is(err, assent.ErrClosed):
		return connect.CodeUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	}
	return connect.CodeUnknown
}

// hintOf returns the first hint in err's tree.
func hintOf(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok && r.hint != "" {
		return r.hint
	}
	if hint := resource.HintOf(err); hint != "" {
		return hint
	}
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		return h.Hint()
	}
	return ""
}
