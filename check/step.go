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
	triggerCrash
	triggerInput                            // less the number of the input
	triggerTimer = ^trigger(firstTimer)     // less the place of the timer
	triggerOwn   = triggerTimer - maxTimers // what is greater is no message
)

const (
	maxInputs  = 8
	maxTimers  = 1000
	maxSends   = 64
	firstInput = int(^triggerInput)
	firstTimer = 3 + maxInputs // by ^trigger
)

func inputTrigger(i int) trigger { return triggerInput - trigger(i) }
func timerTrigger(i int) trigger { return triggerTimer - trigger(i) }

func (t trigger) message() bool { return t <= triggerOwn }
func (t trigger) timer() bool   { return t > triggerOwn && t <= triggerTimer }
func (t trigger) input() bool   { return t > triggerTimer && t <= triggerInput }

// result is what follows from a trigger in a local state.
type result struct {
	next  uint32
	delta uint64 // the hash of next less that of the local state before
	sends []uint32
	// crashed is the local state after the stable writes and then a crash.
	crashed uint32
	// ignored says that nothing followed at all.
	ignored bool
	wrote   bool
}

// result returns what follows from t in l, if that is known already.
func (l *local) result(t trigger, slot uint32) *result {
	if !t.message() {
		return l.own[^t].Load()
	}
	if got := l.got.Load(); got != nil && int(slot) < len(*got) {
		return (*got)[slot].Load()
	}
	return nil
}

// step returns what follows from t in the local state n; it steps the machine the first time.
func (x *explorer) step(l *local, t trigger) (*result, error) {
	var slot uint32
	if t.message() {
		slot = x.messages.get(uint32(t)).slot
	}
	if r := l.result(t, slot); r != nil {
		return r, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.result(t, slot); r != nil {
		return r, nil
	}
	r, err := x.compute(l, t)
	if err != nil {
		return nil, err
	}
	if !t.message() {
		l.own[^t].Store(r)
		return r, nil
	}
	if word := t / 32; r.ignored && word < mootWords {
		l.moot[word].Or(1 << (t % 32))
	}
	got := l.got.Load()
	if got == nil || int(slot) >= len(*got) {
		longer := make([]atomic.Pointer[result], slot+1+slot/2)
		if got != nil {
			for i := range *got {
				longer[i].Store((*got)[i].Load())
			}
		}
		got = &longer
		l.got.Store(got)
	}
	(*got)[slot].Store(r)
	return r, nil
}

// inputsOf finds out what the inputs bring about in l, and expiriesOf what the timers do, without those
// that mean nothing there; l keeps it.
func (x *explorer) inputsOf(l *local) (*[]act, error) {
	return x.acts(l, &l.inputs, len(x.sys.Nodes[l.node].Inputs), inputTrigger)
}

func (x *explorer) expiriesOf(l *local) (*[]act, error) {
	return x.acts(l, &l.expiries, len(l.timers), timerTrigger)
}

func (x *explorer) acts(l *local, keep *atomic.Pointer[[]act], count int, t func(int) trigger) (*[]act, error) {
	var all []act
	for i := range count {
		r, err := x.step(l, t(i))
		if err != nil {
			return nil, err
		}
		if !r.ignored {
			all = append(all, act{t(i), r})
		}
	}
	keep.Store(&all)
	return &all, nil
}

func (x *explorer) compute(before *local, t trigger) (*result, error) {
	if t == triggerCrash {
		down, err := x.intern(snapshot{node: before.node, started: true, records: before.records})
		return &result{next: down, delta: x.local(down).hash - before.hash}, err
	}
	x.stepped.Add(1)
	after := snapshot{node: before.node, up: true, started: before.started,
		records: before.records, timers: before.timers}
	ev := x.event(before, t, &after)
	var err error
	if t == triggerRestart {
		after.machine = x.anew(before.node)
	} else if after.machine, err = x.remake(before); err != nil {
		return nil, err
	}
	var out protocol.Effects
	after.machine.Step(ev, &out)
	return x.resultOf(before, after, out)
}

// anew makes a node's machine after a crash.
func (x *explorer) anew(node int) protocol.Machine {
	n := x.sys.Nodes[node]
	if n.Anew != nil {
		return n.Anew()
	}
	return n.New[0]()
}

func (x *explorer) resultOf(before *local, after snapshot, out protocol.Effects) (*result, error) {
	after.records = applyWrites(after.records, out.Writes)
	after.timers = applyTimers(after.timers, out.Timers)
	if id := x.sys.Nodes[before.node].ID; len(out.Sends) > maxSends || len(after.timers) > maxTimers {
		return nil, fmt.Errorf("%w: %s sends %d messages in one step and has %d timers; %d and %d are allowed",
			ErrSystem, id, len(out.Sends), len(after.timers), maxSends, maxTimers)
	}
	r := &result{wrote: len(out.Writes) > 0}
	for _, s := range out.Sends {
		m, err := x.internSend(before.node, s)
		if err != nil {
			return nil, err
		}
		r.sends = append(r.sends, m)
	}
	var err error
	if r.crashed, err = x.intern(snapshot{node: before.node, started: true, records: after.records}); err != nil {
		return nil, err
	}
	if r.next, err = x.intern(after); err != nil {
		return nil, err
	}
	r.delta = x.local(r.next).hash - before.hash
	r.ignored = r.next == before.number && len(r.sends) == 0
	return r, nil
}

// event makes the event for t, and notes in after what giving it uses up.
func (x *explorer) event(before *local, t trigger, after *snapshot) protocol.Event {
	switch {
	case t == triggerStart:
		after.started = true
		return protocol.Start{}
	case t == triggerRestart:
		return protocol.Recover{Records: maps.Clone(before.records)}
	case t.input():
		return protocol.Input{Value: x.sys.Nodes[before.node].Inputs[triggerInput-t]}
	case t.timer():
		i := int(triggerTimer - t)
		after.timers = slices.Delete(slices.Clone(before.timers), i, i+1)
		return protocol.Expire{Timer: before.timers[i]}
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
