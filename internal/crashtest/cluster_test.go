package crashtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"assent"
	"assent/cluster"
	"assent/internal/ports"
	"assent/protocol"
	"assent/protocol/commit"
)

// band is a cluster: nodes, each a coordinator process, over the same databases.
type band struct {
	*site // the first node, and the books of all
	nodes []*site
}

// newBand makes a cluster of the named nodes, of which none runs.
func newBand(t testing.TB, names ...string) *band {
	t.Helper()
	first := newSite(t)
	addresses := map[string]string{}
	for _, name := range names {
		addresses[name] = ports.Address(t)
	}
	b := &band{site: first, nodes: []*site{first}}
	for range names[1:] {
		b.nodes = append(b.nodes, first.beside())
	}
	for i, n := range b.nodes {
		n.setup.Dir = filepath.Join(t.TempDir(), names[i])
		n.setup.Retry = 50 * time.Millisecond
		n.setup.Cluster = &member{Self: names[i], Nodes: addresses}
	}
	return b
}

// openAll starts all nodes, the first with the arms.
func (b *band) openAll(arms ...arm) {
	b.Helper()
	calls := make([]*call, len(b.nodes))
	for i, n := range b.nodes {
		calls[i] = n.launch(arms...)
		arms = nil
	}
	for i, c := range calls {
		m, ok := c.answered()
		if !ok || m.Err != "" {
			b.Fatalf("node %s does not open: %v %s\n%s", b.nodes[i].setup.Cluster.Self, ok, m.Err, b.nodes[i].p.stderr.String())
		}
	}
	b.united()
}

// united waits until all nodes know each other to be up.
func (b *band) united() {
	b.Helper()
	b.await("all nodes know each other", func() bool {
		return !slices.ContainsFunc(b.nodes, func(n *site) bool {
			return slices.ContainsFunc(n.members(), func(m cluster.MemberStatus) bool { return m.State != "up" && m.State != "this node" })
		})
	})
}

// members returns what the node believes of the members of its cluster.
func (s *site) members() []cluster.MemberStatus {
	s.Helper()
	return s.p.do(request{Cluster: true}).State.Cluster.Members
}

// believes waits until the node believes of another what state says.
func (s *site) believes(other protocol.NodeID, state string) {
	s.Helper()
	s.await(fmt.Sprintf("%s takes %s for %s", s.setup.Cluster.Self, other, state), func() bool {
		return slices.ContainsFunc(s.members(), func(m cluster.MemberStatus) bool { return m.Node == other && m.State == state })
	})
}

// prepared returns the names of all branches that are prepared.
func (b *band) prepared() []string {
	return append(b.site.prepared("pg1"), b.site.prepared("pg2")...)
}

// finished waits until nothing is prepared and returns how long that took.
func (b *band) finished() time.Duration {
	b.Helper()
	began := time.Now()
	b.await("what the dead node has left prepared is finished", func() bool { return len(b.prepared()) == 0 })
	return time.Since(began)
}

// goesOn waits until the node commits a transfer: on a busy machine the others may take it for dead, and abort
// one.
func (b *band) goesOn(n *site) {
	b.Helper()
	b.await("node "+n.setup.Cluster.Self+" commits", func() bool { return n.run(b.between()).Kind == committed })
}

// audit has the nodes settle, compares the books with what was reported, and wants all nodes to tell
// the same of the transaction id. It returns the books.
func (b *band) audit(id string, nodes ...*site) books {
	b.Helper()
	var st *state
	for _, n := range nodes {
		st = n.p.do(request{Settle: true}).State
		if len(st.Unfinished)+len(st.Damaged) > 0 {
			b.await("nothing is unfinished", func() bool {
				st = n.p.do(request{Settle: true}).State
				return len(st.Unfinished) == 0
			})
		}
		if len(st.Damaged) > 0 {
			b.Errorf("heuristic outcomes on record: %q", st.Damaged)
		}
	}
	told := map[assent.State]bool{}
	for _, n := range nodes {
		if id != "" {
			told[n.p.do(request{Info: id}).Info.State] = true
		}
	}
	if len(told) > 1 {
		b.Errorf("the nodes tell different things of %s: %v", id, slices.Collect(maps.Keys(told)))
	}
	found := b.books(st)
	b.site.audit(found)
	return found
}

// transactionOf returns the id of the transaction of a prepared branch.
func transactionOf(t testing.TB, gids []string) string {
	t.Helper()
	if len(gids) == 0 {
		t.Fatal("nothing is prepared")
	}
	return strings.Split(gids[0], ":")[2]
}

