package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	assentv1 "assent/api/assent/v1"
)

// TestUnsureOfChange: exit code 8 says that a change may have been made, and is never missing where it may.
func TestUnsureOfChange(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	told := func(code connect.Code, detail *assentv1.ErrorDetail) error {
		err := connect.NewError(code, errors.New("text"))
		if detail != nil {
			d, derr := connect.NewErrorDetail(detail)
			if derr != nil {
				t.Fatal(derr)
			}
			err.AddDetail(d)
		}
		return err
	}
	called := func(err error) error {
		return unreachable("127.0.0.1:1", connect.NewError(connect.CodeUnavailable, &url.Error{Op: "Post", URL: "http://127.0.0.1:1", Err: err}))
	}
	for name, c := range map[string]struct {
		err  error
		exit int
	}{
		"the cluster has not answered":  {told(connect.CodeDeadlineExceeded, &assentv1.ErrorDetail{Unsure: true}), exitUnsure},
		"refused":                       {told(connect.CodeFailedPrecondition, &assentv1.ErrorDetail{Hint: "x"}), exitError},
		"too few answer, nothing done":  {told(connect.CodeUnavailable, &assentv1.ErrorDetail{Elsewhere: true}), exitError},
		"too late":                      {told(connect.CodeAborted, &assentv1.ErrorDetail{}), exitChanged},
		"no server":                     {called(refused), exitError},
		"no TLS there":                  {called(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), exitError},
		"the connection broke":          {called(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), exitUnsure},
		"the server died":               {called(errors.New("unexpected EOF")), exitUnsure},
		"no time left":                  {unreachable("x", connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)), exitUnsure},
		"a proxy has an opinion":        {told(connect.CodeInternal, nil), exitUnsure},
		"an older server":               {told(connect.CodeUnimplemented, nil), exitError},
		"not let in by somebody before": {told(connect.CodePermissionDenied, nil), exitError},
	} {
		p := &program{running: true}
		if f := p.explain(unsureOfChange(c.err)); f.exit != c.exit || f.text == "" || c.exit == exitUnsure && f.hint == "" && name != "the cluster has not answered" {
			t.Errorf("%s: exit code %d, want %d: %s", name, f.exit, c.exit, fmt.Sprint(f.text, "; ", f.hint))
		}
	}
}
