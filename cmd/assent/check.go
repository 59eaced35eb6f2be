package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"assent/check"
)

// checking is one run of assent check.
type checking struct {
	p         *program
	params    parameters
	faults    check.Faults
	votes     []string
	timing    string
	because   string // why that is the model
	partition bool
	symmetry  bool
	maxStates int
	asJSON    bool
	trace     string // files for the shortest run that breaks something
	chart     string
	skeen     analysing
}

func (p *program) checkCommand() *cobra.Command {
	c := checking{p: p}
	cmd := &cobra.Command{
		Use:   "check PROTOCOL",
		Short: "take a protocol through every state that it can reach",
		Long: `Take the machines that run live through every state that they can reach under a budget of faults,
and say which of its properties hold. The protocols are

` + listSystems() + `
In the asynchronous model a timer may run out at any moment, and messages may be lost, repeated and
reordered without limit. In the synchronous one a timer runs out only when no message is on its way
to a node that is up, and messages are lost and repeated as often as you say. Protocols are checked in
the model that they are made for, unless you name the other. A crash falls between two steps, or
within one: after the stable writes, or after any number of the messages.

Of a commit protocol AC1 to AC4 must hold, of the others that nobody learns two different things: two values,
two logs, two views of one number. Those are searched without crashes unless you ask for some, for their
states are many, and nothing is said about their ends. Where a property does not hold, the
exit code is 7 and the shortest run that breaks it is shown. AC5, that every participant which is up can come to its end while those that are down
stay down, does not hold for two-phase commit once the coordinator may crash: the shortest way into
the blocked state is shown. Three-phase commit never blocks there, and splits under partition. The
shortest run can be drawn, and replayed in the simulator.

With --skeen it shows instead what the other sites may be in beside each state, while nothing fails,
which states are committable, whether the protocol is nonblocking by Skeen's theorem, and the
shortest schedule of crashes for each state that blocks: as a table, as JSON, and as diagrams.`,
		Example: `  assent check 2pc
  assent check 2pc --participants 3 --crashes 2 --restarts 2 --symmetry
  assent check 2pc --crashes 1 --restarts 0 --cooperative
  assent check 2pc --participants 3 --votes yes --model sync --losses 1 --json
  assent check 3pc --crashes 2 --restarts 0
  assent check 3pc --partition --chart split.svg
  assent check 3pc --unilateral --trace - | assent chart - -o lesson.html
  assent check q3pc --model sync --partition
  assent check paxos --model sync --restarts 0
  assent check register --nodes 3 --symmetry
  assent check moving --trace moved.txt
  assent check log --nodes 2 --crashes 1 --restarts 1
  assent check membership
  assent check 2pc --skeen --cooperative
  assent check 3pc --skeen --crashes 2 -o 3pc.svg
  assent check 3pc-peers --skeen --participants 3 --format dot --diagram global | dot -Tpdf -o global.pdf`,
		Args: exactlyOne("protocol"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(c.skeen.refuse(cmd), c.refuseNegative()); err != nil {
				return err
			}
			if c.skeen.wanted {
				return c.analyse(cmd, args[0])
			}
			return c.run(cmd, args[0])
		},
	}
	c.declare(cmd)
	return cmd
}

