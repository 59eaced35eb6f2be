package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"assent/api"
)

// failover sends each request to one server of several: to the one that has answered last, and, where that
// certainly has done nothing, to the next.
type failover struct {
	servers []*url.URL
	next    http.RoundTripper
	last    atomic.Int32
}

// RoundTrip sends the request. Only what cannot have been done is sent again: a connection was refused, or
// the server itself says so.
func (f *failover) RoundTrip(req *http.Request) (*http.Response, error) {
	first := int(f.last.Load())
	for i := range f.servers {
		at := (first + i) % len(f.servers)
		attempt, again := f.addressed(req, at, i > 0)
		if attempt == nil {
			return nil, errors.New("the request cannot be sent again")
		}
		response, err := f.next.RoundTrip(attempt)
		lastOne := i == len(f.servers)-1 || !again || req.Context().Err() != nil
		switch {
		case err != nil && (lastOne || !notSent(err)):
			return nil, err
		case err == nil && (lastOne || response.Header.Get(api.HeaderElsewhere) == ""):
			f.last.Store(int32(at))
			return response, nil
		case err == nil:
			_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection is used again
			_ = response.Body.Close()
		}
	}
	return nil, errors.New("there is no server") // the list is not empty
}

// addressed returns the request for a server, nil where its body is gone, and whether it can be sent once
// more.
func (f *failover) addressed(req *http.Request, at int, repeated bool) (attempt *http.Request, again bool) {
	attempt = req.Clone(req.Context())
	attempt.URL.Scheme, attempt.URL.Host = f.servers[at].Scheme, f.servers[at].Host
	attempt.Host = f.servers[at].Host
	again = req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	if repeated && req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, false
		}
		attempt.Body = body
	}
	return attempt, again
}

// notSent reports whether err says that no connection was made.
func notSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
