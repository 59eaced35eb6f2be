package check

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"assent/protocol"
)

// trigger numbers what can happen to a local state: a message by its number, or one of these.
type trigger uint32

const (
	triggerStart trigger = 1<<32 - 1 - iota
	triggerRestart
	triggerInput // less the number of the input, of which there are at most 8
	triggerTimer = triggerInput - 8
)

func inputTrigger(i int) trigger { return triggerInput - trigger(i) }
func timerTrigger(i int) trigger { return triggerTimer - trigger(i) }

// result is what follows from a trigger in a local state.
type result struct {
	next  uint32
	sends []uint32
	// crashed[k] is the local state after the stable writes and k of the sends, and then a crash.
	crashed uint32
	// ignored says that nothing followed at all.
	ignored bool
	wrote   bool
}

// memo remembers results. Each worker has one before the shared one.
type memo map[uint64]*result

// step returns what follows from t in the local state n; it steps the machine the first time.
func (x *explorer) step(w *worker, n uint32, t trigger) (*result, error) {
	key := uint64(n)<<32 | uint64(t)
	if r := w.memo[key]; r != nil {
		return r, nil
	}
	if r, ok := x.results.Load(key); ok {
		w.memo[key] = r.(*result)
		return r.(*result), nil
	}
	r, err := x.compute(n, t)
	if err != nil {
		return nil, err
	}
	stored, _ := x.results.LoadOrStore(key, r)
	w.memo[key] = stored.(*result)
	return stored.(*result), nil
}

func (x *explorer) compute(n uint32, t trigger) (*result, error) {
	atomic.AddInt64(&x.stepped, 1)
	before := x.local(n)
	after := local{node: before.node, up: true, started: before.started,
		records: before.records, timers: before.timers}
	ev := x.event(before, t, &after)
	var err error
	if t == triggerRestart {
		node := x.sys.Nodes[before.node]
		anew := node.Anew
		if anew == nil {
			anew = node.New[0]
		}
		after.machine = anew()
	} else if after.machine, err = x.copyMachine(before); err != nil {
		return nil, err
	}
	var out protocol.Effects
	after.machine.Step(ev, &out)

	after.records = applyWrites(after.records, out.Writes)
	after.timers = applyTimers(after.timers, out.Timers)
	r := &result{wrote: len(out.Writes) > 0}
	for _, s := range out.Sends {
		m, err := x.internMessage(before.node, s)
		if err != nil {
			return nil, err
		}
		r.sends = append(r.sends, m)
	}
	down := local{node: before.node, started: true, records: after.records}
	if r.crashed, err = x.intern(down); err != nil {
		return nil, err
	}
	if r.next, err = x.intern(after); err != nil {
		return nil, err
	}
	r.ignored = r.next == n && len(r.sends) == 0
	return r, nil
}

// event makes the event for t, and notes in after what giving it uses up.
func (x *explorer) event(before *local, t trigger, after *local) protocol.Event {
	switch {
	case t == triggerStart:
		after.started = true
		return protocol.Start{}
	case t == triggerRestart:
		return protocol.Recover{Records: maps.Clone(before.records)}
	case t > triggerInput-8:
		return protocol.Input{Value: x.sys.Nodes[before.node].Inputs[triggerInput-t]}
	case t > triggerTimer-256:
		name := before.timers[triggerTimer-t]
		after.timers = slices.DeleteFunc(slices.Clone(before.timers), func(s string) bool { return s == name })
		return protocol.Expire{Timer: name}
	}
	m := x.messages.get(uint32(t))
	return protocol.Receive{From: x.sys.Nodes[m.from].ID, Message: m.value}
}

func applyWrites(records protocol.Records, writes []protocol.Write) protocol.Records {
	if len(writes) == 0 {
		return records
	}
	records = maps.Clone(records)
	if records == nil {
		records = protocol.Records{}
	}
	for _, w := range writes {
		if w.Record == nil {
			delete(records, w.Key)
			continue
		}
		records[w.Key] = w.Record
	}
	return records
}

func applyTimers(armed []string, timers []protocol.Timer) []string {
	if len(timers) == 0 {
		return armed
	}
	armed = slices.Clone(armed)
	for _, t := range timers {
		i, ok := slices.BinarySearch(armed, t.Name)
		switch {
		case t.After > 0 && !ok:
			armed = slices.Insert(armed, i, t.Name)
		case t.After <= 0 && ok:
			armed = slices.Delete(armed, i, i+1)
		}
	}
	return armed
}

// action is what leads from one global state to the next.
type action struct {
	kind kind
	node int
	t    trigger
	sent int // of the sends, before a crash within the step
}

type kind uint8

const (
	stepped    kind = iota
	cut             // stepped, and crashed after the writes and some sends
	crashed         // between steps
	lost            // a message is lost
	dropped         // a message reached a node that is down
	duplicated      // a message was delivered and stays under way
)

// faulty reports whether the action is a fault.
func (a action) faulty() bool { return a.kind != stepped && a.kind != dropped || a.t == triggerRestart }

func (x *explorer) describe(a action, before *local) string {
	id := x.sys.Nodes[a.node].ID
	var what string
	switch {
	case a.kind == crashed:
		return fmt.Sprintf("%s crashes", id)
	case a.t == triggerStart:
		what = fmt.Sprintf("%s starts", id)
	case a.t == triggerRestart:
		what = fmt.Sprintf("%s is made anew", id)
	case a.t > triggerInput-8:
		what = fmt.Sprintf("%s is given %s", id, text(x.sys.Nodes[a.node].Inputs[triggerInput-a.t]))
	case a.t > triggerTimer-256:
		what = fmt.Sprintf("%s: timer %s runs out", id, before.timers[triggerTimer-a.t])
	default:
		m := x.messages.get(uint32(a.t))
		what = fmt.Sprintf("%s gets %s from %s", id, text(m.value), x.sys.Nodes[m.from].ID)
		switch a.kind {
		case lost:
			return fmt.Sprintf("%s from %s to %s is lost", text(m.value), x.sys.Nodes[m.from].ID, id)
		case dropped:
			return what + ", which is down"
		case duplicated:
			what += ", and will again"
		}
	}
	if a.kind == cut {
		what += fmt.Sprintf(", and crashes when %d of its messages have left", a.sent)
	}
	return what
}
