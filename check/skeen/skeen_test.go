package skeen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
)

// row is a protocol in Skeen's table.
type row struct {
	name   string
	make   func(sites int, options commit.Options) (Protocol, error)
	paper  paper
	states [3]int // that are published, with 2, 3 and 4 sites
	sets   map[string]string
	blocks string // the one local state that the theorem finds wanting
	// hurries: a message from a site that is in p tells that this site has voted yes, too. Where it
	// overtakes the vote the receiver goes from w through p to c in one step.
	hurries bool
}

// The sets of the central protocols are those of 3 sites and more.
var (
	centralTwo = map[string]string{
		"coordinator q": "q", "coordinator w": "qwa", "coordinator a": "qwa", "coordinator c": "wc",
		"participant q": "qwa", "participant w": "qwac", "participant a": "qwa", "participant c": "wc"}
	centralThree = map[string]string{
		"coordinator q": "q", "coordinator w": "qwa", "coordinator p": "wp", "coordinator a": "qwa", "coordinator c": "pc",
		"participant q": "qwa", "participant w": "qwpa", "participant p": "wpc", "participant a": "qwa", "participant c": "pc"}
)

// published is Skeen's table, and the systems that run with a coordinator which has no vote.
var published = []row{
	{name: "decentralised two-phase", make: DecentralisedTwoPhase, paper: paper{phases: 2}, states: [3]int{14, 55, 256},
		sets: map[string]string{"site q": "qwa", "site w": "qwac", "site a": "qwa", "site c": "wc"}, blocks: "site w"},
	{name: "decentralised three-phase", make: DecentralisedThreePhase, paper: paper{phases: 3}, states: [3]int{17, 62, 271},
		sets: map[string]string{"site q": "qwa", "site w": "qwpa", "site p": "wpc", "site a": "qwa", "site c": "pc"}, hurries: true},
	{name: "central two-phase", make: CentralTwoPhase, paper: paper{phases: 2, central: true}, states: [3]int{9, 26, 92},
		sets: centralTwo, blocks: "participant w"},
	{name: "central three-phase", make: CentralThreePhase, paper: paper{phases: 3, central: true}, states: [3]int{11, 30, 100},
		sets: centralThree},
	{name: "two-phase", make: oneLess(TwoPhase), paper: paper{phases: 2, central: true, voteless: true},
		sets: centralTwo, blocks: "participant w"},
	{name: "three-phase", make: oneLess(ThreePhase), paper: paper{phases: 3, central: true, voteless: true},
		sets: centralThree},
}

// fewest is the least number of sites that the row is about.
func (c row) fewest() int {
	if c.paper.voteless {
		return 3
	}
	return 2
}

// oneLess counts the coordinator among the sites.
func oneLess(make func(participants int, o commit.Options) (Protocol, error)) func(int, commit.Options) (Protocol, error) {
	return func(sites int, o commit.Options) (Protocol, error) { return make(sites-1, o) }
}

// TestPaperShape: the model in the paper's shape has the published numbers of global states.
func TestPaperShape(t *testing.T) {
	for _, c := range published {
		for i, want := range c.states {
			c.paper.sites = 2 + i
			if got := c.paper.explore().states; got != want && want != 0 {
				t.Errorf("%s with %d sites has %d global states; want %d", c.name, c.paper.sites, got, want)
			}
		}
	}
}

// TestTable: from the machines that run come every set and every verdict of the table, and what they
// go through is what the paper's model goes through.
func TestTable(t *testing.T) {
	for _, c := range published {
		for sites := c.fewest(); sites <= 4; sites++ {
			c.paper.sites = sites
			t.Run(fmt.Sprintf("%s, %d sites", c.name, sites), func(t *testing.T) {
				if sites == 4 && c.hurries {
					long(t)
				}
				a := analysed(t, c.make, sites, 0)
				c.projects(t, a)
				c.judges(t, a)
			})
		}
	}
}

// long skips a test under the race detector, which makes seconds of it minutes, but for make soak.
func long(t *testing.T) {
	t.Helper()
	info, ok := debug.ReadBuildInfo()
	raced := ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
	if raced && os.Getenv("ASSENT_SOAK") == "" {
		t.Skip("hundreds of thousands of states: run without the race detector, or by make soak")
	}
}

