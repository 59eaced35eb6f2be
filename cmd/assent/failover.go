package main

import (
	"bytes"
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

// maxRepeated is the greatest body that is kept to be sent again.
const maxRepeated = 64 << 20

// RoundTrip sends the request. Only what cannot have been done is sent again: a connection was refused, or
// the server itself says so.
func (f *failover) RoundTrip(req *http.Request) (*http.Response, error) {
	body, again, err := bodyOf(req)
	if err != nil {
		return nil, err
	}
	first := int(f.last.Load())
	var refused *http.Response // by a server that has done nothing and has said why
	for i := range f.servers {
		at := (first + i) % len(f.servers)
		response, err := f.next.RoundTrip(f.addressed(req, at, body))
		lastOne := i == len(f.servers)-1 || !again || req.Context().Err() != nil
		switch {
		case err != nil && lastOne && refused != nil && notSent(err):
			return refused, nil // which says more than that nobody else is there
		case err != nil && (lastOne || !notSent(err)):
			return nil, err
		case err == nil && (lastOne || response.Header.Get(api.HeaderElsewhere) == ""):
			f.last.Store(int32(at))
			return response, nil
		case err == nil:
			refused = inMemory(response)
		}
	}
	return nil, errors.New("there is no server") // the list is not empty
}

// inMemory returns the response with its body read, as far as an error is long, so that its connection can be used again.
func inMemory(response *http.Response) *http.Response {
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10)) // what is missing is missed when it is decoded
	_ = response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response
}

// bodyOf reads the body of a request, so that each attempt has a reader of its own: those that
// http.Request.GetBody returns may share what an earlier attempt has read or closed. again is false, and
// the body is left alone, where it is too long for that or of unknown length.
func bodyOf(req *http.Request) (body []byte, again bool, err error) {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return nil, true, nil
	case req.ContentLength < 0 || req.ContentLength > maxRepeated:
		return nil, false, nil
	}
	body, err = io.ReadAll(io.LimitReader(req.Body, maxRepeated))
	return body, true, errors.Join(err, req.Body.Close())
}

// addressed returns the request for a server, with a body of its own if there is one.
func (f *failover) addressed(req *http.Request, at int, body []byte) *http.Request {
	attempt := req.Clone(req.Context())
	attempt.URL.Scheme, attempt.URL.Host = f.servers[at].Scheme, f.servers[at].Host
	attempt.Host = f.servers[at].Host
	if body != nil {
		attempt.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		attempt.Body, _ = attempt.GetBody() // which does not fail
	}
	return attempt
}

// notSent reports whether err says that no connection was made.
func notSent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
