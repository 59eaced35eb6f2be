package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource/kv"
	"assent/trace"
)

// told is who was sent anything of each transaction.
type told struct {
	mu  sync.Mutex
	who map[string][]protocol.NodeID
}

func (x *told) Observe(e trace.Event) {
	if e.Kind != trace.Send {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if node := nodeOf(e.Peer); !slices.Contains(x.who[e.Scope], node) {
		x.who[e.Scope] = append(x.who[e.Scope], node)
	}
}

func (x *told) has(t Transaction, node protocol.NodeID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Contains(x.who[string(t.ID)], node)
}

// TestWhoHasJoinedTakesPart: a node that came later coordinates, takes part and accepts; one that has left is not asked.
func TestWhoHasJoinedTakesPart(t *testing.T) {
	w := newWorld(t, 4, 1)
	asked := &told{who: map[string][]protocol.NodeID{}}
	w.observer = asked
	w.members("n1", "n2", "n3")
	for _, id := range w.nodes[:3] {
		w.up(id)
	}
	run := func(from protocol.NodeID, p Protocol, key string, sites ...protocol.NodeID) Transaction {
		t.Helper()
		tx := w.begin(from, p)
		if err := w.put(tx, key, sites...); err != nil {
			t.Fatal(err)
		}
		r, err := w.host(from).Commit(t.Context(), tx, sites, true)
		if err != nil || r.Decision != commit.Commit || !r.Finished {
			t.Fatalf("%s, begun at %s: %+v, %v", p, from, r, err)
		}
		for _, id := range sites {
			if !w.holds(id, key, tx) {
				t.Errorf("%s, begun at %s: %s has not committed", p, from, id)
			}
		}
		return tx
	}
	for _, p := range Protocols() {
		run("n1", p, "three "+string(p), "n1", "n2", "n3")
	}
	w.up("n4")
	w.members(w.nodes...)
	for _, p := range Protocols() {
		run("n4", p, "by n4 "+string(p), "n1", "n4")
		run("n1", p, "at n4 "+string(p), "n4", "n2")
	}
	if tx := run("n1", PaxosCommit, "apart", "n2"); !asked.has(tx, "n4") && len(w.host("n4").List()) == 0 {
		t.Error("n4 is no acceptor")
	}
	w.members("n2", "n3", "n4")
	for _, p := range Protocols() {
		if tx := run("n4", p, "without n1 "+string(p), "n2", "n3", "n4"); asked.has(tx, "n1") {
			t.Errorf("%s: n1, which has left, is asked", p)
		}
	}
	tx := w.begin("n1", PaxosCommit)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := w.host("n1").Commit(ctx, tx, []protocol.NodeID{"n2"}, true); !errors.Is(err, ErrAlone) {
		t.Errorf("n1, which has left, commits: %v", err)
	}
	if err := w.host("n1").Abort(tx, []protocol.NodeID{"n2"}, "it has left"); !errors.Is(err, ErrAlone) || w.in("n1", tx).ID != "" {
		t.Errorf("n1, which has left, aborts: %v, and then has %+v", err, w.in("n1", tx))
	}
}

// both tells two observers.
type both [2]trace.Observer

func (b both) Observe(e trace.Event) {
	b[0].Observe(e)
	b[1].Observe(e)
}

// moving is a transaction by Paxos Commit of n1, n2 and n3 whose coordinator n1 is never heard of again once all have
// voted yes. At that moment then changes the world. A machine may be so busy that somebody loses patience before, and
// learns the decision in another way: check reports false where the world is not the one to look at, and it is made anew.
func moving(t *testing.T, then func(w *world), check func(w *world, tx Transaction, asked *told) bool) {
	t.Helper()
	for range 20 {
		w := newWorld(t, 5, 1)
		w.hurry = 300 * time.Millisecond
		asked := &told{who: map[string][]protocol.NodeID{}}
		w.members("n1", "n2", "n3")
		committed := make(chan bool, 1)
		w.observer = both{asked, &trap{when: lastWord, spring: func(e trace.Event) {
			w.silence("n1")
			then(w)
			f, ok := e.Value.(commit.Finish)
			committed <- ok && f.Decision == commit.Commit
		}}}
		w.all()
		tx := w.begin("n1", PaxosCommit)
		if err := w.put(tx, "key", "n1", "n2", "n3"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, _ = w.host("n1").Commit(ctx, tx, []protocol.NodeID{"n1", "n2", "n3"}, false)
		cancel()
		w.crash("n1")
		select {
		case ok := <-committed:
			if ok && check(w, tx, asked) {
				return
			}
		default:
		}
		for _, id := range w.nodes {
			w.crash(id)
		}
	}
	t.Fatal("twenty times it did not come to what is to be looked at")
}

// in returns what the node says of the transaction.
func (w *world) in(id protocol.NodeID, t Transaction) Status {
	for _, s := range w.host(id).List() {
		if s.ID == t.ID {
			return s
		}
	}
	return Status{}
}

// says waits until what the node says of the transaction is so.
func (w *world) says(id protocol.NodeID, t Transaction, so func(Status) bool) {
	w.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		s := w.in(id, t)
		if s.ID != "" && so(s) {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("%s still says %+v", id, s)
		}
	}
}

// awaits waits until the node awaits those sites, and no others.
func (w *world) awaits(id protocol.NodeID, t Transaction, sites ...protocol.NodeID) {
	w.Helper()
	w.says(id, t, func(s Status) bool { return slices.Equal(s.Awaits, sites) })
}

// tidyUp has the sites forget what they may, and ask one another, more often than they would need to.
func (w *world) tidyUp(sites ...protocol.NodeID) {
	for range 50 {
		for _, id := range sites {
			w.host(id).sweep(ahead())
			w.host(id).askOthers(ahead())
		}
		time.Sleep(time.Millisecond) // for the answers; one that comes later makes the test see less
	}
}

// TestPartsTravel: who brings a transaction to its end asks those who were members when it began, whoever the members
// are by then.
func TestPartsTravel(t *testing.T) {
	t.Parallel() // it waits more than it works
	moving(t, func(w *world) { w.members("n3", "n4", "n5") }, func(w *world, tx Transaction, asked *told) bool {
		w.settled("n2", "n3")
		if !w.holds("n2", "key", tx) || !w.holds("n3", "key", tx) {
			t.Error("all had voted yes, a majority of the acceptors has that on record, and it is not committed")
		}
		if asked.has(tx, "n4") || asked.has(tx, "n5") || len(w.host("n4").List())+len(w.host("n5").List()) > 0 {
			t.Error("a node that joined later was asked")
		}
		w.crash("n3")
		w.up("n3")
		if s := w.in("n3", tx); s.View != 1 || len(s.Parts) != 3 || s.Parts[0].Node != "n1" {
			t.Errorf("n3 has on record %+v", s.Transaction)
		}
		return true
	})
}

// TestNoMajorityOfItsAcceptors: where a majority of a transaction's own acceptors is gone it stays undecided, says so,
// and ends when one is back.
func TestNoMajorityOfItsAcceptors(t *testing.T) {
	t.Parallel() // it waits more than it works
	then := func(w *world) {
		w.silence("n2")
		w.members("n3", "n4", "n5")
	}
	moving(t, then, func(w *world, tx Transaction, _ *told) bool {
		s := w.in("n3", tx)
		if !s.InDoubt {
			return false
		}
		if s.Missing != "have left the cluster, or lost their records: 1 of 3 votes, 2 needed: n1 and n2 unreachable" {
			t.Errorf("n3 says %+v", s)
		}
		w.members("n2", "n3", "n4", "n5")
		if s := w.in("n3", tx); s.Missing != "" {
			t.Errorf("with n2 back n3 says %q", s.Missing)
		}
		w.heal()
		w.settled("n2", "n3")
		if !w.holds("n2", "key", tx) || !w.holds("n3", "key", tx) {
			t.Error("all had voted yes, and it is not committed")
		}
		return true
	})
}

// TestLostRecords: a node that comes back without what it had promised is not taken for the one that promised it.
func TestLostRecords(t *testing.T) {
	t.Parallel() // it waits more than it works
	moving(t, func(w *world) { w.silence("n3") }, func(w *world, tx Transaction, _ *told) bool {
		w.crash("n3")
		w.sites["n3"].disk = vfs.NewCrashableMem()
		w.heal()
		w.up("n3")
		time.Sleep(200 * time.Millisecond) // many times the pauses after which n2 asks
		if !w.in("n2", tx).InDoubt {
			return false
		}
		if s := w.in("n3", tx); s.ID != "" {
			t.Errorf("n3, which remembers nothing, says %+v", s)
		}
		w.up("n1")
		w.settled("n1", "n2")
		if !w.holds("n1", "key", tx) || !w.holds("n2", "key", tx) {
			t.Error("n1 and n2 differ, or have aborted what all had voted yes on")
		}
		return true
	})
}

// TestStrangers: what a node says of a transaction in which it has no part, or not that one, is not taken.
func TestStrangers(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.acceptors = []protocol.NodeID{"n1", "n2", "n3"}
	w.all()
	h := w.host("n2")
	good := w.begin("n1", PaxosCommit).settle(h.view(), []protocol.NodeID{"n2", "n3"})
	classic := w.begin("n1", TwoPhase).settle(h.view(), []protocol.NodeID{"n2"})
	other := func(change func(*Transaction)) Transaction {
		t := good
		t.Parts = slices.Clone(good.Parts)
		change(&t)
		return t
	}
	electorate := good.electorate()
	electorate.Acceptors.Write = 1
	finish := commit.Finish{ID: good.ID, Decision: commit.Abort}
	say := func(from protocol.NodeID, t Transaction, as, to protocol.NodeID, m any) error {
		w.Helper()
		body, err := h.codec.Encode(m)
		if err != nil {
			w.Fatal(err)
		}
		data, err := h.codec.Encode(letter{t, as, to, body})
		if err != nil {
			w.Fatal(err)
		}
		return h.accept(mail{from, data})
	}
	check := func(want string, err error) {
		w.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			w.Errorf("want %q, got %v", want, err)
		}
	}
	check(`node "n4" has no part`, say("n4", good, "n4", "n2", finish))
	check(`says that it is from "n1"`, say("n3", good, "n1", "n2", finish))
	check(`it is for "n3"`, say("n1", good, "n1", "n3", finish))
	check(`or none with "n2/c"`, say("n1", good, "n1", "n2/c", finish))
	check(`or none with "n2/c"`, say("n1", classic, "n1/c", "n2/c", finish))
	check(`no machine with the address "n1"`, say("n1", classic, "n1", "n2", finish))
	check(`this node has no part`, say("n1", other(func(t *Transaction) { t.Parts = slices.Delete(t.Parts, 1, 2) }), "n1", "n2", finish))
	check(`and this node has lost them`, say("n1", other(func(t *Transaction) { t.Parts[1].Storage = "older" }), "n1", "n2", finish))
	check(`node "n3" has two parts`, say("n1", other(func(t *Transaction) { t.Parts[0] = t.Parts[2] }), "n1", "n2", finish))
	check(`cannot have -1 votes`, say("n1", other(func(t *Transaction) { t.Parts[0].Votes = -1 }), "n1", "n2", finish))
	check(`another electorate`, say("n3", good, "n3", "n2", commit.Bundle{ID: good.ID, Electorate: electorate}))
	check(`another electorate`, say("n1", good, "n1", "n2", commit.Prepare{ID: good.ID, Electorate: electorate}))
	if all := h.List(); len(all) > 0 {
		t.Fatalf("n2 has made machines for strangers: %+v", all)
	}
	if err := say("n1", good, "n1", "n2", finish); err != nil {
		t.Fatal(err)
	}
	check(`has other parts`, say("n1", other(func(t *Transaction) { t.Parts[2].Votes = 5 }), "n1", "n2", finish))
	check(`is another`, say("n3", other(func(t *Transaction) { t.Coordinator = "n3" }), "n3", "n2", finish))
	completion := func(from protocol.NodeID, t Transaction) error {
		w.Helper()
		data, err := h.codec.Encode(completed{t})
		if err != nil {
			w.Fatal(err)
		}
		return h.accept(mail{from, data})
	}
	check(`node "n4" has no part`, completion("n4", good))
	check(`is not node "n3"'s to end`, completion("n3", other(func(t *Transaction) {
		t.Parts = slices.DeleteFunc(t.Parts, func(p Part) bool { return p.Node == "n3" })
		t.Parts = append(t.Parts, Part{Node: "n3", Storage: "its own", Site: true})
	})))
	// A transaction with work at this site is the one that has worked there.
	open := w.begin("n1", TwoPhase)
	if err := w.put(open, "key", "n2"); err != nil {
		t.Fatal(err)
	}
	stolen := open
	stolen.Coordinator = "n3"
	stolen = stolen.settle(h.view(), []protocol.NodeID{"n2"})
	check(`is not of this transaction`, say("n3", stolen, "n3/c", "n2", commit.Prepare{ID: open.ID}))
}

