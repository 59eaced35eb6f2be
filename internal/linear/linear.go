// Package linear judges histories of what a cluster's nodes agree on about themselves: whether what the
// clients saw and did is as if it were done one thing after the other, each at a moment between its beginning and
// its end (linearizability; Herlihy and Wing 1990). Porcupine looks for the order.
//
// It promises to find no order where there is none, and says so where it has not found out in time. It is for
// tests; it knows two keys, x and y, and expects that no two operations set the same value.
package linear

import (
	"maps"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/protocol/membership"
)

// Operation is one thing that a client does: to Get the keys' values, to Set a key, to Unset it, or to Swap its
// value if the state is still at the Epoch.
type Operation struct {
	Do         Do
	Key, Value string
	Epoch      uint64
}

// Do says what an Operation does.
type Do string

// What operations do.
const (
	Get   Do = "get"
	Set   Do = "set"
	Unset Do = "unset"
	Swap  Do = "swap"
)

// Change returns what the cluster is asked for.
func (o Operation) Change() membership.Change {
	switch o.Do {
	case Get:
		return membership.Change{Kind: membership.Barrier}
	case Unset:
		return membership.Change{Kind: membership.Unset, Key: o.Key}
	}
	return membership.Change{Kind: membership.Set, Key: o.Key, Value: o.Value, Epoch: o.Epoch}
}

// Answer is what a client was told: of Get the values and the epoch of the state that it saw, of others the
// epoch at which they were applied or refused.
type Answer struct {
	Result membership.Result
	Epoch  uint64
	X, Y   string
}

// Look returns what a Get is told in a state.
func Look(s membership.State) Answer {
	a := Answer{Result: membership.Applied, Epoch: s.Epoch}
	a.X, _ = s.Setting("x")
	a.Y, _ = s.Setting("y")
	return a
}

// History is what clients have done. Its methods are safe for concurrent use: of two of their calls, of which one
// had returned when the other was made, the order is kept.
type History struct {
	mu   sync.Mutex
	now  int64
	all  []*Call
	told map[membership.Result]int
}

// Call is an operation in a history.
type Call struct {
	of porcupine.Operation
	// open says that it has no answer.
	open bool
}

// Begin notes that a client is about to do something. It is called before anybody is asked.
func (h *History) Begin(o Operation) *Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	c := &Call{of: porcupine.Operation{Input: o, Call: h.now}, open: true}
	h.all = append(h.all, c)
	return c
}

// End notes what the client was told. A call that has no end, or one that is unsure, may have been applied at
// any time from its beginning on, or never.
func (h *History) End(c *Call, a Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	if h.told == nil {
		h.told = map[membership.Result]int{}
	}
	h.told[a.Result]++
	if a.Result != membership.Unsure {
		c.of.Output, c.of.Return, c.open = a, h.now, false
	}
}

// Told counts the answers.
func (h *History) Told() map[membership.Result]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.told)
}

// Check looks for an order, for at most so long.
func (h *History) Check(patience time.Duration) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model.ToModel(), h.judged(), patience)
}

// judged returns what is to be judged. Who was only looking, and was told nothing, has seen nothing. Left out are
// sets and swaps without an answer whose value nobody has seen: if they were applied, they were overwritten
// before anybody looked, and the history has an order with them if it has one without. That keeps the search
// short.
func (h *History) judged() (all []porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[string]bool{}
	for _, c := range h.all {
		if a, ok := c.of.Output.(Answer); ok {
			seen[a.X], seen[a.Y] = true, true
		}
	}
	for i, c := range h.all {
		o, in := c.of, c.of.Input.(Operation)
		o.ClientId = i
		if c.open {
			if in.Do == Get || in.Do != Unset && !seen[in.Value] {
				continue
			}
			o.Output, o.Return = Answer{Result: membership.Unsure}, math.MaxInt64
		}
		all = append(all, o)
	}
	return all
}

// settings is what the model knows of the state: the values, and an epoch that it has at least.
type settings struct {
	x, y  string
	epoch uint64
}

// after returns the settings after an operation that was applied.
func (s settings) after(o Operation) settings {
	if o.Do == Swap {
		s.epoch = o.Epoch
	}
	s.epoch++
	value := o.Value
	if o.Do == Unset {
		value = ""
	}
	if o.Key == "x" {
		s.x = value
	} else {
		s.y = value
	}
	return s
}

// model is what the cluster's state promises. Its epoch also counts changes that are in no history, of members
// say, so it is known at least; it is known exactly where an answer tells it.
var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{settings{}} },
	Step: func(state, input, output any) []any {
		s, o, a := state.(settings), input.(Operation), output.(Answer)
		switch {
		case o.Do == Get:
			if s.x != a.X || s.y != a.Y || s.epoch > a.Epoch {
				return nil
			}
			s.epoch = a.Epoch
			return []any{s}
		case a.Result == membership.Refused: // it was a swap, and came too late
			if o.Do != Swap {
				return nil
			}
			s.epoch = max(s.epoch, o.Epoch+1)
			return []any{s}
		case o.Do == Swap && s.epoch > o.Epoch:
			if a.Result == membership.Applied {
				return nil
			}
			return []any{s} // it has come too late, whenever that was
		case a.Result == membership.Unsure:
			return []any{s, s.after(o)}
		}
		if s = s.after(o); s.epoch > a.Epoch {
			return nil
		}
		return []any{s}
	},
}
