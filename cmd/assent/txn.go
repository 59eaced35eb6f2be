package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	assentv1 "assent/api/assent/v1"
	sites "assent/site"
)

func (p *program) txnCommand() *cobra.Command {
	var (
		t      = target{p: p}
		req    assentv1.RunRequest
		limit  time.Duration
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "txn OPERATION...",
		Short: "run one transaction: its operations in their order, then commit",
		Long: `Run one transaction: its operations in the order in which they are given, then commit. When one
of them fails, all are rolled back.

It runs at a server; with -c, --data-dir or --resource in this process, which then keeps the
decision log itself. The exit code tells the outcome: 0 committed, 3 aborted, 4 in doubt,
5 heuristic, 8 not known, because the server's answer was lost.`,
		Example: `  assent txn --put kv/alice=90 --put kv/bob=110
  assent txn --get kv/alice --delete kv/old --scan kv/user/
  assent txn --pg orders="UPDATE orders SET paid = true WHERE id = \$1" --arg 17 \
             --pg billing="INSERT INTO payments (order_id) VALUES (\$1)" --arg 17
  assent txn --resource a=postgres:///a --resource b=postgres:///b \
             --pg a="DELETE FROM t" --pg b="INSERT INTO t VALUES (1)"
  assent txn --protocol paxos --put kv-a/x=1 --put kv-b/x=1`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(req.GetOperations()) == 0 {
				return misuse("assent txn --help shows examples", "give at least one operation: --pg, --put, --get, --delete or --scan")
			}
			if warning := sites.Protocol(req.GetProtocol()).Warning(); warning != "" {
				fmt.Fprintln(p.err, "warning:", warning)
			}
			if limit != 0 {
				req.Timeout = durationpb.New(limit)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), t.timeout)
			defer cancel()
			run, closeSite, err := t.runner(ctx)
			if err != nil {
				return err
			}
			defer closeSite()
			response, err := run(ctx, &req)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(p.out, response)
			} else {
				err = p.writeRun(&req, response)
			}
			if exit := exitOf(response.GetOutcome()); err == nil && exit != exitOK {
				return silence{exit}
			}
			return err
		},
	}
	t.flags(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&t.resources, "resource", nil, "work without a server, with this resource, `NAME=SOURCE`: postgres://… or kv:PATH")
	for _, o := range operationFlags {
		f.Var(&operationFlag{ops: &req.Operations, form: o.form, parse: o.parse}, o.name, o.usage)
	}
	f.DurationVar(&limit, "limit", 0, "roll back what takes longer than this `time` (default: the server's)")
	f.Uint32Var(&req.Retries, "retries", 0, "do it again, at most `N` times, when it conflicts with another transaction")
	f.StringVar(&req.Protocol, "protocol", "", "commit among the nodes that keep the resources, by this `protocol`: 2pc, 3pc, q3pc or paxos")
	f.BoolVar(&req.EarlyReply, "early-reply", false, "do not wait for the branches once the decision is stable")
	f.BoolVar(&asJSON, "json", false, "print the contract's RunResponse as JSON")
	return cmd
}

type runFunc func(context.Context, *assentv1.RunRequest) (*assentv1.RunResponse, error)

// runner returns who runs the transaction: the server, or this process.
func (t *target) runner(ctx context.Context) (runFunc, func(), error) {
	if !t.offline() {
		r, err := t.dial()
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, req *assentv1.RunRequest) (*assentv1.RunResponse, error) {
			response, err := r.transactions.Run(ctx, req)
			return response, unsureOfTransaction(req, err)
		}, func() {}, nil
	}
	s, err := t.open(ctx, true)
	if err != nil {
		return nil, nil, err
	}
	return s.server.Run, func() { s.close(quiet(), t.timeout) }, nil
}

// unsureOfTransaction tells the error of a transaction of which no server has said what became of it, because the call
// was cut off on its way. The transaction's name was in the answer that is lost. Errors that say that nothing was done,
// or of a transaction that has nothing to change, remain as they are.
func unsureOfTransaction(req *assentv1.RunRequest, err error) error {
	told, ok := errors.AsType[*connect.Error](err)
	switch {
	case err == nil, onlyReads(req), ok && len(told.Details()) > 0, !mayBeDone(err):
		return err
	}
	return &failure{exit: exitUnsure, err: err, text: fmt.Sprintf("it is not known what became of the transaction: %v", err),
		hint: "it may have committed, or commit yet; look at what it was to change before you do it again"}
}

