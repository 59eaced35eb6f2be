package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"
)

func decideCommand() *cobra.Command {
	var o options
	var only []string
	var kinds []deciderKind
	cmd := &cobra.Command{
		Use:   "decide",
		Short: "one decision, in each place where decisions can live",
		Long: `Callers have transactions decided, in each place in turn:

  floor     a bare file: what waits is appended and forced together; it finds nothing again
  majority  a bare file and two others behind connections: the floor of three members
  disk      the decision log in a directory of this machine
  paxos     the decision log on three members of a cluster, each with a directory of its own
  postgres  the decision log in a PostgreSQL server, which is started for it
` + peersLong + `
All are on this machine. Ratios are medians of the ratios to the floor in each round.`,
		Example: `  assent bench decide
  assent bench decide --only floor,disk --concurrency 1,64 --json
  go run -tags peers ./cmd/assent bench decide`,
		Args: noArguments(func() (err error) {
			kinds, err = chosen(deciderKinds(), only)
			return cmp.Or(o.validate(), err)
		}),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			r, err := benchDecide(ctx, o, kinds, newProgress(cmd.ErrOrStderr()))
			return r.print(cmd.OutOrStdout(), o.json, err)
		},
	}
	o.flags(cmd, []int{1, 8, 32, 64, 256}, 5)
	cmd.Flags().StringSliceVar(&only, "only", nil, "measure these places alone, separated by commas; the floor is always among them")
	return cmd
}

// chosen returns the kinds that are asked for: all, or the floor and those named.
func chosen(kinds []deciderKind, only []string) ([]deciderKind, error) {
	if len(only) == 0 {
		return kinds, nil
	}
	var known []string
	for _, k := range kinds {
		known = append(known, k.key)
	}
	for _, name := range only {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--only names %q; this program knows %s%s", name, strings.Join(known, ", "), peersHint)
		}
	}
	return slices.DeleteFunc(kinds, func(k deciderKind) bool { return k.key != "floor" && !slices.Contains(only, k.key) }), nil
}

// decideReport is what `assent bench decide` prints. Times are in microseconds.
type decideReport struct {
	Machine    machine     `json:"machine"`
	Rounds     int         `json:"rounds"`
	Seconds    float64     `json:"secondsPerSlice"`
	Incomplete bool        `json:"incomplete"`
	Missing    []string    `json:"missing,omitempty"`
	Lines      []decideRow `json:"results"`
	advice     string      // what else could be measured
}

// decideRow is one place with one number of callers. Its transactions are decisions.
type decideRow struct {
	Concurrency int    `json:"concurrency"`
	Place       string `json:"place"`
	name        string
	Figure      *figure `json:"closedLoop"`
}

func (r *decideReport) print(w io.Writer, asJSON bool, err error) error {
	r.Incomplete = err != nil
	return printReport(w, asJSON, r, r.Incomplete && len(r.Lines) == 0, r.text, err)
}

func (r *decideReport) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "one decision: %d CPUs, %s, %s; %d rounds of %v each; everything on this machine\n",
		r.Machine.CPUs, r.Machine.Platform, r.Machine.Go, r.Rounds, seconds(r.Seconds))
	for _, m := range r.Missing {
		fmt.Fprintln(&b, m)
	}
	if r.Incomplete {
		b.WriteString("interrupted: this is what was known by then\n")
	}
	b.WriteString("\n")
	rows := [][]string{{"callers", "place", "decisions/s", "of floor", "p50 ms", "of floor", "p99 ms", "of floor"}}
	for _, x := range r.Lines {
		f := x.Figure
		rows = append(rows, []string{fmt.Sprint(x.Concurrency), x.name, fmt.Sprintf("%.0f", f.Throughput), figures(f.OfFloor),
			figures(f.P50 / 1000), figures(f.P50OfFloor), figures(f.P99 / 1000), figures(f.P99OfFloor)})
	}
	b.WriteString(lineUp(rows))
	b.WriteString(r.advice)
	return b.String()
}

// benchDecide measures every place at every concurrency. Where it fails or ctx ends, it returns what
// is known by then, too.
func benchDecide(ctx context.Context, o options, kinds []deciderKind, p *progress) (r *decideReport, err error) {
	r = &decideReport{Machine: thisMachine(), Rounds: o.rounds, Seconds: o.duration.Seconds(), Lines: []decideRow{}, advice: peersAdvice}
	defer p.done()
	dir, err := os.MkdirTemp(o.dir, "assent-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var ways []*deciding
	defer func() {
		for _, w := range ways {
			err = errors.Join(err, w.close())
		}
	}()
	for _, k := range kinds {
		p.say("starting: %s", k.name)
		own := filepath.Join(dir, k.key)
		if err := os.Mkdir(own, 0o700); err != nil {
			return r, err
		}
		d, err := k.open(ctx, own)
		if errors.Is(err, errMissing) {
			r.Missing = append(r.Missing, fmt.Sprintf("%s: %v", k.name, err))
			continue
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", k.name, err)
		}
		prefix := ulid.Make().String()
		if p, ok := d.(interface{ prefix() string }); ok {
			prefix = p.prefix() + prefix
		}
		ways = append(ways, &deciding{decider: d, kind: k, prefix: prefix})
	}
	for _, callers := range o.concurrency {
		slices, err := decideRounds(ctx, o, ways, callers, p)
		for i, w := range ways {
			if f := newFigure(slices[i], slices[0]); f != nil {
				r.Lines = append(r.Lines, decideRow{callers, w.kind.key, w.kind.name, f})
			}
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// decideRounds lets the places take turns. Each round begins with another one, so that none always
// comes after the same. It returns the slices of whole rounds.
func decideRounds(ctx context.Context, o options, ways []*deciding, callers int, p *progress) ([][]slice, error) {
	all := make([][]slice, len(ways))
	for round := -1; round < o.rounds; round++ {
		d := o.duration
		if round < 0 {
			d = d/4 + 1 // to get warm
		}
		p.say("%d callers: round %d of %d", callers, round+1, o.rounds)
		done := make([]slice, len(ways))
		for i := range ways {
			i = (i + max(round, 0)) % len(ways)
			var err error
			if done[i], err = drive(ctx, ways[i], callers, callers, d, 0); err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return all, err
			}
		}
		for i := range done {
			if round >= 0 {
				all[i] = append(all[i], done[i])
			}
		}
	}
	return all, nil
}
