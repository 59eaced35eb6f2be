package crashtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fabric is a network between namespaces: a switch in this process through which every packet goes. Nothing
// of the machine's own network is touched.
type fabric struct {
	mu    sync.Mutex
	ports []*os.File
	rules map[[2]int]rule // from one port to another; none is a perfect way
	group sync.WaitGroup
}

// rule says what becomes of the packets of one way.
type rule struct {
	cut           bool
	loss          float64 // the share that is lost
	delay, jitter time.Duration
}

// newFabric makes n namespaces, whose names it returns. It skips the test where that is not allowed.
func newFabric(t testing.TB, n int) (*fabric, []string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the program ip (iproute2) is missing")
	}
	f := &fabric{rules: map[[2]int]rule{}}
	var names []string
	t.Cleanup(func() {
		for _, p := range f.ports {
			_ = p.Close()
		}
		f.group.Wait()
		for _, name := range names {
			if err := ip("netns", "delete", name); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range n {
		name := fmt.Sprintf("assent-%d-%d", os.Getpid(), shared.sites.Add(1))
		if err := ip("netns", "add", name); err != nil {
			t.Skipf("network namespaces cannot be made here: %v", err)
		}
		names = append(names, name)
		port, err := openTunnel(name, addressOf(i))
		if err != nil {
			t.Skipf("tunnels cannot be made here: %v", err)
		}
		f.ports = append(f.ports, port)
	}
	for i := range f.ports {
		f.group.Go(func() { f.carry(i) })
	}
	return f, names
}

// ip is the program ip.
func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// addressOf is the address of the port i.
func addressOf(i int) string { return fmt.Sprintf("10.99.0.%d", i+1) }

// carry takes the packets of a port to where they are addressed, as the rules say.
func (f *fabric) carry(from int) {
	packet := make([]byte, 64<<10)
	for {
		n, err := f.ports[from].Read(packet)
		if err != nil {
			return
		}
		if n < 20 || packet[0]>>4 != 4 || packet[16] != 10 || packet[17] != 99 {
			continue // IPv6's neighbours, say
		}
		to := int(packet[19]) - 1
		if to < 0 || to >= len(f.ports) {
			continue
		}
		f.mu.Lock()
		r := f.rules[[2]int{from, to}]
		f.mu.Unlock()
		switch {
		case r.cut || r.loss > 0 && rand.Float64() < r.loss:
		case r.delay > 0:
			late := append([]byte(nil), packet[:n]...)
			time.AfterFunc(r.delay-r.jitter+rand.N(2*r.jitter+1), func() { _, _ = f.ports[to].Write(late) })
		default:
			_, _ = f.ports[to].Write(packet[:n]) // a full queue loses packets, as a switch's does
		}
	}
}

// all sets the rule of every way.
func (f *fabric) all(r rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.rules)
	for i := range f.ports {
		for j := range f.ports {
			if i != j {
				f.rules[[2]int{i, j}] = r
			}
		}
	}
}

// way sets the rule of one way.
func (f *fabric) way(from, to int, r rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules[[2]int{from, to}] = r
}

// isolate cuts a port off from all others.
func (f *fabric) isolate(port int) {
	for other := range f.ports {
		f.way(port, other, rule{cut: true})
		f.way(other, port, rule{cut: true})
	}
}

// heal makes every way perfect.
func (f *fabric) heal() { f.all(rule{}) }

// load is transfers that nodes make until it is ended.
type load struct {
	b       *band
	stop    chan struct{}
	group   sync.WaitGroup
	mu      sync.Mutex // guards the books of b
	reports map[*site]map[string]int
}

// begin begins to make transfers, one after another at each of the nodes.
func (b *band) begin(nodes ...*site) *load {
	l := &load{b: b, stop: make(chan struct{}), reports: map[*site]map[string]int{}}
	for i, n := range nodes {
		l.reports[n] = map[string]int{}
		l.work(i, n)
	}
	return l
}

// work makes transfers at the node, in accounts of its own so that nobody waits for another's locks, until the
// load or the node ends.
func (l *load) work(account int, n *site) {
	p := n.p
	l.group.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			l.mu.Lock()
			tr := transfer{ID: fmt.Sprintf("t%d", len(l.b.made)), Legs: []leg{
				{Resource: "pg1", Account: account, Delta: -4}, {Resource: "pg2", Account: account, Delta: 4}}}
			l.b.made[tr.ID], l.b.reports[tr.ID] = tr, nil
			l.mu.Unlock()
			m, ok := p.send(request{Transfer: &tr}).answered()
			if !ok {
				return
			}
			l.mu.Lock()
			l.b.reports[tr.ID] = m.Report
			l.reports[n][m.Report.Kind]++
			l.mu.Unlock()
		}
	})
}

// committed is how many transfers of the node are committed.
func (l *load) committed(n *site) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reports[n][committed]
}

// progress waits until each of the nodes has committed so many more.
func (l *load) progress(more int, nodes ...*site) {
	l.b.Helper()
	for _, n := range nodes {
		want := l.committed(n) + more
		l.b.await(fmt.Sprintf("node %s commits %d more", n.setup.Cluster.Self, more), func() bool { return l.committed(n) >= want })
	}
}

// end ends the load, just when the network is whole again, and wants nothing to stay in doubt.
func (l *load) end() {
	l.b.Helper()
	began := time.Now()
	close(l.stop)
	l.group.Wait()
	l.b.await("nothing is in doubt", func() bool { return len(l.b.prepared()) == 0 })
	took := time.Since(began)
	for _, n := range l.b.nodes { // and all go on
		l.b.goesOn(n)
	}
	l.b.audit("", l.b.nodes...)
	l.b.Logf("nothing in doubt %v after healing; %v", took.Round(time.Millisecond), l.told())
}

