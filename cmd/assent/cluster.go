package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	assentv1 "assent/api/assent/v1"
)

func (p *program) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cluster",
		Short:   "see how a cluster stands, and change it",
		Example: "  assent cluster status\n  assent cluster set maintenance on",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.clusterStatusCommand())
	cmd.AddCommand(p.clusterChangeCommands()...)
	cmd.AddCommand(p.clusterViewCommands()...)
	return cmd
}

func (p *program) clusterStatusCommand() *cobra.Command {
	var (
		t      = target{p: p}
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "tell how the cluster stands, as one of its nodes sees it",
		Long: `Tell how the cluster stands, as one of its nodes sees it: who is up, whether those that it reaches can
decide anything, who leads, how the network to each is, and what lags behind. Another node may see it
otherwise: ask that, too, where the network is in question. The exit code is 1 where nothing can be decided.

A node that is still starting answers as well, and so tells what it waits for.`,
		Example: `  assent cluster status
  assent cluster status --server http://127.0.0.1:7430
  assent cluster status --json | jq -r '.members[] | select(.state == "suspected") | .node'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			r, err := t.dial()
			if err != nil {
				return err
			}
			response, err := r.operator.Cluster(ctx, &assentv1.ClusterRequest{})
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(p.out, response)
			} else {
				err = p.writeCluster(p.out, response)
			}
			if err == nil && !response.GetDecides() {
				return silence{exitError}
			}
			return err
		},
	}
	t.callFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the contract's ClusterResponse as JSON")
	return cmd
}

func (p *program) writeCluster(w io.Writer, c *assentv1.ClusterResponse) error {
	colours := palette(p.out, p.getenv)
	head := table{palette: colours}
	add := func(name, value, colour string) { head.add(cell{text: name}, cell{value, colour}) }
	add("cluster", c.GetCluster(), "")
	add("seen by", c.GetNode(), "")
	quorum, colour := "can decide: "+c.GetQuorum(), colours.good
	if !c.GetDecides() {
		quorum, colour = "cannot decide anything: "+c.GetQuorum(), colours.bad
	}
	add("quorum", quorum, colour)
	add("members", c.GetView(), "")
	switch {
	case c.GetRetired():
		add("this node", "has left; it may be stopped for good", colours.warn)
	case !c.GetPrimary():
		add("changes", "cannot be made here: "+c.GetWhy(), colours.warn)
	}
	if c.GetRegisters() != "" {
		add("registers", c.GetRegisters(), colours.warn)
	}
	switch c.GetLeader() {
	case "":
		add("recovery", "no leader yet; every node settles what it finds", colours.warn)
	case c.GetNode():
		add("recovery", "led by "+c.GetLeader()+", this node", "")
	default:
		add("recovery", "led by "+c.GetLeader(), "")
	}
	add("log", c.GetLog(), "")
	if err := head.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	members := table{palette: colours}
	members.add(plain("NODE", "STATE", "FOR", "SUSPICION", "VOTES", "LINK", "LOG", "API", "VERSION")...)
	for _, m := range c.GetMembers() {
		colour := colours.warn
		switch {
		case m.GetState() == "suspected":
			colour = colours.bad
		case m.GetState() == "up" || strings.HasPrefix(m.GetState(), "this node"):
			colour = colours.good
		}
		members.add(cell{text: m.GetNode()}, cell{m.GetState(), colour}, cell{text: age(m.GetSince().AsTime())}, cell{text: suspicionOf(m)},
			cell{text: votesOf(m)}, cell{text: m.GetLink()}, cell{text: m.GetLog()}, cell{text: m.GetApi()}, cell{text: m.GetSoftware()})
	}
	return members.write(w)
}

// votesOf is the member's weight, or how far it is where it has none yet.
func votesOf(m *assentv1.ClusterMember) string {
	if m.GetLearns() != "" {
		return m.GetLearns()
	}
	return fmt.Sprint(m.GetVotes())
}

func suspicionOf(m *assentv1.ClusterMember) string {
	if strings.HasPrefix(m.GetState(), "this node") {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*min(m.GetSuspicion(), 1))
}

// age says how long ago t was, roughly.
func age(t time.Time) string {
	d := max(time.Since(t), 0)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
