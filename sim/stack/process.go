package stack

import (
	"time"

	"assent/sim"
	"assent/trace"
)

// defaultOutage is how long a process stays down that no fault of the plan has taken down.
const defaultOutage = 100 * time.Millisecond

// process is what coordinators and sites have in common: they crash and come back.
type process struct {
	sim.Process
	w    *world
	disk *medium
	// ailment is the fault that the next forced write will meet, and damage puts the disk right again
	// that has made the process refuse to start.
	ailment *sim.Fault
	corrupt bool // the next start finds a changed record
	repair  func() error
	role    role
}

// role is what a process does.
type role interface {
	// open brings the process up over its disk, and close lets go of what it held. dir is where the
	// disk holds what is forced.
	open() error
	close()
	dir() string
	// receive takes a packet.
	receive(p sim.Packet)
}

// start brings the process up. A damaged disk keeps it down.
func (p *process) start() {
	if p.Up || p.repair != nil {
		return
	}
	if p.corrupt {
		p.corrupt = false
		repair, err := p.disk.corrupt(p.role.dir(), p.w.Chance(uint64(p.w.Line.Now())))
		if err != nil {
			p.w.Fail(err)
			return
		}
		if p.repair = repair; repair != nil {
			p.w.Tell(trace.Event{Node: p.ID, Kind: trace.Damage, Value: sim.Corruption.String()})
		}
	}
	p.Rise()
	err := p.role.open()
	switch {
	case err != nil && p.repair != nil:
		p.w.Fire(sim.Corruption)
		p.Up = false
		p.role.close()
	case err != nil:
		p.w.Fail(err)
	case p.repair != nil:
		p.w.Broken(claimDamage, string(p.ID)+" has started over a changed record")
	}
}

// crash takes the process down. sent says where within a step it falls; it is negative between steps.
// percent says how much is kept of what a failed force has left.
func (p *process) crash(sent, percent int) {
	if !p.Up {
		return
	}
	p.Fall(sent)
	// The step that is cut off may have been begun by a call of the store: that one ends first.
	p.w.Line.After(0, func() {
		after, err := p.disk.crashed(p.role.dir(), percent)
		if err != nil {
			p.w.Fail(err)
			return
		}
		p.disk.ail(nil)
		p.role.close()
		p.disk = after
		p.w.Line.After(p.w.Outage(p.ID, defaultOutage), p.start)
	})
}

// force runs a call that forces the disk, among whatever ails it, and reports the fault that it met. A
// fault waits for a call that fails because of it. From then on the disk ails until the process is down, or
// the caller says otherwise: what the store's own goroutines try next must not depend on who is quicker.
func (p *process) force(call func() error) (met *sim.Fault, err error) {
	p.disk.ail(p.ailment)
	err = call()
	if p.ailment != nil && err != nil {
		met, p.ailment = p.ailment, nil
		p.w.Fire(met.Class)
		return met, err
	}
	p.disk.ail(nil)
	return nil, err
}
