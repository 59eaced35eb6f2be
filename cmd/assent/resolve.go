package main

import (
	"context"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	assentv1 "assent/api/assent/v1"
)

func (p *program) resolveCommand() *cobra.Command {
	var (
		t       = target{p: p}
		req     assentv1.ResolveRequest
		outcome string
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "resolve ID --reason TEXT",
		Short: "record what became of a transaction that cannot end by itself",
		Long: `Record what became of a transaction that cannot end by itself. What you say is kept with the
transaction, with your name and the time, and is not checked: look at the resource first.

  heuristic outcome   noted as resolved; one branch, or all of them without --branch
  unfinished branch   taken to have ended as --outcome says, and not tried again; give --branch
  in doubt            proposed to abort; if commit stands already, that is said in an error
  among sites         a node that is gone is taken to have ended as --outcome says; give --branch "node NAME"

docs/operations.md is the runbook. With -c or --data-dir, this process does what a server does
when it starts: it also finishes what can be finished.`,
		Example: `  assent show 01JDP5V8Q4ZK3T6M2Y9RWXB7CE-1
  assent resolve 01JDP5V8Q4ZK3T6M2Y9RWXB7CE-1 --reason "refunded by hand, ticket 4711"
  assent resolve 01JDP5V8Q4ZK3T6M2Y9RWXB7CE-1 --branch billing --outcome committed \
      --reason "billing was restored from a dump that holds the change"`,
		Args: exactlyOne("transaction"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Id = args[0]
			if err := readOutcome(outcome, &req); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			operator, closeOperator, err := t.operator(ctx)
			if err != nil {
				return err
			}
			defer closeOperator()
			response, err := operator.Resolve(ctx, &req)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(p.out, response)
			}
			return p.writeTransaction(p.out, response.GetTransaction())
		},
	}
	t.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&req.Branch, "branch", "", "the `resource` whose branch is resolved (default: all that are heuristic)")
	f.StringVar(&outcome, "outcome", "", "how the branch ended: `committed` or rolled-back")
	f.StringVar(&req.Reason, "reason", "", "why, as `text` for the audit trail; required")
	f.StringVar(&req.By, "by", p.operatorName(), "the `name` of who says so, for the audit trail")
	f.BoolVar(&asJSON, "json", false, "print the contract's ResolveResponse as JSON")
	return cmd
}

func readOutcome(outcome string, req *assentv1.ResolveRequest) error {
	switch outcome {
	case "":
	case "committed":
		req.Outcome = assentv1.BranchOutcome_BRANCH_OUTCOME_COMMITTED
	case "rolled-back":
		req.Outcome = assentv1.BranchOutcome_BRANCH_OUTCOME_ROLLED_BACK
	default:
		return misuse("say committed or rolled-back", "--outcome is %q", outcome)
	}
	if req.GetReason() == "" {
		return misuse(`add --reason "what you found, and what you did about it"`, "say why: the reason is kept as the audit trail")
	}
	return nil
}

// operatorName is who runs the program, and where.
func (p *program) operatorName() string {
	name := p.getenv("USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if name == "" || err != nil {
		return name
	}
	return name + "@" + host
}
