package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol/commit"
	"assent/spec"
)

var yesOrNo = []commit.Vote{commit.Yes, commit.No}

func safety() []spec.Property { return []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()} }

// TestDecentralisedTwoPhaseIsSafe: under loss, duplication and reordering without limit, and crashes
// with restarts.
func TestDecentralisedTwoPhaseIsSafe(t *testing.T) {
	for _, c := range []struct{ sites, crashes int }{{2, 2}, {3, 1}} {
		if c.sites > 2 && !soaking() {
			continue
		}
		votes := []commit.Vote(nil) // all of them, read-only too
		if c.sites > 2 {
			votes = []commit.Vote{commit.Yes} // a site can still give up before it votes
		}
		r := explore(t, commit.Decentralised{Sites: c.sites, Votes: votes}, check.Asynchronous,
			check.Faults{Crashes: c.crashes, Restarts: c.crashes, Duplicates: check.Unlimited},
			check.Claims{Always: safety(), Sometimes: []spec.Property{spec.AllCommit()}})
		for _, b := range r.Broken {
			t.Errorf("%d sites: %s", c.sites, b)
		}
		if len(r.Never) > 0 {
			t.Errorf("%d sites: never %v", c.sites, r.Never)
		}
	}
}

// TestDecentralisedTwoPhaseBlocks: one crash, of a site whose vote nobody has seen.
func TestDecentralisedTwoPhaseBlocks(t *testing.T) {
	d := commit.Decentralised{Sites: 3, Votes: []commit.Vote{commit.Yes}}
	for crashes, want := range []bool{false, true} {
		r := explore(t, d, check.Synchronous, check.Faults{Crashes: crashes}, check.Claims{Decided: spec.AC5().Decided})
		if (r.Blocked != nil) != want {
			t.Errorf("%d crashes: blocked by %v", crashes, r.Blocked)
		}
	}
}

// TestDecentralisedThreePhaseDoesNotBlock: in the synchronous model AC1 to AC3 hold, and all who stay
// up decide, though all others crash, and come back.
func TestDecentralisedThreePhaseDoesNotBlock(t *testing.T) {
	beside(t)
	for _, c := range []struct {
		sites, crashes, restarts int
		votes                    []commit.Vote
		soak                     bool
	}{
		{2, 1, 0, yesOrNo, false}, {2, 2, 2, yesOrNo, false}, {3, 2, 0, yesOrNo, false},
		{3, 1, 1, []commit.Vote{commit.Yes}, false}, {3, 2, 1, []commit.Vote{commit.Yes}, true}, {3, 2, 2, yesOrNo, true}, {4, 2, 0, yesOrNo, true},
	} {
		if c.soak && !soaking() {
			continue
		}
		claims := check.Claims{Always: safety(), Sometimes: []spec.Property{spec.AllCommit()}}
		if c.crashes < c.sites {
			claims.Decided = spec.AC5().Decided
		}
		r := explore(t, commit.Decentralised{Sites: c.sites, Phases: 3, Votes: c.votes}, check.Synchronous,
			check.Faults{Crashes: c.crashes, Restarts: c.restarts}, claims)
		for _, b := range r.Broken {
			t.Errorf("%+v: %s", c, b)
		}
		if r.Blocked != nil {
			t.Errorf("%+v: %d states block: %s", c, r.Blocking, r.Blocked)
		}
	}
}

// TestDecentralisedThreePhaseNeedsSynchrony: a timer that runs out early splits the sites.
func TestDecentralisedThreePhaseNeedsSynchrony(t *testing.T) {
	r := explore(t, commit.Decentralised{Sites: 2, Phases: 3, Votes: []commit.Vote{commit.Yes}}, check.Asynchronous,
		check.Faults{}, check.Claims{Always: []spec.Property{spec.AC1()}})
	if len(r.Broken) != 1 {
		t.Fatal("AC1 holds in the asynchronous model")
	}
	t.Log(r.Broken[0])
}

// TestDecentralisedQuietRunCommits is AC4.
func TestDecentralisedQuietRunCommits(t *testing.T) {
	for _, phases := range []int{2, 3} {
		r := explore(t, commit.Decentralised{Sites: 3, Phases: phases, Steadfast: true}, check.Synchronous, check.Faults{},
			check.Claims{Always: append(safety(), spec.AC4()), Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided})
		if len(r.Broken)+len(r.Never)+r.Blocking > 0 {
			t.Errorf("%d phases: broken %v, never %v, blocked %v", phases, r.Broken, r.Never, r.Blocked)
		}
	}
}