// told says what was reported, by node.
func (l *load) told() string {
	var words []string
	for _, n := range l.b.nodes {
		if r := l.reports[n]; r != nil {
			words = append(words, fmt.Sprintf("%s: %v", n.setup.Cluster.Self, r))
		}
	}
	return strings.Join(words, ", ")
}

// newNet makes a cluster of three nodes, each in a network namespace of its own, and starts it.
func newNet(t *testing.T) (*fabric, *band) {
	t.Helper()
	f, namespaces := newFabric(t, 3)
	b := newBand(t, "a", "b", "c")
	addresses := map[string]string{}
	for i, n := range b.nodes {
		addresses[n.setup.Cluster.Self] = addressOf(i) + ":7421"
		n.within = []string{"ip", "netns", "exec", namespaces[i]}
	}
	for _, n := range b.nodes {
		n.setup.Cluster.Nodes, n.setup.Cluster.Exposed = addresses, true
	}
	b.openAll()
	return f, b
}

// TestNetwork cuts, flaps, slows and spoils the network between three nodes while they commit. Whatever it
// does, no transfer is torn and no report is wrong; whoever reaches a majority goes on; and when it is whole
// again nothing stays in doubt.
func TestNetwork(t *testing.T) {
	t.Parallel()
	f, b := newNet(t)
	first, second, third := b.nodes[0], b.nodes[1], b.nodes[2]
	step := func(name string, does func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			for _, n := range b.nodes {
				n.sub(t)
			}
			b.united()
			does(t)
		})
	}
	step("minority isolated", func(*testing.T) {
		l := b.begin(b.nodes...)
		l.progress(2, b.nodes...)
		f.isolate(2)
		first.believes("c", "suspected")
		second.believes("c", "suspected")
		l.progress(5, first, second)
		f.heal()
		l.end()
	})
	step("coordinator with the minority", func(t *testing.T) {
		const point = "coordinator: emit Propose(commit)"
		b.hold(point)
		tr := b.between()
		c := b.start(tr)
		b.p.atPoint(point)
		f.isolate(0)
		t.Logf("finished %v after the cut", b.finished())
		f.heal()
		b.release(point)
		b.mustReport(b.finish(tr, c), aborted, "", nil, false)
		b.audit("", b.nodes...)
	})
	step("one way cut", func(*testing.T) {
		l := b.begin(b.nodes...)
		l.progress(2, b.nodes...)
		f.way(0, 1, rule{cut: true})
		second.believes("a", "suspected")
		l.progress(5, third) // which reaches both
		f.heal()
		l.end()
	})
	step("flapping link", func(*testing.T) {
		l := b.begin(b.nodes...)
		for range 6 {
			f.isolate(2)
			time.Sleep(250 * time.Millisecond) // the length of the fault
			f.heal()
			time.Sleep(150 * time.Millisecond)
		}
		l.progress(5, first, second)
		l.end()
	})
	step("five percent lost", func(*testing.T) {
		f.all(rule{loss: 0.05})
		l := b.begin(b.nodes...)
		l.progress(15, b.nodes...)
		f.heal()
		l.end()
	})
	step("slow", func(*testing.T) {
		f.all(rule{delay: 100 * time.Millisecond, jitter: 50 * time.Millisecond})
		l := b.begin(b.nodes...)
		l.progress(3, b.nodes...)
		f.heal()
		l.end()
	})
	step("everybody alone", func(*testing.T) {
		l := b.begin(b.nodes...)
		l.progress(2, b.nodes...)
		f.all(rule{cut: true})
		first.believes("b", "suspected")
		first.believes("c", "suspected")
		third.believes("a", "suspected")
		f.heal()
		l.end()
	})
}

// TestClusterUnderFire kills and restarts nodes, stalls them, and cuts them off, at random and one after
// another, while all make transfers: for 4 s, or for two minutes with ASSENT_SOAK.
func TestClusterUnderFire(t *testing.T) {
	t.Parallel()
	f, b := newNet(t)
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	length := 4 * time.Second
	if *soakFlag {
		length = 2 * time.Minute
	}
	l := b.begin(b.nodes...)
	l.progress(2, b.nodes...)
	blows := map[string]int{}
	for began := time.Now(); time.Since(began) < length; {
		i := rng.IntN(len(b.nodes))
		n, others := b.nodes[i], append(slices.Clone(b.nodes[:i]), b.nodes[i+1:]...)
		blow := []string{"kill", "stall", "isolate", "one way", "loss"}[rng.IntN(5)]
		blows[blow]++
		pause := time.Duration(rng.IntN(2500)) * time.Millisecond
		switch blow {
		case "kill":
			n.p.kill()
			time.Sleep(pause) // the length of the fault; so below
			m, ok := n.launch().answered()
			if !ok || m.Err != "" {
				t.Fatalf("node %s does not open again: %v %s", n.setup.Cluster.Self, ok, m.Err)
			}
			l.work(i, n)
		case "stall":
			signal(t, n, syscall.SIGSTOP)
			time.Sleep(pause)
			signal(t, n, syscall.SIGCONT)
		case "isolate":
			f.isolate(i)
			time.Sleep(pause)
		case "one way":
			f.way(i, (i+1+rng.IntN(2))%3, rule{cut: true})
			time.Sleep(pause)
		case "loss":
			f.all(rule{loss: 0.1, delay: 5 * time.Millisecond, jitter: 5 * time.Millisecond})
			time.Sleep(pause)
		}
		f.heal()
		if pause > 1500*time.Millisecond { // else the next blow comes before they have recovered
			l.progress(1, others...)
		}
	}
	l.end()
	t.Logf("%v", blows)
}

func signal(t *testing.T, n *site, s syscall.Signal) {
	t.Helper()
	if err := n.p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
