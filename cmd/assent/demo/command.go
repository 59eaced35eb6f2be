package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// options are what the user asks for.
type options struct {
	kills, transactions, workers int
	students, courses, seats     int
	seed                         uint64
	dir                          string
	keep, json                   bool
	postgres                     []string
	sabotage                     string
	trace                        string
}

// Command returns the subcommand demo. Its process starts itself again as the registrar, by the
// same path of subcommands and with the hidden one "registrar"; so whatever program the command is
// put into, a test's too, must run it for these arguments.
func Command() *cobra.Command {
	var o options
	var dsns string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "enrol students on three machines, kill the registrar again and again, and compare",
		Long: `Students are on machines A and B, courses and their seats on machine C. Each enrolment is
one transaction over two or three of them. The process that coordinates is killed with SIGKILL
at random instants, also while it recovers from the last kill, and started again. In the end the
client, which remembers every answer it was given, compares the machines with each other and with
what it was told. Nothing needs to be installed; --postgres puts the students into two databases.

The exit status is 0 only if nothing is in doubt and nothing mismatches.`,
		Example: `  assent demo
  assent demo --kills 50 --transactions 20000 --json
  assent demo --kills 3 --transactions 300 --trace demo.trace
  assent demo --postgres postgres:///a,postgres:///b`,
		Args: func(cmd *cobra.Command, args []string) error { // the caller takes an error of Args for one of usage
			if dsns != "" {
				o.postgres = strings.Split(dsns, ",")
			}
			o.fillIn()
			return cmp.Or(cobra.NoArgs(cmd, args), o.validate())
		},
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.trace != "" {
				if err := newFile(o.trace); err != nil {
					return err
				}
			}
			return runCommand(cmd, o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.kills, "kills", 25, "how often to kill the registrar")
	f.IntVar(&o.transactions, "transactions", 5000, "the least number of transactions")
	f.IntVar(&o.workers, "workers", 32, "how many requests are under way at a time")
	f.IntVar(&o.students, "students", 400, "students, half of them on machine A and half on B")
	f.IntVar(&o.courses, "courses", 40, "courses, on machine C")
	f.IntVar(&o.seats, "seats", 0, "seats of each course (default: 20, and more for many kills)")
	f.Uint64Var(&o.seed, "seed", 0, "what the random choices are made from (default: a new one, which is shown)")
	f.StringVar(&o.dir, "dir", "", "an empty or new directory for the machines (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the machines")
	f.BoolVar(&o.json, "json", false, "print the verdict as JSON")
	f.StringVar(&dsns, "postgres", "", "two connection strings, separated by a comma: keep the students there, in a schema "+schema)
	f.StringVar(&o.trace, "trace", "", "write what every transaction does to this new `file`, kills and all, for assent chart")
	f.StringVar(&o.sabotage, "sabotage", "", "spoil the stores before they are compared: "+strings.Join(sabotages(), ", "))
	cobra.CheckErr(f.MarkHidden("sabotage"))
	cmd.AddCommand(registrarCommand())
	return cmd
}

// fillIn chooses what the user leaves to the program.
func (o *options) fillIn() {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	if o.seats == 0 {
		// A request without answer may hold a seat that the client does not ask for again.
		o.seats = 20 + o.kills*o.workers/(2*max(1, o.courses))
	}
}

// newFile makes the file for the trace. One that is there may be the trace of another run.
func newFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("--trace needs a new file: %w", err)
	}
	return f.Close()
}

func (o options) validate() error {
	for _, n := range [...]struct {
		flag               string
		value, least, most int
	}{
		{"kills", o.kills, 0, 10_000},
		{"transactions", o.transactions, 1, 10_000_000},
		{"workers", o.workers, 1, 256},
		{"students", o.students, 4, 100_000},
		{"courses", o.courses, 1, 10_000},
		{"seats", o.seats, 1, 10_000_000},
	} {
		if n.value < n.least || n.value > n.most {
			return fmt.Errorf("--%s is %d; it must be from %d to %d", n.flag, n.value, n.least, n.most)
		}
	}
	if n := len(o.postgres); n != 0 && (n != 2 || o.postgres[0] == o.postgres[1]) {
		return errors.New("--postgres takes two connection strings, of two databases, separated by a comma")
	}
	if o.sabotage != "" && !isSabotage(o.sabotage) {
		return fmt.Errorf("--sabotage %q is none of %s", o.sabotage, strings.Join(sabotages(), ", "))
	}
	return nil
}

func runCommand(cmd *cobra.Command, o options) error {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	path := strings.Fields(cmd.CommandPath())[1:]
	d := newDemo(o, append(path, registrarName), newProgress(cmd.ErrOrStderr(), o))
	v, err := d.run(ctx)
	if err != nil {
		return err
	}
	if o.json {
		err = v.writeJSON(cmd.OutOrStdout())
	} else {
		err = v.writeTable(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	return v.err()
}
