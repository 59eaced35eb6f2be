package main

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"assent"
	"assent/api"
	assentv1 "assent/api/assent/v1"
	"assent/decision"
	"assent/protocol/commit"
)

// reader is who tells of transactions.
type reader interface {
	// List returns transactions.
	List(context.Context, *assentv1.ListRequest) (*assentv1.ListResponse, error)
	// Get returns what is known of one.
	Get(context.Context, *assentv1.GetRequest) (*assentv1.GetResponse, error)
}

// reader returns who tells of transactions: the server or, offline, the decision log, which it
// opens alone, so that nothing is recovered by looking at it.
func (t *target) reader() (reader, func(), error) {
	if !t.offline() {
		r, err := t.dial()
		if err != nil {
			return nil, nil, err
		}
		return r.operator, func() {}, nil
	}
	cfg, err := t.load()
	if err != nil {
		return nil, nil, err
	}
	s, err := t.p.openLog(cfg, quiet(), false)
	if err != nil {
		return nil, nil, err
	}
	return &logReader{s.log}, func() { s.close(quiet(), t.timeout) }, nil
}

// logReader reads a decision log that no manager has open.
type logReader struct{ log decision.Log }

// List returns what the log holds, heuristic and unfinished transactions first.
func (l *logReader) List(ctx context.Context, req *assentv1.ListRequest) (*assentv1.ListResponse, error) {
	statuses := []decision.Status{decision.Damaged, decision.Unfinished}
	if !req.GetUnfinished() {
		statuses = append(statuses, decision.Done)
	}
	limit := min(int(req.GetLimit()), mostListed)
	if limit == 0 {
		limit = mostListed
	}
	response := &assentv1.ListResponse{}
	for _, status := range statuses {
		for e, err := range l.log.List(ctx, status) {
			switch {
			case err != nil:
				return nil, fmt.Errorf("read the decision log: %w", err)
			case len(response.Transactions) == limit:
				response.More = true
				return response, nil
			}
			response.Transactions = append(response.Transactions, api.Transaction(assent.EntryInfo(e)))
		}
	}
	return response, nil
}

// Get returns the log's entry.
func (l *logReader) Get(ctx context.Context, req *assentv1.GetRequest) (*assentv1.GetResponse, error) {
	e, err := l.log.Lookup(ctx, commit.TransactionID(req.GetId()))
	if errors.Is(err, decision.ErrNotFound) {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("transaction %s is not in the decision log", req.GetId()))
	}
	if err != nil {
		return nil, fmt.Errorf("read the decision log: %w", err)
	}
	return &assentv1.GetResponse{Transaction: api.Transaction(assent.EntryInfo(e))}, nil
}
