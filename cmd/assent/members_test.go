package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"assent/api"
	assentv1 "assent/api/assent/v1"
	"assent/internal/ports"
)

// people are nodes of a cluster, each with a store of its own, that come and go.
type people struct {
	t       *testing.T
	program string
	dir     string
	peers   map[string]string // their addresses for each other
	apis    map[string]string
	running map[string]*running
}

func newPeople(t *testing.T, names ...string) *people {
	p := &people{t: t, dir: t.TempDir(), peers: map[string]string{}, apis: map[string]string{}, running: map[string]*running{}}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.program = filepath.Join(p.dir, "assent")
	if err := os.Symlink(program, p.program); err != nil { // see testscript.Main
		t.Fatal(err)
	}
	for _, name := range names {
		p.peers[name], p.apis[name] = ports.Address(t), ports.Address(t)
		if err := os.Mkdir(filepath.Join(p.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for name, r := range p.running {
			if r.cmd != nil {
				_ = r.end(syscall.SIGKILL)
			}
			if log, err := os.ReadFile(r.logPath); t.Failed() && err == nil {
				t.Logf("node %s:\n%s", name, log)
			}
		}
	})
	return p
}

// pairs lists nodes as --nodes and --join have them.
func (p *people) pairs(names ...string) string {
	var all []string
	for _, name := range names {
		all = append(all, name+"="+p.peers[name])
	}
	return strings.Join(all, ",")
}

// launch starts a node, which may wait for others, in the background.
func (p *people) launch(name string, args ...string) (ready func()) {
	p.t.Helper()
	type started struct {
		r   *running
		err error
	}
	done := make(chan started, 1)
	r, out, err := launch(filepath.Join(p.dir, name), append(os.Environ(), "GORACE=atexit_sleep_ms=0"), p.program,
		append([]string{"--node", name, "--listen", p.apis[name], "--data-dir", "data"}, args...)...)
	if err != nil {
		p.t.Fatalf("node %s: %v", name, err)
	}
	process := r.cmd.Process
	p.t.Cleanup(func() { _ = process.Kill() }) // where nobody waits until it is ready
	go func() {
		r, err := r.ready(out)
		done <- started{r, err}
	}()
	return func() {
		p.t.Helper()
		s := <-done
		if s.err != nil {
			p.t.Fatalf("node %s: %v", name, s.err)
		}
		p.running[name] = s.r
	}
}

func (p *people) operator(name string) assentv1.OperatorServiceClient {
	return assentv1.NewOperatorServiceClient(&http.Client{}, (&url.URL{Scheme: "http", Host: p.apis[name]}).String())
}

// sees waits until the node sees the cluster as it is wanted.
func (p *people) sees(at, text string, want func(c *assentv1.ClusterResponse) bool) {
	p.t.Helper()
	var last *assentv1.ClusterResponse
	var lastErr error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
		last, lastErr = p.operator(at).Cluster(ctx, &assentv1.ClusterRequest{})
		cancel()
		if lastErr == nil && want(last) {
			return
		}
	}
	p.t.Fatalf("node %s does not see: %s; it sees %v, %v", at, text, last, lastErr)
}

// votes waits until the node knows these to be the members, each with a vote that is heard.
func (p *people) votes(at string, names ...string) {
	p.t.Helper()
	p.sees(at, fmt.Sprintf("%v vote", names), func(c *assentv1.ClusterResponse) bool {
		if len(c.GetMembers()) != len(names) {
			return false
		}
		for i, m := range c.GetMembers() {
			if m.GetNode() != names[i] || m.GetVotes() != 1 || !strings.HasPrefix(m.GetLog(), "votes") {
				return false
			}
		}
		return true
	})
}

// commits has the node commit something in its own store, as soon as it can.
func (p *people) commits(at, key string) {
	p.t.Helper()
	var lastErr error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
		c := assentv1.NewTransactionServiceClient(&http.Client{}, "http://"+p.apis[at])
		r, err := c.Run(ctx, &assentv1.RunRequest{Operations: []*assentv1.Operation{put("kv-"+at, key), put("other-"+at, key)}})
		cancel()
		if err == nil && r.GetOutcome().GetCommitted() != nil {
			return
		}
		lastErr = fmt.Errorf("%v: %w", r.GetOutcome(), err)
	}
	p.t.Fatalf("node %s does not commit: %v", at, lastErr)
}

// cluster has the node change the cluster, by the command itself.
func (p *people) cluster(at string, args ...string) {
	p.t.Helper()
	var out, errs strings.Builder
	program := &program{out: &out, err: &errs, getenv: os.Getenv}
	if exit := program.run(append([]string{"cluster", args[0], "--server", "http://" + p.apis[at]}, args[1:]...)); exit != exitOK {
		p.t.Fatalf("assent cluster %v: exit code %d: %s%s", args, exit, &out, &errs)
	}
}

