package membership

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/paxos"
	"assent/protocol/protocoltest"

	"github.com/google/go-cmp/cmp"
)

func step(m protocol.Machine, ev protocol.Event) protocol.Effects {
	var out protocol.Effects
	m.Step(ev, &out)
	return out
}

// founded returns the state of a cluster of these nodes, each with its storage known.
func founded(t *testing.T, nodes ...protocol.NodeID) State {
	t.Helper()
	var founders []Member
	for _, n := range nodes {
		founders = append(founders, Member{Node: n, Storage: "s" + string(n), Wanted: 1})
	}
	s, err := Found("shop", founders...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// alter applies changes to a state, one after the other.
func alter(t *testing.T, s *State, changes ...Change) {
	t.Helper()
	for i, c := range changes {
		c.By, c.Number = "op", uint64(100*s.Epoch)+uint64(i)
		if why := s.Judge(c, everybody); why != "" {
			t.Fatalf("%v of %s: %s", c.Kind, c.Node, why)
		}
		if why := s.apply(s.entry(c)); why != "" {
			t.Fatalf("%v of %s: %s", c.Kind, c.Node, why)
		}
	}
}

func everybody(protocol.NodeID) bool { return true }

func only(nodes ...protocol.NodeID) func(protocol.NodeID) bool {
	return func(n protocol.NodeID) bool {
		for _, x := range nodes {
			if x == n {
				return true
			}
		}
		return false
	}
}

// voters writes a view as "3: a b+2 c/0".
func voters(v View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", v.Number)
	for _, m := range v.Members {
		fmt.Fprintf(&b, " %s", m.Node)
		if m.Votes != 1 {
			fmt.Fprintf(&b, "=%d", m.Votes)
		}
	}
	return b.String()
}

// A node becomes a member that learns, then one that votes; each change of members makes a view.
func TestChangesMakeViews(t *testing.T) {
	s := founded(t, "a", "b", "c")
	alter(t, &s, Change{Kind: Join, Node: "d", Member: Member{Storage: "sd", Wanted: 2, Address: "d:1"}})
	alter(t, &s, Change{Kind: Weigh, Node: "d", Votes: 2}, Change{Kind: Set, Key: "k", Value: "v"}, Change{Kind: Leave, Node: "a"})
	alter(t, &s, Change{Kind: Exclude, Node: "b"}, Change{Kind: Readdress, Node: "d", Member: Member{Address: "d:2"}})
	var got []string
	for _, v := range s.Views {
		got = append(got, voters(v))
	}
	if d := cmp.Diff([]string{"1: a b c", "2: a b c d=0", "3: a b c d=2", "4: b c d=2", "5: c d=2"}, got); d != "" {
		t.Error(d)
	}
	if m, _ := s.Member("d"); m.Address != "d:2" || s.Epoch != 7 {
		t.Errorf("%+v at epoch %d", m, s.Epoch)
	}
	if v, _ := s.Setting("k"); v != "v" {
		t.Errorf("k is %q", v)
	}
	if d := cmp.Diff([]paxos.Storage{{Node: "a", ID: "sa"}}, s.Departed); d != "" {
		t.Error(d)
	}
	again := Change{Kind: Join, Node: "a", Member: Member{Storage: "sa", Wanted: 1}}
	if why := s.Judge(again, everybody); !strings.Contains(why, "has left on request") {
		t.Errorf("with the storage with which it left: %q", why)
	}
	again.Member.Storage = "new"
	alter(t, &s, again)
	if len(s.Departed) > 0 {
		t.Errorf("still departed: %v", s.Departed)
	}
}

// What would leave too few who answer is refused, with the reason in plain words.
func TestChangesThatLoseTheQuorumAreRefused(t *testing.T) {
	s := founded(t, "a", "b", "c")
	heavy := founded(t, "a", "b", "c")
	alter(t, &heavy, Change{Kind: Weigh, Node: "c", Votes: 5})
	for _, c := range []struct {
		state   State
		change  Change
		answers func(protocol.NodeID) bool
		want    string
	}{
		{s, Change{Kind: Leave, Node: "a"}, only("a", "b"), "too few would be left who answer: 1 of 2 votes, 2 needed: c unreachable"},
		{s, Change{Kind: Weigh, Node: "c", Votes: 5}, only("a", "b"), "too few would be left who answer: 2 of 7 votes, 4 needed: c unreachable"},
		{heavy, Change{Kind: Leave, Node: "c"}, only("a", "c"), "too few would be left who answer: 1 of 2 votes, 2 needed: b unreachable"},
		{s, Change{Kind: Weigh, Node: "x", Votes: 5}, everybody, "x is no member"},
		{s, Change{Kind: Weigh, Node: "a", Votes: 1}, everybody, "a has 1 votes already"},
		{s, Change{Kind: Weigh, Node: "a", Votes: -1}, everybody, "a member has 0 to 65536 votes"},
		{s, Change{Kind: Leave}, everybody, "it names no node"},
		{s, Change{Kind: Join, Node: "a", Member: Member{Storage: "sa"}}, everybody, "a is a member already"},
		{s, Change{Kind: Join, Node: "d"}, everybody, "d does not name its storage"},
		{s, Change{Kind: Join, Node: "a", Member: Member{Storage: "new"}}, only("a", "b"), "too few would be left who answer: 1 of 2 votes, 2 needed: c unreachable"},
		{s, Change{Kind: Set}, everybody, "it names no key"},
		{s, Change{Kind: Set, Key: "k", Value: strings.Repeat("v", MaxValue+1)}, everybody, "names and addresses have at most 128 bytes, values 1024"},
		{s, Change{Kind: Register, Resource: &Resource{}}, everybody, "it names no resource"},
		{s, Change{Kind: 99}, everybody, "there is no such change"},
		{s, Change{Kind: Exclude, Node: "a"}, only("b", "c"), ""},
		{s, Change{Kind: Leave, Node: "a"}, everybody, ""},
	} {
		if got := c.state.Judge(c.change, c.answers); got != c.want {
			t.Errorf("%v of %s: %q, want %q", c.change.Kind, c.change.Node, got, c.want)
		}
	}
	alone := founded(t, "a")
	if got := alone.Judge(Change{Kind: Leave, Node: "a"}, everybody); !strings.Contains(got, "no members") {
		t.Errorf("the last one leaves: %q", got)
	}
}

// Of two changes of members that were made for the same view the second is void, as its configuration is
// in the log; and nothing is applied twice.
func TestNothingIsAppliedTwice(t *testing.T) {
	s := founded(t, "a", "b", "c")
	first, second := s.entry(Change{By: "a", Number: 1, Kind: Leave, Node: "a"}), s.entry(Change{By: "b", Number: 1, Kind: Leave, Node: "b"})
	if why := s.apply(first); why != "" {
		t.Error(why)
	}
	if why := s.apply(second); why == "" || voters(s.View) != "2: b c" {
		t.Errorf("%q: %s", why, voters(s.View))
	}
	set := Change{By: "c", Number: 5, Kind: Set, Key: "k", Value: "1"}
	s.apply(s.entry(set))
	s.apply(s.entry(Change{By: "c", Number: 6, Kind: Set, Key: "k", Value: "2"}))
	epoch := s.Epoch
	if why := s.apply(s.entry(set)); why == "" || s.Epoch != epoch {
		t.Errorf("an old copy is applied: %+v", s)
	}
	if why := s.apply(s.entry(Change{By: "c", Number: 7, Kind: Set, Key: "k", Value: "3", Epoch: epoch - 1})); !strings.Contains(why, "look again") {
		t.Errorf("compare and set at the wrong epoch: %q", why)
	}
	if why := s.apply(s.entry(Change{By: "c", Number: 8, Kind: Barrier})); why != "" || s.Epoch != epoch {
		t.Errorf("a barrier has changed something: %q", why)
	}
	if why := s.apply(s.entry(Change{By: "c", Number: 9, Kind: Set, Key: "k", Value: "3", Epoch: epoch})); why != "" {
		t.Errorf("compare and set: %q", why)
	}
}

// What was refused stays so, when a copy of it comes later into a state in which it could be applied.
func TestRefusedForGood(t *testing.T) {
	s := founded(t, "a")
	early := Change{By: "a", Number: 1, Kind: Set, Key: "k", Value: "1", Epoch: 2}
	if why := s.apply(s.entry(early)); !strings.Contains(why, "at epoch 1, not 2") {
		t.Errorf("%q", why)
	}
	alter(t, &s, Change{Kind: Set, Key: "other", Value: "1"})
	if why := s.apply(s.entry(early)); why == "" || len(s.Settings) > 1 {
		t.Errorf("%q: %v", why, s.Settings)
	}
	if why, ok := s.settled(early); !ok || !strings.Contains(why, "at epoch 1, not 2") {
		t.Errorf("%v, %q", ok, why)
	}
}

// A change of members that is refused makes a view, so that a copy that an earlier leader has made for the same
// view is void; and one that comes after a later change of its node does not undo what is known of that.
func TestMembersRefusedForGood(t *testing.T) {
	s := founded(t, "a", "b", "c")
	leave := Change{By: "a", Number: 1, Kind: Leave, Node: "c", Operator: "alice"}
	early, late := s.entry(leave), s.entry(leave.void("too few"))
	first := s
	if why := first.apply(early); why != "" || voters(first.View) != "2: a b" {
		t.Errorf("%q: %s", why, voters(first.View))
	}
	if why, ok := first.settled(leave); first.apply(late) == "" || !ok || why != "" {
		t.Errorf("the refusal came too late: %q", why)
	}
	if why := s.apply(late); why != "too few" || voters(s.View) != "2: a b c" || s.Epoch != 2 {
		t.Errorf("%q: %s at epoch %d", why, voters(s.View), s.Epoch)
	}
	if why := s.apply(early); why == "" || voters(s.View) != "2: a b c" || len(s.Trail) != 0 {
		t.Errorf("%q: %s", why, voters(s.View))
	}
	if why, ok := s.settled(leave); !ok || why != "too few" {
		t.Errorf("%v, %q", ok, why)
	}
	set := Change{By: "a", Number: 3, Kind: Set, Key: "k", Value: "1"}
	overtaken := s.entry(Change{By: "a", Number: 2, Kind: Leave, Node: "c"})
	s.apply(s.entry(set))
	s.apply(overtaken)
	s.apply(s.entry(Change{By: "b", Number: 1, Kind: Set, Key: "k", Value: "2"}))
	s.apply(s.entry(set)) // a copy
	if v, _ := s.Setting("k"); v != "2" || voters(s.View) != "3: a b" {
		t.Errorf("k is %q; %s", v, voters(s.View))
	}
	if long := leave.void(strings.Repeat("é", MaxValue)); len(long.Reason) != MaxValue || long.wrong() != "" {
		t.Errorf("%d bytes: %q", len(long.Reason), long.wrong())
	}
}

// What people have asked for is kept with their names, and nothing else is.
func TestTrail(t *testing.T) {
	s := founded(t, "a", "b", "c")
	alter(t, &s, Change{Kind: Set, Key: "k", Value: "v"}, Change{Kind: Leave, Node: "c", Operator: "alice", Reason: "moved", Time: 7})
	s.apply(s.entry(Change{By: "a", Number: 1, Kind: Set, Key: "k", Epoch: 1, Operator: "bob"})) // refused
	if len(s.Trail) != 1 || s.Trail[0].Epoch != s.Epoch || s.Trail[0].Change.Operator != "alice" || s.Trail[0].Change.Kind != Leave {
		t.Errorf("%+v", s.Trail)
	}
	for range 2 * KeptTrail {
		alter(t, &s, Change{Kind: Unset, Key: "k", Operator: "alice"})
	}
	if len(s.Trail) != KeptTrail || s.Trail[KeptTrail-1].Epoch != s.Epoch {
		t.Errorf("%d are kept, the last of epoch %d; the state is at %d", len(s.Trail), s.Trail[len(s.Trail)-1].Epoch, s.Epoch)
	}
	for _, c := range []Change{{Kind: Set, Key: "k", Operator: strings.Repeat("x", MaxName+1)}, {Kind: Leave, Node: "a", Reason: strings.Repeat("x", MaxValue+1)}} {
		if why := s.Judge(c, everybody); !strings.Contains(why, "who asks has at most") {
			t.Errorf("%q", why)
		}
	}
}

// The bounds of settings and resources keep new ones out, and let those that are there change.
func TestBounds(t *testing.T) {
	s := founded(t, "a")
	for i := range MaxSettings {
		s.apply(s.entry(Change{By: "a", Number: uint64(i + 1), Kind: Set, Key: fmt.Sprint(i), Value: "1"}))
	}
	for i := range MaxResources {
		s.apply(s.entry(Change{By: "b", Number: uint64(i + 1), Kind: Register, Resource: &Resource{Name: fmt.Sprint(i)}}))
	}
	for i, c := range []struct {
		Change
		want string
	}{
		{Change{Kind: Set, Key: "new", Value: "1"}, "there are 256 settings, as many as are possible"},
		{Change{Kind: Set, Key: "7", Value: "2"}, ""},
		{Change{Kind: Register, Resource: &Resource{Name: "new"}}, "there are 128 resources, as many as are possible"},
		{Change{Kind: Register, Resource: &Resource{Name: "7", Kind: "kv"}}, ""},
	} {
		c.By, c.Number = "c", uint64(i+1)
		if why := s.Judge(c.Change, everybody); why != "" {
			t.Error(why)
		}
		if why := s.apply(s.entry(c.Change)); why != c.want {
			t.Errorf("%q, want %q", why, c.want)
		}
	}
	if v, _ := s.Setting("7"); v != "2" || len(s.Settings) != MaxSettings || len(s.Resources) != MaxResources {
		t.Errorf("%q of %d, and %d resources", v, len(s.Settings), len(s.Resources))
	}
}

func TestResourcesAndSettings(t *testing.T) {
	s := founded(t, "a")
	alter(t, &s, Change{Kind: Set, Key: "b", Value: "1"}, Change{Kind: Set, Key: "a", Value: "2"}, Change{Kind: Set, Key: "b", Value: "3"},
		Change{Kind: Unset, Key: "c"}, Change{Kind: Register, Resource: &Resource{Name: "orders", Kind: "postgres", Settings: "x"}},
		Change{Kind: Register, Resource: &Resource{Name: "accounts", Kind: "kv"}}, Change{Kind: Unregister, Key: "orders"}, Change{Kind: Barrier})
	if d := cmp.Diff([]Setting{{"a", "2"}, {"b", "3"}}, s.Settings); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Resource{{Name: "accounts", Kind: "kv"}}, s.Resources); d != "" {
		t.Error(d)
	}
}

func TestClustersThatCannotBeFounded(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	var many []Member
	for i := range MaxMembers + 1 {
		many = append(many, Member{Node: protocol.NodeID(fmt.Sprint(i))})
	}
	for name, founders := range map[string][]Member{"nobody": nil, "twice": {{Node: "a"}, {Node: "a"}}, "too many": many, "too long": {{Node: "a", Address: long}}} {
		if _, err := Found("shop", founders...); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// net runs nodes with their timers; messages take no time. It cuts nodes off.
type net struct {
	t     *testing.T
	now   time.Duration
	armed map[protocol.NodeID]map[string]time.Duration // when which timer runs out
	nodes map[protocol.NodeID]*Node
	order []protocol.NodeID
	cut   map[protocol.NodeID]bool
	stay  bool // the registers do not move
	// lost says which messages are lost.
	lost    func(from, to protocol.NodeID, m protocol.Message) bool
	emits   map[protocol.NodeID][]protocol.Value
	records map[protocol.NodeID]protocol.Records
}

func newNet(t *testing.T, o Options, names ...protocol.NodeID) *net {
	n := emptyNet(t)
	s := founded(t, names...)
	for _, m := range s.Members {
		n.add(Founder(m, s, o))
	}
	return n
}

func emptyNet(t *testing.T) *net {
	return &net{t: t, nodes: map[protocol.NodeID]*Node{}, cut: map[protocol.NodeID]bool{}, emits: map[protocol.NodeID][]protocol.Value{},
		armed: map[protocol.NodeID]map[string]time.Duration{}, records: map[protocol.NodeID]protocol.Records{}}
}

func (n *net) add(x *Node) {
	id := x.Self.Node
	n.nodes[id], n.order = x, append(n.order, id)
	n.armed[id], n.records[id] = map[string]time.Duration{}, protocol.Records{}
	n.give(id, protocol.Start{})
}

// restart has the node come back with what it has on record.
func (n *net) restart(x *Node) {
	id := x.Self.Node
	n.nodes[id], n.armed[id] = x, map[string]time.Duration{}
	n.give(id, protocol.Recover{Records: maps.Clone(n.records[id])})
}

func (n *net) give(id protocol.NodeID, ev protocol.Event) {
	type letter struct {
		from protocol.NodeID
		send protocol.Send
	}
	var mail []letter
	var take func(id protocol.NodeID, ev protocol.Event)
	take = func(id protocol.NodeID, ev protocol.Event) {
		out := step(n.nodes[id], ev)
		n.emits[id] = append(n.emits[id], out.Emits...)
		for _, w := range out.Writes {
			if n.records[id][w.Key] = w.Record; w.Record == nil {
				delete(n.records[id], w.Key)
			}
		}
		for _, x := range out.Timers {
			if delete(n.armed[id], x.Name); x.After > 0 {
				n.armed[id][x.Name] = n.now + x.After
			}
		}
		for _, s := range out.Sends {
			mail = append(mail, letter{id, s})
		}
		for _, v := range out.Emits {
			if c, ok := v.(Changed); ok && c.State.Registers.Next != nil && !n.stay {
				take(id, protocol.Input{Value: Moved{Number: c.State.Registers.Number}})
			}
		}
	}
	take(id, ev)
	for len(mail) > 0 {
		l := mail[0]
		mail = mail[1:]
		if n.lost != nil && n.lost(l.from, l.send.To, l.send.Message) {
			continue
		}
		if n.nodes[l.send.To] != nil && !n.cut[l.from] && !n.cut[l.send.To] {
			take(l.send.To, protocol.Receive{From: l.from, Message: l.send.Message})
		}
	}
}

// run lets so many tenths of a second pass.
func (n *net) run(ticks int) {
	for range ticks {
		n.now += 100 * time.Millisecond
		for _, id := range n.order {
			for _, name := range slices.Sorted(maps.Keys(n.armed[id])) {
				if at, armed := n.armed[id][name]; armed && at <= n.now {
					delete(n.armed[id], name)
					n.give(id, protocol.Expire{Timer: name})
				}
			}
		}
	}
}

func (n *net) standing(id protocol.NodeID) Standing { return n.nodes[id].standing() }

// told returns the views that a node was told.
func (n *net) told(id protocol.NodeID) (all []string) {
	for _, v := range n.emits[id] {
		if i, ok := v.(Installed); ok {
			all = append(all, voters(i.View))
		}
	}
	return all
}

func (n *net) answered(id protocol.NodeID, ref uint64) (a Answered) {
	for _, v := range n.emits[id] {
		if x, ok := v.(Answered); ok && x.Ref == ref {
			a = x
		}
	}
	return a
}

// The majority's side goes on and excludes the others; the minority stops, and says so. When the network is
// whole again they come back as members, and have missed no view.
func TestPrimaryPartition(t *testing.T) {
	n := newNet(t, Options{Exclude: 30, Every: 6}, "a", "b", "c", "d", "e")
	n.run(40)
	for _, id := range n.order {
		if s := n.standing(id); !s.Primary || s.Leader != "e" {
			t.Fatalf("%s: %+v", id, s)
		}
	}
	n.cut["d"], n.cut["e"] = true, true
	n.give("d", protocol.Input{Value: Ask{Ref: 1, Change: Change{Kind: Set, Key: "k", Value: "minority"}}})
	n.run(150)
	for _, id := range []protocol.NodeID{"a", "b", "c"} {
		if s := n.standing(id); !s.Primary || s.Leader != "c" || voters(n.nodes[id].State.View) != "3: a b c" {
			t.Errorf("%s: %+v, view %s", id, s, voters(n.nodes[id].State.View))
		}
	}
	for _, id := range []protocol.NodeID{"d", "e"} {
		s := n.standing(id)
		if s.Primary || s.Why != "1 of 5 votes, 3 needed: "+map[protocol.NodeID]string{"d": "a, b, c and e", "e": "a, b, c and d"}[id]+" unreachable" {
			t.Errorf("%s: %+v", id, s)
		}
	}
	if a := n.answered("d", 1); a.Result != Unsure {
		t.Errorf("asked of the minority: %+v", a)
	}
	n.give("a", protocol.Input{Value: Ask{Ref: 2, Change: Change{Kind: Set, Key: "k", Value: "majority"}}})
	n.run(10)
	if a := n.answered("a", 2); a.Result != Applied {
		t.Errorf("asked of the majority: %+v", a)
	}
	n.cut = map[protocol.NodeID]bool{}
	n.run(200)
	want := n.told("a")
	for _, id := range n.order {
		if d := cmp.Diff(want, n.told(id)); d != "" {
			t.Errorf("%s saw other views:\n%s", id, d)
		}
		if v, _ := n.nodes[id].State.Setting("k"); v != "majority" || !n.standing(id).Primary {
			t.Errorf("%s: k is %q, %+v", id, v, n.standing(id))
		}
	}
	if last := want[len(want)-1]; last != "7: a b c d e" {
		t.Errorf("the last view is %s", last)
	}
}

// A member that is asked to leave is let go when the others can do without it.
func TestLeaving(t *testing.T) {
	n := newNet(t, Options{}, "a", "b", "c")
	n.run(40)
	n.give("a", protocol.Input{Value: Ask{Ref: 7, Change: Change{Kind: Leave, Node: "c"}}}) // the leader
	n.run(60)
	if a := n.answered("a", 7); a.Result != Applied {
		t.Errorf("%+v", a)
	}
	retired := 0
	for _, v := range n.emits["c"] {
		if _, ok := v.(Retired); ok {
			retired++
		}
	}
	if retired != 1 || n.standing("c").Member || n.standing("a").Leader != "b" {
		t.Errorf("retired %d times, %+v, %+v", retired, n.standing("c"), n.standing("a"))
	}
	n.give("b", protocol.Input{Value: Ask{Ref: 8, Change: Change{Kind: Leave, Node: "x"}}})
	n.run(5)
	if a := n.answered("b", 8); a.Result != Refused || a.Why != "x is no member" {
		t.Errorf("%+v", a)
	}
}

// A node that joins learns the state at a cut, and then votes. One with a known name and another storage has
// lost its disk: it loses its vote until it has learned again.
func TestJoining(t *testing.T) {
	n := newNet(t, Options{Every: 4}, "a", "b", "c")
	n.run(40)
	for i := range uint64(9) {
		n.give("a", protocol.Input{Value: Ask{Ref: i, Change: Change{Kind: Set, Key: fmt.Sprint(i), Value: "v"}}})
	}
	n.run(20)
	n.add(Joiner(Member{Node: "d", Storage: "sd", Wanted: 1, Address: "d:1"}, []protocol.NodeID{"b"}, Options{}))
	n.run(60)
	if got := voters(n.nodes["a"].State.View); got != "3: a b c d" || !n.standing("d").Primary {
		t.Fatalf("view %s, %+v", got, n.standing("d"))
	}
	if d := cmp.Diff(n.nodes["a"].State, n.nodes["d"].State); d != "" {
		t.Error(d)
	}
	n.order = n.order[:3]
	n.add(Joiner(Member{Node: "d", Storage: "other", Wanted: 1}, []protocol.NodeID{"a"}, Options{}))
	n.run(80)
	if d := cmp.Diff([]string{"1: a b c", "2: a b c d=0", "3: a b c d", "4: a b c d=0", "5: a b c d"}, n.told("a")); d != "" {
		t.Error(d)
	}
	if m, _ := n.nodes["b"].State.Member("d"); m.Storage != "other" {
		t.Errorf("%+v", m)
	}
}

// Founders that are not known by their storages tell them; one that has lost its disk before that is not
// taken for the founder, although it takes itself for one.
func TestFoundersAreIdentified(t *testing.T) {
	s, err := Found("shop", Member{Node: "a"}, Member{Node: "b"}, Member{Node: "c"})
	if err != nil {
		t.Fatal(err)
	}
	n := emptyNet(t)
	for _, id := range []protocol.NodeID{"a", "b"} {
		n.add(Founder(Member{Node: id, Storage: "s" + string(id), Wanted: 1}, s, Options{}))
	}
	n.run(100)
	if got := n.standing("a"); got.Leader != "" || got.Primary || !strings.Contains(got.Why, "1 of 2 have") {
		t.Errorf("two of three who know nothing of the third: %+v", got)
	}
	n.add(Founder(Member{Node: "c", Storage: "sc", Wanted: 1}, s, Options{}))
	for i := 0; n.nodes["a"].Life.Blank || n.nodes["b"].Life.Blank || n.nodes["c"].Life.Blank; i++ {
		if n.run(1); i > 20 {
			t.Fatal("they do not welcome one another")
		}
	}
	if m, _ := n.nodes["a"].State.Member("c"); m.Storage != "" {
		t.Fatal("c is identified already")
	}
	n.order = n.order[:2]
	n.add(Founder(Member{Node: "c", Storage: "new", Wanted: 1}, s, Options{}))
	n.run(120)
	for id, storage := range map[protocol.NodeID]string{"a": "sa", "b": "sb", "c": "new"} {
		if m, _ := n.nodes["a"].State.Member(id); m.Storage != storage || m.Votes != 1 {
			t.Errorf("%+v", m)
		}
	}
	joined := false
	for _, v := range n.nodes["a"].State.Views {
		joined = joined || strings.Contains(voters(v), "c=0")
	}
	if !joined {
		t.Error("c never lost its vote")
	}
	if got := n.nodes["c"].State.Registers; got.Number != 5 || len(got.Members) != 3 || got.Members[2].Storage != "new" || got.Members[0].Storage != "sa" {
		t.Errorf("the registers are %+v", got)
	}
}

// The registers follow the members in two steps, of which the second waits until they have moved. Until then
// who has left is not let go. Founders whose storages become known are the same members.
func TestRegistersFollow(t *testing.T) {
	n := newNet(t, Options{}, "a", "b", "c")
	n.stay = true
	n.run(40)
	n.add(Joiner(Member{Node: "d", Storage: "sd", Wanted: 1, Address: "d:1"}, []protocol.NodeID{"b"}, Options{}))
	n.run(60)
	n.give("a", protocol.Input{Value: Ask{Ref: 1, Change: Change{Kind: Leave, Node: "c"}}})
	n.run(60)
	if r := n.nodes["a"].State.Registers; r.Number != 2 || names(r.Members) != "a0 b1 c2" || names(r.Next) != "a0 b1 c2 d3" {
		t.Errorf("%+v", r)
	}
	if n.nodes["c"].Retired {
		t.Error("c may go while the registers need it")
	}
	move := func(number uint64) {
		for _, id := range n.order {
			n.give(id, protocol.Input{Value: Moved{Number: number}})
		}
		n.run(30)
	}
	move(1)
	if r := n.nodes["a"].State.Registers; r.Number != 2 {
		t.Errorf("news of an earlier epoch have moved them: %+v", r)
	}
	move(2) // the members have changed again in the meantime
	if r := n.nodes["a"].State.Registers; r.Number != 4 || names(r.Members) != "a0 b1 c2 d3" || names(r.Next) != "a0 b1 d3" {
		t.Errorf("%+v", r)
	}
	move(4)
	if r := n.nodes["a"].State.Registers; r.Number != 5 || names(r.Members) != "a0 b1 d3" || r.Next != nil || n.nodes["a"].State.Trails() {
		t.Errorf("%+v", r)
	}
	if n.run(60); !n.nodes["c"].Retired {
		t.Error("c is not let go")
	}
	n.add(Joiner(Member{Node: "e", Storage: "se", Wanted: 1}, []protocol.NodeID{"b"}, Options{}))
	n.run(60)
	if m, _ := n.nodes["a"].State.Member("e"); m.Place != 2 {
		t.Errorf("e has not the place that is free: %+v", m)
	}
	n.give("a", protocol.Input{Value: Ask{Ref: 2, Change: Change{Kind: Regroup, Registers: 6}}})
	n.give("a", protocol.Input{Value: Ask{Ref: 3, Change: Change{Kind: Void, Node: "b"}}})
	for ref := range uint64(2) {
		if a := n.answered("a", ref+2); a.Result != Refused {
			t.Errorf("%+v", a)
		}
	}
}

// While the registers move nobody becomes a voter, or leads, who has no part in the move: only one that has can end
// it.
func TestWhoCannotMoveTheRegistersDoesNotLead(t *testing.T) {
	n := newNet(t, Options{}, "a", "b", "c")
	n.stay = true
	n.run(40)
	n.add(Joiner(Member{Node: "d", Storage: "sd", Wanted: 1}, []protocol.NodeID{"b"}, Options{}))
	n.run(60)
	if r := n.nodes["a"].State.Registers; r.Number != 2 || names(r.Next) != "a0 b1 c2 d3" {
		t.Fatalf("%+v", r)
	}
	n.add(Joiner(Member{Node: "e", Storage: "se", Wanted: 1}, []protocol.NodeID{"b"}, Options{}))
	n.run(100)
	if m, ok := n.nodes["a"].State.Member("e"); !ok || m.Votes != 0 {
		t.Errorf("e has a vote while the registers move: %+v", m)
	}
	// A person gives it the vote, and whoever leads is gone.
	n.give("a", protocol.Input{Value: Ask{Ref: 1, Change: Change{Kind: Weigh, Node: "e", Votes: 1}}})
	n.run(20)
	if a := n.answered("a", 1); a.Result != Applied {
		t.Fatalf("%+v", a)
	}
	was := n.standing("a").Leader
	n.cut[was] = true
	n.run(600)
	leader := n.standing("a").Leader
	if leader == "" || leader == was || !n.nodes["a"].State.Registers.needs(leader) {
		t.Fatalf("%s led, and %q does", was, leader)
	}
	n.stay = false
	for _, id := range n.order {
		n.give(id, protocol.Input{Value: Moved{Number: 2}})
	}
	n.run(60)
	if r := n.nodes["a"].State.Registers; r.Next != nil || !r.needs("e") {
		t.Errorf("%+v", r)
	}
}

// Who has left is done without, also when all that are left start again: what those who are gone have voted on need not be
// agreed on again.
func TestAllStartAgainWithoutThoseWhoLeft(t *testing.T) {
	n := newNet(t, Options{}, "a", "b", "c", "d")
	n.run(40)
	for ref, id := range []protocol.NodeID{"d", "c"} {
		n.give("a", protocol.Input{Value: Ask{Ref: uint64(ref), Change: Change{Kind: Leave, Node: id}}})
		n.run(60)
		if !n.nodes[id].Retired {
			t.Fatalf("%s is needed still: %+v", id, n.standing(id))
		}
		n.cut[id] = true // it is switched off
	}
	n.cut["a"], n.cut["b"] = true, true
	for _, id := range []protocol.NodeID{"a", "b"} {
		n.restart(Joiner(Member{Node: id, Storage: "s" + string(id), Wanted: 1}, nil, Options{}))
	}
	n.cut["a"], n.cut["b"] = false, false
	n.run(100)
	for _, id := range []protocol.NodeID{"a", "b"} {
		if s := n.standing(id); !s.Primary || voters(n.nodes[id].State.View) != "3: a b" {
			t.Errorf("%s: %+v in view %s", id, s, voters(n.nodes[id].State.View))
		}
	}
}

// Of those who have a part in the registers' move one voter stays: without one nobody could lead, for good.
func TestSomebodyIsLeftToMoveTheRegisters(t *testing.T) {
	s := founded(t, "a", "b")
	alter(t, &s, Change{Kind: Join, Node: "c", Member: Member{Storage: "sc", Wanted: 1}})
	alter(t, &s, Change{Kind: Regroup, Registers: 2})
	alter(t, &s, Change{Kind: Join, Node: "d", Member: Member{Storage: "sd", Wanted: 1}}) // too late for the move
	alter(t, &s, Change{Kind: Weigh, Node: "d", Votes: 1})
	alter(t, &s, Change{Kind: Leave, Node: "a"})
	for _, c := range []Change{{Kind: Leave, Node: "b"}, {Kind: Exclude, Node: "b"}, {Kind: Weigh, Node: "b", Votes: 0}} {
		if why := s.Judge(c, everybody); !strings.Contains(why, "nobody would be left to vote who has a part in that") {
			t.Errorf("%v of b: %q", c.Kind, why)
		}
	}
	c := s
	alter(t, &c, Change{Kind: Weigh, Node: "c", Votes: 1}) // it has a part
	alter(t, &c, Change{Kind: Leave, Node: "b"})
	alter(t, &s, Change{Kind: Regroup, Registers: 3})
	alter(t, &s, Change{Kind: Leave, Node: "b"})
}

// A founder of one that hears the members of a cluster that was there before stops, and remembers. Who asks to be let
// in, and a member that came so, do not stop it.
func TestLoneFounderThatWasAMember(t *testing.T) {
	n := newNet(t, Options{}, "a")
	n.run(40)
	n.add(Joiner(Member{Node: "b", Storage: "sb", Wanted: 1}, []protocol.NodeID{"a"}, Options{}))
	n.run(80)
	if !n.standing("a").Primary || !n.standing("b").Primary || voters(n.nodes["b"].State.View) != "3: a b" {
		t.Fatalf("%+v, %+v", n.standing("a"), n.standing("b"))
	}
	s, err := Found("shop", Member{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	n.order = n.order[1:]
	n.add(Founder(Member{Node: "a", Storage: "new", Wanted: 1}, s, Options{}))
	n.run(40)
	if got := n.standing("a"); got.Primary || got.Why != WhyLost || n.nodes["a"].Log.Wanted {
		t.Errorf("%+v", got)
	}
	n.give("a", protocol.Input{Value: Ask{Ref: 1, Change: Change{Kind: Set, Key: "k", Value: "v"}}})
	if got := n.answered("a", 1); got.Result != Refused || got.Why != WhyLost {
		t.Errorf("%+v", got)
	}
	again := Joiner(Member{Node: "a", Storage: "new", Wanted: 1}, []protocol.NodeID{"b"}, Options{})
	step(again, protocol.Recover{Records: protocol.Records{LifeKey: n.nodes["a"].Life}})
	if !again.Life.Lost || again.voter() {
		t.Errorf("%+v", again.Life)
	}
}

// A founder of one bears who waits to be let in: a node that knows who leads, and then the state, says nothing to it as to a member,
// and what another has passed on is no contradiction.
func TestLoneFounderBearsThoseWhoWait(t *testing.T) {
	n := newNet(t, Options{}, "a")
	n.run(40)
	waits := Joiner(Member{Node: "b", Storage: "sb", Wanted: 1}, []protocol.NodeID{"a"}, Options{})
	step(waits, protocol.Start{})
	waits.Log.Leader = "a"
	alone, asked := n.nodes["a"].State, 0
	for i := range 40 {
		if i == 20 {
			waits.State = alone
			waits.installed(&protocol.Effects{})
		}
		for _, s := range step(waits, protocol.Expire{Timer: detector.Timer}).Sends {
			r, ok := s.Message.(Request)
			if !ok {
				t.Fatalf("it says %T", s.Message)
			}
			asked++
			step(n.nodes["a"], protocol.Receive{From: "c", Message: Request{Change: r.Change, Forwarded: true}})
		}
	}
	if asked == 0 || n.nodes["a"].Life.Lost {
		t.Errorf("asked %d times; %+v", asked, n.nodes["a"].Life)
	}
}

// A founder of one that others have joined does not know so when it starts again, until it leads. It bears that they speak
// to it as to a member.
func TestFounderOfOneStartsAgain(t *testing.T) {
	s, err := Found("shop", Member{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	a, records := Founder(Member{Node: "a", Storage: "sa", Wanted: 1}, s, Options{}), protocol.Records{}
	var give func(protocol.Event)
	give = func(ev protocol.Event) {
		out := step(a, ev)
		for _, w := range out.Writes {
			if records[w.Key] = w.Record; w.Record == nil {
				delete(records, w.Key)
			}
		}
		for _, m := range out.Sends {
			if m.To == "a" {
				give(protocol.Receive{From: "a", Message: m.Message})
			}
		}
	}
	join := Change{By: "b", Storage: "sb", Number: 1, Kind: Join, Node: "b", Member: Member{Node: "b", Storage: "sb", Wanted: 1}}
	give(protocol.Start{})
	for range 60 {
		for _, timer := range []string{detector.Timer, election.Timer, paxos.LogTimer} {
			give(protocol.Expire{Timer: timer})
		}
		give(protocol.Receive{From: "b", Message: Request{Change: join}})
	}
	if !a.State.View.Has("b") {
		t.Fatalf("%+v", a.State.View)
	}
	again := Joiner(Member{Node: "a", Storage: "sa", Wanted: 1}, nil, Options{})
	step(again, protocol.Recover{Records: records})
	if !again.State.Alone() {
		t.Fatal("it knows at once, so this shows nothing")
	}
	step(again, protocol.Receive{From: "b", Message: detector.Heartbeat{}})
	if again.Life.Lost {
		t.Error("it has stopped for good")
	}
}

// A founder may leave before the others have noted its storage. It stays away all the same, and its successor does not.
func TestFounderLeavesAtOnce(t *testing.T) {
	s, err := Found("shop", Member{Node: "a"}, Member{Node: "b"}, Member{Node: "c"})
	if err != nil {
		t.Fatal(err)
	}
	founder := Founder(Member{Node: "a", Storage: "sa", Wanted: 1}, s, Options{})
	alter(t, &s, Change{Kind: Leave, Node: "a"})
	successor := Joiner(Member{Node: "a", Storage: "new", Wanted: 1}, []protocol.NodeID{"b"}, Options{})
	founder.State, successor.State = s, s
	if !founder.Left() || successor.Left() {
		t.Errorf("the founder has left: %v; its successor: %v", founder.Left(), successor.Left())
	}
}

// names writes members with their places: "a0 b1".
func names(all []Member) string {
	var words []string
	for _, m := range all {
		words = append(words, fmt.Sprint(m.Node, m.Place))
	}
	return strings.Join(words, " ")
}

func TestDescribe(t *testing.T) {
	n := newNet(t, Options{}, "a", "b", "c")
	n.run(40)
	n.cut["a"] = true
	n.run(10)
	n.give("c", protocol.Input{Value: Describe{}})
	all := n.emits["c"]
	s := all[len(all)-1].(Status)
	if s.Role != paxos.Leading || s.Leader != "c" || len(s.Peers) != 2 || s.Peers[0].Level == 0 || s.Peers[1].Chosen != s.Chosen {
		t.Errorf("%+v", s)
	}
}

func TestSystemsThatCannotBe(t *testing.T) {
	for _, c := range []Cluster{{}, {Founders: 5, Joiners: 5}, {Founders: 3, Joiners: -1}} {
		if _, err := c.Nodes(); !errors.Is(err, ErrSystem) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestMachines(t *testing.T) {
	codec, err := protocol.NewCodec(ClusterTypes()...)
	if err != nil {
		t.Fatal(err)
	}
	s := founded(t, "a", "b", "c")
	configuration := s.View.configuration()
	reigns := []paxos.Reign{{From: 1, Configuration: configuration}}
	snapshot := paxos.SnapshotRecord[State]{Slot: 2, State: &s, Reigns: reigns}
	set := Change{By: "b", Number: 1, Kind: Set, Key: "k", Value: "v"}
	events := []protocol.Event{protocol.Start{}, protocol.Recover{}, protocol.Expire{Timer: detector.Timer}, protocol.Expire{Timer: detector.Timer},
		protocol.Expire{Timer: election.Timer}, protocol.Expire{Timer: paxos.LogTimer}, protocol.Expire{Timer: workTimer},
		protocol.Recover{Records: protocol.Records{LifeKey: LifeRecord{Storage: "sa", Incarnation: 3}, paxos.SnapshotKey: snapshot}},
		protocol.Input{Value: Describe{}}, protocol.Input{Value: Moved{Number: 1}}, protocol.Input{Value: Ask{Ref: 1, Change: set}}, protocol.Input{Value: Ask{Ref: 2, Change: Change{Kind: Leave, Node: "b"}}}}
	b := paxos.Ballot{Round: 1, Node: "b"}
	own := paxos.Ballot{Round: 1, Node: "a"}
	for _, node := range []protocol.NodeID{"b", "c"} {
		for _, m := range []protocol.Message{detector.Heartbeat{}, election.Answer{}, election.Leader{}, election.Election{}, Request{Change: set},
			Refusal{Number: 1<<32 + 1, Why: "no"}, Report{Storage: "s" + string(node), Chosen: 1}, Dismissed{View: 1}, Meet{Storage: "s"}, Met{Storage: "sa"}, Met{Storage: "x"},
			paxos.LogPhase1a[Change]{Ballot: b}, paxos.LogPhase1b[Change]{Ballot: own, Storage: "s" + string(node)},
			paxos.LogPhase2a[Change]{Ballot: b, Slot: 1, Entry: s.entry(set)}, paxos.LogPhase2b[Change]{Ballot: own, Slot: 1, Storage: "s" + string(node)},
			paxos.LogPhase2a[Change]{Ballot: b, Slot: 2, Entry: s.entry(Change{By: "c", Number: 1, Kind: Leave, Node: "c"}), Chosen: 1},
			paxos.Heartbeat[Change]{Ballot: b, Chosen: 2}, paxos.Transfer[State]{Snapshot: snapshot, Chosen: 2}} {
			events = append(events, protocol.Receive{From: node, Message: m})
		}
	}
	self, _ := s.Member("a")
	blank, err := Found("shop", Member{Node: "a"}, Member{Node: "b"}, Member{Node: "c"})
	if err != nil {
		t.Fatal(err)
	}
	protocoltest.Run(t, protocoltest.Subject{
		New: []func() protocol.Machine{
			func() protocol.Machine { return Founder(self, s, Options{Every: 2}) },
			func() protocol.Machine { return Founder(self, blank, Options{Every: 2}) },
			func() protocol.Machine {
				return Joiner(Member{Node: "a", Storage: "x", Wanted: 1}, []protocol.NodeID{"b"}, Options{Exclude: 3})
			},
			func() protocol.Machine {
				return &Citizen{Node: *Founder(self, s, Options{}), Wishes: []Change{set}, Forgetful: true}
			},
		},
		Events: events, Codec: codec, Steps: 60,
	})
}
