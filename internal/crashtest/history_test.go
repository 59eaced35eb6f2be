package crashtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// history is what the coordinators of a bank test said that they did, in the order in which they
// said it. An operation's first line was written before it began, and its last after it had ended:
// if the last line of one stands before the first of another, then the one was over when the other
// began. No clock is needed.
type history struct {
	mu    sync.Mutex
	lines int
	ops   map[string]*operation
	order []*operation
}

// operation is one transfer or audit.
type operation struct {
	id      string
	invoked int // line
	did     *effect
	done    int // line; 0 where there is none
	report  *report
}

func newHistory() *history { return &history{ops: map[string]*operation{}} }

// take adds a line.
func (h *history) take(m message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines++
	switch {
	case m.Invoke != "":
		op := &operation{id: m.Invoke, invoked: h.lines}
		h.ops[op.id] = op
		h.order = append(h.order, op)
	case m.Did != nil:
		h.ops[m.Did.ID].did = m.Did
	case m.Done != "":
		h.ops[m.Done].done, h.ops[m.Done].report = h.lines, m.Report
	}
}

// judgement is what the books say of a history.
type judgement struct {
	found []string // anomalies
	// Transfers and audits that are committed, aborted and without a report that was sure.
	transfers, audits, aborted, settled int
}

// judge holds a history against the books at its end. It looks whether each operation is whole or
// has not happened, whether its report is true, and whether there is one order of all that
// committed, in agreement with what was over before what, in which each operation reads what the
// one before has left (strict serializability).
//
// The order is looked for as a circle that must not be there (Adya 1999; Elle, Kingsbury and Alvaro
// 2020): every account has versions, each made by one transfer, so it is known who wrote after
// whom and who read what. The history is too long, and its operations without an answer are
// too many, to be searched for an order directly.
func (h *history) judge(b books) judgement {
	j := judgement{found: b.unbalanced()}
	writers := map[string]map[int64]move{} // by account and version
	happened := map[string]map[string]int64{}
	for _, m := range b.moves {
		if writers[m.Account] == nil {
			writers[m.Account] = map[int64]move{}
		}
		if other, ok := writers[m.Account][m.Version]; ok {
			j.find("lost update: %s and %s have both made version %d of %s", other.Transfer, m.Transfer, m.Version, m.Account)
		}
		writers[m.Account][m.Version] = m
		if happened[m.Transfer] == nil {
			happened[m.Transfer] = map[string]int64{}
		}
		happened[m.Transfer][m.Account] = m.Version
	}
	var took []*operation
	for _, op := range h.order {
		if h.account(op, happened[op.id], &j) {
			took = append(took, op)
		}
		delete(happened, op.id)
	}
	for id := range happened {
		j.find("nobody has made the transfer %s", id)
	}
	for _, op := range took {
		j.reads(op, writers)
	}
	g := graphOf(took, writers)
	if circle := g.circle(); circle != nil {
		j.find("no order: %s", strings.Join(circle, " "))
	}
	return j
}

func (j *judgement) find(format string, a ...any) {
	j.found = append(j.found, fmt.Sprintf(format, a...))
}

// account compares one operation's report with what has happened, and reports whether it is among
// those that committed.
func (h *history) account(op *operation, got map[string]int64, j *judgement) bool {
	kind := ""
	if op.report != nil {
		kind = op.report.Kind
	}
	switch kind {
	case committed, aborted, inDoubt, "":
	default:
		j.find("%s was reported %s: %s", op.id, kind, op.report.Text)
	}
	if len(got) == 0 && (op.did == nil || len(op.did.Writes) > 0) {
		switch kind {
		case committed:
			j.find("%s was reported committed, and nothing of it is there", op.id)
		case aborted:
			j.aborted++
		default:
			j.settled++
		}
		return false
	}
	if op.did == nil {
		j.find("%s has happened, and was never about to commit", op.id)
		return false
	}
	if len(op.did.Writes) == 0 { // an audit
		if kind == committed {
			j.audits++
		}
		return kind == committed
	}
	for name, version := range op.did.Writes {
		if got[name] != version {
			j.find("%s is torn: it has made %v, and wanted %v", op.id, got, op.did.Writes)
			break
		}
	}
	j.transfers++
	switch kind {
	case aborted:
		j.find("%s was reported aborted (%s), and has happened", op.id, op.report.Text)
	case committed:
	default:
		j.settled++
	}
	return true
}

