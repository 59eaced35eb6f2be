package check

import (
	"math/bits"
	"slices"
)

// state is a global state: a tuple of the number of each node's local state, then the number of the
// world, then the messages under way; and the sum of the hashes of these parts.
//
// Where duplication is unlimited a message stays under way for ever: the messages are a set, as the
// bits of words of 32. Else they are a list of numbers in order, as often as they are under way.
type state struct {
	tuple []uint32
	sum   uint64
}

// worker is what one goroutine needs to find successors.
type worker struct {
	x *explorer
	// What the tables showed when they were last looked at.
	locals   []*local
	messages []*message
	// at are the local states of the state whose successors are sought.
	at []*local
	// tuple and sum are the successor that is being made.
	tuple []uint32
	sum   uint64
	// faultless leaves out what a budget would have to allow.
	faultless bool
	emit      func(action, state)
	// recent, if set, are the states that were found lately. They are not emitted, only counted.
	recent *recent
	left   int
	// err is what went wrong in emit.
	err error
}

func (x *explorer) newWorker() *worker {
	return &worker{x: x, at: make([]*local, len(x.sys.Nodes))}
}

func (w *worker) local(n uint32) *local {
	if int(n) >= len(w.locals) {
		w.locals = *w.x.locals.shown.Load()
	}
	return w.locals[n]
}

func (w *worker) message(n uint32) *message {
	if int(n) >= len(w.messages) {
		w.messages = *w.x.messages.shown.Load()
	}
	return w.messages[n]
}

func (w *worker) step(l *local, t trigger, slot uint32) (*result, error) {
	if r := l.result(t, slot); r != nil {
		return r, nil
	}
	return w.x.step(l, t)
}

// successors calls emit with every action that is possible in s and the state that it leads to. The
// state is valid during the call only. The order of calls depends on s and the numbers of things
// alone.
func (w *worker) successors(s state, emit func(action, state)) error {
	x, n := w.x, len(w.at)
	w.emit = emit
	for i := range w.at {
		w.at[i] = w.local(s.tuple[i])
	}
	quiet := true // no message is on its way to a node that is up, and nobody has yet to start
	for i, l := range w.at {
		if l.up && !l.started {
			quiet = false
			if err := w.take(s, action{node: i, t: triggerStart}, 0, -1); err != nil {
				return err
			}
		}
	}
	arriving, err := w.deliveries(s)
	if err != nil {
		return err
	}
	quiet = quiet && !arriving
	for i := range w.at {
		if err := w.own(s, i, quiet); err != nil {
			return err
		}
	}
	if x.links && !w.faultless {
		for i, turn := range x.turnsOf(s.tuple[n]) {
			w.begin(s)
			w.setWorld(turn.to)
			w.purge()
			w.emit(action{kind: turn.kind, turn: i}, w.now())
		}
	}
	return w.err
}

// deliveries are what can become of the messages. It reports whether one is on its way to a node that
// is up.
func (w *worker) deliveries(s state) (arriving bool, err error) {
	n := len(w.at)
	if w.x.forever { // nobody asks then: validate refuses it in the synchronous model
		for k, word := range s.tuple[n+1:] {
			if !w.x.links && w.x.sys.Lie == nil {
				word &^= w.moot(k, word)
			}
			for ; word != 0; word &= word - 1 {
				if err := w.deliverCopy(s, uint32(k<<5+bits.TrailingZeros32(word))); err != nil {
					return false, err
				}
			}
		}
		return true, nil
	}
	for place := n + 1; place < len(s.tuple); place++ {
		m := w.message(s.tuple[place])
		arriving = arriving || w.at[m.to].up
		if place > n+1 && s.tuple[place] == s.tuple[place-1] {
			continue // a second copy leads nowhere else
		}
		if err := w.deliver(s, place, m); err != nil {
			return false, err
		}
	}
	return arriving, nil
}

// moot returns those messages of the kth word that mean nothing to their receivers, who are up.
func (w *worker) moot(k int, word uint32) (moot uint32) {
	if k >= mootWords {
		return 0
	}
	for _, l := range w.at {
		moot |= l.moot[k].Load()
	}
	return moot & word
}

