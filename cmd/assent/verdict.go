package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"assent/check"
)

// verdict is what assent check prints as JSON.
type verdict struct {
	Protocol   string     `json:"protocol"`
	Model      string     `json:"model"`
	Because    string     `json:"model_reason"`
	Warnings   []string   `json:"warnings,omitempty"`
	Complete   bool       `json:"complete"`
	Properties []judgment `json:"properties"`
	// Reached is what should be possible.
	Reached []sighting `json:"reached"`
	// Blocking counts the states in which a participant that is up is blocked; Blocked says which they are.
	Blocking      int           `json:"blocking"`
	Blocked       []blockedKind `json:"blocked"`
	States        int           `json:"states"`
	Transitions   int           `json:"transitions"`
	Depth         int           `json:"depth"`
	LocalStates   int           `json:"local_states"`
	Messages      int           `json:"messages"`
	Seconds       float64       `json:"seconds"`
	BytesPerState float64       `json:"bytes_per_state"`

	stopped bool // by Ctrl-C
}

// judgment is about one property.
type judgment struct {
	Name string `json:"name"`
	// Holds is false, too, where it is not known.
	Holds bool `json:"holds"`
	Known bool `json:"known"`
	// Shortest is the shortest run that shows that it does not hold.
	Shortest []string `json:"shortest,omitempty"`

	live bool // not one of safety
}

// sighting is about what should happen in some run.
type sighting struct {
	Name string `json:"name"`
	// Reached is false, too, where it is not known.
	Reached bool `json:"reached"`
	Known   bool `json:"known"`
}

// summary puts the reports of the run with faults and of the quiet one together.
func summary(whole composition, r, quiet check.Report) verdict {
	v := verdict{Complete: r.Complete && (r.BlockingKnown || whole.ends == "") && quiet.Complete, Blocking: r.Blocking,
		States: r.States, Transitions: r.Transitions, Depth: r.Depth, LocalStates: r.Locals, Messages: r.Messages,
		Seconds: r.Elapsed.Seconds(), BytesPerState: float64(r.Bytes) / float64(max(1, r.States))}
	for _, p := range whole.always {
		v.Properties = append(v.Properties, judge(p.Name, r))
	}
	for _, p := range whole.quiet {
		v.Properties = append(v.Properties, judge(p.Name, quiet))
	}
	if whole.ends != "" {
		end := judgment{Name: whole.ends, Known: r.BlockingKnown, Holds: r.BlockingKnown && r.Blocking == 0, live: true}
		if r.Blocked != nil {
			end.Shortest = steps(*r.Blocked)
		}
		v.Properties = append(v.Properties, end)
	}
	for _, p := range whole.sometimes {
		reached := !slices.Contains(r.Never, p.Name)
		v.Reached = append(v.Reached, sighting{p.Name, reached, reached || r.Complete})
	}
	return v
}

// claim returns what is claimed, as the end of a sentence: without the number that some properties have.
func (j judgment) claim() string {
	if number, claim, ok := strings.Cut(j.Name, ": "); ok && strings.HasPrefix(number, "AC") {
		return claim
	}
	return "there is " + j.Name
}

func judge(name string, r check.Report) judgment {
	for _, broken := range r.Broken {
		if broken.Claim == name {
			return judgment{Name: name, Known: true, Shortest: steps(broken)}
		}
	}
	return judgment{Name: name, Known: r.Complete, Holds: r.Complete}
}

func steps(c check.Counterexample) []string {
	var all []string
	for i, s := range c.Steps {
		if i > 0 {
			all = append(all, s.What)
		}
	}
	return all
}

// failure returns what the exit code comes of: a property of safety that does not hold, or a search that was
// cut short.
func (v verdict) failure() error {
	for _, j := range v.Properties {
		if j.Known && !j.Holds && !j.live {
			return &failure{text: "a property of safety does not hold: " + j.Name, exit: exitUnsound}
		}
	}
	if !v.Complete && v.stopped {
		return fail("let it run longer, or ask for fewer participants or faults", "the check was stopped, and is not complete")
	}
	if !v.Complete {
		return fail("raise --max-states, or ask for fewer participants or faults", "the check is not complete")
	}
	return nil
}

func (v verdict) print(w io.Writer, asJSON bool, colours colours) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	if _, err := fmt.Fprintln(w, v.model()); err != nil {
		return err
	}
	out := table{palette: colours}
	for _, j := range v.Properties {
		out.add(cell{text: j.Name}, colours.cell(j.Known, j.Holds, "holds", "does not hold"))
	}
	for _, s := range v.Reached {
		out.add(cell{text: s.Name}, colours.cell(s.Known, s.Reached, "is reached", "is never reached"))
	}
	if err := out.write(w); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s states, %s transitions, depth %d; %d local states and %d messages; %.1f s, %.0f bytes a state\n",
		thousands(v.States), thousands(v.Transitions), v.Depth, v.LocalStates, v.Messages, v.Seconds, v.BytesPerState)
	for _, j := range v.Properties {
		if len(j.Shortest) == 0 {
			if j.Known && !j.Holds {
				fmt.Fprintf(&b, "\nit does not hold that %s; the check ended before the shortest run was found\n", j.claim())
			}
			continue
		}
		fmt.Fprintf(&b, "\nthe shortest run in which it does not hold that %s\n", j.claim())
		for i, s := range j.Shortest {
			fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
		}
	}
	if v.Blocking > 0 {
		v.tellBlocked(&b)
	}
	_, err := fmt.Fprint(w, b.String())
	return err
}

// model says in a line what the search has taken for granted, and why.
func (v verdict) model() string {
	if v.Model == "sync" {
		return fmt.Sprintf("%s in the synchronous model, %s: a timer runs out only when no message is on its way", v.Protocol, v.Because)
	}
	return fmt.Sprintf("%s in the asynchronous model, %s: a timer may run out at any moment, and messages are lost and repeated without limit",
		v.Protocol, v.Because)
}

// cell says in one of two words how something came out, or that it is not known.
func (c colours) cell(known, well bool, good, bad string) cell {
	switch {
	case well:
		return cell{good, c.good}
	case known:
		return cell{bad, c.bad}
	}
	return cell{"not known", c.warn}
}

// thousands writes n with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
