package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"assent/check"
	"assent/check/skeen"
	"assent/protocol/commit"
)

// analysing is what assent check --skeen is told beside what checking is.
type analysing struct {
	wanted    bool
	colocated bool
	diagram   string
	format    string
	output    string
}

// The flags of assent check that mean nothing without --skeen, and those that mean nothing with it.
var (
	onlyWithSkeen  = []string{"colocated", "diagram", "format", "output"}
	neverWithSkeen = []string{"votes", "restarts", "partition", "losses", "duplicates", "model", "vote-retries", "rounds", "symmetry", "trace", "chart"}
)

func (a *analysing) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&a.wanted, "skeen", false, "show concurrency sets and what blocks instead (Skeen 1981); docs/skeen.md says how to read it")
	flags.BoolVar(&a.colocated, "colocated", false, "--skeen: the coordinator is one of the participants, and votes")
	flags.StringVar(&a.diagram, "diagram", "", "--skeen: only the diagram of this `role`, or global")
	flags.StringVar(&a.format, "format", "", "--skeen: the `form`, table, json, dot or svg (default: what the file's name says, or table)")
	flags.StringVarP(&a.output, "output", "o", "", "--skeen: write to this `file`: .txt, .json, .dot or .svg")
}

// skeenForms are what can be made of an analysis, by the ends of files' names.
var skeenForms = map[string]string{".txt": "table", ".json": "json", ".dot": "dot", ".svg": "svg"}

// refuse says which of the flags that were given do not go together.
func (a *analysing) refuse(cmd *cobra.Command) error {
	for _, name := range onlyWithSkeen {
		if !a.wanted && cmd.Flags().Changed(name) {
			return misuse("say --skeen too, or leave it out", "--%s is about --skeen", name)
		}
	}
	for _, name := range neverWithSkeen {
		if a.wanted && cmd.Flags().Changed(name) {
			return misuse("leave it out: the sets are those of runs without a fault, and the schedules have crashes alone",
				"--%s does not go with --skeen", name)
		}
	}
	return nil
}

// parse settles the form.
func (a *analysing) parse(asJSON bool) error {
	if asJSON {
		if a.format != "" && a.format != "json" {
			return misuse("leave one of them out", "--json and --format %s contradict each other", a.format)
		}
		a.format = "json"
	}
	if a.format == "" {
		a.format = "table"
		if a.output != "" {
			a.format = skeenForms[strings.ToLower(filepath.Ext(a.output))]
		}
	}
	switch a.format {
	case "table", "json":
		if a.diagram != "" {
			return misuse("say --format dot or --format svg", "--diagram chooses what is drawn, and a %s is not", a.format)
		}
	case "dot", "svg":
	default:
		return misuse("table, json, dot and svg are the forms, and .txt, .json, .dot and .svg the ends of a file's name", "there is no form %q", a.form())
	}
	return nil
}

// form is what was asked for, as the user said it.
func (a *analysing) form() string {
	if a.format == "" {
		return filepath.Ext(a.output)
	}
	return a.format
}

// analyse is assent check --skeen.
func (c *checking) analyse(cmd *cobra.Command, name string) error {
	if err := c.skeen.parse(c.asJSON); err != nil {
		return err
	}
	if err := cmp.Or(refuseMisfits(cmd, name), writable(c.skeen.output)); err != nil {
		return err
	}
	p, err := c.projected(name)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program
	progress := newBar(c.p.err)
	a, err := skeen.Analyse(ctx, p, skeen.Options{Crashes: c.faults.Crashes, Limits: check.Limits{States: c.maxStates, Progress: progress.states}})
	progress.done()
	if a != nil {
		if err := c.skeen.write(c.p, a); err != nil {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case a != nil && ctx.Err() != nil:
		return fail("let it run longer, or ask for fewer crashes", "stopped: schedules are known for up to %d crashes only", a.Crashes)
	case a != nil:
		return fail("raise --max-states, or ask for fewer crashes", "schedules are known for up to %d crashes only: %v", a.Crashes, err)
	case errors.Is(err, skeen.ErrProtocol):
		return misuse("see --participants and --crashes", "%v", err)
	case errors.Is(err, check.ErrLimit):
		return fail("raise --max-states, or ask for fewer participants", "the analysis is not complete: %v", err)
	case ctx.Err() != nil:
		return fail("", "the analysis was stopped before anything could be said for sure")
	}
	return misuse("assent check --help shows examples", "%v", err)
}

// projected returns the protocol with the projection of its states onto the papers'.
func (c *checking) projected(name string) (p skeen.Protocol, err error) {
	if _, err := findSystem(name); err != nil {
		return p, err
	}
	makers := map[string]func(int, commit.Options) (skeen.Protocol, error){
		"2pc": skeen.TwoPhase, "3pc": skeen.ThreePhase,
		"2pc-peers": skeen.DecentralisedTwoPhase, "3pc-peers": skeen.DecentralisedThreePhase,
	}
	if c.skeen.colocated {
		makers = map[string]func(int, commit.Options) (skeen.Protocol, error){"2pc": skeen.CentralTwoPhase, "3pc": skeen.CentralThreePhase}
	}
	switch maker := makers[name]; {
	case maker != nil:
		p, err = maker(c.params.participants, c.params.options())
	case c.skeen.colocated && strings.HasSuffix(name, "-peers"):
		return p, misuse("leave --colocated out", "%s has no coordinator", name)
	default:
		return p, misuse("2pc, 2pc-peers, 3pc and 3pc-peers have one; docs/skeen.md says what it is",
			"%s has no projection onto Skeen's states", name)
	}
	if err != nil {
		return p, misuse("see --participants", "%v", err)
	}
	if sites, most := len(p.Roles), 8; sites > most { // more participants than sites are refused by their maker
		return p, misuse(fmt.Sprintf("--participants %d is the most; with --colocated, %d", most-1, most),
			"%d participants and a coordinator are %d sites; at most %d can be analysed", c.params.participants, sites, most)
	}
	return p, nil
}

// write makes the form that was asked for. The file is there only if all went well.
func (a *analysing) write(p *program, found *skeen.Analysis) error {
	var b strings.Builder
	if err := a.render(&b, found); err != nil {
		return err
	}
	if a.output == "" {
		_, err := fmt.Fprint(p.out, b.String())
		return err
	}
	if err := os.WriteFile(a.output, []byte(b.String()), 0o644); err != nil {
		return fail("", "cannot write the analysis: %v", err)
	}
	return nil
}

func (a *analysing) render(b *strings.Builder, found *skeen.Analysis) error {
	switch a.format {
	case "table":
		return found.WriteTable(b)
	case "json":
		e := json.NewEncoder(b)
		e.SetIndent("", "  ")
		return e.Encode(found)
	}
	all, names := found.Diagrams(), []string{}
	chosen := slices.DeleteFunc(slices.Clone(all), func(d skeen.Diagram) bool {
		names = append(names, d.Name)
		return a.diagram != "" && d.Name != a.diagram
	})
	if len(chosen) == 0 {
		return misuse("the diagrams are "+strings.Join(names, ", "), "there is no diagram %q of %s", a.diagram, found.Protocol)
	}
	if a.format == "svg" {
		picture, err := skeen.SVG(chosen...)
		if errors.Is(err, skeen.ErrTooLarge) {
			return fail("use --format dot and Graphviz, or ask for fewer participants", "%v", err)
		}
		b.WriteString(picture)
		return err
	}
	for _, d := range chosen {
		b.WriteString(d.DOT())
	}
	return nil
}