// TestLeave: a site leaves when nothing waits for it, takes no work meanwhile, and says what it waits for.
func TestLeave(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.all()
	h := w.host("n2")
	var until time.Time
	leave := func(patience time.Duration) (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		until, err = h.Leave(ctx)
		return err
	}
	tx := w.begin("n1", PaxosCommit)
	if err := w.put(tx, "key", "n1", "n2"); err != nil {
		t.Fatal(err)
	}
	own := w.begin("n2", TwoPhase)
	if err := leave(time.Millisecond); !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), fmt.Sprintf("%s (begun)", own.ID)) {
		t.Errorf("with a transaction that has begun: %v", err)
	}
	first := until
	if err := h.Abort(own, nil, "not wanted"); err != nil {
		t.Error(err)
	}
	if err := leave(time.Millisecond); !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), fmt.Sprintf("%s (open)", tx.ID)) {
		t.Errorf("with open work: %v", err)
	}
	if _, err := h.Begin(PaxosCommit); !errors.Is(err, ErrLeaving) || !Heard("n2", h.Announcement(), 1).Leaving {
		t.Errorf("it begins a transaction while it leaves: %v", err)
	}
	if err := w.put(w.begin("n1", PaxosCommit), "other", "n2"); !errors.Is(err, ErrLeaving) {
		t.Errorf("it takes new work while it leaves: %v", err)
	}
	unknown := w.begin("n1", PaxosCommit).settle(h.view(), []protocol.NodeID{"n1"})
	if err := h.deliver(unknown, "n1", "n2", commit.Bundle{ID: unknown.ID}); !errors.Is(err, ErrLeaving) {
		t.Errorf("it accepts what is new to it while it leaves: %v", err)
	}
	doubted := Transaction{ID: "of an earlier life", Protocol: TwoPhase, Coordinator: "n2"}.settle(h.view(), []protocol.NodeID{"n1"})
	if err := h.deliver(doubted, "n1", "n2/c", commit.Voted{ID: doubted.ID, Vote: commit.Yes}); err != nil || w.in("n2", doubted).Decision != commit.Abort {
		t.Errorf("while it leaves it does not answer who is in doubt: %v", err)
	}
	if r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n1", "n2"}, true); err != nil || r.Decision != commit.Commit {
		t.Errorf("what was open is not committed: %+v, %v", r, err)
	}
	if err := leave(20 * time.Second); err != nil {
		t.Errorf("with all over: %v", err)
	}
	h.Stay(first)
	if _, err := h.Begin(PaxosCommit); !errors.Is(err, ErrLeaving) {
		t.Errorf("whoever asked first ends what was asked since: %v", err)
	}
	h.Stay(until)
	if _, err := h.Begin(PaxosCommit); err != nil || Heard("n2", h.Announcement(), 1) != (Member{Node: "n2", Storage: h.store.owner, Incarnation: h.run, Votes: 1}) {
		t.Errorf("it stays, and begins nothing: %v", err)
	}
}

