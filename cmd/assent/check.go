package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"assent/check"
	"assent/spec"
)

// checking is one run of assent check.
type checking struct {
	p         *program
	params    parameters
	faults    check.Faults
	votes     []string
	timing    string
	maxStates int
	asJSON    bool
}

func (p *program) checkCommand() *cobra.Command {
	c := checking{p: p}
	cmd := &cobra.Command{
		Use:   "check PROTOCOL",
		Short: "take a protocol through every state that it can reach",
		Long: `Take the machines that run live through every state that they can reach under a budget of faults,
and say which properties of atomic commitment hold. The protocols are

` + listSystems() + `
In the asynchronous model a timer may run out at any moment, and messages may be lost, repeated and
reordered without limit. In the synchronous one a timer runs out only when no message is on its way
to a node that is up, and messages are lost and repeated as often as you say. A crash falls between
two steps, or within one: after the stable writes, or after any number of the messages.

AC1 to AC4 must hold; where one does not, the exit code is 7 and the shortest run that breaks it is
shown. AC5, that every participant which is up can come to its end while those that are down
stay down, does not hold for two-phase commit once the coordinator may crash: the shortest way into
the blocked state is shown.`,
		Example: `  assent check 2pc
  assent check 2pc --crashes 2 --restarts 2
  assent check 2pc --crashes 1 --restarts 0 --cooperative
  assent check 2pc --participants 3 --votes yes --model sync --losses 1 --json`,
		Args: exactlyOne("protocol"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) },
	}
	flags := cmd.Flags()
	flags.IntVar(&c.params.participants, "participants", 2, "`N` participants, 1 to 8")
	flags.StringSliceVar(&c.votes, "votes", []string{"yes", "no", "read-only"}, "what each branch may vote")
	flags.IntVar(&c.faults.Crashes, "crashes", 1, "at most `N` crashes")
	flags.IntVar(&c.faults.Restarts, "restarts", 1, "at most `N` nodes made anew after a crash")
	flags.IntVar(&c.faults.Losses, "losses", 0, "at most `N` messages lost; synchronous model only")
	flags.IntVar(&c.faults.Duplicates, "duplicates", 0, "at most `N` messages repeated; synchronous model only")
	flags.StringVar(&c.timing, "model", "async", "async or sync")
	flags.BoolVar(&c.params.cooperative, "cooperative", false, "participants in doubt ask one another")
	flags.IntVar(&c.params.voteRetries, "vote-retries", 0, "the coordinator asks `N` times more for a vote")
	flags.IntVar(&c.params.rounds, "rounds", 1, "q3pc: participants lead rounds up to number `N`")
	flags.BoolVar(&c.params.unilateral, "unilateral", false, "3pc: no election; each follows its timeout transitions")
	flags.IntVar(&c.maxStates, "max-states", 20_000_000, "stop after `N` states and say what is known; they take about 40 bytes each")
	flags.BoolVar(&c.asJSON, "json", false, "print JSON")
	return cmd
}

// verdict is what the command prints as JSON.
type verdict struct {
	Protocol   string     `json:"protocol"`
	Complete   bool       `json:"complete"`
	Properties []judgment `json:"properties"`
	// Blocking counts the states in which a participant that is up is blocked.
	Blocking      int     `json:"blocking"`
	States        int     `json:"states"`
	Transitions   int     `json:"transitions"`
	Depth         int     `json:"depth"`
	LocalStates   int     `json:"local_states"`
	Messages      int     `json:"messages"`
	Seconds       float64 `json:"seconds"`
	BytesPerState float64 `json:"bytes_per_state"`
}

// judgment is about one property.
type judgment struct {
	Name string `json:"name"`
	// Holds is false, too, where it is not known.
	Holds bool `json:"holds"`
	Known bool `json:"known"`
	// Shortest is the shortest run that shows that it does not hold.
	Shortest []string `json:"shortest,omitempty"`
}

