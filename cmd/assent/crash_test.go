package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	assentv1 "assent/api/assent/v1"
)

// TestKilledServer kills a server with SIGKILL while transactions commit in two stores, starts it
// again, and looks that each transaction is in both or in none, and that none is missing that was
// said to be committed.
func TestKilledServer(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The test's own binary is the program where it is called assent; see testscript.Main.
	if err := os.Symlink(program, dir+"/assent"); err != nil {
		t.Fatal(err)
	}
	args := []string{"--listen", "127.0.0.1:0", "--resource", "left=kv:left", "--resource", "right=kv:right"}
	serve := func() *running {
		r, err := start(dir, os.Environ(), dir+"/assent", args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if r.cmd != nil {
				_ = r.end(syscall.SIGKILL)
			}
		})
		return r
	}
	promised := map[string]bool{}
	for round := range 3 {
		r := serve()
		for _, key := range storm(t, r, round) {
			promised[key] = true
		}
	}
	r := serve()
	left, right := everything(t, r, "left"), everything(t, r, "right")
	for key := range promised {
		if !left[key] {
			t.Errorf("%s was committed and is not there", key)
		}
	}
	for key := range left {
		if !right[key] {
			t.Errorf("%s is in left alone", key)
		}
	}
	for key := range right {
		if !left[key] {
			t.Errorf("%s is in right alone", key)
		}
	}
	t.Logf("%d transactions were said to be committed; %d are", len(promised), len(left))
	if err := r.end(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// storm commits transactions until the server, which it kills after some of them, is gone, and
// returns the keys of those that it was told are committed.
func storm(t *testing.T, r *running, round int) []string {
	c := assentv1.NewTransactionServiceClient(&http.Client{}, r.address)
	var (
		mu   sync.Mutex
		done []string
		wg   sync.WaitGroup
	)
	enough := make(chan struct{})
	for worker := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%d-%d-%d", round, worker, n)
				answer, err := c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{put("left", key), put("right", key)}})
				if err != nil {
					return // the server is gone
				}
				if answer.GetOutcome().GetCommitted() == nil {
					t.Errorf("%s: %v", key, answer.GetOutcome())
					return
				}
				mu.Lock()
				done = append(done, key)
				if len(done) == 40 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(30 * time.Second):
		t.Error("the transactions do not come on")
	}
	if err := r.end(syscall.SIGKILL); err == nil {
		t.Error("the server ended well although it was killed")
	}
	wg.Wait()
	return done
}

func put(store, key string) *assentv1.Operation {
	return &assentv1.Operation{Resource: store, Action: &assentv1.Operation_Put{Put: &assentv1.PutKey{
		Key: textKey(key), Value: &assentv1.Value{Kind: &assentv1.Value_String_{String_: "1"}}}}}
}

// everything returns the keys of a store. It waits for those that recovery still holds.
func everything(t *testing.T, r *running, store string) map[string]bool {
	t.Helper()
	c := assentv1.NewTransactionServiceClient(&http.Client{}, r.address)
	answer, err := c.Run(t.Context(), &assentv1.RunRequest{Retries: 10, Operations: []*assentv1.Operation{
		{Resource: store, Action: &assentv1.Operation_Scan{Scan: &assentv1.ScanKeys{}}}}})
	if err != nil || answer.GetOutcome().GetCommitted() == nil {
		t.Fatalf("scan %s: %v, %v", store, answer.GetOutcome(), err)
	}
	keys := map[string]bool{}
	for _, row := range answer.GetResults()[0].GetRows() {
		keys[row.GetValues()[0].GetString_()] = true
	}
	return keys
}

// inProcess serves a new store until the test is over, and returns the address.
func inProcess(t *testing.T) string { return servedWith(t, func(*config) {}, nil) }

// servedWith is inProcess with a configuration and an environment.
func servedWith(t *testing.T, change func(*config), env map[string]string) string {
	t.Helper()
	cfg := defaultConfig()
	cfg.DataDir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	change(cfg)
	address, stop := served(t, cfg, env)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return address
}

// served starts a server in this process. What is returned stops it in order.
func served(t *testing.T, cfg *config, env map[string]string) (address string, stop func() error) {
	t.Helper()
	lines := make(chan string, 1)
	p := &program{out: sink(lines), err: io.Discard, getenv: func(name string) string { return env[name] }}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.serve(ctx, cfg, quiet()) }()
	select {
	case line := <-lines:
		address = readyLine.FindStringSubmatch(strings.TrimSpace(line))[1]
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	return address, func() error {
		cancel()
		return <-ended
	}
}

// TestOrderlyEnd stops a server while a transaction is open: it is rolled back, and nobody gets
// in afterwards.
func TestOrderlyEnd(t *testing.T) {
	cfg := defaultConfig()
	cfg.DataDir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	address, stop := served(t, cfg, nil)
	c := assentv1.NewTransactionServiceClient(&http.Client{}, address)
	b, err := c.Begin(t.Context(), &assentv1.BeginRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: b.GetId(), Operation: put("kv", "x")}); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if _, err := c.Begin(t.Context(), &assentv1.BeginRequest{}); err == nil {
		t.Error("a server that has stopped answers")
	}
	address, stop = served(t, cfg, nil) // the lock is free, and the key too
	if keys := everything(t, &running{address: address}, "kv"); len(keys) != 0 {
		t.Errorf("an open transaction left %v behind", keys)
	}
	if err := stop(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// sink sends each line that is written to a channel.
type sink chan<- string

// Write implements io.Writer.
func (s sink) Write(p []byte) (int, error) {
	s <- string(p)
	return len(p), nil
}
