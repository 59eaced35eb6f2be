package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

var (
	_ decision.Log      = (*Log)(nil)
	_ decision.Prefixer = (*Log)(nil)
)

// Log is the decision log of some servers. All methods are safe for concurrent use.
type Log struct {
	cfg    Config
	owner  string
	prefix string
	at     atomic.Int64 // the server that answered last
	away   atomic.Bool  // none did
	// replaced is set when a server has answered for another log.
	replaced atomic.Bool

	// life ends with Close.
	life  context.Context
	end   context.CancelFunc
	tasks sync.WaitGroup
}

// Open opens the log of the servers, of which one must answer. A manager of it shares it with those of
// the servers: give its Config an OrphanGrace of a minute. Errors carry a hint (resource.HintOf).
func Open(ctx context.Context, cfg Config) (*Log, error) {
	const op = "open decision log"
	if err := cfg.validate(); err != nil {
		return nil, invalid(op, err)
	}
	l := &Log{cfg: cfg, prefix: newPrefix()}
	l.life, l.end = context.WithCancel(context.Background())
	_, err := l.call(ctx, "hello", nil, []byte(l.prefix), func(resp *http.Response) error {
		l.owner = resp.Header.Get(ownerHeader)
		return nil
	})
	if err != nil {
		l.end()
		return nil, l.told(ctx, op, err)
	}
	for i := range cfg.Servers {
		l.tasks.Go(func() { l.announce(i) })
	}
	return l, nil
}

// announcement is the pause between two words to a server: several fit into the silence after which it
// takes this process for gone.
const announcement = silence / 5

// announce tells a server again and again that this process lives. One that is away is told when it is back.
func (l *Log) announce(server int) {
	ticker := time.NewTicker(announcement)
	defer ticker.Stop()
	heard := true
	for {
		err := l.hello(server)
		switch {
		case l.life.Err() != nil:
			return
		case err != nil && heard:
			l.cfg.Logger.Warn("a server is not told that this process lives, and may settle what it has prepared",
				"server", l.cfg.Servers[server], "cause", err)
		case err == nil && !heard:
			l.cfg.Logger.Info("a server is told again that this process lives", "server", l.cfg.Servers[server])
		}
		heard = err == nil
		select {
		case <-ticker.C:
		case <-l.life.Done():
			return
		}
	}
}

// hello tells a server once.
func (l *Log) hello(server int) error {
	ctx, cancel := context.WithTimeout(l.life, silence/2)
	defer cancel()
	resp, err := l.send(ctx, server, "hello", nil, []byte(l.prefix))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return readProblem(resp)
	}
	return nil
}

// Close ends the announcements. It is not an error to close a log twice.
func (l *Log) Close() error {
	l.end()
	l.tasks.Wait()
	l.cfg.Client.CloseIdleConnections()
	return nil
}

// Owner implements decision.Log: the servers' log's.
func (l *Log) Owner() string { return l.owner }

// Prefix implements decision.Prefixer. By it the servers know that a transaction's manager lives.
func (l *Log) Prefix() string { return l.prefix }

func (l *Log) send(ctx context.Context, server int, method string, query url.Values, body []byte) (*http.Response, error) {
	address := l.cfg.Servers[server] + Path + method
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if l.owner != "" {
		req.Header.Set(ownerHeader, l.owner)
	}
	if l.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+l.cfg.Token)
	}
	return l.cfg.Client.Do(req)
}

// errReplaced says that a server answers for another log.
var errReplaced = errors.New("the servers keep another decision log than when this one was opened")