// TestCoordinatorLostForGood kills a node in the middle of a commit and removes its disk. The others finish
// what it has begun, and go on.
func TestCoordinatorLostForGood(t *testing.T) {
	t.Parallel()
	kills := []arm{
		{Point: "pg1 deliver BranchPrepared(yes)", Kill: true},
		{Point: "coordinator: emit Propose(commit)", Kill: true},
		{Point: "coordinator: emit Propose(commit)", Kill: true, Delay: time.Millisecond}, // in the midst of deciding
		{Point: "coordinator: deliver Decided(commit)", Kill: true},
		{Point: "pg1 deliver BranchFinished(committed)", Kill: true},
	}
	if os.Getenv("ASSENT_SOAK") != "" {
		kills = clusterPoints(t)
	}
	for _, kill := range kills {
		t.Run(fmt.Sprintf("%s %d %v", kill.Point, kill.N, kill.Delay), func(t *testing.T) {
			t.Parallel()
			b := newBand(t, "a", "b", "c")
			b.openAll(kill)
			tr := b.between()
			r := b.run(tr)
			if r != nil && kill.Delay == 0 && len(kills) < 10 {
				t.Fatalf("the node was killed, and reported %+v", r)
			}
			b.p.kill() // where it came to its end before
			if err := os.RemoveAll(b.setup.Dir); err != nil {
				t.Fatal(err)
			}
			gids, id := b.prepared(), ""
			if len(gids) > 0 {
				id = transactionOf(t, gids)
			}
			took := b.finished()
			found := b.audit(id, b.nodes[1:]...)
			if kill.Point == "coordinator: deliver Decided(commit)" && !found.happened(tr.ID) {
				t.Error("commit was decided and is lost")
			}
			if kill.Point == "pg1 deliver BranchPrepared(yes)" && found.happened(tr.ID) {
				t.Error("committed without a decision")
			}
			for _, n := range b.nodes[1:] {
				b.goesOn(n)
			}
			b.audit("", b.nodes[1:]...)
			t.Logf("finished %v after the kill; committed: %v", took, found.happened(tr.ID))
		})
	}
}

// clusterPoints returns the points that a transfer passes in a cluster.
func clusterPoints(t *testing.T) (kills []arm) {
	b := newBand(t, "a", "b", "c")
	b.openAll()
	b.mustReport(b.run(b.between()), committed, "", nil, false)
	counts := map[string]int{}
	for _, point := range b.p.do(request{Settle: true}).State.Points {
		counts[point]++
		kills = append(kills, arm{Point: point, N: counts[point], Kill: true})
	}
	return kills
}

// TestDiskLostForGood is the same with decisions on the node's own disk: what is prepared stays in doubt, as
// the theory says, and the others show it.
func TestDiskLostForGood(t *testing.T) {
	t.Parallel()
	b := newBand(t, "a", "b", "c")
	for _, n := range b.nodes {
		n.setup.Cluster.Alone = true
	}
	b.openAll(arm{Point: "coordinator: emit Propose(commit)", Kill: true})
	tr := b.between()
	if r := b.run(tr); r != nil {
		t.Fatalf("the node was killed, and reported %+v", r)
	}
	if err := os.RemoveAll(b.setup.Dir); err != nil {
		t.Fatal(err)
	}
	other := b.nodes[1]
	other.believes("a", "suspected")
	other.p.do(request{Settle: true})
	left := b.prepared()
	if len(left) != 2 {
		t.Fatalf("prepared are %q; the log that could tell is gone", left)
	}
	t.Cleanup(func() { // or the slots would be missing when the tests are run again
		for i, base := range baseNames {
			other.exec(base, "ROLLBACK PREPARED '"+left[i]+"'")
		}
	})
	st := other.p.do(request{Settle: true}).State
	if len(st.Foreign["pg1"]) != 1 || len(st.Foreign["pg2"]) != 1 {
		t.Errorf("the others show %q", st.Foreign)
	}
}

// TestStalledCoordinator stops a node with SIGSTOP in the middle of a commit. The others take it for dead
// and finish what it has begun; when it goes on it does no harm, and reports what has become of it.
func TestStalledCoordinator(t *testing.T) {
	t.Parallel()
	for point, want := range map[string]string{
		"coordinator: emit Propose(commit)": aborted,
		"pg1 emit CommitBranch":             committed,
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBand(t, "a", "b", "c")
			b.openAll(arm{Point: point, Hold: true})
			tr := b.between()
			c := b.start(tr)
			b.p.atPoint(point)
			id := transactionOf(t, b.prepared())
			if err := b.p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			took := b.finished()
			before := b.audit(id, b.nodes[1:]...)
			if err := b.p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			b.release(point)
			r := b.finish(tr, c)
			b.mustReport(r, want, "", nil, false)
			if want == aborted && r.Cause != commit.Settled {
				t.Errorf("the cause is %v: %s", r.Cause, r.Text)
			}
			after := b.audit(id, b.nodes...)
			if before.happened(tr.ID) != after.happened(tr.ID) || after.happened(tr.ID) != (want == committed) {
				t.Errorf("happened: %v, and after it went on %v; want %s", before.happened(tr.ID), after.happened(tr.ID), want)
			}
			b.united()
			b.goesOn(b.site)
			b.audit("", b.nodes...)
			t.Logf("finished %v after the stop", took)
		})
	}
}
