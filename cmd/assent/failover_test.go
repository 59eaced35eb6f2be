package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"assent/api"
)

// shared is the body of a request whose GetBody returns the same reader again, as some clients' does.
type shared struct {
	*strings.Reader
	closed bool
}

// Close implements io.Closer.
func (s *shared) Close() error {
	s.closed = true
	return nil
}

// Read implements io.Reader.
func (s *shared) Read(p []byte) (int, error) {
	if s.closed {
		return 0, io.EOF
	}
	return s.Reader.Read(p)
}

// TestFailoverKeepsTheBody: whatever became of it at a server that did nothing, the next one gets the whole
// request.
func TestFailoverKeepsTheBody(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set(api.HeaderElsewhere, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer elsewhere.Close()
	var got []string
	good := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, string(data))
	}))
	defer good.Close()
	refused := httptest.NewServer(nil)
	refused.Close()
	f := &failover{next: &http.Transport{}}
	for _, address := range []string{refused.URL, elsewhere.URL, good.URL} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		f.servers = append(f.servers, u)
	}
	for _, text := range []string{"the whole request", ""} {
		f.last.Store(0)
		body := &shared{Reader: strings.NewReader(text)}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://assent.invalid/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength, req.GetBody = int64(len(text)), func() (io.ReadCloser, error) { return body, nil }
		response, err := f.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK || !body.closed {
			t.Errorf("%q: status %d, %v; the body was closed: %v", text, response.StatusCode, err, body.closed)
		}
	}
	if strings.Join(got, "|") != "the whole request|" {
		t.Errorf("the server got %q", got)
	}
}

// TestFailoverKeepsTheReason: where one server says why it did nothing and no other is there, its answer is returned.
func TestFailoverKeepsTheReason(t *testing.T) {
	const why = "too few of the others answer"
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(api.HeaderElsewhere, "1")
		http.Error(w, why, http.StatusServiceUnavailable)
	}))
	defer elsewhere.Close()
	away := httptest.NewServer(nil)
	away.Close()
	for _, addresses := range [][]string{{elsewhere.URL, away.URL, away.URL}, {away.URL, elsewhere.URL, away.URL}, {away.URL, elsewhere.URL}} {
		f := &failover{next: &http.Transport{}}
		for _, address := range addresses {
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			f.servers = append(f.servers, u)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://assent.invalid/", strings.NewReader("request"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := f.RoundTrip(req)
		if err != nil {
			t.Fatalf("%v: %v", addresses, err)
		}
		said, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusServiceUnavailable || strings.TrimSpace(string(said)) != why {
			t.Errorf("%v: status %d, %q, %v", addresses, response.StatusCode, said, err)
		}
	}
}

// A body of unknown length is sent once, to the first server.
func TestFailoverOfAStream(t *testing.T) {
	refused := httptest.NewServer(nil)
	refused.Close()
	u, err := url.Parse(refused.URL)
	if err != nil {
		t.Fatal(err)
	}
	f := &failover{next: &http.Transport{}, servers: []*url.URL{u, u}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://assent.invalid/", io.NopCloser(strings.NewReader("a stream")))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1
	if response, err := f.RoundTrip(req); err == nil || !notSent(err) || errors.Is(err, io.EOF) {
		if err == nil {
			err = response.Body.Close()
		}
		t.Errorf("it ends with %v", err)
	}
}
