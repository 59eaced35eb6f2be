package engine

import (
	"sync"

	"assent/protocol"
	"assent/trace"
)

// Step is one event of one machine on its way through a Batch, and what follows from it.
type Step struct {
	// Name names the machine. It is the scope in traces.
	Name  string
	Event protocol.Event
	// Machine is what BatchHands.Machine gave; nil where there was none, or for what Then left.
	Machine protocol.Machine
	// Out is filled in by the machine.
	Out protocol.Effects

	then func()
}

// reset empties s and keeps its memory.
func (s *Step) reset() {
	s.Out.Reset()
	*s = Step{Out: s.Out}
}

// BatchHands carry out the effects of many machines. The methods are called by one goroutine at a time
// for one Batch. They may call Deliver and Then: these never wait.
type BatchHands interface {
	// Machine returns the machine of that name, or nil: then the event is dropped. It is called
	// when the event's turn has come, so that events which came earlier have made their mark.
	Machine(name string) protocol.Machine
	// Force applies the writes of the steps, those of each step atomically, in order, and returns
	// when they are stable. After an error the batch is dead, with all its machines: what they
	// promised cannot be kept, so they say nothing more.
	Force(steps []Step) error
	// Release is told of every step when all writes of the steps up to it are stable. It carries
	// out its Timers, Sends and Emits, in this order. What stands in the step is valid until
	// Release returns.
	Release(step *Step)
	// Flush is called when nothing is left to release for the moment.
	Flush()
}

// BatchConfig says what a Batch runs.
type BatchConfig struct {
	// Node stands in traces.
	Node  protocol.NodeID
	Hands BatchHands
	// Observer is told of every event. Defaults to none.
	Observer trace.Observer
	// Most is the greatest number of events that are stepped before they are forced together.
	// Defaults to 4,096.
	Most int
	// Gather has the function Gather called before what waits is taken, so that those who deliver at about
	// the same time share what is forced.
	Gather bool
}

// Batch runs many machines that share one disk: it steps all that have events, forces the writes of all
// of them at once, and lets out what follows only then. It keeps for each machine the order that
// protocol.Effects demands. All methods are safe for concurrent use.
type Batch struct {
	cfg   BatchConfig
	mu    sync.Mutex
	queue []Step
	busy  bool // some goroutine is working
	dead  bool
	work  sync.WaitGroup

	// Of the goroutine that is working.
	steps []Step
}

// NewBatch returns a batch that waits for its first event.
func NewBatch(cfg BatchConfig) *Batch {
	if cfg.Most <= 0 {
		cfg.Most = 4096
	}
	return &Batch{cfg: cfg}
}

// Deliver gives the machine of that name an event. It returns at once; a goroutine that ends when no
// event is left does the work. Events that one goroutine delivers arrive in that order. A stopped
// batch drops them.
func (b *Batch) Deliver(name string, ev protocol.Event) { b.add(name, ev, nil) }

// Then calls f, as if it were a machine's emit, when the writes of everything that was delivered before
// are stable. A stopped batch does not call it.
func (b *Batch) Then(f func()) { b.add("", nil, f) }

func (b *Batch) add(name string, ev protocol.Event, then func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return
	}
	if n := len(b.queue); n < cap(b.queue) {
		b.queue = b.queue[:n+1] // with the memory of an earlier step
	} else {
		b.queue = append(b.queue, Step{})
	}
	s := &b.queue[len(b.queue)-1]
	s.Name, s.Event, s.then = name, ev, then
	if !b.busy {
		b.busy = true
		b.work.Go(b.serve)
	}
}

// Stop drops all events from now on. Steps that are being carried out go on to their end; Stop does
// not wait for them, Wait does.
func (b *Batch) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = true
	b.queue = nil
}

// Wait returns when nobody is working any more, after Stop.
func (b *Batch) Wait() { b.work.Wait() }

// serve serves events until none is left.
func (b *Batch) serve() {
	for b.gather(); b.take(); b.gather() {
		if !b.carryOut() {
			b.Stop()
		}
		for i := range b.steps {
			b.steps[i].reset()
		}
	}
}

// gather lets others go first, where that is asked for and something waits.
func (b *Batch) gather() {
	if b.cfg.Gather {
		Gather(b.Waiting)
	}
}

// Waiting returns how much waits: events, and what Then left. It has no bound of its own, so whoever delivers what others
// send, and may be sent again, looks at it while a disk does not answer.
func (b *Batch) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// take moves what waits to b.steps. It reports false, and gives up the work, where nothing does.
func (b *Batch) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead || len(b.queue) == 0 {
		b.busy = false
		return false
	}
	b.steps, b.queue = b.queue, b.steps[:0]
	if most := b.cfg.Most; len(b.steps) > most {
		b.queue = append(b.queue, b.steps[most:]...)
		clear(b.steps[most:])
		b.steps = b.steps[:most]
	}
	return true
}

// carryOut steps, forces and releases b.steps. It reports whether the machines may go on.
func (b *Batch) carryOut() bool {
	observed := b.cfg.Observer != nil // else nothing is put together for it
	for i := range b.steps {
		s := &b.steps[i]
		if s.then != nil {
			continue
		}
		if s.Machine = b.cfg.Hands.Machine(s.Name); s.Machine == nil {
			continue
		}
		b.observe(s, trace.Deliver, "", s.Event)
		s.Machine.Step(s.Event, &s.Out)
		if observed && len(s.Out.Writes) > 0 {
			b.observe(s, trace.Force, "", s.Out.Writes)
		}
	}
	err := b.cfg.Hands.Force(b.steps)
	for i := range b.steps {
		s := &b.steps[i]
		if observed && len(s.Out.Writes) > 0 {
			b.observe(s, forced(err), "", s.Out.Writes)
		}
		switch {
		case err != nil:
		case s.then != nil:
			s.then()
		case s.Machine != nil:
			b.release(s)
		}
	}
	if err != nil {
		return false
	}
	b.cfg.Hands.Flush()
	return true
}

func forced(err error) trace.Kind {
	if err != nil {
		return trace.Failed
	}
	return trace.Forced
}

func (b *Batch) release(s *Step) {
	if b.cfg.Observer != nil {
		for _, t := range s.Out.Timers {
			b.observe(s, trace.Timer, "", t)
		}
		for _, m := range s.Out.Sends {
			b.observe(s, trace.Send, m.To, m.Message)
		}
		for _, v := range s.Out.Emits {
			b.observe(s, trace.Emit, "", v)
		}
	}
	b.cfg.Hands.Release(s)
	b.observe(s, trace.Stepped, "", s.Event)
}

func (b *Batch) observe(s *Step, kind trace.Kind, peer protocol.NodeID, value any) {
	if b.cfg.Observer == nil {
		return
	}
	b.cfg.Observer.Observe(trace.Event{Scope: s.Name, Node: b.cfg.Node, Kind: kind, Peer: peer, Value: value})
}