// call asks the servers one after the other, beginning with the one that answered last, until one
// answers, says no for good, or Patience is over. read takes the answer. unknown says that an attempt
// before the last may have been carried out.
func (l *Log) call(ctx context.Context, method string, query url.Values, body []byte, read func(*http.Response) error) (unknown bool, err error) {
	begin := time.Now()
	for tries := 1; ; tries++ {
		server := int(l.at.Load())
		err := l.callOnce(ctx, server, method, query, body, read)
		if !retryable(err) {
			if err == nil && l.away.Swap(false) {
				l.cfg.Logger.Info("the decision log answers again", "server", l.cfg.Servers[server])
			}
			return unknown, err
		}
		unknown = true
		l.at.CompareAndSwap(int64(server), int64((server+1)%len(l.cfg.Servers)))
		switch {
		case context.Cause(ctx) != nil:
			return unknown, context.Cause(ctx)
		case l.life.Err() != nil:
			return unknown, decision.ErrClosed
		case time.Since(begin) >= l.cfg.Patience:
			if !l.away.Swap(true) {
				l.cfg.Logger.Error("the decision log does not decide", "servers", l.cfg.Servers, "cause", err)
			}
			return unknown, err
		}
		if tries%len(l.cfg.Servers) == 0 { // all have been asked
			select {
			case <-time.After(min(time.Duration(tries)*10*time.Millisecond, 200*time.Millisecond)):
			case <-ctx.Done():
			}
		}
	}
}

// retryable reports whether another server, or the same one later, may answer better. What was asked may have
// been done then.
func retryable(err error) bool {
	if err == nil || errors.Is(err, errReplaced) || errors.Is(err, decision.ErrNotFound) {
		return false
	}
	a, ok := errors.AsType[*answered](err)
	return !ok || a.status >= http.StatusInternalServerError && resource.Code(a.Code) != resource.Capacity
}

// callOnce asks one server. A listing may take any time once it has begun, for it waits for its reader.
func (l *Log) callOnce(ctx context.Context, server int, method string, query url.Values, body []byte, read func(*http.Response) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(l.cfg.AttemptTimeout, cancel)
	defer timer.Stop()
	resp, err := l.send(ctx, server, method, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if method == "list" {
		timer.Stop()
	}
	owner := resp.Header.Get(ownerHeader)
	if owner != "" && l.owner != "" && owner != l.owner {
		if !l.replaced.Swap(true) {
			l.cfg.Logger.Error("the decision log does not decide", "cause", errReplaced, "server", l.cfg.Servers[server])
		}
		return errReplaced
	}
	if resp.StatusCode != http.StatusOK {
		return readProblem(resp)
	}
	if owner == "" {
		return &answered{problem{Text: "the server is no assent server, or one without a register"}, http.StatusBadGateway}
	}
	return read(resp)
}

// ready reports why nothing can be asked of l, or nil.
func (l *Log) ready(ctx context.Context, op string) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case l.life.Err() != nil:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	case l.replaced.Load():
		return l.told(ctx, op, errReplaced)
	}
	return nil
}

// told puts an error into the words of op, with what a person can do about it.
func (l *Log) told(ctx context.Context, op string, err error) error {
	a, ok := errors.AsType[*answered](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, decision.ErrNotFound), errors.Is(err, decision.ErrClosed):
		return fmt.Errorf("%s: %w", op, err)
	case errors.Is(err, errReplaced):
		return &resource.Error{Code: resource.Unavailable, Op: op, Err: fmt.Errorf("%w: %w", decision.ErrStopped, err),
			Hint: "name the servers that keep the log; transactions in doubt need it"}
	case ctx.Err() != nil && !ok:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case ok && a.Code != 0:
		return &resource.Error{Code: resource.Code(a.Code), Op: op, Hint: a.Hint, Err: err}
	case ok && (a.status == http.StatusUnauthorized || a.status == http.StatusForbidden):
		return &resource.Error{Code: resource.Permission, Op: op, Hint: "send a token that has the role decide", Err: err}
	}
	return &resource.Error{Code: resource.Unavailable, Op: op, Err: err,
		Hint: "look whether one of the servers is up and can be reached; nothing that was decided is lost"}
}

// readEntry reads an answer that is an entry.
func readEntry(resp *http.Response, id commit.TransactionID) (decision.Entry, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return decision.Entry{}, err
	}
	e, err := decision.DecodeEntry(data)
	if err == nil && e.ID != id {
		err = fmt.Errorf("the answer is about %q", e.ID)
	}
	return e, err
}

