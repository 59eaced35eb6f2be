package sim

import "assent/trace"

// Fuse makes a node die within a step. It is shown every event of the node's loops before what the
// event announces is done. The zero value never blows.
type Fuse struct {
	set   bool
	sends int
	sent  int  // by the step under way
	acted bool // the step under way has written or sent something
}

// Set makes the fuse blow within the next step that writes or sends: after its writes, when that many
// of its messages have left, or all of them if they are fewer.
func (f *Fuse) Set(sends int) { f.set, f.sends = true, sends }

// Blows reports whether the node dies before what e announces is done, and how many of the step's
// messages have left by then.
func (f *Fuse) Blows(e trace.Event) (sent int, now bool) {
	switch e.Kind {
	case trace.Deliver:
		f.sent, f.acted = 0, false
	case trace.Forced:
		f.acted = true
	case trace.Send:
		if f.set && f.sent >= f.sends {
			f.set = false
			return f.sent, true
		}
		f.sent++
		f.acted = true
	case trace.Stepped:
		if f.set && f.acted {
			f.set = false
			return f.sent, true
		}
	}
	return 0, false
}