// deliverCopy delivers a message that stays under way. While a link is cut it is held up.
func (w *worker) deliverCopy(s state, number uint32) error {
	m := w.message(number)
	l := w.at[m.to]
	if !l.up || w.x.links && w.x.worlds.get(s.tuple[len(w.at)]).severed(m.from, m.to) {
		return nil
	}
	if l.started {
		if err := w.take(s, action{node: m.to, t: trigger(number)}, m.slot, -1); err != nil {
			return err
		}
	}
	return w.lie(s, number, -1)
}

// deliver is what can become of the message at a place.
func (w *worker) deliver(s state, place int, m *message) error {
	a := action{node: m.to, t: trigger(s.tuple[place])}
	if after, ok := w.spend(s, loss); ok {
		a.kind = lost
		w.begin(s)
		w.setWorld(after)
		w.remove(place)
		w.emit(a, w.now())
	}
	l := w.at[m.to]
	switch {
	case !l.up:
		a.kind = dropped
		w.begin(s)
		w.remove(place)
		w.emit(a, w.now())
	case l.started:
		a.kind = stepped
		if err := w.take(s, a, m.slot, place); err != nil {
			return err
		}
		if after, ok := w.spend(s, duplication); ok {
			r, err := w.step(l, a.t, m.slot)
			if err != nil {
				return err
			}
			a.kind = duplicated
			w.begin(s)
			w.setWorld(after)
			w.set(a.node, r)
			w.send(r.sends, ^uint64(0))
			w.emit(a, w.now())
		}
	}
	return w.lie(s, s.tuple[place], place)
}

// lie puts a lie of a liar in the place of a message, or beside one that stays under way.
func (w *worker) lie(s state, number uint32, place int) error {
	if w.x.sys.Lie == nil {
		return nil
	}
	after, ok := w.spend(s, lying)
	if !ok {
		return nil
	}
	lies, err := w.x.lies(number)
	if err != nil {
		return err
	}
	for _, lie := range lies {
		w.begin(s)
		w.setWorld(after)
		if place >= 0 {
			w.remove(place)
		}
		w.add(lie)
		w.emit(action{kind: altered, node: w.message(number).to, t: trigger(number), lie: lie}, w.now())
	}
	return nil
}

// own are the actions of node i that need no message.
func (w *worker) own(s state, i int, quiet bool) error {
	l := w.at[i]
	if !l.up {
		if after, ok := w.spend(s, restart); ok {
			r, err := w.step(l, triggerRestart, 0)
			if err != nil {
				return err
			}
			w.begin(s)
			w.setWorld(after)
			w.set(i, r)
			w.send(r.sends, ^uint64(0))
			a := action{node: i, t: triggerRestart}
			w.emit(a, w.now())
			if twice, ok := w.x.spend(after, crash); ok {
				return w.cutShort(s, a, r, twice, -1)
			}
		}
		return nil
	}
	if w.x.budget[crash] != 0 {
		if err := w.crash(s, i); err != nil {
			return err
		}
	}
	if !l.started {
		return nil
	}
	inputs, err := l.inputs.Load(), error(nil)
	if inputs == nil {
		if inputs, err = w.x.inputsOf(l); err != nil {
			return err
		}
	}
	for _, a := range *inputs {
		if err := w.follow(s, action{node: i, t: a.t}, a.r, -1); err != nil {
			return err
		}
	}
	if w.x.sys.Model == Synchronous && !quiet {
		return nil
	}
	expiries := l.expiries.Load()
	if expiries == nil {
		if expiries, err = w.x.expiriesOf(l); err != nil {
			return err
		}
	}
	for _, a := range *expiries {
		if err := w.follow(s, action{node: i, t: a.t}, a.r, -1); err != nil {
			return err
		}
	}
	return nil
}

// crash takes node i down between two steps, if that may be.
func (w *worker) crash(s state, i int) error {
	after, ok := w.spend(s, crash)
	if !ok {
		return nil
	}
	r, err := w.step(w.at[i], triggerCrash, 0)
	if err != nil {
		return err
	}
	w.begin(s)
	w.setWorld(after)
	w.set(i, r)
	w.purge()
	w.emit(action{kind: crashed, node: i, t: triggerCrash}, w.now())
	return nil
}

// take steps a node. The message at place, if any, is used up.
func (w *worker) take(s state, a action, slot uint32, place int) error {
	r, err := w.step(w.at[a.node], a.t, slot)
	if err != nil {
		return err
	}
	if !r.ignored || place >= 0 {
		return w.follow(s, a, r, place)
	}
	return nil
}

