package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	assentv1 "assent/api/assent/v1"
)

// clusterChange is a command that has the cluster change its own state.
type clusterChange struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	// compares says that the command takes --epoch.
	compares bool
	// read makes the request of the arguments.
	read func(args []string, req *assentv1.ChangeClusterRequest) error
	// done says what has come of it.
	done func(args []string, response *assentv1.ChangeClusterResponse) string
}

func (p *program) clusterChangeCommands() (all []*cobra.Command) {
	for _, c := range append(memberChanges(), valueChanges()...) {
		all = append(all, p.clusterChangeCommand(c))
	}
	return all
}

// memberChanges are the commands that change who is a member.
func memberChanges() []clusterChange {
	return []clusterChange{{
		use: "leave [NODE]", short: "make a node a member no more, before it is switched off",
		long: `Make a node a member no more: the one that is named, or the one that is asked. It is refused where too few
would be left who answer. The node finishes its transactions among sites first; it is refused where one of them is not
over after some seconds.

The node must go on running until the others can do without what it has voted on: assent cluster status
tells when it may be stopped for good. With an empty data directory and --join it can join again.`,
		example: `  assent cluster leave --server http://127.0.0.1:7433
  assent cluster leave c --reason "the machine is replaced"`,
		args: cobra.MaximumNArgs(1),
		read: func(args []string, req *assentv1.ChangeClusterRequest) error {
			leave := &assentv1.LeaveCluster{}
			if len(args) > 0 {
				leave.Node = args[0]
			}
			req.Change = &assentv1.ChangeClusterRequest_Leave{Leave: leave}
			return nil
		},
		done: func(_ []string, r *assentv1.ChangeClusterResponse) string {
			return fmt.Sprintf("%s is no member any more; stop it when assent cluster status says that it may be stopped", r.GetNode())
		},
	}, {
		use: "exclude NODE", short: "make a node a member no more that has failed for good",
		long: `Make a node a member no more that has failed for good. What it has voted on is known to the others, or is
settled by them. A node that was excluded by mistake joins again by itself.`,
		example: `  assent cluster exclude c --reason "its disk is gone"`,
		args:    exactlyOne("node"),
		read: func(args []string, req *assentv1.ChangeClusterRequest) error {
			req.Change = &assentv1.ChangeClusterRequest_Exclude{Exclude: &assentv1.ExcludeNode{Node: args[0]}}
			return nil
		},
		done: func(args []string, _ *assentv1.ChangeClusterResponse) string {
			return args[0] + " is no member any more"
		},
	}, {
		use: "weigh NODE VOTES", short: "give a member so many votes",
		long: `Give a member so many votes. Without any it only learns: it is fed, and decides nothing. It is refused
where too few votes would be left that answer.`,
		example: `  assent cluster weigh a 2
  assent cluster weigh witness 0`,
		args: exactly("a node and its votes", 2),
		read: func(args []string, req *assentv1.ChangeClusterRequest) error {
			votes, err := strconv.ParseUint(args[1], 10, 16)
			if err != nil {
				return misuse("give a whole number from 0 on", "%q is no number of votes", args[1])
			}
			req.Change = &assentv1.ChangeClusterRequest_Weigh{Weigh: &assentv1.WeighNode{Node: args[0], Votes: uint32(votes)}}
			return nil
		},
		done: func(args []string, _ *assentv1.ChangeClusterResponse) string {
			return fmt.Sprintf("%s has %s votes", args[0], args[1])
		},
	}}
}

