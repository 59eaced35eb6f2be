package crashtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"assent/cluster"
	"assent/internal/linear"
	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/membership"
)

// citizenSetup is the first line that a citizen reads: which node of which cluster it is.
type citizenSetup struct {
	Self, Dir, Listen string
	Nodes             map[string]string
}

// citizenLine is every other line that a citizen reads, and every one that it writes.
type citizenLine struct {
	ID        int
	Operation linear.Operation
	// Result, Epoch, X and Y are the answer's.
	Result uint8
	Epoch  uint64
	X, Y   string
	// Known has a look answered from what the node knows, without a barrier.
	Known bool   `json:",omitempty"`
	Err   string `json:",omitempty"`
}

// patienceOfCitizens is for how long an operation waits for its answer.
const patienceOfCitizens = 1500 * time.Millisecond

// beCitizen is the main function of a process that is a node of a cluster, without resources, and does what it is
// asked with what the cluster agrees on.
func beCitizen() int {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	var setup citizenSetup
	err := in.Decode(&setup)
	if err == nil {
		err = serveCitizen(setup, in)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "citizen:", err)
		return 1
	}
	return 0
}

func serveCitizen(setup citizenSetup, in *json.Decoder) error {
	members := map[protocol.NodeID]cluster.Member{}
	for name, address := range setup.Nodes {
		members[protocol.NodeID(name)] = cluster.Member{Address: address}
	}
	n, err := cluster.Open(cluster.Config{
		Name: "citizens", Self: protocol.NodeID(setup.Self), Members: members, Address: setup.Listen, Dir: setup.Dir,
		Detector: detector.Options{Tick: 20 * time.Millisecond, Beat: 2, Timeout: 25},
		Election: election.Options{Answer: 100 * time.Millisecond, Again: 200 * time.Millisecond},
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	var writing sync.Mutex
	out := json.NewEncoder(os.Stdout)
	for {
		var line citizenLine
		if err := in.Decode(&line); err != nil {
			return errors.Join(err, n.Close())
		}
		go func() {
			a, why := act(n, line)
			line.Result, line.Epoch, line.X, line.Y, line.Err = uint8(a.Result), a.Epoch, a.X, a.Y, why
			writing.Lock()
			defer writing.Unlock()
			_ = out.Encode(line) // who asked may be gone
		}()
	}
}

// act does an operation.
func act(n *cluster.Node, line citizenLine) (linear.Answer, string) {
	ctx, cancel := context.WithTimeout(context.Background(), patienceOfCitizens)
	defer cancel()
	o := line.Operation
	if o.Do == linear.Get {
		state, err := n.State(), error(nil)
		if !line.Known {
			state, err = n.Barrier(ctx)
		}
		if err != nil {
			return linear.Answer{Result: membership.Unsure}, err.Error()
		}
		return linear.Look(state), ""
	}
	epoch, err := n.Change(ctx, o.Change())
	a := linear.Answer{Result: membership.Applied, Epoch: epoch}
	switch {
	case errors.Is(err, cluster.ErrRefused):
		a.Result = membership.Refused
	case err != nil:
		a.Result = membership.Unsure
	}
	if err != nil {
		return a, err.Error()
	}
	return a, ""
}

// citizen is the test's end of such a process, of which there may be several, one after the other.
type citizen struct {
	t     testing.TB
	setup citizenSetup

	mu      sync.Mutex
	cmd     *exec.Cmd // nil while it is down
	in      *json.Encoder
	next    int
	waiting map[int]chan citizenLine
	exited  chan struct{}
	stderr  *locked
}

// start starts the process.
func (c *citizen) start() {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleEnv+"=citizen", "GORACE=halt_on_error=1")
	stderr := &locked{}
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmd, c.in, c.waiting, c.exited, c.stderr = cmd, json.NewEncoder(in), map[int]chan citizenLine{}, make(chan struct{}), stderr
	_ = c.in.Encode(c.setup) // if it is gone, nobody will answer
	go c.listen(json.NewDecoder(out), cmd, c.waiting, c.exited)
}

// listen hands out the answers until the process is gone.
func (c *citizen) listen(out *json.Decoder, cmd *exec.Cmd, waiting map[int]chan citizenLine, exited chan struct{}) {
	for {
		var line citizenLine
		if out.Decode(&line) != nil {
			break // the last line may be cut
		}
		c.mu.Lock()
		answer := waiting[line.ID]
		delete(waiting, line.ID)
		c.mu.Unlock()
		answer <- line
	}
	_ = cmd.Wait() // killed, mostly
	close(exited)
}

// kill kills the process and waits until it is gone. It reports what the process has said.
func (c *citizen) kill() string {
	c.mu.Lock()
	cmd, exited := c.cmd, c.exited
	c.cmd = nil
	c.mu.Unlock()
	if cmd == nil {
		return ""
	}
	_ = cmd.Process.Kill() // it may be dead
	<-exited
	return c.stderr.String()
}

// do has the node do something. ok is false where it is down, and nothing was asked; the answer is unsure where
// it died.
func (c *citizen) do(line citizenLine) (a linear.Answer, why string, ok bool) {
	a.Result = membership.Unsure
	c.mu.Lock()
	if c.cmd == nil {
		c.mu.Unlock()
		return a, "it is down", false
	}
	c.next++
	line.ID = c.next
	told, exited := make(chan citizenLine, 1), c.exited
	c.waiting[line.ID] = told
	_ = c.in.Encode(line) // where the process is gone, there is no answer either
	c.mu.Unlock()
	select {
	case line = <-told:
	case <-exited:
		select {
		case line = <-told: // it was the last thing that the process did
		default:
			return a, "it has died", true
		}
	}
	return linear.Answer{Result: membership.Result(line.Result), Epoch: line.Epoch, X: line.X, Y: line.Y}, line.Err, true
}