// projects: without a fault the machines go through exactly the vectors of local states that the
// paper's model goes through, and make all its transitions. Where a step of a machine is none of
// them it is two of them, one after the other: see hurries.
func (c row) projects(t *testing.T, a *Analysis) {
	t.Helper()
	model := c.paper.explore()
	got, hurried := map[[2]vector]bool{}, 0
	for _, e := range a.Global.Edges {
		step := [2]vector{vectorOf(a.Global.Vectors[e.From]), vectorOf(a.Global.Vectors[e.To])}
		got[step] = true
		between := step[0]
		between[e.Site-1] = 'p'
		switch {
		case model.edges[step]:
		case model.edges[[2]vector{step[0], between}] && model.edges[[2]vector{between, step[1]}]:
			hurried++
		default:
			t.Errorf("%s → %s is nothing that the paper's model does", step[0], step[1])
		}
	}
	if hurried > 0 != c.hurries {
		t.Errorf("the machines do %d times in one step what is two in the paper", hurried)
	}
	for e := range model.edges {
		if !got[e] {
			t.Errorf("no machine does %s → %s", e[0], e[1])
		}
	}
	if d := cmp.Diff(model.texts(), slices.Sorted(slices.Values(a.Global.Vectors))); d != "" {
		t.Errorf("other vectors than the paper's model:\n%s", d)
	}
}

// vectorOf reads what vector.String writes.
func vectorOf(text string) (v vector) {
	for i, word := range strings.Fields(text) {
		v[i] = word[0]
	}
	return v
}