// onlyReads reports whether the operations of req certainly change nothing. What a statement does is not known here.
func onlyReads(req *assentv1.RunRequest) bool {
	for _, op := range req.GetOperations() {
		if op.GetGet() == nil && op.GetScan() == nil {
			return false
		}
	}
	return true
}

// operationFlag adds an operation to those of the transaction. All kinds share one list, so that
// the order of the command line is kept.
type operationFlag struct {
	ops   *[]*assentv1.Operation
	form  string
	parse func(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error)
}

// String returns the flag's default: none.
func (f *operationFlag) String() string { return "" }

// Type names the value in the help.
func (f *operationFlag) Type() string { return f.form }

// Set reads one operation.
func (f *operationFlag) Set(value string) error {
	ops, err := f.parse(value, *f.ops)
	if err == nil {
		*f.ops = ops
	}
	return err
}

var operationFlags = [...]struct {
	name, form, usage string
	parse             func(string, []*assentv1.Operation) ([]*assentv1.Operation, error)
}{
	{"pg", "NAME=SQL", "run this SQL statement in that resource", parseStatement},
	{"arg", "VALUE", "an argument, as text, of the --pg before it: $1, then $2", parseArgument},
	{"put", "NAME/KEY=VALUE", "set a key", parsePut},
	{"get", "NAME/KEY", "read a key", parseGet},
	{"delete", "NAME/KEY", "delete a key", parseDelete},
	{"scan", "NAME/PREFIX", "read the keys that begin so", parseScan},
}

func parseStatement(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error) {
	name, sql, ok := strings.Cut(value, "=")
	if !ok || !isName(name) || strings.TrimSpace(sql) == "" {
		return nil, fmt.Errorf("write it as NAME=SQL")
	}
	if !utf8.ValidString(sql) {
		return nil, errNotUTF8
	}
	return append(ops, &assentv1.Operation{Resource: name, Action: &assentv1.Operation_Statement{
		Statement: &assentv1.Statement{Sql: sql}}}), nil
}

func parseArgument(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error) {
	if len(ops) == 0 || ops[len(ops)-1].GetStatement() == nil {
		return nil, fmt.Errorf("it belongs after the --pg whose argument it is")
	}
	if !utf8.ValidString(value) {
		return nil, errNotUTF8
	}
	statement := ops[len(ops)-1].GetStatement()
	statement.Args = append(statement.Args, &assentv1.Value{Kind: &assentv1.Value_Text{Text: value}})
	return ops, nil
}

func parsePut(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error) {
	target, data, ok := strings.Cut(value, "=")
	name, key, hasKey := strings.Cut(target, "/")
	if !ok || !hasKey || !isName(name) || key == "" {
		return nil, fmt.Errorf("write it as NAME/KEY=VALUE")
	}
	put := &assentv1.PutKey{Key: textKey(key), Value: &assentv1.Value{Kind: &assentv1.Value_String_{String_: data}}}
	if !utf8.ValidString(data) {
		put.Value = &assentv1.Value{Kind: &assentv1.Value_Bytes{Bytes: []byte(data)}}
	}
	return append(ops, &assentv1.Operation{Resource: name, Action: &assentv1.Operation_Put{Put: put}}), nil
}

func parseGet(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error) {
	name, key, err := nameAndKey(value)
	return append(ops, &assentv1.Operation{Resource: name, Action: &assentv1.Operation_Get{Get: &assentv1.GetKey{Key: key}}}), err
}

func parseDelete(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error) {
	name, key, err := nameAndKey(value)
	return append(ops, &assentv1.Operation{Resource: name, Action: &assentv1.Operation_Delete{Delete: &assentv1.DeleteKey{Key: key}}}), err
}

func parseScan(value string, ops []*assentv1.Operation) ([]*assentv1.Operation, error) {
	name, prefix, _ := strings.Cut(value, "/")
	if !isName(name) {
		return nil, fmt.Errorf("write it as NAME/PREFIX")
	}
	scan := &assentv1.ScanKeys{}
	if prefix != "" {
		scan.Prefix = textKey(prefix)
	}
	return append(ops, &assentv1.Operation{Resource: name, Action: &assentv1.Operation_Scan{Scan: scan}}), nil
}

func nameAndKey(value string) (string, *assentv1.Key, error) {
	name, key, ok := strings.Cut(value, "/")
	if !ok || !isName(name) || key == "" {
		return "", nil, fmt.Errorf("write it as NAME/KEY")
	}
	return name, textKey(key), nil
}