// declare declares the flags.
func (c *checking) declare(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&c.params.participants, "participants", 2, "`N` participants, 1 to 8; sites, where all are peers")
	flags.StringSliceVar(&c.votes, "votes", []string{"yes", "no", "read-only"}, "what each branch may vote")
	flags.IntVar(&c.faults.Crashes, "crashes", 1, "at most `N` crashes (of register, moving, log and membership by default none)")
	flags.IntVar(&c.faults.Restarts, "restarts", 1, "at most `N` nodes made anew after a crash")
	flags.BoolVar(&c.partition, "partition", false, "the network may split in two, once, and heal")
	flags.IntVar(&c.faults.Losses, "losses", 0, "at most `N` messages lost; synchronous model only")
	flags.IntVar(&c.faults.Duplicates, "duplicates", 0, "at most `N` messages repeated; synchronous model only")
	flags.StringVar(&c.timing, "model", "", "async or sync (default: what the protocol is made for)")
	flags.BoolVar(&c.params.cooperative, "cooperative", false, "2pc: participants in doubt ask one another")
	flags.IntVar(&c.params.voteRetries, "vote-retries", 0, "2pc, 3pc, q3pc, paxos: the coordinator asks `N` times more for a vote")
	flags.IntVar(&c.params.rounds, "rounds", 0, "rounds up to number `N`, where there are some (default 1; of paxos 3)")
	flags.IntVar(&c.params.nodes, "nodes", 0, "register, moving, log, membership: `N` nodes, of the first two acceptors (default 2, 2, 3, 3)")
	flags.IntVar(&c.params.proposers, "proposers", 0, "register, moving: `N` propose (default 2)")
	flags.BoolVar(&c.params.unilateral, "unilateral", false, "3pc: no election; each follows its timeout transitions")
	flags.BoolVar(&c.symmetry, "symmetry", false, "take states for one that differ only in which participant is which")
	flags.IntVar(&c.maxStates, "max-states", 20_000_000, "stop after `N` states and say what is known; they take about 40 bytes each")
	flags.StringVar(&c.trace, "trace", "", "write the first of the shortest runs to this `file`, for assent chart and replay; - is standard output")
	flags.StringVar(&c.chart, "chart", "", "draw it in this `file`: .svg or .html")
	flags.BoolVar(&c.asJSON, "json", false, "print JSON")
	c.skeen.register(cmd)
}

func (c *checking) run(cmd *cobra.Command, name string) error {
	sys, err := findSystem(name)
	if err != nil {
		return err
	}
	if err := cmp.Or(refuseMisfits(cmd, name), c.parse(cmd, sys), writable(c.trace, c.chart)); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program
	whole, err := sys.make(c.params)
	if err != nil {
		return err
	}
	if c.symmetry && len(whole.symmetric) == 0 {
		return misuse("leave --symmetry out: there is but one, or they succeed one another in an order",
			"no participants of %s are interchangeable", name)
	}
	warnings := c.warnings(sys)
	for _, text := range warnings {
		fmt.Fprintf(c.p.err, "warning: %s\n", text)
	}
	steady := c.params
	steady.steadfast = true
	calm, err := sys.make(steady)
	if err != nil {
		return err
	}
	q := check.Report{Complete: true}
	if len(calm.quiet) > 0 {
		if q, err = c.explore(ctx, calm, check.Faults{}, "sync", check.Claims{Always: calm.quiet}); err != nil {
			return err
		}
	}
	// The quiet search is short, and comes first: whoever stops the long one still learns AC4.
	kinds := blockedKinds{}
	claims := check.Claims{Always: whole.always, Sometimes: whole.sometimes}
	if whole.ends != "" {
		claims.Decided, claims.Blocked = whole.done, kinds.count(whole)
	}
	r, err := c.explore(ctx, whole, c.faults, c.timing, claims)
	if err != nil {
		return err
	}
	v := summary(whole, r, q)
	if whole.ends != "" && !r.BlockingKnown {
		clear(kinds) // it was stopped while they were counted
	}
	v.stopped, v.Blocked = ctx.Err() != nil, kinds.list()
	v.Protocol, v.Model, v.Because, v.Warnings = name, c.timing, c.because, warnings
	if err := v.print(c.report(), c.asJSON, palette(c.p.out, c.p.getenv)); err != nil {
		return err
	}
	if err := c.files(sys, whole, shown{c.params, r}, shown{steady, q}); err != nil {
		return err
	}
	return v.failure()
}

// report returns where the report goes: standard output, unless the trace goes there.
func (c *checking) report() io.Writer {
	if c.trace == "-" {
		return c.p.err
	}
	return c.p.out
}