// TestSymmetry: nothing is lost where interchangeable sites are not told apart.
func TestSymmetry(t *testing.T) {
	for _, c := range published {
		p, err := c.make(3, commit.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !p.Alike {
			continue
		}
		short, err := Analyse(context.Background(), p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p.Alike = false
		long, err := Analyse(context.Background(), p, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if short.States >= long.States {
			t.Errorf("%s: %d states instead of %d", c.name, short.States, long.States)
		}
		short.States, short.Transitions = long.States, long.Transitions
		if d := cmp.Diff(long, short); d != "" {
			t.Errorf("%s: interchangeable sites make a difference:\n%s", c.name, d)
		}
	}
}

// texts lists the vectors for people.
func (b behaviour) texts() (all []string) {
	for v := range b.vectors {
		all = append(all, v.String())
	}
	slices.Sort(all)
	return all
}

func (c row) judges(t *testing.T, a *Analysis) {
	if a.Nonblocking != (c.blocks == "") {
		t.Errorf("nonblocking is %v", a.Nonblocking)
	}
	got := map[string]string{}
	for _, r := range a.Roles {
		for _, s := range r.States {
			name := r.Name + " " + string(s.Letter)
			got[name] = letters(s.Concurrency)
			if s.Nonblocking != (name != c.blocks) {
				t.Errorf("%s: nonblocking is %v", name, s.Nonblocking)
			}
			if want := s.Letter == commit.LetterCommitted || s.Letter == commit.LetterPrecommitted; s.Committable != want {
				t.Errorf("%s: committable is %v", name, s.Committable)
			}
		}
	}
	want := c.sets
	if c.paper.central && c.paper.sites == 2 { // there is no other participant: the sets are smaller
		want = c.paper.explore().sets()
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("other concurrency sets:\n%s", d)
	}
}

// sets are the concurrency sets of a central protocol of the paper with two sites.
func (b behaviour) sets() map[string]string {
	all := map[string]map[commit.Letter]bool{}
	for v := range b.vectors {
		for i, role := range []string{Coordinator, Participant} {
			name := role + " " + string(v.letter(i))
			if all[name] == nil {
				all[name] = map[commit.Letter]bool{}
			}
			all[name][v.letter(1-i)] = true
		}
	}
	sets := map[string]string{}
	for name, set := range all {
		sets[name] = letters(inOrder(set))
	}
	return sets
}

func letters(all []commit.Letter) (text string) {
	for _, l := range all {
		text += string(l)
	}
	return text
}

// TestWhatBlocks: with crashes of up to two sites, as long as one is left, the machines block in
// exactly the states that the theorem names, and one crash is enough.
func TestWhatBlocks(t *testing.T) {
	for _, c := range published {
		for sites := c.fewest(); sites <= 4; sites++ {
			crashes := min(sites-1, 2)
			if sites == 4 && c.blocks != "" {
				crashes = 1 // it is enough
			}
			t.Run(fmt.Sprintf("%s, %d sites", c.name, sites), func(t *testing.T) {
				if sites == 4 && os.Getenv("ASSENT_SOAK") == "" {
					t.Skip("millions of states: run by make soak")
				}
				blocksAsJudged(t, analysed(t, c.make, sites, crashes))
			})
		}
	}
}

func blocksAsJudged(t *testing.T, a *Analysis) {
	t.Helper()
	for _, r := range a.Roles {
		for _, s := range r.States {
			if (s.Blocked != nil) == s.Nonblocking {
				t.Errorf("%s %s: blocked by %v", r.Name, s.Letter, s.Blocked)
			}
			if s.Blocked == nil {
				continue
			}
			down := slices.ContainsFunc(s.Blocked.Steps, func(step string) bool { return strings.Contains(step, "crashes") })
			if s.Blocked.Crashes != 1 || !down {
				t.Errorf("%v is no schedule with one crash", s.Blocked)
			}
		}
	}
}

// TestShortestSchedule pins the run that blocks central two-phase commit: the coordinator dies when
// everybody has voted yes and it has told nobody.
func TestShortestSchedule(t *testing.T) {
	s := analysed(t, CentralTwoPhase, 3, 1).State(Participant, commit.LetterWait)
	want := []string{"p1 starts", "p2 gets Prepare", "p3 gets Prepare", "p1 crashes"}
	if s == nil || s.Blocked == nil || len(s.Blocked.Steps) != len(want) {
		t.Fatalf("%+v", s)
	}
	for i, step := range s.Blocked.Steps {
		if !strings.HasPrefix(step, want[i]) {
			t.Errorf("step %d is %q; want %q", i, step, want[i])
		}
	}
}

func analysed(t *testing.T, make func(int, commit.Options) (Protocol, error), sites, crashes int) *Analysis {
	t.Helper()
	p, err := make(sites, commit.Options{Cooperative: true}) // what blocks does so for want of knowledge, not of asking
	if err != nil {
		t.Fatal(err)
	}
	a, err := Analyse(context.Background(), p, Options{Crashes: crashes})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// hasty is a site that commits on its own: a protocol that the theorem must find wanting.
type hasty struct{ Committed, Aborts bool }

func (h *hasty) Step(ev protocol.Event, _ *protocol.Effects) {
	if _, ok := ev.(protocol.Start); ok {
		h.Committed = true
	}
}

func (h *hasty) Letter() commit.Letter {
	switch {
	case h.Committed && h.Aborts:
		return commit.LetterAborted
	case h.Committed:
		return commit.LetterCommitted
	}
	return commit.LetterInitial
}

func (h *hasty) StateName() string { return "hasty" }

func (h *hasty) Standing() commit.Standing { return commit.Standing{Participant: true} }

// mute shows no letter.
type mute struct{ N int }

func (m *mute) Step(protocol.Event, *protocol.Effects) {}

// TestOthersProtocols: the analysis needs nothing but letters and standings, and finds what is wrong.
func TestOthersProtocols(t *testing.T) {
	codec, err := protocol.NewCodec(protocol.Type{Name: "hasty", Zero: hasty{}}, protocol.Type{Name: "mute", Zero: mute{}})
	if err != nil {
		t.Fatal(err)
	}
	node := func(id protocol.NodeID, m func() protocol.Machine) protocol.Node {
		return protocol.Node{ID: id, New: []func() protocol.Machine{m}}
	}
	nodes := []protocol.Node{
		node("x", func() protocol.Machine { return &hasty{} }),
		node("y", func() protocol.Machine { return &hasty{Aborts: true} }),
	}
	p := Protocol{Name: "hasty", Codec: codec, Roles: []string{"x", "y"}, Quiet: nodes, Crashing: nodes}
	a, err := Analyse(context.Background(), p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s := a.State("y", commit.LetterInitial); a.Nonblocking || s == nil || !s.Risky || s.Mixed {
		t.Errorf("a site that commits on its own goes unnoticed: %+v", s)
	}
	if a.State("x", commit.LetterPrecommitted) != nil {
		t.Error("there is a state that no site is ever in")
	}
	p.Quiet = []protocol.Node{nodes[0], node("y", func() protocol.Machine { return &mute{} })}
	if _, err := Analyse(context.Background(), p, Options{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a machine without letters: %v", err)
	}
	if _, err := TwoPhase(1, commit.Options{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("one participant: %v", err)
	}
	if _, err := Analyse(context.Background(), p, Options{Crashes: 3}); !errors.Is(err, ErrProtocol) {
		t.Errorf("more crashes than sites: %v", err)
	}
	p.Roles = p.Roles[:1]
	if _, err := Analyse(context.Background(), p, Options{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a node without a role: %v", err)
	}
}

// TestLimits: what is known of part of a protocol is not given for the whole.
func TestLimits(t *testing.T) {
	p, err := DecentralisedThreePhase(3, commit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Analyse(context.Background(), p, Options{Limits: check.Limits{States: 10}}); !errors.Is(err, check.ErrLimit) || a != nil {
		t.Errorf("got %v, %v", a, err)
	}
	a, err := Analyse(context.Background(), p, Options{Crashes: 2, Limits: check.Limits{States: 4_000}})
	if !errors.Is(err, check.ErrLimit) || a == nil || a.Crashes >= 2 || len(a.Global.Vectors) == 0 {
		t.Errorf("sets that are complete are not given, or for more than was tried: %+v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if a, err := Analyse(ctx, p, Options{}); err == nil || a != nil {
		t.Error("a run that was stopped has a result")
	}
}