// valueChanges are the commands that change what else the cluster agrees on.
func valueChanges() []clusterChange {
	const compared = `

With --epoch it is done only if the cluster's state is still at that epoch, as assent cluster get --json tells
it: compare and set. Any change of the state counts, one of another key or of the members too.`
	return []clusterChange{{
		use: "set KEY VALUE", short: "set a key of the cluster's settings",
		long:    "Set a key of the cluster's settings, which all nodes agree on, for applications to use." + compared,
		example: "  assent cluster set maintenance on\n  assent cluster set maintenance off --epoch 17", compares: true,
		args: exactly("a key and its value", 2),
		read: func(args []string, req *assentv1.ChangeClusterRequest) error {
			req.Change = &assentv1.ChangeClusterRequest_Set{Set: &assentv1.SetSetting{Key: args[0], Value: args[1]}}
			return nil
		},
		done: func(args []string, _ *assentv1.ChangeClusterResponse) string { return args[0] + " is set" },
	}, {
		use: "unset KEY", short: "remove a key from the cluster's settings",
		long:    "Remove a key from the cluster's settings. It need not be there." + compared,
		example: "  assent cluster unset maintenance", compares: true,
		args: exactlyOne("key"),
		read: func(args []string, req *assentv1.ChangeClusterRequest) error {
			req.Change = &assentv1.ChangeClusterRequest_Unset{Unset: &assentv1.UnsetSetting{Key: args[0]}}
			return nil
		},
		done: func(args []string, _ *assentv1.ChangeClusterResponse) string { return args[0] + " is not set" },
	}, {
		use: "unregister RESOURCE", short: "forget a resource that no node has any more",
		long: `Forget a resource that no node has any more, or that is another database from now on, on purpose. A node
that has it registers it again when it starts.` + compared,
		example: "  assent cluster unregister orders", compares: true,
		args: exactlyOne("resource"),
		read: func(args []string, req *assentv1.ChangeClusterRequest) error {
			req.Change = &assentv1.ChangeClusterRequest_Unregister{Unregister: &assentv1.UnregisterResource{Name: args[0]}}
			return nil
		},
		done: func(args []string, _ *assentv1.ChangeClusterResponse) string { return args[0] + " is not registered" },
	}}
}

func (p *program) clusterChangeCommand(c clusterChange) *cobra.Command {
	var (
		t      = target{p: p}
		req    = &assentv1.ChangeClusterRequest{}
		asJSON bool
	)
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Example: c.example, Args: c.args,
		Long: c.long + `

Any node may be asked. The exit code is 8 if it is not known whether the change was made: look before you ask
again; assent cluster history shows what was made.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.read(args, req); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			r, err := t.dial()
			if err != nil {
				return err
			}
			response, err := r.operator.ChangeCluster(ctx, req)
			if err != nil {
				return unsureOfChange(err)
			}
			if asJSON {
				return writeJSON(p.out, response)
			}
			_, err = fmt.Fprintf(p.out, "%s; the state is at epoch %d\n", c.done(args, response), response.GetEpoch())
			return err
		},
	}
	t.callFlags(cmd)
	f := cmd.Flags()
	if c.compares {
		f.Uint64Var(&req.Epoch, "epoch", 0, "do it only if the state is at this `epoch`")
	}
	f.StringVar(&req.Reason, "reason", "", "why, as `text` for the audit trail")
	f.StringVar(&req.By, "by", p.operatorName(), "the `name` of who asks, for the audit trail")
	f.BoolVar(&asJSON, "json", false, "print the contract's ChangeClusterResponse as JSON")
	return cmd
}

// unsureOfChange tells the error of a change of which nobody has said what became of it: the call was cut off on
// its way, or the cluster has not answered the node. Errors that say that nothing was done remain as they are.
func unsureOfChange(err error) error {
	told, ok := errors.AsType[*connect.Error](err)
	switch {
	case ok && isUnsure(told):
		f := explainCall(told)
		f.exit = exitUnsure
		return f
	case ok && told.Code() == connect.CodeAborted:
		f := explainCall(told)
		f.exit = exitChanged
		return f
	case ok && len(told.Details()) > 0, !mayBeDone(err):
		return err
	}
	return &failure{exit: exitUnsure, err: err, text: fmt.Sprintf("it is not known whether the change was made: %v", err),
		hint: "it may be made yet; look with assent cluster get, history or status before you ask again"}
}

// mayBeDone reports whether a call that has failed without a word from a server may have been carried out.
func mayBeDone(err error) bool {
	told, ok := errors.AsType[*connect.Error](err)
	op, network := errors.AsType[*net.OpError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case network:
		return op.Op != "dial"
	case untrusted || plain || errors.Is(err, http.ErrSchemeMismatch):
		return false
	}
	return !ok || slices.Contains([]connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled,
		connect.CodeUnknown, connect.CodeInternal}, told.Code())
}

func isUnsure(err *connect.Error) bool {
	for _, d := range err.Details() {
		if value, derr := d.Value(); derr == nil {
			if detail, ok := value.(*assentv1.ErrorDetail); ok && detail.GetUnsure() {
				return true
			}
		}
	}
	return false
}

// exactly asks for so many arguments.
func exactly(what string, count int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == count && args[0] != "" {
			return nil
		}
		return misuse(cmd.CommandPath()+" --help shows examples", "give %s; there are %d arguments", what, len(args))
	}
}