// reads looks whether an operation has read what was there: versions that were made by those who
// are said to have made them, and, if it has read all, all of the money.
func (j *judgement) reads(op *operation, writers map[string]map[int64]move) {
	sum := int64(0)
	for name, a := range op.did.Reads {
		sum += a.Balance
		if a.Version == 0 && a.Writer == "" {
			continue
		}
		if w := writers[name][a.Version]; w.Transfer != a.Writer {
			j.find("%s has read version %d of %s by %q, which is %q's", op.id, a.Version, name, a.Writer, w.Transfer)
		}
	}
	if len(op.did.Reads) == 3*accounts && sum != 3*accounts*initial {
		j.find("the audit %s has counted %d, and there are %d", op.id, sum, 3*accounts*initial)
	}
}

// graph says what came before what.
type graph struct {
	names []string
	edges [][]edge
}

type edge struct {
	to  int
	why string
}

func (g *graph) node(name string) int {
	g.names = append(g.names, name)
	g.edges = append(g.edges, nil)
	return len(g.names) - 1
}

func (g *graph) edge(from, to int, why string) {
	if from != to {
		g.edges[from] = append(g.edges[from], edge{to, why})
	}
}

// graphOf makes the graph of the operations that committed.
func graphOf(ops []*operation, writers map[string]map[int64]move) *graph {
	g := &graph{}
	nodes := map[string]int{}
	for _, op := range ops {
		nodes[op.id] = g.node(op.id)
	}
	for _, op := range ops {
		n := nodes[op.id]
		for name, a := range op.did.Reads {
			if w, ok := nodes[writers[name][a.Version].Transfer]; ok {
				g.edge(w, n, fmt.Sprintf("wrote version %d of %s, which was read by", a.Version, name))
			}
			if w, ok := nodes[writers[name][a.Version+1].Transfer]; ok {
				g.edge(n, w, fmt.Sprintf("read version %d of %s, which was overwritten by", a.Version, name))
			}
		}
		for name, version := range op.did.Writes {
			if w, ok := nodes[writers[name][version+1].Transfer]; ok {
				g.edge(n, w, fmt.Sprintf("wrote version %d of %s, which was overwritten by", version, name))
			}
		}
	}
	g.realTime(ops, nodes)
	return g
}

// realTime adds what was over before what: a chain of moments, one for each end, so that there are
// no more edges than lines.
func (g *graph) realTime(ops []*operation, nodes map[string]int) {
	type line struct {
		at  int
		op  *operation
		end bool
	}
	var lines []line
	for _, op := range ops {
		lines = append(lines, line{op.invoked, op, false})
		if op.done > 0 && op.report.Kind == committed {
			lines = append(lines, line{op.done, op, true})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return a.at - b.at })
	moment := -1
	for _, l := range lines {
		switch {
		case l.end:
			next := g.node(fmt.Sprintf("line %d", l.at))
			if moment >= 0 {
				g.edge(moment, next, "is before")
			}
			g.edge(nodes[l.op.id], next, "was over at")
			moment = next
		case moment >= 0:
			g.edge(moment, nodes[l.op.id], "is before the beginning of")
		}
	}
}

// circle returns a shortest way from some node back to it, told in words, or nil.
func (g *graph) circle() []string {
	in := make([]int, len(g.names))
	for _, edges := range g.edges {
		for _, e := range edges {
			in[e.to]++
		}
	}
	var free []int
	for n, count := range in {
		if count == 0 {
			free = append(free, n)
		}
	}
	left := len(g.names)
	for len(free) > 0 {
		n := free[len(free)-1]
		free = free[:len(free)-1]
		left--
		for _, e := range g.edges[n] {
			if in[e.to]--; in[e.to] == 0 {
				free = append(free, e.to)
			}
		}
	}
	if left == 0 {
		return nil
	}
	var best []string
	tried := 0
	for n, count := range in {
		if count > 0 && tried < 1000 {
			tried++
			if way := g.wayBack(n, in); way != nil && (best == nil || len(way) < len(best)) {
				best = way
			}
		}
	}
	return best
}

// wayBack returns a shortest way from n to n through nodes with in > 0.
func (g *graph) wayBack(n int, in []int) []string {
	type step struct {
		from int
		why  string
	}
	came := map[int]step{}
	queue := []int{n}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, e := range g.edges[at] {
			if _, seen := came[e.to]; seen || in[e.to] == 0 {
				continue
			}
			came[e.to] = step{at, e.why}
			if e.to != n {
				queue = append(queue, e.to)
				continue
			}
			way := []string{g.names[n] + "."}
			for at := n; ; {
				s := came[at]
				way = append([]string{g.names[s.from], s.why}, way...)
				if at = s.from; at == n {
					return way
				}
			}
		}
	}
	return nil
}

