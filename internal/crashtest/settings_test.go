package crashtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/internal/linear"
	"assent/internal/ports"
	"assent/protocol/membership"
)

// republic is a cluster of citizens, whose clients read and change its settings, and what becomes of that.
type republic struct {
	t        testing.TB
	x        *exchange
	names    []string
	citizens []*citizen
	history  linear.History
	known    bool // the clients look without a barrier
	values   atomic.Int64
}

func newRepublic(t testing.TB, names ...string) *republic {
	r := &republic{t: t, x: newExchange(t), names: names}
	doors := map[string]string{}
	for _, name := range names {
		c := &citizen{t: t, setup: citizenSetup{Self: name, Dir: filepath.Join(t.TempDir(), name), Listen: ports.Address(t), Nodes: doors}}
		doors[name] = r.x.door(t, name, c.setup.Listen)
		r.citizens = append(r.citizens, c)
	}
	for _, c := range r.citizens {
		c.start()
	}
	t.Cleanup(func() {
		for i, c := range r.citizens {
			if said := c.kill(); t.Failed() {
				t.Logf("%s said:\n%s", r.names[i], said)
			}
		}
	})
	return r
}

// operate does one thing at a node, and notes it.
func (r *republic) operate(at *citizen, o linear.Operation) (a linear.Answer, ok bool) {
	if !at.up() {
		return a, false
	}
	call := r.history.Begin(o)
	a, why, ok := at.do(citizenLine{Operation: o, Known: r.known && o.Do == linear.Get})
	if o.Do == linear.Get && a.Result == membership.Refused {
		r.t.Errorf("a barrier was refused: %s", why)
	}
	if ok {
		r.history.End(call, a)
	}
	return a, a.Result != membership.Unsure
}

// client does one thing after another at one node until it is to stop.
func (r *republic) client(at *citizen, seed uint64, stop *atomic.Bool) {
	rng := rand.New(rand.NewPCG(seed, 21))
	var seen uint64
	for !stop.Load() {
		o := linear.Operation{Do: []linear.Do{linear.Get, linear.Get, linear.Set, linear.Swap, linear.Swap, linear.Unset}[rng.IntN(6)]}
		if o.Do == linear.Swap && seen == 0 {
			o.Do = linear.Get
		}
		if o.Do != linear.Get {
			o.Key, o.Value = []string{"x", "y"}[rng.IntN(2)], fmt.Sprint(r.values.Add(1))
		}
		if o.Do == linear.Swap {
			o.Epoch = seen
		}
		a, ok := r.operate(at, o)
		if ok && o.Do == linear.Get {
			seen = a.Epoch
		}
		time.Sleep(time.Duration(5+rng.IntN(30)) * time.Millisecond) // else the history is too long to be judged
	}
}

// whole waits until every node answers a look.
func (r *republic) whole() {
	r.t.Helper()
	for i, c := range r.citizens {
		for end := time.Now().Add(patience); ; {
			if _, ok := r.operate(c, linear.Operation{Do: linear.Get}); ok {
				break
			}
			if time.Now().After(end) {
				r.t.Fatalf("node %s does not answer after %v", r.names[i], patience)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// blow lets one thing happen to one node for a while, and undoes it.
func (r *republic) blow(rng *rand.Rand) string {
	i := rng.IntN(len(r.citizens))
	c, name := r.citizens[i], r.names[i]
	var in, out [][2]string
	for _, other := range r.names {
		if other != name {
			in, out = append(in, [2]string{other, name}), append(out, [2]string{name, other})
		}
	}
	length := time.Duration(200+rng.IntN(1300)) * time.Millisecond // of the fault
	switch what := []string{"kill", "stall", "isolate", "deaf", "mute"}[rng.IntN(5)]; what {
	case "kill":
		c.kill()
		time.Sleep(length)
		c.start()
		return what
	case "stall":
		c.signal(syscall.SIGSTOP)
		time.Sleep(length)
		c.signal(syscall.SIGCONT)
		return what
	case "isolate":
		r.x.sever(append(in, out...)...)
		time.Sleep(length)
		r.x.heal()
		return what
	case "deaf":
		r.x.sever(in...)
		time.Sleep(length)
		r.x.heal()
		return what
	default:
		r.x.sever(out...)
		time.Sleep(length)
		r.x.heal()
		return what
	}
}

func (c *citizen) up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd != nil
}

func (c *citizen) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Error(err)
	}
}

// TestSettingsAreLinearizable: what clients at three nodes, each a process, see and do with the cluster's
// settings is as if it were done one thing after the other, while nodes are killed, stalled, and cut off in one
// direction or both. With ASSENT_SOAK there are five nodes in every second round, and many rounds.
func TestSettingsAreLinearizable(t *testing.T) {
	t.Parallel()
	rounds, blows := 1, 5
	if os.Getenv("ASSENT_SOAK") != "" {
		rounds, blows = 12, 12
	}
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for round := range rounds {
		t.Run(fmt.Sprint(seed+uint64(round)), func(t *testing.T) {
			names := []string{"a", "b", "c"}
			if round%2 == 1 {
				names = append(names, "d", "e")
			}
			r := newRepublic(t, names...)
			happened := r.storm(seed+uint64(round), blows)
			if result := r.history.Check(2 * patience); result != porcupine.Ok {
				t.Errorf("the history is %v: %v", result, r.history.Told())
			}
			told := r.history.Told()
			if told[membership.Applied] < enough {
				t.Errorf("hardly anything was done: %v", told)
			}
			t.Logf("%v; %v", happened, told)
		})
	}
}

// enough is how many operations a storm lasts for at least.
const enough = 20

// storm lets clients work while blows fall, and everything be whole at the end.
func (r *republic) storm(seed uint64, blows int) map[string]int {
	r.t.Helper()
	r.whole()
	rng := rand.New(rand.NewPCG(seed, 22))
	var stop atomic.Bool
	var clients sync.WaitGroup
	for i := range 2 * len(r.citizens) {
		clients.Go(func() { r.client(r.citizens[i%len(r.citizens)], seed<<8|uint64(i), &stop) })
	}
	happened := map[string]int{}
	for range blows {
		happened[r.blow(rng)]++
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond) // a pause between two faults
	}
	for end := time.Now().Add(patience); r.history.Told()[membership.Applied] < enough && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // a busy machine has not done much by now
	}
	stop.Store(true)
	clients.Wait()
	r.whole()
	return happened
}

// TestStaleLooksAreFound: without a barrier a node that is cut off shows what is old, and the judge sees it.
func TestStaleLooksAreFound(t *testing.T) {
	t.Parallel()
	r := newRepublic(t, "a", "b", "c")
	r.whole()
	r.x.sever([2]string{"a", "c"}, [2]string{"b", "c"}, [2]string{"c", "a"}, [2]string{"c", "b"})
	for end := time.Now().Add(patience); ; {
		if a, ok := r.operate(r.citizens[0], linear.Operation{Do: linear.Set, Key: "x", Value: fmt.Sprint(r.values.Add(1))}); ok && a.Result == membership.Applied {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the majority does not go on")
		}
	}
	r.known = true
	if a, ok := r.operate(r.citizens[2], linear.Operation{Do: linear.Get}); !ok || a.X != "" {
		t.Fatalf("the node that is cut off shows %+v", a)
	}
	if result := r.history.Check(patience); result != porcupine.Illegal {
		t.Errorf("the history is %v", result)
	}
}
