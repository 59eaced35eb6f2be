package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	assentv1 "assent/api/assent/v1"
)

// clusterView is a command that shows a part of what the cluster agrees on.
type clusterView struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	show                      func(args []string, response *assentv1.ClusterStateResponse, asJSON bool) error
}

func (p *program) clusterViewCommands() (all []*cobra.Command) {
	for _, v := range []clusterView{{
		use: "get [KEY]", short: "show the cluster's settings",
		long: `Show the cluster's settings, or the value of one key. A key that is not set makes the exit code 6.`,
		example: `  assent cluster get
  assent cluster get maintenance
  assent cluster get maintenance --json | jq -r .epoch`,
		args: cobra.MaximumNArgs(1), show: p.showSettings,
	}, {
		use: "resources", short: "show the resources that the cluster's nodes have",
		long: `Show the resources that the cluster's nodes have registered, and which database or store each name stands
for. A node in whose configuration a name stands for another one refuses to work in it.`,
		example: "  assent cluster resources", args: noArguments, show: p.showResources,
	}, {
		use: "history", short: "show who has changed the cluster",
		long:    `Show the last changes of members, settings and resources that people have asked for, with their reasons.`,
		example: "  assent cluster history --json | jq '.changes[-1]'", args: noArguments, show: p.showHistory,
	}} {
		all = append(all, p.clusterViewCommand(v))
	}
	return all
}

func (p *program) clusterViewCommand(v clusterView) *cobra.Command {
	var (
		t      = target{p: p}
		req    = &assentv1.ClusterStateRequest{}
		asJSON bool
	)
	cmd := &cobra.Command{
		Use: v.use, Short: v.short, Example: v.example, Args: v.args,
		Long: v.long + `

What is shown is no older than the question: a majority of the votes must answer. With --known it is what the
node knows that is asked, which may be old.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			r, err := t.dial()
			if err != nil {
				return err
			}
			response, err := r.operator.ClusterState(ctx, req)
			if err != nil {
				return err
			}
			return v.show(args, response, asJSON)
		},
	}
	t.callFlags(cmd)
	cmd.Flags().BoolVar(&req.Known, "known", false, "show what the node knows that is asked, without asking the others")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the contract's ClusterStateResponse as JSON")
	return cmd
}

func (p *program) showSettings(args []string, r *assentv1.ClusterStateResponse, asJSON bool) error {
	if len(args) > 0 {
		r.Settings = slices.DeleteFunc(r.GetSettings(), func(s *assentv1.Setting) bool { return s.GetKey() != args[0] })
	}
	switch {
	case len(args) > 0 && len(r.GetSettings()) == 0:
		f := fail(fmt.Sprintf("assent cluster set %s VALUE sets it; the state is at epoch %d", args[0], r.GetEpoch()), "the key %q is not set", args[0])
		f.exit = exitUnknown
		return f
	case asJSON:
		return writeJSON(p.out, r)
	case len(args) > 0:
		_, err := fmt.Fprintln(p.out, printable(r.GetSettings()[0].GetValue()))
		return err
	case len(r.GetSettings()) == 0:
		_, err := fmt.Fprintln(p.out, "no settings")
		return err
	}
	out := table{}
	out.add(plain("KEY", "VALUE")...)
	for _, s := range r.GetSettings() {
		out.add(plain(s.GetKey(), s.GetValue())...)
	}
	return out.write(p.out)
}

func (p *program) showResources(_ []string, r *assentv1.ClusterStateResponse, asJSON bool) error {
	switch {
	case asJSON:
		return writeJSON(p.out, r)
	case len(r.GetResources()) == 0:
		_, err := fmt.Fprintln(p.out, "no resources")
		return err
	}
	out := table{}
	out.add(plain("RESOURCE", "KIND", "IDENTITY")...)
	for _, x := range r.GetResources() {
		out.add(plain(x.GetName(), x.GetKind(), x.GetIdentity())...)
	}
	return out.write(p.out)
}

func (p *program) showHistory(_ []string, r *assentv1.ClusterStateResponse, asJSON bool) error {
	switch {
	case asJSON:
		return writeJSON(p.out, r)
	case len(r.GetChanges()) == 0:
		_, err := fmt.Fprintln(p.out, "no changes")
		return err
	}
	out := table{}
	out.add(plain("EPOCH", "WHEN", "BY", "CHANGE", "REASON")...)
	for _, c := range r.GetChanges() {
		change := []string{c.GetKind(), c.GetSubject()}
		switch c.GetKind() {
		case "weigh":
			change = append(change, fmt.Sprint(c.GetVotes()))
		case "set":
			change = append(change, c.GetValue())
		}
		out.add(plain(fmt.Sprint(c.GetEpoch()), when(c.GetTime()), c.GetBy(), strings.Join(change, " "), c.GetReason())...)
	}
	return out.write(p.out)
}