// Decide implements decision.Log. When ctx ends first, what was asked may still be done.
func (l *Log) Decide(ctx context.Context, e decision.Entry) (stands decision.Entry, err error) {
	const op = "decide"
	if err := l.ready(ctx, op); err != nil {
		return stands, err
	}
	if err := e.Check(); err != nil {
		return stands, invalid(op, err)
	}
	body, err := e.Normal().Encode()
	if err != nil {
		return stands, invalid(op, err)
	}
	_, err = l.call(ctx, op, nil, body, func(resp *http.Response) (err error) {
		stands, err = readEntry(resp, e.ID)
		return err
	})
	return stands, l.told(ctx, op, err)
}

// Lookup implements decision.Register.
func (l *Log) Lookup(ctx context.Context, id commit.TransactionID) (e decision.Entry, err error) {
	const op = "look up"
	if err := l.ready(ctx, op); err != nil {
		return e, err
	}
	if err := decision.CheckID(id); err != nil {
		return e, invalid(op, err)
	}
	_, err = l.call(ctx, "lookup", url.Values{"id": {string(id)}}, nil, func(resp *http.Response) (err error) {
		e, err = readEntry(resp, id)
		return err
	})
	return e, l.told(ctx, op, err)
}

// Annotate implements decision.Log. A note that an earlier attempt may have written is looked for before
// it is written again; all the same it may stand twice, where a server carries out late what it was asked.
func (l *Log) Annotate(ctx context.Context, id commit.TransactionID, n decision.Note) error {
	const op = "annotate"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := errors.Join(decision.CheckID(id), n.Check()); err != nil {
		return invalid(op, err)
	}
	body, err := n.Normal().Encode()
	if err != nil {
		return invalid(op, err)
	}
	query := url.Values{"id": {string(id)}, "forced": {strconv.FormatBool(n.Forced)}}
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		server := l.at.Load()
		err = l.callOnce(ctx, int(server), op, query, body, taken)
		if !retryable(err) || ctx.Err() != nil || time.Since(begin) >= l.cfg.Patience {
			return l.told(ctx, op, err)
		}
		l.at.CompareAndSwap(server, (server+1)%int64(len(l.cfg.Servers)))
		e, err := l.Lookup(ctx, id) // at whichever server answers, to which the next attempt goes
		if err != nil || slices.Contains(e.Notes, n.Normal()) {
			return err
		}
	}
}

// Forget implements decision.Log.
func (l *Log) Forget(ctx context.Context, id commit.TransactionID) error {
	const op = "forget"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := decision.CheckID(id); err != nil {
		return invalid(op, err)
	}
	unknown, err := l.call(ctx, op, url.Values{"id": {string(id)}}, nil, taken)
	if unknown && errors.Is(err, decision.ErrNotFound) {
		return nil // an attempt before did it
	}
	return l.told(ctx, op, err)
}

// taken reads an answer that says nothing but that it was done.
func taken(*http.Response) error { return nil }

// List implements decision.Log. Where a server goes away in the middle of a listing, that is an error.
func (l *Log) List(ctx context.Context, status decision.Status) iter.Seq2[decision.Entry, error] {
	const op = "list"
	return func(yield func(decision.Entry, error) bool) {
		if err := l.ready(ctx, op); err != nil {
			yield(decision.Entry{}, err)
			return
		}
		stopped := false
		listing := func(resp *http.Response) error {
			for r := bufio.NewReader(resp.Body); ; {
				data, err := readFrame(r)
				if err != nil || len(data) == 0 {
					return final(err)
				}
				e, err := decision.DecodeEntry(data)
				if err != nil {
					return final(err)
				}
				if stopped = !yield(e, nil); stopped {
					return nil
				}
			}
		}
		if _, err := l.call(ctx, op, url.Values{"status": {strconv.Itoa(int(status))}}, nil, listing); err != nil && !stopped {
			yield(decision.Entry{}, l.told(ctx, op, err))
		}
	}
}

// final makes an error one after which no other server is asked: some of the answer was taken.
func final(err error) error {
	if err == nil {
		return nil
	}
	return &answered{problem{Text: err.Error(), Code: uint8(resource.Unavailable), Hint: "list again"}, http.StatusOK}
}
