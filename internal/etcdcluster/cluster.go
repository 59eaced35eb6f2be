// Package etcdcluster runs private etcd clusters on 127.0.0.1: start, kill a member, start it again.
//
// It promises that members keep what they have acknowledged through a kill, as any etcd does, with
// every sync on; that they end with Close, or when the process that made them dies; and that their
// data are in the directory that was named. A member is a process of its own, made from a program that
// calls Main, or a part of this one. It compiles etcd's server, so only tests and builds with the tag
// peers import it; it is never for data that anybody wants to keep.
package etcdcluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"assent/internal/ports"
)

// Options say how a cluster is made.
type Options struct {
	// Members is how many there are. Defaults to 3.
	Members int
	// Dir is where the members' data are. It must exist.
	Dir string
	// Program is what calls Main: the path of the program in the folder member, say. Defaults to this one.
	Program string
	// InProcess makes the members parts of this process, which cannot be killed.
	InProcess bool
	// CertFile, KeyFile and CAFile make the members speak TLS with clients, and want a certificate of that
	// authority from them.
	CertFile, KeyFile, CAFile string
}

// Cluster is an etcd cluster. Its methods are safe for concurrent use.
type Cluster struct {
	opts    Options
	specs   []spec
	release []func() // gives the ports back
	mu      sync.Mutex
	members []member
}

// spec is what a member is told.
type spec struct {
	Name, Dir    string
	Client, Peer string // URLs
	Cluster      string
	Cert, Key    string // files
	CA           string
}

// member is a running member.
type member interface {
	// kill ends it at once, if it can be, and returns when it has ended.
	kill()
}

// environment names the variable that makes a process a member.
const environment = "ASSENT_ETCD_MEMBER"

// Main makes this process a member and never returns, if it was started to be one. A program that runs
// clusters of processes made from itself calls it first.
func Main() {
	text := os.Getenv(environment)
	if text == "" {
		return
	}
	var s spec
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		var e *embed.Etcd
		if e, err = s.start(); err == nil {
			<-e.Server.ReadyNotify()
			fmt.Println("ready")
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin) // it ends with whoever started us
				os.Exit(0)
			}()
			err = <-e.Err()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// start runs s in this process.
func (s spec) start() (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = s.Name, filepath.Join(s.Dir, "data")
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(s.Dir, "log")}
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.InitialCluster = s.Cluster
	client, err := url.Parse(s.Client)
	if err != nil {
		return nil, err
	}
	peer, err := url.Parse(s.Peer)
	if err != nil {
		return nil, err
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	if s.Cert != "" {
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile, cfg.ClientTLSInfo.TrustedCAFile = s.Cert, s.Key, s.CA
		cfg.ClientTLSInfo.ClientCertAuth = true
	}
	return embed.StartEtcd(cfg)
}

// New makes a cluster and starts it. It returns when every member is ready.
func New(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Members == 0 {
		opts.Members = 3
	}
	c := &Cluster{opts: opts, members: make([]member, opts.Members)}
	var all []string
	for i := range opts.Members {
		s, err := c.member(i)
		if err != nil {
			c.Close()
			return nil, err
		}
		all = append(all, s.Name+"="+s.Peer)
		c.specs = append(c.specs, s)
	}
	for i := range c.specs {
		c.specs[i].Cluster = strings.Join(all, ",")
	}
	if err := c.StartAll(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// member says what the member of that number is to be, with a directory and two ports of its own.
func (c *Cluster) member(i int) (spec, error) {
	s := spec{Name: fmt.Sprint("member-", i+1), Dir: filepath.Join(c.opts.Dir, fmt.Sprint("etcd-", i+1)),
		Cert: c.opts.CertFile, Key: c.opts.KeyFile, CA: c.opts.CAFile}
	for _, address := range []*string{&s.Client, &s.Peer} {
		port, release, err := ports.Reserve()
		if err != nil {
			return s, err
		}
		c.release = append(c.release, release)
		*address = fmt.Sprintf("http://127.0.0.1:%d", port)
	}
	if s.Cert != "" {
		s.Client = strings.Replace(s.Client, "http:", "https:", 1)
	}
	return s, os.Mkdir(s.Dir, 0o700)
}

// Endpoints returns the members' addresses for clients.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, s := range c.specs {
		all = append(all, s.Client)
	}
	return all
}

// StartAll starts the members that do not run, and returns when all are ready, which takes a majority.
func (c *Cluster) StartAll(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var waits []func(context.Context) error
	for i := range c.members {
		if c.members[i] != nil {
			continue
		}
		m, ready, err := c.launch(c.specs[i])
		if err != nil {
			return err
		}
		c.members[i] = m
		waits = append(waits, ready)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, ready := range waits {
		if err := ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) launch(s spec) (member, func(context.Context) error, error) {
	if !c.opts.InProcess {
		return launchProcess(c.opts.Program, s)
	}
	e, err := s.start()
	if err != nil {
		return nil, nil, fmt.Errorf("start an etcd member: %w", err)
	}
	return part{e}, func(ctx context.Context) error {
		select {
		case <-e.Server.ReadyNotify():
			return nil
		case err := <-e.Err():
			return fmt.Errorf("start an etcd member: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("start an etcd member: %w", ctx.Err())
		}
	}, nil
}

// Kill ends the members of those numbers, counted from 0, with SIGKILL. The others go on.
func (c *Cluster) Kill(members ...int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all sync.WaitGroup
	for _, i := range members {
		if m := c.members[i]; m != nil {
			all.Go(m.kill)
			c.members[i] = nil
		}
	}
	all.Wait()
}

// Close ends all members.
func (c *Cluster) Close() {
	for i := range c.members {
		c.Kill(i)
	}
	for _, release := range c.release {
		release()
	}
}

// part is a member in this process.
type part struct{ e *embed.Etcd }

func (p part) kill() { p.e.Close() }

// process is a member in a process of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
}

func launchProcess(program string, s spec) (member, func(context.Context) error, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, nil, err
	}
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return nil, nil, err
		}
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), environment+"="+string(text))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start an etcd member: %w", err)
	}
	p := &process{cmd, stdin, make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		if line, _ := bufio.NewReader(stdout).ReadString('\n'); line == "ready\n" {
			close(ready)
		}
		_ = cmd.Wait() // its standard error says why it ended
		close(p.ended)
	}()
	return p, func(ctx context.Context) error {
		select {
		case <-ready:
			return nil
		case <-p.ended:
			return fmt.Errorf("start an etcd member: it ended: %s", stderr.Bytes())
		case <-ctx.Done():
			return fmt.Errorf("start an etcd member: %w", ctx.Err())
		}
	}, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
	_ = p.stdin.Close()
}