// TestLeaveInDoubt: who has voted yes stays until it knows.
func TestLeaveInDoubt(t *testing.T) {
	w, tx := doubt(t, TwoPhase)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := w.host("n2").Leave(ctx); !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), fmt.Sprintf("%s (in doubt)", tx.ID)) {
		t.Errorf("got %v", err)
	}
}

// TestLeaveFinishes: what a node that is about to leave takes part in commits, and aborts, even where only one member
// besides has a vote.
func TestLeaveFinishes(t *testing.T) {
	w := newWorld(t, 2, 1)
	w.all()
	var open []Transaction
	for _, p := range []Protocol{PaxosCommit, PaxosCommit, TwoPhase} {
		tx := w.begin("n1", p)
		if err := w.put(tx, string(tx.ID), "n1", "n2"); err != nil {
			t.Fatal(err)
		}
		open = append(open, tx)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	left := make(chan error, 1)
	go func() {
		_, err := w.host("n2").Leave(ctx)
		left <- err
	}()
	w.mu.Lock()
	w.leaving = "n2"
	w.mu.Unlock()
	both := []protocol.NodeID{"n1", "n2"}
	if r, err := w.host("n1").Commit(ctx, open[0], both, true); err != nil || r.Decision != commit.Commit {
		t.Errorf("%+v, %v", r, err)
	}
	if p, _ := w.in("n1", open[0]).part("n2"); !p.Site || p.Votes != 0 {
		t.Errorf("n2 has the part %+v", p)
	}
	for _, tx := range open[1:] {
		if err := w.host("n1").Abort(tx, both, "not wanted"); err != nil {
			t.Error(err)
		}
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
}

// TestLeaveInVain: a coordinator leaves although a site has not said that it did as decided, when that is gone for good.
func TestLeaveInVain(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 3, 1)
		w.acceptors = []protocol.NodeID{"n1"}
		w.cutAt(lastWord, link{"n3", "n1"})
		w.all()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", "n2", "n3"); err != nil {
			t.Fatal(err)
		}
		if p == ThreePhase || p == QuorumThreePhase { // what follows would wait for n3's word
			if err := w.host("n1").Abort(tx, []protocol.NodeID{"n2", "n3"}, "not wanted"); err != nil {
				t.Fatal(err)
			}
		} else if r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n2", "n3"}, false); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := w.host("n1").Leave(ctx); !errors.Is(err, ErrUnfinished) {
			t.Errorf("%s: with n3 to be told: %v", p, err)
		}
		cancel()
		w.members("n1", "n2")
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := w.host("n1").Leave(ctx); err != nil {
			t.Errorf("%s: with n3 gone: %v", p, err)
		}
		cancel()
	}
}

