package crashtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is the test's end of a coordinator process.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	out    *os.File
	stderr locked
	held   chan string
	exited chan struct{} // closed when the process is gone and its last message is read
	status error
	record func(message) // takes the history; may be nil

	mu      sync.Mutex
	in      *json.Encoder
	next    int
	waiting map[int]chan message
}

// locked is a buffer for several goroutines.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// launch starts a coordinator process: as the last argument of the command in within, where there is one.
func launch(t testing.TB, record func(message), within ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := append(slices.Clone(within), self)
	p := &process{t: t, cmd: exec.Command(command[0], command[1:]...), out: r, held: make(chan string, 64), exited: make(chan struct{}),
		waiting: map[int]chan message{}, record: record}
	// A race in the process ends it, so that nobody overlooks it.
	p.cmd.Env = append(os.Environ(), roleEnv+"=coordinator", "GORACE=halt_on_error=1")
	p.cmd.ExtraFiles = []*os.File{w}
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = json.NewEncoder(in)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the process has its own
	go p.listen()
	return p
}

// listen takes the messages until the process is gone.
func (p *process) listen() {
	d := json.NewDecoder(p.out)
	for {
		var m message
		if err := d.Decode(&m); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				p.t.Errorf("a message cannot be read: %v", err)
				_ = p.cmd.Process.Kill()
			}
			break // the process is gone; its last line may be cut
		}
		switch {
		case m.ID != 0:
			p.mu.Lock()
			c := p.waiting[m.ID]
			delete(p.waiting, m.ID)
			p.mu.Unlock()
			c <- m
		case m.Held != "":
			p.held <- m.Held
		case p.record != nil:
			p.record(m)
		}
	}
	_ = p.out.Close()
	p.status = p.cmd.Wait()
	close(p.exited)
}

// kill kills the process, if it is not dead, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be dead
	<-p.exited
}

// slain reports whether the process was ended by SIGKILL, and not by a failure of its own.
func (p *process) slain() bool {
	<-p.exited
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// call is a request that was sent.
type call struct {
	p      *process
	what   string
	answer chan message
}

// send sends a request. Nobody need wait for the answer.
func (p *process) send(r request) *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	r.ID = p.next
	c := &call{p: p, what: fmt.Sprintf("%+v", r), answer: make(chan message, 1)}
	p.waiting[r.ID] = c.answer
	_ = p.in.Encode(r) // where the process is gone, there is no answer either
	return c
}

// answered returns the answer; ok is false where the process died without one.
func (c *call) answered() (m message, ok bool) {
	c.p.t.Helper()
	timeout := time.NewTimer(2 * patience)
	defer timeout.Stop()
	select {
	case m = <-c.answer:
	case <-c.p.exited:
		select {
		case m = <-c.answer: // it was the last thing that the process did
		default:
			return message{}, false
		}
	case <-timeout.C:
		_ = c.p.cmd.Process.Signal(syscall.SIGQUIT) // it shows what it is at, at length
		<-c.p.exited
		c.p.t.Fatalf("no answer to %s after %v\n%s", c.what, 2*patience, c.p.stderr.String())
	}
	return m, true
}

// do sends a request and returns the answer, which must come and be good.
func (p *process) do(r request) message {
	p.t.Helper()
	c := p.send(r)
	m, ok := c.answered()
	if !ok {
		p.t.Fatalf("the coordinator died (%v) before it answered %s\n%s", p.status, c.what, p.stderr.String())
	}
	if m.Err != "" {
		p.t.Fatalf("%s: %s\n%s", c.what, m.Err, p.stderr.String())
	}
	return m
}

// atPoint waits until a step is held at the point.
func (p *process) atPoint(point string) {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case got := <-p.held:
		if got != point {
			p.t.Fatalf("held at %q, want %q", got, point)
		}
	case <-p.exited:
		p.t.Fatalf("the coordinator died (%v) before it came to %q\n%s", p.status, point, p.stderr.String())
	case <-timeout.C:
		p.t.Fatalf("the coordinator did not come to %q in %v\n%s", point, patience, p.stderr.String())
	}
}
