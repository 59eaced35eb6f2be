package remote_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/decision/disk"
	"assent/decision/remote"
	"assent/protocol/commit"
	"assent/resource"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// newServers starts n servers of one log, which end with the test.
func newServers(t *testing.T, n int) ([]*httptest.Server, []*remote.Handler) {
	t.Helper()
	log, err := disk.Open(filepath.Join(t.TempDir(), "log"), disk.Config{SegmentBytes: 64 << 10, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	var servers []*httptest.Server
	var handlers []*remote.Handler
	for range n {
		h := remote.NewHandler(log)
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		servers, handlers = append(servers, s), append(handlers, h)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.Close()
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return servers, handlers
}

func mustOpen(t *testing.T, servers ...string) *remote.Log {
	t.Helper()
	l, err := remote.Open(t.Context(), remote.Config{Servers: servers, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func urls(servers []*httptest.Server) (all []string) {
	for _, s := range servers {
		all = append(all, s.URL)
	}
	return all
}

func entry(id string) decision.Entry {
	return decision.Entry{ID: commit.TransactionID(id), Decision: commit.Commit, By: "coordinator",
		Branches: []decision.Branch{{Resource: "orders", Evidence: []byte{0, 1}}}}
}

func TestConformance(t *testing.T) {
	var at sync.Map // the servers of each owner
	again := func(t *testing.T, log decision.Log) decision.Log {
		addresses, _ := at.Load(log.Owner())
		return mustOpen(t, addresses.([]string)...)
	}
	decisiontest.Run(t, decisiontest.Harness{
		New: func(t *testing.T) decision.Log {
			servers, _ := newServers(t, 2)
			l := mustOpen(t, urls(servers)...)
			at.Store(l.Owner(), urls(servers))
			return l
		},
		Reopen: func(t *testing.T, log decision.Log) decision.Log {
			if err := log.(*remote.Log).Close(); err != nil {
				t.Fatal(err)
			}
			return again(t, log)
		},
		Another: again,
	})
}

// Servers go away one after the other while decisions are made; those that are left take the calls.
func TestFailover(t *testing.T) {
	servers, _ := newServers(t, 3)
	l := mustOpen(t, urls(servers)...)
	var told atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				e := entry(fmt.Sprint("tx-", i)) // all propose for the same ones
				e.By = fmt.Sprint("worker ", w)
				stands, err := l.Decide(t.Context(), e)
				if err != nil {
					t.Error(err)
					return
				}
				if found, err := l.Lookup(t.Context(), e.ID); err != nil || found.By != stands.By {
					t.Errorf("%s: told %q, found %q, %v", e.ID, stands.By, found.By, err)
				}
				n := decision.Note{Kind: decision.Resolved, Branch: "orders", By: e.By}
				if err := l.Annotate(t.Context(), e.ID, n); err != nil {
					t.Error(err)
				}
				told.Add(1)
			}
		})
	}
	for i, s := range servers {
		for n := told.Load(); told.Load() < n+50 && !t.Failed(); {
			time.Sleep(time.Millisecond) // polling the workers
		}
		if i < len(servers)-1 {
			s.CloseClientConnections()
			s.Close()
		}
	}
	stop.Store(true)
	wg.Wait()
}

// flaky is a server whose answers are lost: what it was asked is done.
type flaky struct {
	http.Handler
	lose atomic.Bool
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.lose.Load() && !strings.HasSuffix(r.URL.Path, "hello") {
		f.lose.Store(false)
		f.Handler.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	f.Handler.ServeHTTP(w, r)
}

// An answer that is lost leaves no doubt, and nothing is done twice.
func TestLostAnswers(t *testing.T) {
	_, handlers := newServers(t, 1)
	f := &flaky{Handler: handlers[0]}
	s := httptest.NewServer(f)
	defer s.Close()
	l := mustOpen(t, s.URL)
	f.lose.Store(true)
	if stands, err := l.Decide(t.Context(), entry("tx")); err != nil || stands.Decision != commit.Commit {
		t.Errorf("%+v, %v", stands, err)
	}
	f.lose.Store(true)
	if err := l.Annotate(t.Context(), "tx", decision.Note{Kind: decision.Finished}); err != nil {
		t.Error(err)
	}
	if e, err := l.Lookup(t.Context(), "tx"); err != nil || len(e.Notes) != 1 {
		t.Errorf("%+v, %v; want one note", e, err)
	}
	f.lose.Store(true)
	if err := l.Forget(t.Context(), "tx"); err != nil {
		t.Error(err)
	}
	if err := l.Forget(t.Context(), "tx"); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("got %v; want %v", err, decision.ErrNotFound)
	}
}

// Servers of another log are not believed.
func TestAnotherLog(t *testing.T) {
	first, _ := newServers(t, 1)
	other, _ := newServers(t, 1)
	l := mustOpen(t, first[0].URL, other[0].URL)
	first[0].Close()
	for range 2 {
		_, err := l.Decide(t.Context(), entry("tx"))
		if !errors.Is(err, decision.ErrStopped) || resource.HintOf(err) == "" {
			t.Errorf("got %v; want %v", err, decision.ErrStopped)
		}
	}
	if _, err := mustOpen(t, other[0].URL).Lookup(t.Context(), "tx"); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("decided in another log: %v", err)
	}
}

// Every server knows that a process lives, and soon after its end that it does not.
func TestAlive(t *testing.T) {
	servers, handlers := newServers(t, 2)
	l := mustOpen(t, urls(servers)...)
	id := commit.TransactionID(l.Prefix() + "-1")
	all := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for _, h := range handlers {
			for h.Alive(id) != want {
				if time.Now().After(deadline) {
					t.Fatalf("alive: %v for 30 s; want %v", !want, want)
				}
				time.Sleep(time.Millisecond) // polling
			}
		}
	}
	all(true)
	if handlers[0].Alive("t1") || handlers[0].Alive(commit.TransactionID(rand.Text()[:20]+"-1")) {
		t.Error("somebody who was never heard of is alive")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all(false)
}

// lines is a log that a test may read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }

// A server that will not hear that this process lives is told of once, and so is that it hears again.
func TestUnheardAnnouncements(t *testing.T) {
	good, handlers := newServers(t, 1)
	var deaf atomic.Bool
	var heard atomic.Int64
	deaf.Store(true)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard.Add(1)
		if deaf.Load() {
			http.Error(w, "no room", http.StatusServiceUnavailable)
			return
		}
		handlers[0].ServeHTTP(w, r)
	}))
	t.Cleanup(other.Close)
	said := &lines{}
	l, err := remote.Open(t.Context(), remote.Config{Servers: []string{good[0].URL, other.URL}, Logger: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	until := func(is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) { // polling
			if time.Now().After(deadline) {
				t.Fatalf("not after 30 s; the log: %s", said)
			}
		}
	}
	const deafness, again = "is not told that this process lives", "is told again that this process lives"
	until(func() bool { return heard.Load() >= 3 })
	until(func() bool { return said.count(deafness) > 0 })
	deaf.Store(false)
	until(func() bool { return said.count(again) > 0 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A busy machine may be too slow for an announcement, and for another one: that is told as well.
	if n, m := said.count(deafness), said.count(again); n != m && n != m+1 || said.count("server="+other.URL+" cause=") < 1 {
		t.Errorf("told %d times, and %d times that it is over: %s", n, m, said)
	}
}

// What cannot be served is refused with a reason.
func TestRefusals(t *testing.T) {
	servers, _ := newServers(t, 1)
	guarded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "who are you?", http.StatusUnauthorized)
	}))
	defer guarded.Close()
	for name, c := range map[string]struct {
		cfg  remote.Config
		code resource.Code
	}{
		"nobody":      {remote.Config{}, resource.Invalid},
		"no URL":      {remote.Config{Servers: []string{"127.0.0.1:1"}}, resource.Invalid},
		"a password":  {remote.Config{Servers: []string{"http://me:secret@127.0.0.1:1"}}, resource.Invalid},
		"not there":   {remote.Config{Servers: []string{"http://127.0.0.1:1"}, Patience: time.Millisecond}, resource.Unavailable},
		"not allowed": {remote.Config{Servers: []string{guarded.URL}}, resource.Permission},
	} {
		c.cfg.Logger = quiet()
		l, err := remote.Open(context.Background(), c.cfg)
		if resource.CodeOf(err) != c.code || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%s: got %v; want %v", name, err, c.code)
		}
		if l != nil {
			t.Errorf("%s: opened", name)
		}
	}
	for path, want := range map[string]int{
		remote.Path + "hello": http.StatusBadRequest, remote.Path + "decide": http.StatusBadRequest, remote.Path + "annotate?id=x": http.StatusBadRequest,
		remote.Path + "lookup": http.StatusBadRequest, remote.Path + "lookup?id=x": http.StatusNotFound, remote.Path + "list?status=-1": http.StatusBadRequest,
		remote.Path + "else": http.StatusNotFound, remote.Path + "forget?id=x": http.StatusNotFound,
	} {
		resp, err := http.Post(servers[0].URL+path, "application/cbor", strings.NewReader("\xff\xff"))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %s, %v; want %d", path, resp.Status, err, want)
		}
	}
}
