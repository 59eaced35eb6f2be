package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"assent/protocol"
	"assent/sim"
	simcluster "assent/sim/cluster"
	"assent/trace"
)

// simulating is one run of assent sim.
type simulating struct {
	p      *program
	params parameters
	votes  []string
	seeds  string
	seed   uint64
	faults []string
	chart  string
	trace  string

	first, last uint64
	classes     []sim.Class
	aimed       map[sim.Class]protocol.NodeID
}

func (p *program) simCommand() *cobra.Command {
	c := simulating{p: p}
	cmd := &cobra.Command{
		Use:   "sim PROTOCOL",
		Short: "run a protocol through random faults, each run made by a seed",
		Long: `Run the machines that run live through random schedules of faults, in simulated time. The protocols
are

` + listSystems() + `  stack       the whole of Assent: decision logs, stores, recovery, and clients that move money
  cluster     all parts of a cluster on every node: members that join, leave and are excluded, registers that
              follow them, coordinators, stores, clients

One seed decides everything: the same seed makes the same run. Each draws which classes of faults it
has, and how many of each. While the faults last, what is claimed must hold after every event; when
they are healed, everything must come to its end.

--faults names the classes a seed may draw from, or none:
  ` + listClasses() + `
A class may be aimed at a node: crash@p1, lie@c. Drawn by default is what the protocol promises to
bear: no lie; a node that is gone for good for cluster alone; and for 3pc and 3pc-peers nothing that makes a node that is up seem down, such as a
partition. Name it to see what follows.

A seed that fails is shrunk to few faults, and a script of it goes to standard output, for assent
replay; the rest is then on standard error, and the exit code is 7. Ctrl-C ends the search with what
is known.`,
		Example: `  assent sim 2pc
  assent sim 2pc --seeds 1..100000 --participants 4 --faults crash,partition,loss
  assent sim 2pc --seed 7 --trace - | assent chart - -o seven.svg
  assent sim 3pc --faults partition --chart splitbrain.svg > script.txt
  assent replay script.txt
  assent sim 2pc --faults lie@c
  assent sim stack --seeds 1..500
  assent sim log --nodes 3 --faults crash,partition
  assent sim cluster --nodes 5 --faults gone,partition,loss
  assent sim cluster --config assent.yaml --seeds 1..10000`,
		Args: exactlyOne("protocol"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.IntVar(&c.params.participants, "participants", 3, "`N` participants, 1 to 8; of the stack, sites")
	f.StringSliceVar(&c.votes, "votes", []string{"yes", "no", "read-only"}, "what each branch may vote")
	f.BoolVar(&c.params.cooperative, "cooperative", false, "2pc: participants in doubt ask one another")
	f.IntVar(&c.params.voteRetries, "vote-retries", 0, "2pc, 3pc, q3pc, paxos: the coordinator asks `N` times more for a vote")
	f.BoolVar(&c.params.unilateral, "unilateral", false, "3pc: no election; each follows its timeout transitions")
	f.IntVar(&c.params.nodes, "nodes", 0, "`N` nodes, of register and moving acceptors (default 5, of moving and cluster 3)")
	f.IntVar(&c.params.proposers, "proposers", 0, "register, moving: `N` propose (default 2)")
	f.IntSliceVar(&c.params.weights, "weights", nil, "cluster: how many votes each node has (default 1 each)")
	f.StringVar(&c.params.log, "log", "", "cluster: where decisions are kept, paxos or disk (default paxos)")
	f.StringVar(&c.params.config, "config", "", "cluster: take its shape from this `file`, a configuration of assent serve")
	f.StringVar(&c.seeds, "seeds", "1..1000", "the seeds, from `A..B`")
	f.Uint64Var(&c.seed, "seed", 0, "only the seed `N`")
	f.StringSliceVar(&c.faults, "faults", nil, "the `CLASSES` of faults, each perhaps with @NODE; the default depends on the protocol")
	f.StringVar(&c.chart, "chart", "", "draw the first seed that fails, shrunk, or else the first of all, in this `file`: .svg or .html")
	f.StringVar(&c.trace, "trace", "", "write the trace of that seed to this `file`; - is standard output, for one seed")
	return cmd
}

// listClasses shows the classes of faults for the help, half of them on a line.
func listClasses() string {
	var names []string
	for _, c := range append(sim.Classes(), sim.Lying, sim.Gone) {
		names = append(names, c.String())
	}
	half := (len(names) + 1) / 2
	return strings.Join(names[:half], ", ") + ",\n  " + strings.Join(names[half:], ", ")
}

func (c *simulating) run(cmd *cobra.Command, name string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program
	s, err := c.parse(cmd, name)
	if err != nil {
		return err
	}
	if c.trace == "-" {
		return c.one(s)
	}
	progress := newBar(c.p.err)
	sum, err := sim.Seeds(ctx, aimed{s, c.aimed}, c.first, c.last, c.classes, 0, func(now sim.Summary) {
		of := c.last - c.first + 1
		progress.show(float64(now.Seeds)/float64(of), fmt.Sprintf("%s of %s seeds, %.0f a second, %s failed",
			thousands(now.Seeds), thousands(int(of)), float64(now.Seeds)/now.Elapsed.Seconds(), thousands(now.Failures)))
	})
	progress.done()
	if err != nil {
		return err
	}
	return c.tell(ctx, s, sum)
}

// parse makes the subject, and all that is drawn for it, from the command line.
func (c *simulating) parse(cmd *cobra.Command, name string) (s sim.Subject, err error) {
	if err := refuseMisfits(cmd, name); err != nil {
		return nil, err
	}
	if cmd.Flags().Changed("seed") && cmd.Flags().Changed("seeds") {
		return nil, misuse("leave one of them out", "--seed %d and --seeds %s contradict each other", c.seed, c.seeds)
	}
	if err := c.bounds(cmd.Flags().Changed("seed")); err != nil {
		return nil, err
	}
	if err := c.params.refuseNegative(); err != nil {
		return nil, err
	}
	if c.params.votes, err = parseVotes(c.votes); err != nil {
		return nil, err
	}
	c.params.simulated = true
	if s, err = c.params.subject(name); err != nil {
		return nil, err
	}
	c.classes = classesFor(name, s)
	if cmd.Flags().Changed("faults") && len(c.faults) == 0 {
		return nil, misuse("none is for no faults", "--faults names no class")
	}
	if cmd.Flags().Changed("faults") {
		if err := c.parseFaults(name, s.Header(sim.Plan{}).Nodes); err != nil {
			return nil, err
		}
	}
	return s, cmp.Or(chartName(c.chart), writable(c.trace, c.chart))
}

// mostSeeds bounds one search.
const mostSeeds = 1_000_000_000

// bounds reads the seeds that were asked for.
func (c *simulating) bounds(single bool) error {
	if single {
		c.first, c.last = c.seed, c.seed
		return nil
	}
	from, to, ok := strings.Cut(c.seeds, "..")
	if !ok {
		to = from
	}
	var err1, err2 error
	c.first, err1 = strconv.ParseUint(from, 10, 64)
	c.last, err2 = strconv.ParseUint(to, 10, 64)
	switch {
	case err1 != nil || err2 != nil || c.last < c.first:
		return misuse("say --seeds 1..1000", "--seeds is %q, which is no range of numbers", c.seeds)
	case c.last-c.first >= mostSeeds:
		return misuse("say --seeds 1..1000", "--seeds is %q; at most %s seeds are run at a time", c.seeds, thousands(mostSeeds))
	case c.trace == "-" && c.first != c.last:
		return misuse("name one with --seed, or a file", "--trace - writes one seed; there are %s", thousands(int(c.last-c.first+1)))
	}
	return nil
}

// parseFaults reads the flag --faults.
func (c *simulating) parseFaults(system string, nodes []protocol.NodeID) error {
	c.classes, c.aimed = nil, map[sim.Class]protocol.NodeID{}
	for _, text := range c.faults {
		if text == "none" && len(c.faults) == 1 {
			return nil
		}
		name, at, named := strings.Cut(text, "@")
		class, err := sim.ParseClass(name)
		if err != nil {
			return misuse("assent sim --help lists them; none is for no faults", "%v", err)
		}
		if class == sim.Gone && system != simcluster.Name {
			return misuse("it is for cluster, whose nodes keep one another's records", "--faults gone: nobody here can do without a node for good")
		}
		if node := protocol.NodeID(at); named && !slices.Contains(nodes, node) {
			return misuse(fmt.Sprintf("the nodes are %v", nodes), "--faults %s: there is no node %q", text, at)
		} else if named {
			c.aimed[class] = node
		}
		if !slices.Contains(c.classes, class) {
			c.classes = append(c.classes, class)
		}
	}
	return nil
}

// one writes the trace of the only seed on standard output, and says on standard error how it ended.
func (c *simulating) one(s sim.Subject) error {
	plan := aimed{s, c.aimed}.Draw(c.first, c.classes)
	w, err := trace.NewWriter(c.p.out, s.Types(), s.Header(plan), trace.Text())
	if err != nil {
		return err
	}
	r, err := s.Run(plan, w)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil || r.Failure == nil {
		return err
	}
	return &failure{text: r.Failure.String(), exit: exitUnsound, hint: "without --trace - the seed is shrunk, and a script made of it"}
}

// tell prints what the seeds have shown, and the script of the first that failed.
func (c *simulating) tell(ctx context.Context, s sim.Subject, sum sim.Summary) error {
	out := c.p.out
	if sum.Failures > 0 {
		out = c.p.err // standard output is the script's
	}
	elapsed := max(sum.Elapsed.Seconds(), 1e-3)
	fmt.Fprintf(out, "%s seeds in %.1f s, %.0f a second; %v simulated; %s events, %s messages\n", thousands(sum.Seeds),
		sum.Elapsed.Seconds(), float64(sum.Seeds)/elapsed, sum.Simulated.Round(time.Second), thousands(int(sum.Events)), thousands(int(sum.Messages)))
	var t table
	if len(c.classes) > 0 {
		t.add(plain("FAULT", "SEEDS", "WITH EFFECT")...)
	}
	for _, class := range c.classes {
		t.add(plain(class.String(), thousands(sum.Drawn[class]), thousands(sum.Fired[class]))...)
	}
	if len(sum.Reached) > 0 {
		t.add(plain("REACHED", "SEEDS")...)
	}
	for _, name := range slices.Sorted(maps.Keys(sum.Reached)) {
		t.add(plain(name, thousands(sum.Reached[name]))...)
	}
	if err := t.write(out); err != nil {
		return err
	}
	if sum.Failures > 0 {
		return c.failed(ctx, s, sum)
	}
	if of := c.last - c.first + 1; uint64(sum.Seeds) != of {
		return fail("in those that were run no claim is broken", "stopped: %s of %s seeds were run", thousands(sum.Seeds), thousands(int(of)))
	}
	fmt.Fprintln(out, "no claim is broken")
	return c.files(s, aimed{s, c.aimed}.Draw(c.first, c.classes))
}

// files writes the trace and the chart of a plan, where they are wanted.
func (c *simulating) files(s sim.Subject, plan sim.Plan) error {
	if c.trace == "" && c.chart == "" {
		return nil
	}
	var all kept
	r, err := s.Run(plan, &all)
	if err != nil {
		return err
	}
	h := s.Header(plan)
	if c.trace != "" {
		if err := c.p.writeEvents(c.trace, s, h, all.events); err != nil {
			return err
		}
	}
	if c.chart == "" {
		return nil
	}
	return c.p.drawEvents(c.chart, title(r), s, h, all.events)
}

// failed shrinks the first failure and prints it.
func (c *simulating) failed(ctx context.Context, s sim.Subject, sum sim.Summary) error {
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt) // the search may have been ended
	defer stop()
	first, work := sum.Failed[0], 0
	if k, ok := s.(interface{ Work() int }); ok {
		work = k.Work()
	}
	small, err := sim.Explain(ctx, s, first, work)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.p.err, "\nseed %d fails, %v\nshrunk from %d faults to %d, in %d runs:\n", first.Plan.Seed, small.Failure,
		len(first.Plan.Faults), len(small.Plan.Faults), small.Runs)
	for _, f := range small.Plan.Faults {
		fmt.Fprintf(c.p.err, "  %s\n", f)
	}
	if work > 0 {
		fmt.Fprintf(c.p.err, "  and %d of %d pieces of work\n", work-len(small.Plan.Skip), work)
	}
	if _, err := c.p.out.Write(small.Script); err != nil {
		return err
	}
	if err := c.files(s, small.Plan); err != nil {
		return err
	}
	return &failure{text: fmt.Sprintf("%s of %s seeds fail", thousands(sum.Failures), thousands(sum.Seeds)), exit: exitUnsound,
		hint: "standard output is a script of the first: save it, and see assent replay"}
}