// TestSettle: who has which part.
func TestSettle(t *testing.T) {
	member := func(node protocol.NodeID, votes int) Member {
		return Member{Node: node, Storage: "of " + string(node), Votes: votes}
	}
	v := View{Number: 7, Members: []Member{member("a", 1), member("b", 1), member("c", 0), {Node: "d", Votes: 1}, member("e", 3),
		member("f", 1), member("g", 1), member("h", 1)}}
	in := func(p Protocol, sites ...protocol.NodeID) (text string) {
		for _, x := range (Transaction{ID: "t", Protocol: p, Coordinator: "h"}).settle(v, sites).Parts {
			text += fmt.Sprintf("%s%d%v ", x.Node, x.Votes, x.Site)
		}
		return text
	}
	if got := in(TwoPhase, "b", "h"); got != "h0true b0true " {
		t.Errorf("2pc: %s", got)
	}
	if got := in(PaxosCommit, "g", "c"); got != "h1false g1true c0true a1false b1false e3false " {
		t.Errorf("paxos: %s", got)
	}
	tx := Transaction{ID: "t", Protocol: PaxosCommit, Coordinator: "h"}
	e := tx.settle(v, []protocol.NodeID{"g", "c"}).electorate()
	if e.Acceptors.Write != 4 || e.Acceptors.Read != 4 || e.Acceptors.Validate() != nil || e.Leaders[0] != "h" || len(e.Leaders) != 5 || len(e.Participants) != 2 {
		t.Errorf("%+v", e)
	}
	if got := tx.wanting(v, []protocol.NodeID{"d"}); !strings.Contains(got, "node d is no member") {
		t.Errorf("got %q", got)
	}
	few := View{Members: []Member{member("h", 1), {Node: "a", Votes: 1}}}
	if got := tx.wanting(few, []protocol.NodeID{"h"}); !strings.Contains(got, "1 of 2 votes: not heard of a") {
		t.Errorf("got %q", got)
	}
}

