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
	busy    int
}

type waiting struct {
	from   protocol.NodeID
	answer chan []byte
}

// The first byte of a message on the channel; the question's number follows, and then the text.
const (
	question = 'q'
	reply    = 'r'
	askHead  = 9
)

// mostAnswering bounds the questions that are being answered at a time. More are not answered.
const mostAnswering = 64

// Answer sets what answers the questions of other nodes. It is called in goroutines of its own, by 64 at
// most.
func (n *Node) Answer(f func(from protocol.NodeID, question []byte) []byte) {
	n.asking.mu.Lock()
	defer n.asking.mu.Unlock()
	n.asking.answer = f
}

// Ask puts a question to another node and returns its answer, or ctx's error: a node that is down, or
// has nobody to answer, does not answer.
func (n *Node) Ask(ctx context.Context, to protocol.NodeID, text []byte) ([]byte, error) {
	a := &n.asking
	n.mu.Lock()
	_, other := n.others[to]
	n.mu.Unlock()
	if !other {
		return nil, fmt.Errorf("cluster: there is no other node %q", to)
	}
	w := waiting{from: to, answer: make(chan []byte, 1)}
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
		return answer, nil
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
	case reply:
		if w, ok := a.waiting[number]; ok && w.from == from {
			delete(a.waiting, number)
			w.answer <- text
		}
	case question:
		if a.answer == nil || a.busy >= mostAnswering {
			return // who asks waits in vain, and knows how long
		}
		a.busy++
		answer := a.answer
		go func() {
			defer func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.busy--
				if p := recover(); p != nil { // one question must not end the node
					a.log.Error("a question of another node panicked", "node", from, "panic", p)
				}
			}()
			a.send(from, reply, number, answer(from, text))
		}()
	}
}
