package remote

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// Handler answers for a log. It belongs at Path, behind something that knows who may ask: whoever may,
// may propose commit. All methods are safe for concurrent use.
type Handler struct {
	log decision.Log
	mux *http.ServeMux

	mu    sync.Mutex
	heard map[string]time.Time // when each prefix was announced last
}

// NewHandler returns what answers for log. It does not close it.
func NewHandler(log decision.Log) *Handler {
	h := &Handler{log: log, mux: http.NewServeMux(), heard: map[string]time.Time{}}
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request, []byte) error{
		"hello": h.hello, "decide": h.decide, "lookup": h.lookup, "annotate": h.annotate, "forget": h.forget, "list": h.list,
	} {
		h.mux.HandleFunc("POST "+Path+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(ownerHeader, log.Owner())
			if meant := r.Header.Get(ownerHeader); meant != "" && meant != log.Owner() {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				err = invalid(name, err)
			} else {
				err = serve(w, r, body)
			}
			if err != nil {
				tell(w, err)
			}
		})
	}
	return h
}

// ServeHTTP answers a request of a Log.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

const (
	// silence is after how long without a word a process is taken for gone.
	silence = 2 * time.Second
	// mostHeard bounds the processes that are remembered.
	mostHeard = 4096
)

// Alive reports whether the process that began the transaction has lately said that it lives. It is for
// assent.Config.
func (h *Handler) Alive(id commit.TransactionID) bool {
	if len(id) < prefixSize {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.heard[string(id[:prefixSize])]) < silence
}

// hello takes note that a process lives.
func (h *Handler) hello(_ http.ResponseWriter, _ *http.Request, body []byte) error {
	prefix := string(body)
	if len(prefix) != prefixSize || resource.CheckName(prefix) != nil {
		return invalid("announce a process", fmt.Errorf("%.40q is no prefix of %d letters and digits", prefix, prefixSize))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.heard[prefix]; !known && len(h.heard) >= mostHeard {
		for p, at := range h.heard {
			if time.Since(at) >= silence {
				delete(h.heard, p)
			}
		}
		if len(h.heard) >= mostHeard {
			return &resource.Error{Code: resource.Capacity, Op: "announce a process", Err: fmt.Errorf("%d processes use the log already", mostHeard)}
		}
	}
	h.heard[prefix] = time.Now()
	return nil
}

func (h *Handler) decide(w http.ResponseWriter, r *http.Request, body []byte) error {
	e, err := decision.DecodeEntry(body)
	if err != nil {
		return invalid("decide", err)
	}
	stands, err := h.log.Decide(r.Context(), e)
	if err != nil {
		return err
	}
	return write(w, stands)
}

// write answers with an entry.
func write(w http.ResponseWriter, e decision.Entry) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	_, _ = w.Write(data) // whoever asked has gone
	return nil
}

func id(r *http.Request) commit.TransactionID { return commit.TransactionID(r.URL.Query().Get("id")) }

func (h *Handler) lookup(w http.ResponseWriter, r *http.Request, _ []byte) error {
	e, err := h.log.Lookup(r.Context(), id(r))
	if err != nil {
		return err
	}
	return write(w, e)
}

func (h *Handler) annotate(_ http.ResponseWriter, r *http.Request, body []byte) error {
	n, err := decision.DecodeNote(body)
	if err != nil {
		return invalid("annotate", err)
	}
	n.Forced = r.URL.Query().Get("forced") == "true"
	return h.log.Annotate(r.Context(), id(r), n)
}

func (h *Handler) forget(_ http.ResponseWriter, r *http.Request, _ []byte) error {
	return h.log.Forget(r.Context(), id(r))
}

// list sends entries as they are found. What goes wrong after the first one cuts the answer short.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, _ []byte) error {
	status, err := strconv.ParseUint(r.URL.Query().Get("status"), 10, 8)
	if err != nil {
		return invalid("list", err)
	}
	begun := false
	for e, err := range h.log.List(r.Context(), decision.Status(status)) {
		var data []byte
		if err == nil {
			data, err = e.Encode()
		}
		switch {
		case err != nil && begun:
			panic(http.ErrAbortHandler)
		case err != nil:
			return err
		}
		begun = true
		if writeFrame(w, data) != nil {
			return nil // whoever asked has gone
		}
	}
	_ = writeFrame(w, nil)
	return nil
}

// invalid says that a request is wrong, and why.
func invalid(op string, err error) error {
	return &resource.Error{Code: resource.Invalid, Op: strings.TrimSpace(op), Err: err}
}