// TestMembersComeAndGo: three nodes found a cluster, a fourth joins and votes, a founder leaves and another dies, and
// the one that is left of them and the newcomer decide. The dead one comes back with the configuration of the
// founding, and finds its place; then one that is dead is excluded, and comes back without its directory.
func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	p := newPeople(t, "a", "b", "c", "d")
	founders := p.pairs("a", "b", "c")
	stores := func(name string) []string {
		return []string{"--resource", "kv-" + name + "=kv:kv", "--resource", "other-" + name + "=kv:other"}
	}
	var all []func()
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, p.launch(name, append(stores(name), "--nodes", founders)...))
	}
	for _, ready := range all {
		ready()
	}
	p.commits("a", "1")
	p.cluster("b", "set", "colour", "green")

	p.launch("d", append(stores("d"), "--join", p.pairs("a", "b"), "--address", p.peers["d"])...)()
	for _, at := range []string{"a", "d"} {
		p.votes(at, "a", "b", "c", "d")
	}
	p.commits("d", "2")
	p.cluster("d", "get", "colour")

	p.cluster("d", "leave", "a", "--reason", "it is old")
	p.votes("d", "b", "c", "d")
	p.gone("a")
	if err := p.running["a"].end(syscall.SIGTERM); err != nil {
		t.Errorf("a does not end well: %v", err)
	}
	p.commits("d", "3")

	_ = p.running["c"].end(syscall.SIGKILL) // it does not end well
	p.sees("d", "c is suspected", func(c *assentv1.ClusterResponse) bool {
		for _, m := range c.GetMembers() {
			if m.GetNode() == "c" {
				return m.GetState() == "suspected" && c.GetDecides()
			}
		}
		return false
	})
	p.commits("d", "4")
	p.commits("b", "5")

	p.launch("c", append(stores("c"), "--nodes", founders)...)()
	p.votes("c", "b", "c", "d")
	p.commits("c", "6")
	_ = p.running["b"].end(syscall.SIGKILL)
	p.cluster("c", "exclude", "b")
	p.votes("c", "c", "d")
	p.commits("c", "7")

	// What was excluded comes back with nothing on its disk.
	if err := os.RemoveAll(filepath.Join(p.dir, "b", "data")); err != nil {
		t.Fatal(err)
	}
	p.launch("b", append(stores("b"), "--nodes", founders)...)()
	p.votes("d", "b", "c", "d")
	p.commits("b", "8")
}

// gone waits until the node says that it may be stopped.
func (p *people) gone(name string) {
	p.t.Helper()
	p.sees(name, "it may be stopped", func(c *assentv1.ClusterResponse) bool { return c.GetRetired() })
}

// TestJoiningNodeAnswers: a node whose cluster is not there yet says so to whoever asks, and serves when it is let in.
func TestJoiningNodeAnswers(t *testing.T) {
	t.Parallel()
	p := newPeople(t, "a", "d")
	ready := p.launch("d", "--resource", "kv-d=kv:kv", "--resource", "other-d=kv:other", "--join", p.pairs("a"), "--address", p.peers["d"])
	p.waits(t, "d", "a")
	a := p.launch("a", "--resource", "kv-a=kv:kv", "--nodes", p.pairs("a"))
	a()
	ready()
	if status, text := p.health("d"); status != http.StatusOK || text != "ok\n" {
		t.Errorf("a member's health is %d, %q", status, text)
	}
	p.votes("d", "a", "d")
	p.commits("d", "1")
}

// health returns what the node says of its health, as soon as it says anything.
func (p *people) health(name string) (status int, text string) {
	var lastErr error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r, err := http.Get("http://" + p.apis[name] + "/healthz")
		if lastErr = err; err != nil {
			continue
		}
		data, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if lastErr = err; err == nil {
			return r.StatusCode, string(data)
		}
	}
	p.t.Errorf("node %s does not answer: %v", name, lastErr)
	return 0, ""
}

// waits looks at everything that a node answers while it waits for another one.
func (p *people) waits(t *testing.T, name, other string) {
	if status, text := p.health(name); status != http.StatusServiceUnavailable || !strings.HasPrefix(text, "joining: ") {
		t.Errorf("its health is %d, %q", status, text)
	}
	what := "waits to be let in by " + other + ": no member of the cluster has answered yet"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := p.operator(name).Cluster(ctx, &assentv1.ClusterRequest{})
	if err != nil || c.GetRole() != "joining" || !strings.Contains(c.GetView(), what) || c.GetDecides() {
		t.Errorf("the cluster is %v, %v", c, err)
	}
	s, err := p.operator(name).Status(ctx, &assentv1.StatusRequest{})
	if err != nil || len(s.GetResources()) != 2 || !strings.Contains(s.GetResources()[0].GetError(), what) {
		t.Errorf("the status is %v, %v", s, err)
	}
	// Nothing else is answered, but with the reason, and that another node may be asked.
	refused := func(did string, err error) {
		t.Helper()
		e, ok := errors.AsType[*connect.Error](err)
		if !ok || e.Code() != connect.CodeUnavailable || !strings.Contains(e.Message(), "node "+name+" is joining its cluster: it "+what) || e.Meta().Get(api.HeaderElsewhere) == "" {
			t.Errorf("%s: %v", did, err)
		}
	}
	client := assentv1.NewTransactionServiceClient(&http.Client{}, "http://"+p.apis[name])
	_, err = client.Run(ctx, &assentv1.RunRequest{Operations: []*assentv1.Operation{put("kv-"+name, "1")}})
	refused("run", err)
	_, err = p.operator(name).Get(ctx, &assentv1.GetRequest{Id: "x"})
	refused("get", err)
	_, err = p.operator(name).ClusterState(ctx, &assentv1.ClusterStateRequest{})
	refused("the state", err)
	_, err = p.operator(name).ChangeCluster(ctx, &assentv1.ChangeClusterRequest{})
	refused("a change", err)

	var out, errs strings.Builder
	program := &program{out: &out, err: &errs, getenv: os.Getenv}
	if exit := program.run([]string{"cluster", "status", "--server", "http://" + p.apis[name]}); exit != exitError || !strings.Contains(out.String(), what) {
		t.Errorf("assent cluster status: exit code %d: %s%s", exit, &out, &errs)
	}
}