// told is a history in which each operation is one word: "+a" begins a, "a" has done its work,
// "-a" has committed, "!a" has aborted, "?a" is in doubt. Effects are "kv/0:3" for a read of
// version 3 and "kv/0=4" for the making of version 4.
func told(script string) (*history, books) {
	h := newHistory()
	b := books{accounts: map[string]account{}}
	versions := map[string]map[int64]string{}
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		words := strings.Fields(line)
		name := strings.TrimLeft(words[0], "+-!?")
		switch words[0][0] {
		case '+':
			h.take(message{Invoke: name})
		case '-', '!', '?':
			kind := map[byte]string{'-': committed, '!': aborted, '?': inDoubt}[words[0][0]]
			h.take(message{Done: name, Report: &report{Kind: kind}})
		default:
			e := &effect{ID: name, Reads: map[string]account{}, Writes: map[string]int64{}}
			for _, w := range words[1:] {
				var version int64
				at, number, wrote := strings.Cut(w, "=")
				if !wrote {
					at, number, _ = strings.Cut(w, ":")
				}
				fmt.Sscan(number, &version)
				if versions[at] == nil {
					versions[at] = map[int64]string{}
				}
				if wrote {
					e.Writes[at] = version
					versions[at][version] = name
					b.moves = append(b.moves, move{Transfer: name, Account: at, Version: version})
				} else {
					e.Reads[at] = account{Balance: initial, Version: version, Writer: versions[at][version]}
				}
			}
			h.take(message{Did: e})
		}
	}
	for at := range versions {
		count := int64(0)
		for _, m := range b.moves {
			if m.Account == at {
				count++
			}
		}
		b.accounts[at] = account{Balance: initial, Version: count}
	}
	return h, b
}

// TestJudgeFindsAnomalies shows the judge a history of each kind that must be found, and some
// that are in order.
func TestJudgeFindsAnomalies(t *testing.T) {
	for _, c := range []struct{ name, want, script string }{
		{"in order", "", `
			+a
			a x:0 x=1 y:0 y=1
			+b
			-a
			b x:1 y:1
			-b`},
		{"at once, either order is possible", "", `
			+b
			+a
			a x:0 x=1
			-a
			b x:0 y:0 y=1
			-b`},
		{"in doubt, and committed", "", `
			+a
			a x:0 x=1
			?a
			+b
			b x:1 x=2
			-b`},
		{"dead before the report, and read much later", "", `
			+a
			a x:0 x=1 y:0 y=1
			+b
			b y:0
			-b
			+c
			c x:1 y:1
			-c`},
		{"lost update", "lost update", `
			+a
			+b
			a x:0 x=1
			b x:0 x=1
			-a
			-b`},
		{"write skew", "no order", `
			+a
			+b
			a x:0 y:0 x=1
			b x:0 y:0 y=1
			-a
			-b`},
		{"read skew: half of a transfer", "no order", `
			+a
			+b
			a x:0 x=1 y:0 y=1
			b x:1 y:0
			-a
			-b`},
		{"two readers see two writes in two orders", "no order", `
			+a
			+b
			+c
			+d
			a x:0 x=1
			b y:0 y=1
			c x:1 y:0
			d x:0 y:1
			-a
			-b
			-c
			-d`},
		{"stale read: it was over before", "no order", `
			+a
			a x:0 x=1
			-a
			+b
			b x:0 y:0
			-b`},
		{"reported aborted, and is there", "reported aborted", `
			+a
			a x:0 x=1
			!a`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, b := told(c.script)
			expect(t, h.judge(b), c.want)
		})
	}
	t.Run("reported committed, and is not there", func(t *testing.T) {
		h, b := told("+a\na x:0 x=1\n-a")
		b.moves, b.accounts = nil, nil
		expect(t, h.judge(b), "reported committed")
	})
	t.Run("torn", func(t *testing.T) {
		h, b := told("+a\na x:0 x=1 y:0 y=1\n-a")
		b.moves = b.moves[:1]
		b.accounts = nil
		expect(t, h.judge(b), "torn")
	})
	t.Run("dirty read", func(t *testing.T) {
		h, b := told("+a\na x:0 x=1\n!a\n+b\nb x:1\n-b")
		b.moves, b.accounts = nil, nil
		expect(t, h.judge(b), "has read version 1")
	})
	t.Run("money is gone", func(t *testing.T) {
		h, b := told("+a\na x:0 x=1\n-a")
		b.accounts["x"] = account{Balance: initial - 1, Version: 1}
		expect(t, h.judge(b), "holds 999")
	})
	t.Run("nobody's", func(t *testing.T) {
		h, b := told("+a\na x:0 x=1\n-a")
		b.moves = append(b.moves, move{Transfer: "z", Account: "q", Version: 1})
		expect(t, h.judge(b), "nobody has made")
	})
}

func expect(t *testing.T, j judgement, want string) {
	t.Helper()
	found := strings.Join(j.found, "\n")
	if want == "" && found != "" || !strings.Contains(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