// refuseNegative says which number makes no sense.
func (c *checking) refuseNegative() error {
	if c.maxStates < 1 {
		return misuse("leave it out, or say at least 1", "--max-states is %d", c.maxStates)
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"crashes", c.faults.Crashes}, {"restarts", c.faults.Restarts}, {"losses", c.faults.Losses}, {"duplicates", c.faults.Duplicates}} {
		if err := notNegative(n.flag, n.value); err != nil {
			return err
		}
	}
	return c.params.refuseNegative()
}

// parse makes the model from the flags.
func (c *checking) parse(cmd *cobra.Command, sys system) (err error) {
	if sys.calm && !cmd.Flags().Changed("crashes") {
		c.faults.Crashes, c.faults.Restarts = 0, 0
	}
	switch c.because = "as --model says"; {
	case c.timing != "":
	case sys.synchronous:
		c.timing, c.because = "sync", "which "+sys.name+" is made for"
	case c.faults.Losses != 0 || c.faults.Duplicates != 0:
		c.timing, c.because = "sync", "for --losses and --duplicates set limits, which there are in it alone"
	default:
		c.timing, c.because = "async", "which "+sys.name+" is made for"
	}
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
	switch {
	case sys.rounds == 0:
		c.params.rounds = 0
	case c.params.rounds == 0:
		c.params.rounds = sys.rounds
	}
	if c.partition {
		c.faults.Partitions, c.faults.Heals = 1, 1
	}
	if err := chartName(c.chart); err != nil {
		return err
	}
	c.params.votes, err = parseVotes(c.votes)
	return err
}

// warnings say where a protocol is asked for what it does not promise, and what may mislead.
func (c *checking) warnings(sys system) (texts []string) {
	beyond := c.timing == "async" || c.partition || c.faults.Losses > 0
	switch {
	case sys.synchronous && beyond:
		texts = append(texts, sys.name+" is not safe here: under partition, where messages are lost, and where timers run out early some may commit and others abort")
	case sys.synchronous:
		texts = append(texts, sys.name+" is safe only on a network that never splits, with a bound on delays; --partition and --model async show why")
	}
	if c.params.unilateral && sys.name == "3pc" {
		texts = append(texts, "without election a crash while PreCommit is being sent splits the participants")
	}
	switch {
	case sys.rounds > 0 && sys.calm:
		texts = append(texts, fmt.Sprintf("rounds end at number %d so that there are finitely many states", c.params.rounds))
	case sys.rounds > 0:
		texts = append(texts, fmt.Sprintf("rounds end at number %d so that there are finitely many states; who blocks may only have run out of rounds", c.params.rounds))
	}
	return texts
}

func (c *checking) explore(ctx context.Context, whole composition, faults check.Faults, timing string, claims check.Claims) (check.Report, error) {
	sys := check.System{Nodes: whole.nodes, Codec: whole.codec, Faults: faults, Model: check.Asynchronous}
	if timing == "sync" {
		sys.Model = check.Synchronous
	}
	if c.symmetry {
		sys.Symmetric = whole.symmetric
	}
	progress := newBar(c.p.err)
	r, err := check.Run(ctx, sys, claims, check.Limits{States: c.maxStates, Progress: progress.states})
	progress.done()
	if err != nil {
		return r, misuse("assent check --help shows examples", "%v", err)
	}
	return r, nil
}

// states shows how far a search is.
func (b *bar) states(p check.Progress) {
	if p.Phase != check.Searching {
		b.show(p.Share, fmt.Sprintf("%s: %s states, %d MiB", p.Phase, thousands(p.States), p.Bytes>>20))
		return
	}
	b.show(p.Share, fmt.Sprintf("%s states, %s to go on from, depth %d, %s a second, %d MiB",
		thousands(p.States), thousands(p.Frontier), p.Depth, thousands(int(float64(p.States)/max(p.Searched.Seconds(), 1e-3))), p.Bytes>>20))
}
