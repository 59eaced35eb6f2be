package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	assentv1 "assent/api/assent/v1"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
)

// executor works in the branches of one resource.
type executor interface {
	// kind names the sort of resource.
	kind() string
	// execute joins tx and does op. What it adds to result, b has admitted.
	execute(ctx context.Context, tx resource.Transaction, op *assentv1.Operation, b *budget) (*assentv1.Result, error)
}

func executorOf(r resource.Resource) (executor, error) {
	switch r := r.(type) {
	case *kv.Resource:
		return keyValue{r}, nil
	case *postgres.Resource:
		return sqlDatabase{r}, nil
	}
	return nil, fmt.Errorf("the server does not know how to work in a %T", r)
}

// budget bounds results.
type budget struct {
	rows, bytes       int // that are left
	maxRows, maxBytes int
}

// add admits a row, or says why not.
func (b *budget) add(result *assentv1.Result, row *assentv1.Row) error {
	b.rows--
	if b.rows < 0 {
		return refuse(connect.CodeResourceExhausted, fmt.Sprintf("the result has more than %d rows", b.maxRows),
			"ask for less, with LIMIT or limit")
	}
	if err := b.take(proto.Size(row)); err != nil {
		return err
	}
	result.Rows = append(result.Rows, row)
	return nil
}

// take admits n bytes, or says why not.
func (b *budget) take(n int) error {
	b.bytes -= n
	if b.bytes < 0 {
		return refuse(connect.CodeResourceExhausted, fmt.Sprintf("the result has more than %d bytes", b.maxBytes),
			"ask for less: fewer rows, or shorter columns")
	}
	return nil
}

// newBudget returns what one operation may give, of bytes that are left of its call's.
func (s *Server) newBudget(op *assentv1.Operation, bytes int) *budget {
	b := &budget{maxRows: s.opts.MaxRows, maxBytes: s.opts.MaxResultBytes, bytes: bytes}
	if asked := op.GetMaxRows(); asked > 0 && uint64(asked) < uint64(b.maxRows) {
		b.maxRows = int(asked)
	}
	b.rows = b.maxRows
	return b
}

// executorFor returns who can do op.
func (s *Server) executorFor(op *assentv1.Operation) (executor, error) {
	if op.GetAction() == nil {
		return nil, refuse(connect.CodeInvalidArgument, "the operation says nothing to do",
			"give it a statement, get, put, delete or scan")
	}
	e := s.executors[op.GetResource()]
	if e == nil {
		if err := s.keptElsewhere(op.GetResource()); err != nil {
			return nil, err
		}
		return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("there is no resource %.100q", op.GetResource()),
			"the call Status names the resources")
	}
	if s.opts.Barred != nil {
		if why := s.opts.Barred(op.GetResource()); why != "" {
			return nil, refuse(connect.CodeFailedPrecondition, why,
				"correct this node's configuration; or, if the name stands for another one from now on, assent cluster unregister "+op.GetResource()).anywhereElse()
		}
	}
	return e, nil
}

// operate does op in tx within the limits of time and size.
func (s *Server) operate(ctx context.Context, tx resource.Transaction, op *assentv1.Operation, b *budget) (*assentv1.Result, error) {
	e, err := s.executorFor(op)
	if err != nil {
		return nil, err
	}
	limit, err := duration("timeout", op.GetTimeout(), s.opts.StatementTimeout)
	if err != nil {
		return nil, err
	}
	opCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result, err := e.execute(opCtx, tx, op, b)
	if err != nil && ctx.Err() == nil && errors.Is(opCtx.Err(), context.DeadlineExceeded) {
		return nil, &lateError{limit: limit, err: err}
	}
	return result, err
}

// lateError is the error of an operation that was stopped because its time was over.
type lateError struct {
	limit time.Duration
	err   error
}

// Error says how long the operation took.
func (e *lateError) Error() string {
	return fmt.Sprintf("the operation was stopped after %v: %v", e.limit, e.err)
}

// Unwrap returns the resource's error.
func (e *lateError) Unwrap() error { return e.err }

func wrongAction(kind, wants string) error {
	return refuse(connect.CodeInvalidArgument, "a "+kind+" resource does not do this", "it takes "+wants)
}