// TestFormats: records of another format are refused, unless nothing is in them.
func TestFormats(t *testing.T) {
	for name, x := range map[string]struct {
		put  map[string]string
		want string
	}{
		"of the first format":              {map[string]string{"owner": "o", "t\x00n1\x00": "x"}, "an earlier version wrote them"},
		"of the first format, and empty":   {map[string]string{"owner": "o"}, ""},
		"of a later one":                   {map[string]string{"owner": "o", "format": "3"}, `"3", and this version reads 2`},
		"of this one, without its records": {map[string]string{"owner": "o", "format": "2"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 1)
			disk := vfs.NewCrashableMem()
			w.sites["n1"], w.gone = &node{disk: disk}, "n1"
			old, err := kv.Open("records", kv.Config{FS: disk})
			if err != nil {
				t.Fatal(err)
			}
			s := &store{kv: old, run: "r"}
			err = s.change(func(ctx context.Context, b *kv.Tx) (err error) {
				for k, v := range x.put {
					err = errors.Join(err, b.Put(ctx, []byte(k), []byte(v)))
				}
				return err
			})
			if err = errors.Join(err, old.Close()); err != nil {
				t.Fatal(err)
			}
			quit := make(chan struct{})
			defer close(quit)
			h, err := Open(t.Context(), w.config("n1", &inbox{w: w, quit: quit}, w.sites["n1"]))
			if err == nil {
				if h.store.owner != "o" {
					t.Errorf("its name is %q", h.store.owner)
				}
				err = h.Close()
			}
			if x.want == "" && err != nil || x.want != "" && (!errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), x.want)) {
				t.Errorf("want %q, got %v", x.want, err)
			}
		})
	}
}
