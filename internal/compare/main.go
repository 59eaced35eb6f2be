// Command compare searches one model with this project's checker, with spin and with rumur, in turn, and
// prints what each takes. scripts/compare-checkers runs it.
//
// The model is TwoPhase (Gray and Lamport 2006, section 3) with eight resource managers, which has
// 1,745,408 distinct states: here as machines (check/paper_test.go), for spin in Promela and for rumur
// in Murphi (this folder). It promises that a tool which finds another number of states is not
// compared, but reported. It says nothing about other models.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// distinct is 6^8 + 4^8 + 2^8, the number of states that each tool must find.
const distinct = 1_745_408

//go:embed models/twophase.pml
var promela []byte

//go:embed models/twophase.m
var murphi []byte

// tool is one way to search the model. Its steps build it; the last command is what is measured.
type tool struct {
	name  string
	needs []string
	build [][]string
	run   []string
	// states finds the number of states in what the run prints.
	states *regexp.Regexp
}

func tools(module string, dir string) []tool {
	spin := func(name string, flags ...string) tool {
		program := filepath.Join(dir, name)
		compile := append([]string{"cc", "-O3", "-march=native", "-DSAFETY", "-DMEMLIM=3000"}, flags...)
		return tool{name: name, needs: []string{"spin", "cc"}, states: regexp.MustCompile(`(\d+) states, stored`),
			build: [][]string{{"spin", "-a", "twophase.pml"}, append(compile, "-o", program, "pan.c")},
			run:   []string{program, "-m100000", "-w22"}}
	}
	return []tool{
		{name: "assent", needs: []string{"go"}, states: regexp.MustCompile(`(\d+) states\s`),
			build: [][]string{{"go", "test", "-C", module, "-c", "-o", filepath.Join(dir, "check.test"), "./check"}},
			run:   []string{filepath.Join(dir, "check.test"), "-test.run=^$", "-test.bench=^BenchmarkTwoPhase$", "-test.benchtime=1x"}},
		spin("spin"),
		spin("spin-parallel", "-DBFS_PAR"),
		{name: "rumur", needs: []string{"rumur", "cc"}, states: regexp.MustCompile(`(\d+) states, \d+ rules fired`),
			build: [][]string{{"rumur", "--deadlock-detection", "off", "--output", "rumur.c", "twophase.m"},
				{"cc", "-std=c11", "-O3", "-march=native", "-o", "rumur", "rumur.c", "-lpthread"}},
			run: []string{filepath.Join(dir, "rumur")}},
	}
}

// measure is what one run has taken.
type measure struct {
	wall, processor time.Duration
	memory          int // the greatest, in bytes
}

func main() {
	rounds := flag.Int("rounds", 3, "how often each tool searches")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, max(*rounds, 1)); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context, rounds int) error {
	module, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "twophase.pml"), promela, 0o600),
		os.WriteFile(filepath.Join(dir, "twophase.m"), murphi, 0o600)); err != nil {
		return err
	}
	all := tools(module, dir)
	for _, t := range all {
		if err := t.prepare(ctx, dir); err != nil {
			return err
		}
	}
	taken := map[string][]measure{}
	for round := range rounds {
		for _, t := range all {
			m, err := t.search(ctx, dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "round %d of %d: %s, %.2f s\n", round+1, rounds, t.name, m.wall.Seconds())
			taken[t.name] = append(taken[t.name], m)
		}
	}
	fmt.Print(report(all, taken, rounds))
	return nil
}

func (t tool) prepare(ctx context.Context, dir string) error {
	for _, needed := range t.needs {
		if _, err := exec.LookPath(needed); err != nil {
			return fmt.Errorf("%s needs %s: %w", t.name, needed, err)
		}
	}
	for _, step := range t.build {
		command := exec.CommandContext(ctx, step[0], step[1:]...)
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %q: %w\n%s", t.name, step, err, out)
		}
	}
	return nil
}

// search runs the tool once.
func (t tool) search(ctx context.Context, dir string) (m measure, err error) {
	command := exec.CommandContext(ctx, t.run[0], t.run[1:]...)
	command.Dir = dir
	begun := time.Now()
	out, err := command.CombinedOutput()
	m.wall = time.Since(begun)
	if err != nil {
		return m, fmt.Errorf("run %s: %w\n%s", t.name, err, end(out))
	}
	usage, ok := command.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return m, fmt.Errorf("run %s: this system does not say what a process has used", t.name)
	}
	m.processor = command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	m.memory = int(usage.Maxrss) << 10
	found := t.states.FindAllStringSubmatch(string(out), -1)
	if len(found) == 0 || found[len(found)-1][1] != strconv.Itoa(distinct) {
		return m, fmt.Errorf("%s does not find %d states:\n%s", t.name, distinct, end(out))
	}
	return m, nil
}

// end is as much of what a tool has printed as a person reads.
func end(out []byte) []byte { return out[max(0, len(out)-2000):] }

// report is a table of the middle of what each has taken, by itself and against the first.
func report(all []tool, taken map[string][]measure, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "TwoPhase, 8 resource managers: %d distinct states; the median of %d runs in turn; %d processors\n\n", distinct, rounds, runtime.NumCPU())
	b.WriteString("| | seconds | states/s | processor seconds | states per processor second | bytes/state | times as long as assent, in each round |\n" +
		"|---|--:|--:|--:|--:|--:|--:|\n")
	first := taken[all[0].name]
	for _, t := range all {
		var ratios []string
		for i, m := range taken[t.name] {
			ratios = append(ratios, fmt.Sprintf("%.1f", m.wall.Seconds()/first[i].wall.Seconds()))
		}
		wall := median(taken[t.name], func(m measure) float64 { return m.wall.Seconds() })
		processor := median(taken[t.name], func(m measure) float64 { return m.processor.Seconds() })
		memory := median(taken[t.name], func(m measure) float64 { return float64(m.memory) })
		fmt.Fprintf(&b, "| %s | %.2f | %.0f | %.2f | %.0f | %.0f | %s |\n", t.name, wall, distinct/wall, processor, distinct/processor,
			memory/distinct, strings.Join(ratios, ", "))
	}
	return b.String()
}

func median(all []measure, of func(measure) float64) float64 {
	values := make([]float64, len(all))
	for i, m := range all {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