func (c *checking) run(ctx context.Context, name string) error {
	sys, err := findSystem(name)
	if err != nil {
		return err
	}
	if err := c.parse(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	whole, err := sys.make(c.params)
	if err != nil {
		return err
	}
	safety := whole.always
	r, err := c.explore(ctx, whole, c.faults, c.timing, check.Claims{Always: safety, Decided: whole.done})
	if err != nil {
		return err
	}
	steady := c.params
	steady.steadfast = true
	if whole, err = sys.make(steady); err != nil {
		return err
	}
	q, err := c.explore(ctx, whole, check.Faults{}, "sync", check.Claims{Always: whole.quiet})
	if err != nil {
		return err
	}
	v := summary(name, safety, whole.quiet, r, q)
	if err := c.print(v); err != nil {
		return err
	}
	for _, j := range v.Properties[:len(v.Properties)-1] {
		if j.Known && !j.Holds {
			return &failure{text: "a property of safety does not hold: " + j.Name, exit: exitUnsound}
		}
	}
	if !v.Complete {
		return fail("raise --max-states, or ask for fewer participants or faults", "the check is not complete")
	}
	return nil
}

// parse makes the model from the flags.
func (c *checking) parse() (err error) {
	switch c.timing {
	case "sync":
	case "async":
		if c.faults.Losses != 0 || c.faults.Duplicates != 0 {
			return misuse("leave them out, or say --model sync",
				"in the asynchronous model losses and duplicates have no limit")
		}
		c.faults.Duplicates = check.Unlimited
	default:
		return misuse("async and sync are the models", "there is no model %q", c.timing)
	}
	c.params.votes, err = parseVotes(c.votes)
	return err
}

func (c *checking) explore(ctx context.Context, whole composition, faults check.Faults, timing string, claims check.Claims) (check.Report, error) {
	sys := check.System{Nodes: whole.nodes, Codec: whole.codec, Faults: faults, Model: check.Asynchronous}
	if timing == "sync" {
		sys.Model = check.Synchronous
	}
	shown := false
	limits := check.Limits{States: c.maxStates, Progress: func(p check.Progress) {
		if p.Frontier > 0 && p.Elapsed > time.Second {
			shown = true
			fmt.Fprintf(c.p.err, "%s states, %s to go on from, depth %d, %.0f states/s\n",
				thousands(p.States), thousands(p.Frontier), p.Depth, float64(p.States)/p.Elapsed.Seconds())
		}
	}}
	r, err := check.Run(ctx, sys, claims, limits)
	if shown && r.Complete {
		fmt.Fprintf(c.p.err, "%s states, all of them\n", thousands(r.States))
	}
	if err != nil {
		return r, misuse("assent check --help shows examples", "%v", err)
	}
	return r, nil
}

// summary puts the reports of the run with faults and of the quiet one together.
func summary(name string, safety, calm []spec.Property, r, quiet check.Report) verdict {
	v := verdict{Protocol: name, Complete: r.Complete && quiet.Complete, Blocking: r.Blocking,
		States: r.States, Transitions: r.Transitions, Depth: r.Depth, LocalStates: r.Locals, Messages: r.Messages,
		Seconds: r.Elapsed.Seconds(), BytesPerState: float64(r.Bytes) / float64(max(1, r.States))}
	for _, p := range safety {
		v.Properties = append(v.Properties, judge(p.Name, r))
	}
	for _, p := range calm {
		v.Properties = append(v.Properties, judge(p.Name, quiet))
	}
	ac5 := judgment{Name: "AC5: every participant that is up can come to its end", Known: r.Complete, Holds: r.Complete && r.Blocking == 0}
	if r.Blocked != nil {
		ac5.Shortest = steps(*r.Blocked)
	}
	v.Properties = append(v.Properties, ac5)
	return v
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
	for _, s := range c.Steps[1:] {
		all = append(all, s.What)
	}
	return all
}

func (c *checking) print(v verdict) error {
	if c.asJSON {
		e := json.NewEncoder(c.p.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	out := table{palette: palette(c.p.out, c.p.getenv)}
	for _, j := range v.Properties {
		word, colour := "not known", out.palette.warn
		switch {
		case j.Holds:
			word, colour = "holds", out.palette.good
		case j.Known:
			word, colour = "does not hold", out.palette.bad
		}
		out.add(cell{text: j.Name}, cell{word, colour})
	}
	if err := out.write(c.p.out); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s states, %s transitions, depth %d; %d local states and %d messages; %.1f s, %.0f bytes a state\n",
		thousands(v.States), thousands(v.Transitions), v.Depth, v.LocalStates, v.Messages, v.Seconds, v.BytesPerState)
	for _, j := range v.Properties {
		if len(j.Shortest) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\nthe shortest run in which it does not hold that %s\n", strings.TrimPrefix(j.Name, j.Name[:5]))
		for i, s := range j.Shortest {
			fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
		}
	}
	if v.Blocking > 0 {
		fmt.Fprintf(&b, "\nin %s of the states a participant is blocked\n", thousands(v.Blocking))
	}
	_, err := fmt.Fprint(c.p.out, b.String())
	return err
}

// thousands writes n with commas.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
