package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"assent/protocol"
	"assent/transport"
)

// asking carries questions to other nodes, and their answers. What the questions are is not the
// cluster's business.
type asking struct {
	channel *transport.Channel
	log     *slog.Logger

	mu      sync.Mutex
	number  uint64 // the last question's
	waiting map[uint64]waiting
	answer  func(from protocol.NodeID, question []byte) []byte
	busy    map[byte]int // the questions that are being answered, by their first byte
	bytes   int          // of all of them
}

type waiting struct {
	from   protocol.NodeID
	answer chan answered
}

// answered is what came of a question.
type answered struct {
	text []byte
	busy bool // it was not taken
}

// ErrBusy says that a node is answering so many questions that it took no more. Nothing was done.
var ErrBusy = errors.New("the node answers too many questions at present")

// The first byte of a message on the channel; the question's number follows, and then the text.
const (
	question = 'q'
	reply    = 'r'
	refusal  = 'b' // busy; an earlier version takes no notice of it, and waits in vain
	askHead  = 9
)

// mostAnswering bounds the questions that are being answered at a time and begin with the same byte: those of one
// kind, which may have to wait long, leave room for those of another. mostAnswered bounds the bytes of all.
const (
	mostAnswering = 1024
	mostAnswered  = 64 << 20
)

// Answer sets what answers the questions of other nodes. It is called in goroutines of its own, by 1024 at
// most for questions that begin with the same byte. More are refused.
func (n *Node) Answer(f func(from protocol.NodeID, question []byte) []byte) {
	n.asking.mu.Lock()
	defer n.asking.mu.Unlock()
	n.asking.answer = f
}

// Ask puts a question to another node and returns its answer, ErrBusy where the node has too many to answer, or
// ctx's error: a node that is down, or has nobody to answer, does not answer.
func (n *Node) Ask(ctx context.Context, to protocol.NodeID, text []byte) ([]byte, error) {
	a := &n.asking
	n.mu.Lock()
	_, other := n.others[to]
	n.mu.Unlock()
	if !other {
		return nil, fmt.Errorf("cluster: there is no other node %q", to)
	}
	w := waiting{from: to, answer: make(chan answered, 1)}
	a.mu.Lock()
	a.number++
	number := a.number
	if a.waiting == nil {
		a.waiting = map[uint64]waiting{}
	}
	a.waiting[number] = w
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.waiting, number)
	}()
	a.send(to, question, number, text)
	select {
	case answer := <-w.answer:
		if answer.busy {
			return nil, fmt.Errorf("cluster: node %s: %w", to, ErrBusy)
		}
		return answer.text, nil
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("cluster: node %s does not answer", to), ctx.Err())
	}
}

func (a *asking) send(to protocol.NodeID, kind byte, number uint64, text []byte) {
	message := append(make([]byte, 0, askHead+len(text)), kind)
	message = binary.BigEndian.AppendUint64(message, number)
	a.channel.Send(to, append(message, text...))
}

func (a *asking) receive(from protocol.NodeID, payload []byte) {
	if len(payload) < askHead {
		return
	}
	kind, number, text := payload[0], binary.BigEndian.Uint64(payload[1:]), payload[askHead:]
	a.mu.Lock()
	defer a.mu.Unlock()
	switch kind {
	case reply, refusal:
		if w, ok := a.waiting[number]; ok && w.from == from {
			delete(a.waiting, number)
			w.answer <- answered{text, kind == refusal}
		}
	case question:
		a.asked(from, number, text)
	}
}

// asked has a question answered, or refuses it. The caller holds mu.
func (a *asking) asked(from protocol.NodeID, number uint64, text []byte) {
	if a.answer == nil {
		return // who asks waits in vain, and knows how long
	}
	var sort byte
	if len(text) > 0 {
		sort = text[0]
	}
	if a.busy[sort] >= mostAnswering || a.bytes+len(text) > mostAnswered {
		a.send(from, refusal, number, nil)
		return
	}
	if a.busy == nil {
		a.busy = map[byte]int{}
	}
	a.busy[sort]++
	a.bytes += len(text)
	answer := a.answer
	go func() {
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.busy[sort]--
			a.bytes -= len(text)
			if p := recover(); p != nil { // one question must not end the node
				a.log.Error("a question of another node panicked", "node", from, "panic", p)
			}
		}()
		a.send(from, reply, number, answer(from, text))
	}()
}
