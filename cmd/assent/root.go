package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"assent/cmd/assent/bench"
	"assent/cmd/assent/demo"
)

// program is one run of the program: where it writes, and what it is told by the environment.
type program struct {
	out, err io.Writer
	getenv   func(string) string
	// running says that the command line was understood: an error is now no error of usage.
	running bool
}

// run runs the command line and returns the exit code.
func (p *program) run(args []string) int {
	root := p.command()
	root.SetArgs(args)
	root.SetOut(p.out)
	root.SetErr(p.err)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitOK
	}
	return p.report(err)
}

// command returns the root of all commands.
func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "assent",
		Short: "commit one change across several databases and stores, or none of it",
		Long: `Assent commits one change across several databases and stores, or none of it.

Start a server with an embedded store, run a transaction in it, and look at it:

  $ assent serve &
  $ assent txn --put kv/alice=90 --put kv/bob=110
  $ assent txn --get kv/alice --get kv/bob

The exit codes are 0 for done or committed, 1 for an error, 2 for a command line that is not
understood, 3 for aborted, 4 for in doubt, 5 for heuristic, 6 for a transaction that is not known,
7 for a doctor's finding of failure, or a property that check or sim has found not to hold, 8 for a transaction
or a change of a cluster that may have been made or not, 9 for a change that came too late for its --epoch.`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args:                       knownCommand,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRun:           func(*cobra.Command, []string) { p.running = true },
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(
		p.serveCommand(),
		p.txnCommand(),
		p.listCommand(),
		p.showCommand(),
		p.resolveCommand(),
		p.doctorCommand(),
		p.checkCommand(),
		p.simCommand(),
		p.replayCommand(),
		p.chartCommand(),
		p.clusterCommand(),
		p.certsCommand(),
		p.versionCommand(),
		p.completionCommand(),
		demo.Command(),
		bench.Command(),
	)
	explainHelp(root)
	return root
}

// explainHelp makes the command help of root, and has it refuse what is no command.
func explainHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Use, c.Short, c.Long = "help [COMMAND]", "show what a command does, and its flags", ""
			c.Example = "  assent help\n  assent help cluster leave"
			c.Args = knownTopic
		}
	}
}

// knownTopic refuses arguments that lead to no command.
func knownTopic(cmd *cobra.Command, args []string) error {
	topic, rest, err := cmd.Root().Find(args)
	if err == nil && len(rest) == 0 {
		return nil
	}
	return misuse(topic.CommandPath()+" --help lists what there is", "there is no command %q", strings.Join(args, " "))
}

// knownCommand refuses an argument of the root: it was to be a command.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "assent help lists the commands"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean assent " + near[0] + "?"
	}
	return misuse(hint, "there is no command %q", args[0])
}

// noArguments refuses arguments that are no flags.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return misuse(cmd.CommandPath()+" --help shows examples", "%s takes no argument such as %q", cmd.CommandPath(), args[0])
}

// exactlyOne asks for one argument by name.
func exactlyOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 && args[0] != "" {
			return nil
		}
		return misuse(cmd.CommandPath()+" --help shows examples", "give one %s; there are %d", what, len(args))
	}
}
