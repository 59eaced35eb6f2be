package check

import "slices"

// The faults used up are kept in one number, eight bits for each kind. An unlimited budget is not
// counted.
const (
	crashShift     = 0
	restartShift   = 8
	lossShift      = 16
	duplicateShift = 24
)

// spend returns used with one more fault of a kind, and whether the budget allows it.
func spend(used uint32, shift, budget int) (uint32, bool) {
	switch {
	case budget == Unlimited:
		return used, true
	case int(used>>shift&0xff) >= budget:
		return used, false
	}
	return used + 1<<shift, true
}

// successors calls emit with every action that is possible in the state and the state that it leads
// to. The tuple given to emit is valid during the call only.
func (x *explorer) successors(w *worker, tuple []uint32, emit func(action, []uint32)) error {
	n := len(x.sys.Nodes)
	quiet := true // no message is on its way to a node that is up, and nobody has yet to start
	for i := range n {
		l := x.local(tuple[i])
		if l.up && !l.started {
			quiet = false
			if err := x.take(w, tuple, action{node: i, t: triggerStart}, -1, emit); err != nil {
				return err
			}
		}
	}
	for j := n + 1; j < len(tuple); j++ {
		m := x.messages.get(tuple[j])
		if x.local(tuple[m.to]).up {
			quiet = false
		}
		if j > n+1 && tuple[j] == tuple[j-1] {
			continue // a second copy leads nowhere else
		}
		if err := x.deliveries(w, tuple, j, m, emit); err != nil {
			return err
		}
	}
	for i := range n {
		if err := x.own(w, tuple, i, quiet, emit); err != nil {
			return err
		}
	}
	return nil
}

// deliveries are what can become of the message at place j.
func (x *explorer) deliveries(w *worker, tuple []uint32, j int, m *message, emit func(action, []uint32)) error {
	n, faults := len(x.sys.Nodes), x.sys.Faults
	a := action{node: m.to, t: trigger(tuple[j])}
	stays := faults.Duplicates == Unlimited
	if !stays {
		if used, ok := spend(tuple[n], lossShift, faults.Losses); ok {
			a.kind = lost
			emit(a, w.change(tuple, m.to, tuple[m.to], used, j, nil))
		}
	}
	switch l := x.local(tuple[m.to]); {
	case !l.up && stays:
	case !l.up:
		a.kind = dropped
		emit(a, w.change(tuple, m.to, tuple[m.to], tuple[n], j, nil))
	case l.started:
		a.kind = stepped
		gone := j
		if stays {
			gone = -1
		}
		if err := x.take(w, tuple, a, gone, emit); err != nil {
			return err
		}
		if used, ok := spend(tuple[n], duplicateShift, faults.Duplicates); ok && !stays {
			r, err := x.step(w, tuple[m.to], a.t)
			if err != nil {
				return err
			}
			a.kind = duplicated
			emit(a, w.change(tuple, m.to, r.next, used, -1, r.sends))
		}
	}
	return nil
}

// own are the actions of node i that need no message.
func (x *explorer) own(w *worker, tuple []uint32, i int, quiet bool, emit func(action, []uint32)) error {
	n, faults := len(x.sys.Nodes), x.sys.Faults
	l := x.local(tuple[i])
	if !l.up {
		if used, ok := spend(tuple[n], restartShift, faults.Restarts); ok {
			a := action{node: i, t: triggerRestart}
			r, err := x.step(w, tuple[i], a.t)
			if err != nil {
				return err
			}
			emit(a, w.change(tuple, i, r.next, used, -1, r.sends))
		}
		return nil
	}
	if used, ok := spend(tuple[n], crashShift, faults.Crashes); ok {
		down, err := x.intern(local{node: i, started: true, records: l.records})
		if err != nil {
			return err
		}
		emit(action{kind: crashed, node: i}, w.change(tuple, i, down, used, -1, nil))
	}
	if !l.started {
		return nil
	}
	for k := range x.sys.Nodes[i].Inputs {
		if err := x.take(w, tuple, action{node: i, t: inputTrigger(k)}, -1, emit); err != nil {
			return err
		}
	}
	if x.sys.Model == Synchronous && !quiet {
		return nil
	}
	for k := range l.timers {
		if err := x.take(w, tuple, action{node: i, t: timerTrigger(k)}, -1, emit); err != nil {
			return err
		}
	}
	return nil
}

// take steps a node, wholly and, where the budget allows, up to a crash after the writes and each
// number of sends. The message at place gone, if any, is used up.
func (x *explorer) take(w *worker, tuple []uint32, a action, gone int, emit func(action, []uint32)) error {
	n := len(x.sys.Nodes)
	r, err := x.step(w, tuple[a.node], a.t)
	if err != nil {
		return err
	}
	if r.ignored && gone < 0 {
		return nil
	}
	emit(a, w.change(tuple, a.node, r.next, tuple[n], gone, r.sends))
	used, ok := spend(tuple[n], crashShift, x.sys.Faults.Crashes)
	if !ok {
		return nil
	}
	first := 1
	if r.wrote {
		first = 0
	}
	for k := first; k < len(r.sends) || k == 0; k++ {
		b := a
		b.kind, b.sent = cut, k
		emit(b, w.change(tuple, a.node, r.crashed, used, gone, r.sends[:k]))
	}
	return nil
}

// change returns tuple, in w's scratch memory, with node's local state, the faults used, the
// message at place gone taken away and sends added. In the synchronous model delays are bounded,
// so what reaches a node that is down is lost there and then: it does not wait for a restart.
func (w *worker) change(tuple []uint32, node int, state, used uint32, gone int, sends []uint32) []uint32 {
	n := len(w.x.sys.Nodes)
	t := append(w.tuple[:0], tuple...)
	t[node], t[n] = state, used
	if gone >= 0 {
		t = slices.Delete(t, gone, gone+1)
	}
	synchronous := w.x.sys.Model == Synchronous
	if synchronous && !w.x.local(state).up {
		kept := t[:n+1]
		for _, m := range t[n+1:] {
			if w.x.messages.get(m).to != node {
				kept = append(kept, m)
			}
		}
		t = kept
	}
	for _, m := range sends {
		if synchronous && !w.x.local(t[w.x.messages.get(m).to]).up {
			continue
		}
		at, known := slices.BinarySearch(t[n+1:], m)
		if known && w.x.sys.Faults.Duplicates == Unlimited {
			continue
		}
		t = slices.Insert(t, n+1+at, m)
	}
	w.tuple = t
	return t
}
