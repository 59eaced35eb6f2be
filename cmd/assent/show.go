package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	assentv1 "assent/api/assent/v1"
)

func (p *program) showCommand() *cobra.Command {
	var (
		t      = target{p: p}
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "show one transaction: its decision, branches and audit trail",
		Long: `Show one transaction: its decision, its branches and what was noted since.

With -c or --data-dir it reads the decision log itself and changes nothing. A transaction that is
not known makes exit code 6. That is no outcome: what aborted before a decision, and what was
committed in one phase in one resource, leaves no record.`,
		Example: `  assent show 01JDP5V8Q4ZK3T6M2Y9RWXB7CE-1
  assent show --json 01JDP5V8Q4ZK3T6M2Y9RWXB7CE-1 | jq -r .transaction.state`,
		Args: exactlyOne("transaction"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			reader, closeReader, err := t.reader()
			if err != nil {
				return err
			}
			defer closeReader()
			response, err := reader.Get(ctx, &assentv1.GetRequest{Id: args[0]})
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the contract's GetResponse as JSON")
	return cmd
}

func (p *program) writeTransaction(w io.Writer, tx *assentv1.Transaction) error {
	colours := palette(p.out, p.getenv)
	head := table{palette: colours}
	field := func(name, value, colour string) {
		if value != "" && value != "-" {
			head.add(cell{text: name}, cell{value, colour})
		}
	}
	field("id", tx.GetId(), "")
	field("state", stateName(tx.GetState()), colours.ofState(tx.GetState()))
	if d := tx.GetDecision(); d != assentv1.Decision_DECISION_UNSPECIFIED {
		field("decision", enumName(d.String(), "DECISION_"), "")
	}
	field("by", tx.GetBy(), "")
	field("reason", tx.GetReason(), "")
	field("began", when(tx.GetBegan()), "")
	field("decided", when(tx.GetDecided()), "")
	if tx.GetRecovered() {
		field("recovered", "yes: found unfinished and being driven to its end", "")
	}
	if err := head.write(w); err != nil {
		return err
	}
	if len(tx.GetBranches()) > 0 {
		fmt.Fprintln(w)
		branches := table{palette: colours}
		branches.add(plain("RESOURCE", "BRANCH", "OUTCOME", "LAST ERROR")...)
		for _, b := range tx.GetBranches() {
			branches.add(plain(b.GetResource(), b.GetState(), outcomeName(b.GetOutcome()), b.GetError())...)
		}
		if err := branches.write(w); err != nil {
			return err
		}
	}
	if len(tx.GetNotes()) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	notes := table{palette: colours}
	notes.add(plain("TIME", "NOTE", "RESOURCE", "OUTCOME", "BY", "REASON")...)
	for _, n := range tx.GetNotes() {
		outcome := ""
		if n.GetOutcome() != assentv1.BranchOutcome_BRANCH_OUTCOME_UNSPECIFIED {
			outcome = outcomeName(n.GetOutcome())
		}
		notes.add(plain(when(n.GetTime()), n.GetKind(), n.GetBranch(), outcome, n.GetBy(), n.GetReason())...)
	}
	return notes.write(w)
}

func outcomeName(o assentv1.BranchOutcome) string {
	if o == assentv1.BranchOutcome_BRANCH_OUTCOME_UNSPECIFIED {
		return "unfinished"
	}
	return enumName(o.String(), "BRANCH_OUTCOME_")
}
