package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	assentv1 "assent/api/assent/v1"
)

// mostListed is the greatest number of transactions that a list tells of, as the contract says.
const mostListed = 1000

func (p *program) listCommand() *cobra.Command {
	var (
		t      = target{p: p}
		req    assentv1.ListRequest
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list transactions: what is under way first, then what needs a person",
		Long: `List transactions: those that are open or under way, then those of the decision log, of which
heuristic and unfinished ones come first.

With -c or --data-dir it reads the decision log itself and changes nothing.`,
		Example: `  assent list
  assent list --unfinished
  assent list --json | jq -r '.transactions[] | select(.state == "STATE_HEURISTIC") | .id'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Limit < 1 || req.Limit > mostListed {
				return misuse(fmt.Sprintf("1 to %d are allowed", mostListed), "--limit is %d", req.Limit)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			reader, closeReader, err := t.reader()
			if err != nil {
				return err
			}
			defer closeReader()
			response, err := reader.List(ctx, &req)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(p.out, response)
			}
			return p.writeList(response)
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&req.Unfinished, "unfinished", false, "leave out those that are open and those that are done")
	cmd.Flags().Uint32Var(&req.Limit, "limit", 100, "list at most `N`, 1 to 1000")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the contract's ListResponse as JSON")
	return cmd
}

func (p *program) writeList(response *assentv1.ListResponse) error {
	if len(response.GetTransactions()) == 0 {
		_, err := fmt.Fprintln(p.out, "no transactions")
		return err
	}
	out := table{palette: palette(p.out, p.getenv)}
	out.add(plain("ID", "STATE", "DECIDED", "BRANCHES", "REASON")...)
	for _, tx := range response.GetTransactions() {
		var names []string
		for _, b := range tx.GetBranches() {
			names = append(names, b.GetResource())
		}
		slices.Sort(names)
		state := stateName(tx.GetState())
		out.add(cell{text: tx.GetId()}, cell{state, out.palette.ofState(tx.GetState())}, cell{text: when(tx.GetDecided())},
			cell{text: strings.Join(names, ",")}, cell{text: tx.GetReason()})
	}
	if err := out.write(p.out); err != nil {
		return err
	}
	if response.GetMore() {
		fmt.Fprintln(p.out, "there are more; see --limit and --unfinished")
	}
	return nil
}

// stateName is the state as people write it: STATE_IN_DOUBT is "in doubt".
func stateName(s assentv1.State) string { return enumName(s.String(), "STATE_") }

// enumName makes a word of an enum's name.
func enumName(name, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " "))
}

func (c colours) ofState(s assentv1.State) string {
	switch s {
	case assentv1.State_STATE_HEURISTIC:
		return c.bad
	case assentv1.State_STATE_COMMITTED:
		return c.good
	case assentv1.State_STATE_IN_DOUBT, assentv1.State_STATE_COMMITTING, assentv1.State_STATE_ABORTING:
		return c.warn
	}
	return ""
}

// when writes a time in UTC, to the second.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.DateTime) + "Z"
}
