package museum

import (
	"fmt"
	"strings"
	"time"

	"assent/sim"
)

// page is docs/museum.md.
func page(exhibits []Exhibit, found []Found) string {
	var b strings.Builder
	b.WriteString(`# A museum of bugs

Are the checker and the simulator any good? Each bug below is the production machine with one line
changed: what somebody might write on a bad day, or has written, in one product or another. Both tools
must find every one. ` + "`go test ./internal/museum`" + ` builds one finder from the source, with every change in
it as an overlay, switches on one change at a time, and lets both tools look; a bug that survives fails the
build. In the machines as they are both find nothing, and that is tested with them: in as many states, at most a million, and in 1,000
seeds, or with ` + "`make soak`" + ` in the 20,000 after which the simulator would give up a bug.

The checker looks at a small system (` + "`internal/museum/systems.go`" + `), two or three participants, acceptors or replicas under a
budget of faults, and counts the states up to the first that is wrong, and the steps of the shortest run to one. The simulator
runs one more participant as often as not, with faults drawn from each seed, and counts the seeds up to
the first that fails. Both counts are the same in every run; the times are of one run, on one processor of a
machine that did other work, too. The search alone is timed. ` + "`make docs`" + ` measures anew.

Neither tool is always the better. Short and nasty orders of events, a stale copy of a message after a
crash, say, the checker has in milliseconds and the simulator after a thousand seeds. Long runs with three
participants, partitions and rounds cost the checker a million states; a seed that goes there is soon found.

| | bug | system | checker: states | steps | time | broken | simulator: seeds | time | broken |
|--|--|--|--:|--:|--:|--|--:|--:|--|
`)
	for i, e := range exhibits {
		c, s := found[i].Checker, found[i].Simulator
		fmt.Fprintf(&b, "| %d | %s | %s | %d | %d | %s | %s | %d | %s | %s |\n", i+1, e.Name, e.System,
			c.Tried, c.Steps, short(c.Took), claim(c.Claim), s.Tried, short(s.Took), claim(s.Claim))
	}
	b.WriteString("\nAC1 to AC3 are in `spec`: all who decide decide alike; no decision is reversed; commit only if all\n" +
		"voted yes. *End* is the claim that all come to their end when the faults are over; *forget*, that a\n" +
		"commit is forgotten when all have done it; *agreement*, that no two nodes know different decisions; *log\n" +
		"agreement*, that of any two histories of a log one begins with the other; *linear membership*, that all see\n" +
		"the same views in the same order.\n")
	for i, e := range exhibits {
		fmt.Fprintf(&b, "\n## %d. %s\n\n%s\n\n```diff\n %s, %s\n-%s\n", i+1, capital(e.Name), e.Why, e.File, e.Func, e.Old)
		if e.New != "" {
			fmt.Fprintf(&b, "+%s\n", e.New)
		}
		b.WriteString("```\n")
	}
	return b.String()
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// claim is a claim's name for the table.
func claim(name string) string {
	short, _, ok := strings.Cut(name, ":")
	switch {
	case ok:
		return short
	case name == toldAll().Name:
		return "forget"
	case name == sim.Ended:
		return "end"
	}
	return name
}

func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}
