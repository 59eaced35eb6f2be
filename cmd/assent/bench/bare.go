package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"assent/decision"
)

// bare is a floor: what callers bring while a write is under way is made stable together by the next one. It
// finds nothing again and tells nobody what stands.
type bare struct {
	calls *decision.Grouper[*appending]
	// beside is how many bytes a decision takes besides its entry.
	beside int
	store  bareStore
}

// bareStore is where a bare floor keeps its bytes. Its methods are called by one goroutine at a time.
type bareStore interface {
	// force returns when data is stable.
	force(data []byte) error
	close() error
}

type appending struct {
	data []byte
	err  error
}

func newBare(store bareStore, beside int) *bare {
	b := &bare{beside: beside, store: store}
	b.calls = decision.NewGrouper(decision.GrouperConfig[*appending]{
		Serve: b.append, Workers: 1, MostCalls: 4096, MostBytes: 4 << 20, MostWaiting: 1 << 16,
		Size: func(a *appending) int { return len(a.data) },
	})
	return b
}

func (b *bare) append(group []*appending) {
	var all []byte
	for _, a := range group {
		all = append(all, a.data...)
	}
	err := b.store.force(all)
	for _, a := range group {
		a.err = err
	}
}

func (b *bare) decide(ctx context.Context, e decision.Entry) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	a := &appending{data: append(data, make([]byte, b.beside)...)}
	if err := b.calls.Do(ctx, a); err != nil {
		return err
	}
	return a.err
}

func (b *bare) close() error {
	b.calls.Close()
	return b.store.close()
}

// plainFile is a file that only grows.
type plainFile struct{ *os.File }

func createPlainFile(path string) (plainFile, error) {
	f, err := os.Create(path)
	return plainFile{f}, err
}

func (f plainFile) force(data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	return syscall.Fdatasync(int(f.Fd()))
}

func (f plainFile) close() error { return f.File.Close() }

func openBareLog(_ context.Context, dir string) (decider, error) {
	f, err := createPlainFile(filepath.Join(dir, "file"))
	if err != nil {
		return nil, err
	}
	return newBare(f, 0), nil
}

// paxosBeside is how many bytes more than its entry decision/paxos writes for a decision, at each member: its
// id once more, two ballots, and that it is chosen. A test holds it to that.
const paxosBeside = 200

// bareMajority is what no decision of three members can do without: the bytes go to two others by TCP, all three
// append and force them, and they count as stable when they are so here and at one other. Here is where the
// callers are, so that is a round trip and a sync at the same time as another.
type bareMajority struct {
	own    plainFile
	others [2]*follower
	sent   uint64
	// told has a value when a follower has answered that more is stable.
	told chan struct{}
	// life ends, with a cause, when a follower fails.
	life    context.Context
	end     context.CancelCauseFunc
	working sync.WaitGroup
}

// follower is one of the others, as the first sees it.
type follower struct {
	conn   net.Conn
	stable atomic.Uint64 // of the bytes that were sent to it
}

func openBareMajority(ctx context.Context, dir string) (_ decider, err error) {
	m := &bareMajority{told: make(chan struct{}, 1)}
	m.life, m.end = context.WithCancelCause(context.WithoutCancel(ctx))
	if m.own, err = createPlainFile(filepath.Join(dir, "file-1")); err != nil {
		return nil, err
	}
	for i := range m.others {
		if m.others[i], err = m.startFollower(filepath.Join(dir, fmt.Sprint("file-", i+2))); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return newBare(m, paxosBeside), nil
}

// startFollower starts a follower and connects to it.
func (m *bareMajority) startFollower(path string) (*follower, error) {
	file, err := createPlainFile(path)
	if err != nil {
		return nil, err
	}
	near, far, err := connected()
	if err != nil {
		return nil, errors.Join(err, file.close())
	}
	m.working.Go(func() { m.end(errors.Join(follow(far, file), far.Close(), file.close())) })
	f := &follower{conn: near}
	m.working.Go(func() { m.end(m.listen(f)) })
	return f, nil
}

// connected returns both ends of a TCP connection over the loopback.
func connected() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if far, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	return near, far, nil
}

// follow appends to the file what comes, all that is there at once, forces it, and answers how many bytes are
// stable, until the connection ends.
func follow(conn net.Conn, file plainFile) error {
	data := make([]byte, 4<<20)
	var answer [8]byte
	for stable := uint64(0); ; {
		n, err := conn.Read(data)
		if err != nil {
			return fmt.Errorf("read what is to be appended: %w", err)
		}
		if err := file.force(data[:n]); err != nil {
			return err
		}
		stable += uint64(n)
		binary.BigEndian.PutUint64(answer[:], stable)
		if _, err := conn.Write(answer[:]); err != nil {
			return fmt.Errorf("answer what is stable: %w", err)
		}
	}
}

// listen takes a follower's answers until the connection ends.
func (m *bareMajority) listen(f *follower) error {
	var answer [8]byte
	for {
		if _, err := io.ReadFull(f.conn, answer[:]); err != nil {
			return fmt.Errorf("wait for a follower: %w", err)
		}
		f.stable.Store(binary.BigEndian.Uint64(answer[:]))
		select {
		case m.told <- struct{}{}:
		default: // it is about to look
		}
	}
}

func (m *bareMajority) force(data []byte) error {
	m.sent += uint64(len(data))
	for _, f := range m.others {
		if _, err := f.conn.Write(data); err != nil {
			return fmt.Errorf("send to a follower: %w", err)
		}
	}
	if err := m.own.force(data); err != nil {
		return err
	}
	for max(m.others[0].stable.Load(), m.others[1].stable.Load()) < m.sent {
		select {
		case <-m.told:
		case <-m.life.Done():
			return context.Cause(m.life)
		}
	}
	return nil
}

func (m *bareMajority) close() (err error) {
	for _, f := range m.others {
		if f != nil {
			err = errors.Join(err, f.conn.Close()) // its goroutines end by that
		}
	}
	m.working.Wait()
	return errors.Join(err, m.own.close())
}