// follow makes what follows from a step: wholly and, where the budget allows, up to a crash after the
// writes and some of the sends.
func (w *worker) follow(s state, a action, r *result, place int) error {
	if w.recent != nil && len(r.sends) == 0 && w.recent.has(fingerprint(w.without(s, place)+r.delta)) {
		w.left++
	} else {
		w.begin(s)
		w.set(a.node, r)
		if place >= 0 {
			w.remove(place)
		}
		w.send(r.sends, ^uint64(0))
		w.emit(a, w.now())
	}
	if w.x.budget[crash] == 0 {
		return nil // it is asked for every successor
	}
	if after, ok := w.spend(s, crash); ok {
		return w.cutShort(s, a, r, after, place)
	}
	return nil
}

// cutShort crashes a node within a step: after its writes, and after some of its sends. The world is
// then the one with that number.
func (w *worker) cutShort(s state, a action, r *result, world uint32, place int) error {
	a.kind = cut
	return w.x.departures(r.sends, r.wrote, func(sent uint64) {
		a.sent = sent
		w.begin(s)
		w.setWorld(world)
		w.sum += w.local(r.crashed).hash - w.at[a.node].hash
		w.tuple[a.node] = r.crashed
		if place >= 0 {
			w.remove(place)
		}
		w.purge()
		w.send(r.sends, sent)
		w.emit(a, w.now())
	})
}

func (w *worker) spend(s state, f fault) (uint32, bool) {
	if w.x.budget[f] == 0 || w.faultless {
		return 0, false
	}
	return w.x.spend(s.tuple[len(w.at)], f)
}

// The successor in the making. It begins as the state that it follows.

func (w *worker) begin(s state) {
	w.tuple, w.sum = append(w.tuple[:0], s.tuple...), s.sum
}

func (w *worker) now() state { return state{w.tuple, w.sum} }

func (w *worker) set(node int, r *result) {
	w.tuple[node] = r.next
	w.sum += r.delta
}

func (w *worker) setWorld(number uint32) {
	n := len(w.at)
	if before := w.tuple[n]; before != number {
		w.sum += w.x.worlds.get(number).hash - w.x.worlds.get(before).hash
		w.tuple[n] = number
	}
}

// send adds those of the sends whose bit is set.
func (w *worker) send(sends []uint32, which uint64) {
	for i, m := range sends {
		if which>>i&1 != 0 && !w.vanishes(w.message(m)) {
			w.add(m)
		}
	}
}

// vanishes reports whether a message cannot arrive: in the synchronous model delays are bounded, so
// what reaches a node that is down is lost there and then and does not wait for a restart; and
// what meets a link that is cut is lost, unless messages stay under way for ever.
func (w *worker) vanishes(m *message) bool {
	if w.x.sys.Model == Synchronous && !w.local(w.tuple[m.to]).up {
		return true
	}
	return w.x.links && !w.x.forever && w.x.worlds.get(w.tuple[len(w.at)]).severed(m.from, m.to)
}

// purge takes away what vanishes.
func (w *worker) purge() {
	if w.x.forever || w.x.sys.Model != Synchronous && !w.x.links {
		return
	}
	for place := len(w.tuple) - 1; place > len(w.at); place-- {
		if w.vanishes(w.message(w.tuple[place])) {
			w.remove(place)
		}
	}
}

func (w *worker) add(number uint32) {
	n := len(w.at) + 1
	if !w.x.forever {
		at, _ := slices.BinarySearch(w.tuple[n:], number)
		w.tuple = slices.Insert(w.tuple, n+at, number)
		w.sum += w.message(number).hash
		return
	}
	word := n + int(number>>5)
	for len(w.tuple) <= word {
		w.tuple = append(w.tuple, 0)
	}
	if bit := uint32(1) << (number & 31); w.tuple[word]&bit == 0 {
		w.tuple[word] |= bit
		w.sum += w.message(number).hash
	}
}

// without returns the sum of s without the message at a place of the list, if there is one.
func (w *worker) without(s state, place int) uint64 {
	if place < 0 {
		return s.sum
	}
	return s.sum - w.message(s.tuple[place]).hash
}

// remove takes away the message at a place of the list.
func (w *worker) remove(place int) {
	w.sum -= w.message(w.tuple[place]).hash
	w.tuple = slices.Delete(w.tuple, place, place+1)
}
