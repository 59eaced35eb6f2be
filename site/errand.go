package site

import (
	"context"
	"fmt"

	"assent/protocol"
	"assent/resource"
)

// Worker does an operation in a transaction's branch at this site. The operation and the result are the
// application's own, at most MaxOperation bytes each.
type Worker func(ctx context.Context, tx resource.Transaction, operation []byte) (result []byte, err error)

// MaxOperation is the greatest length of an operation and of its result, in bytes.
const MaxOperation = 512 << 10

// maxErrands bounds the operations for other sites that are under way here at a time.
const maxErrands = 256

// errand asks another site to do an operation, and errandDone answers.
type errand struct {
	Number      uint64
	Transaction Transaction
	Operation   []byte
}

type errandDone struct {
	Number  uint64
	Result  []byte `cbor:",omitempty" json:",omitempty"`
	Failure string `cbor:",omitempty" json:",omitempty"`
	Hint    string `cbor:",omitempty" json:",omitempty"`
	Code    uint8  `cbor:",omitempty" json:",omitempty"`
}

// WorkError is why another site could not do an operation.
type WorkError struct {
	Node   protocol.NodeID
	Reason string
	// Code and Advice are those of the resource's error there, if it was one.
	Code   resource.Code
	Advice string
}

// Error returns the node and its reason.
func (e *WorkError) Error() string { return fmt.Sprintf("node %s: %s", e.Node, e.Reason) }

// Hint returns what a person can do. It may be empty.
func (e *WorkError) Hint() string { return e.Advice }

// branches is a transaction's way to its branches at this site.
type branches struct {
	h *Host
	t Transaction
}

// Join implements resource.Transaction.
func (b branches) Join(ctx context.Context, r resource.Resource) (resource.Branch, error) {
	for name, known := range b.h.cfg.Resources {
		if known == r {
			return b.h.Join(ctx, b.t, name)
		}
	}
	return nil, fmt.Errorf("site: the resource is not one of node %q", b.h.cfg.Self)
}

// Serve sets what does the operations that other sites, and Work, ask for. It is called once, before
// there are any.
func (h *Host) Serve(w Worker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.worker = w
}

// Work does an operation of the transaction at the site node, and returns its result. Where the answer
// does not come before ctx ends, the operation may have been done: give the transaction up.
func (h *Host) Work(ctx context.Context, t Transaction, node protocol.NodeID, operation []byte) ([]byte, error) {
	if len(operation) > MaxOperation {
		return nil, fmt.Errorf("site: the operation has %d bytes; at most %d are allowed", len(operation), MaxOperation)
	}
	if node == h.cfg.Self {
		return h.serve(ctx, t, operation)
	}
	number := h.counter.Add(1)
	answer := make(chan errandDone, 1)
	h.mu.Lock()
	h.errands[number] = waiting{node, answer}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.errands, number)
		h.mu.Unlock()
	}()
	data, err := h.codec.Encode(errand{number, t, operation})
	if err != nil {
		return nil, fmt.Errorf("site: %w", err)
	}
	h.cfg.Network.Send(node, data)
	select {
	case a := <-answer:
		if a.Failure != "" {
			return nil, &WorkError{Node: node, Reason: a.Failure, Code: resource.Code(a.Code), Advice: a.Hint}
		}
		return a.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("site: node %s has not answered: %w", node, ctx.Err())
	case <-h.life.Done():
		return nil, ErrClosed
	}
}

// serve does an operation here.
func (h *Host) serve(ctx context.Context, t Transaction, operation []byte) ([]byte, error) {
	h.mu.Lock()
	w := h.worker
	h.mu.Unlock()
	if w == nil {
		return nil, fmt.Errorf("site: node %s does no operations", h.cfg.Self)
	}
	result, err := w(ctx, branches{h, t}, operation)
	if err == nil && len(result) > MaxOperation {
		err = fmt.Errorf("site: the result has %d bytes; at most %d are allowed between sites: ask for less", len(result), MaxOperation)
	}
	return result, err
}

// asked does an operation that another site asks for, and answers.
func (h *Host) asked(from protocol.NodeID, e errand) {
	select {
	case h.slots <- struct{}{}:
	default:
		h.reply(from, errandDone{Number: e.Number, Failure: fmt.Sprintf("%d operations of other sites are under way; try again later", maxErrands)})
		return
	}
	h.spawn(func() {
		defer func() { <-h.slots }()
		ctx, cancel := h.withTimeout()
		defer cancel()
		done := errandDone{Number: e.Number}
		result, err := h.serve(ctx, e.Transaction, e.Operation)
		if err != nil {
			done.Failure, done.Hint, done.Code = bounded(err.Error()), bounded(resource.HintOf(err)), uint8(resource.CodeOf(err))
		} else {
			done.Result = result
		}
		h.reply(from, done)
	})
}

func (h *Host) reply(to protocol.NodeID, done errandDone) {
	data, err := h.codec.Encode(done)
	if err != nil {
		h.cfg.Logger.Error("an answer cannot be sent", "to", to, "error", err)
		return
	}
	h.cfg.Network.Send(to, data)
}

// waiting is somebody who waits for a node's answer.
type waiting struct {
	node   protocol.NodeID
	answer chan errandDone
}

// answered hands an answer to whoever waits for it.
func (h *Host) answered(from protocol.NodeID, done errandDone) {
	h.mu.Lock()
	w := h.errands[done.Number]
	h.mu.Unlock()
	if w.node != from {
		return
	}
	select {
	case w.answer <- done:
	default: // it was answered before
	}
}
