package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Command returns the subcommand bench.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "measure what transactions cost, side by side with doing it by hand",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commitCommand(), logCommand(), decideCommand(), scaleCommand())
	return cmd
}

// options are what the user asks for.
type options struct {
	concurrency []int
	duration    time.Duration
	rounds      int
	rows        int
	load        float64
	slowSync    time.Duration
	cluster     bool
	postgres    []string
	dir         string
	json        bool
}

func commitCommand() *cobra.Command {
	var o options
	var dsns string
	cmd := &cobra.Command{
		Use:   "commit",
		Short: "two-phase commit over two PostgreSQL databases: by hand, with Assent, and without",
		Long: `Each transaction changes one row in each of two databases. The ways take turns in short slices:

  floor               by hand: BEGIN, update and PREPARE in both at once, then COMMIT PREPARED in
                      both at once, a statement after the other; no log, so a crash in between
                      leaves branches that nobody can finish
  floor pipelined     the same, but BEGIN and the update travel together, as they do with Assent
  floor in one trip   the same, but BEGIN, the update and PREPARE travel together, as they do with a queue
  floor with a log    as floor, with each decision forced to a bare file before COMMIT PREPARED, those of
                      several callers at once: what two-phase commit takes that survives a crash
  floor in one trip, log
                      the same, in one trip
  assent              Assent as it is by default
  assent early reply  the caller goes on when the decision is stable
  assent queued       the update is queued (Tx.Queue): it travels together with PREPARE
  assent queued, early reply
                      both of these
  no atomicity        two plain commits
  assent slow sync    as assent, with every sync of the decision log made slower by --slow-sync
  assent on a cluster with --cluster: the decision log is that of three nodes, which run in this process,
                      force files of their own and speak over TCP

Ratios are medians of the ratios to the floor in each round. With --load the ways are compared again
with transactions that arrive at that share of the floor's throughput: where callers wait for
one another only a machine that has time left can show a shorter wait.

Without --postgres two servers of its own are started, which takes PostgreSQL on this machine.`,
		Example: `  assent bench commit
  assent bench commit --concurrency 1,8 --rounds 3 --json
  assent bench commit --postgres postgres:///a,postgres:///b`,
		Args: noArguments(func() error {
			if dsns != "" {
				o.postgres = strings.Split(dsns, ",")
			}
			return cmp.Or(o.validate(), o.validateDatabases())
		}),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			r, err := benchCommit(ctx, o, newProgress(cmd.ErrOrStderr()))
			return r.print(cmd.OutOrStdout(), o.json, err)
		},
	}
	o.flags(cmd, []int{1, 8, 32, 64}, 5)
	f := cmd.Flags()
	f.IntVar(&o.rows, "rows", 100_000, "rows in each database; no row has two callers")
	f.Float64Var(&o.load, "load", 0.5, "compare again at this share of the floor's throughput; 0 does not")
	f.DurationVar(&o.slowSync, "slow-sync", 2*time.Millisecond, "how much slower the log's syncs are in the slow way; 0 leaves it out")
	f.BoolVar(&o.cluster, "cluster", false, "compare with a decision log of three nodes, too")
	f.StringVar(&dsns, "postgres", "", "two connection strings, separated by a comma, of databases in which a table may be made")
	return cmd
}

func logCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "log",
		Short: "the decision log, and a bare file that is appended to and forced as often",
		Long: `Callers have transactions decided by a decision log. Then as many groups of as many bytes as the
log wrote are appended to a bare file and forced one by one. The ratio is that of the times.`,
		Example: `  assent bench log
  assent bench log --dir /var/lib/assent-bench --slow-sync 2ms`,
		Args:         noArguments(o.validate),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			r, err := benchLog(ctx, o, newProgress(cmd.ErrOrStderr()))
			return r.print(cmd.OutOrStdout(), o.json, err)
		},
	}
	o.flags(cmd, []int{1, 8, 64}, 5)
	cmd.Flags().DurationVar(&o.slowSync, "slow-sync", 0, "how much slower every sync is, of the log and of the bare file")
	return cmd
}

// noArguments refuses arguments, and flags that validate refuses: the caller takes an error of cobra.Command.Args,
// and no later one, for one of usage.
func noArguments(validate func() error) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return cmp.Or(cobra.NoArgs(cmd, args), validate())
	}
}

// flags adds the flags that both measurements have.
func (o *options) flags(cmd *cobra.Command, concurrency []int, rounds int) {
	f := cmd.Flags()
	f.IntSliceVar(&o.concurrency, "concurrency", concurrency, "how many callers there are at a time")
	f.DurationVar(&o.duration, "duration", time.Second, "how long one slice is")
	f.IntVar(&o.rounds, "rounds", rounds, "slices of each way at each concurrency")
	f.StringVar(&o.dir, "dir", "", "the directory for decision logs; they are deleted in the end (default: a temporary one)")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
}

// The limits on what may be asked for.
const (
	mostCallers = 512
	mostRows    = 10_000_000
)

func (o *options) validate() error {
	if len(o.concurrency) == 0 || len(o.concurrency) > 16 {
		return fmt.Errorf("--concurrency has %d numbers; it must have from 1 to 16", len(o.concurrency))
	}
	for _, n := range o.concurrency {
		if n < 1 || n > mostCallers {
			return fmt.Errorf("--concurrency has %d in it; it must be from 1 to %d", n, mostCallers)
		}
	}
	if o.duration < time.Millisecond || o.duration > time.Minute {
		return fmt.Errorf("--duration is %v; it must be from 1ms to 1m", o.duration)
	}
	if o.rounds < 1 || o.rounds > 1000 {
		return fmt.Errorf("--rounds is %d; it must be from 1 to 1000", o.rounds)
	}
	if o.slowSync < 0 || o.slowSync > time.Second {
		return fmt.Errorf("--slow-sync is %v; it must be from 0 to 1s", o.slowSync)
	}
	return nil
}

func (o *options) validateDatabases() error {
	if n := o.mostConcurrency(); o.rows < n || o.rows > mostRows {
		return fmt.Errorf("--rows is %d; it must be from the greatest concurrency, %d, to %d", o.rows, n, mostRows)
	}
	if !(o.load >= 0 && o.load < 1) {
		return fmt.Errorf("--load is %v; it must be from 0 to less than 1", o.load)
	}
	if n := len(o.postgres); n != 0 && (n != 2 || o.postgres[0] == o.postgres[1]) {
		return errors.New("--postgres takes two connection strings, of two databases, separated by a comma")
	}
	return nil
}

func (o *options) mostConcurrency() int {
	most := 0
	for _, n := range o.concurrency {
		most = max(most, n)
	}
	return most
}

// interruptible returns a context that ends with Ctrl-C: what was measured till then is shown. A
// second Ctrl-C ends the process at once.
func interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