var errNotUTF8 = errors.New("it is not UTF-8, as SQL and its arguments must be")

// isName reports whether a resource may be called so, as far as the contract cares.
func isName(name string) bool { return name != "" && utf8.ValidString(name) }

// textKey names a key, in bytes where it is not UTF-8.
func textKey(key string) *assentv1.Key {
	if !utf8.ValidString(key) {
		return &assentv1.Key{Form: &assentv1.Key_Bytes{Bytes: []byte(key)}}
	}
	return &assentv1.Key{Form: &assentv1.Key_Text{Text: key}}
}

func exitOf(o *assentv1.Outcome) int {
	switch o.GetKind().(type) {
	case *assentv1.Outcome_Committed:
		return exitOK
	case *assentv1.Outcome_Aborted:
		return exitAborted
	case *assentv1.Outcome_InDoubt:
		return exitInDoubt
	case *assentv1.Outcome_Heuristic:
		return exitHeuristic
	}
	return exitError
}

// writeRun prints the results, in the order of the operations, and the outcome.
func (p *program) writeRun(req *assentv1.RunRequest, response *assentv1.RunResponse) error {
	for i, result := range response.GetResults() {
		if err := p.writeResult(req.GetOperations()[i], result); err != nil {
			return err
		}
	}
	return p.writeOutcome(response.GetOutcome())
}

func (p *program) writeResult(op *assentv1.Operation, result *assentv1.Result) error {
	if len(result.GetColumns()) == 0 {
		return nil
	}
	if len(result.GetRows()) == 0 {
		_, err := fmt.Fprintf(p.out, "%s: no rows\n", op.GetResource())
		return err
	}
	out := table{palette: palette(p.out, p.getenv)}
	var head []cell
	for _, c := range result.GetColumns() {
		head = append(head, cell{c.GetName(), out.palette.faint})
	}
	out.add(head...)
	for _, row := range result.GetRows() {
		var cells []cell
		for _, v := range row.GetValues() {
			cells = append(cells, cell{text: valueText(v)})
		}
		out.add(cells...)
	}
	return out.write(p.out)
}

// valueText writes a value for people.
func valueText(v *assentv1.Value) string {
	switch k := v.GetKind().(type) {
	case *assentv1.Value_Bool:
		return fmt.Sprint(k.Bool)
	case *assentv1.Value_Int64:
		return fmt.Sprint(k.Int64)
	case *assentv1.Value_Double:
		return fmt.Sprint(k.Double)
	case *assentv1.Value_String_:
		return k.String_
	case *assentv1.Value_Text:
		return k.Text
	case *assentv1.Value_Bytes:
		return "base64:" + base64.StdEncoding.EncodeToString(k.Bytes)
	}
	return "NULL"
}

// writeOutcome prints an outcome: on standard output where it is committed, else as an error is.
func (p *program) writeOutcome(o *assentv1.Outcome) error {
	if o.GetCommitted() != nil {
		c := palette(p.out, p.getenv)
		_, err := fmt.Fprintf(p.out, "%s %s\n", c.paint(c.good, "committed"), o.GetId())
		return err
	}
	f := &failure{exit: exitOf(o)}
	switch k := o.GetKind().(type) {
	case *assentv1.Outcome_Aborted:
		a := k.Aborted
		f.text, f.hint = fmt.Sprintf("transaction %s aborted: %s", o.GetId(), a.GetCause()), a.GetHint()
		if a.GetBy() != "" {
			f.text += " (" + a.GetBy() + ")"
		}
		if a.GetReason() != "" {
			f.text += ": " + a.GetReason()
		}
	case *assentv1.Outcome_InDoubt:
		f.text, f.hint = fmt.Sprintf("transaction %s is in doubt: %s", o.GetId(), k.InDoubt.GetReason()), "assent show "+o.GetId()+"; do not repeat the work before it is known"
	case *assentv1.Outcome_Heuristic:
		var parts []string
		for _, b := range k.Heuristic.GetBranches() {
			parts = append(parts, b.GetResource()+" is "+outcomeName(b.GetOutcome()))
		}
		decision := enumName(k.Heuristic.GetDecision().String(), "DECISION_")
		f.text = fmt.Sprintf("transaction %s ended heuristically: the decision is %s, but %s", o.GetId(), decision, strings.Join(parts, ", "))
		f.hint = k.Heuristic.GetHint()
	}
	p.report(f)
	return nil
}
