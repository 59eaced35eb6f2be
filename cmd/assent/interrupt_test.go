package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestInterrupt sends SIGINT to long work as soon as it has shown how far it is: what is known by then is
// printed, and the exit code is the one that docs/cli.md says.
func TestInterrupt(t *testing.T) {
	for name, c := range map[string]struct {
		command        string
		exit           int
		stdout, stderr []string
	}{
		"check": {
			command: "check 2pc --crashes 30 --restarts 30", exit: exitError,
			stdout: []string{`AC1: .* not known`, `AC4: .* holds`, `AC5: .* not known`, `^[0-9,]+ states, `},
			stderr: []string{`^error: the check was stopped, and is not complete$`, `^hint: let it run longer`},
		},
		"check --skeen": {
			command: "check 3pc --skeen --participants 7 --crashes 7", exit: exitError,
			stderr: []string{`^error: (stopped: schedules are known for up to \d crashes only|the analysis was stopped)`},
		},
		"sim": {
			command: "sim 2pc --seeds 1..900000000", exit: exitError,
			stdout: []string{`^[0-9,]+ seeds in .* simulated`, `^crash +[0-9,]+ +[1-9]`},
			stderr: []string{`^error: stopped: [0-9,]+ of 900,000,000 seeds were run$`, `^hint: in those that were run no claim is broken$`},
		},
		"sim, of what is broken": {
			command: "sim 2pc --faults lie@c --seeds 11..900000000", exit: exitUnsound,
			stdout: []string{`^# assent trace 1$`, `^# system 2pc$`, ` alter `},
			stderr: []string{`^seed [0-9]+ fails, after `, `^shrunk from [0-9]+ faults to [0-9]+, `, `^error: [0-9,]+ of [0-9,]+ seeds fail$`},
		},
		"sim stack": {
			command: "sim stack --seeds 1..900000000", exit: exitError,
			stdout: []string{`^[0-9,]+ seeds in .* simulated`, `^the log holds commit +[1-9]`},
			stderr: []string{`^error: stopped: `},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, exit := interrupted(t, strings.Fields(c.command)...)
			if exit != c.exit {
				t.Errorf("exit code %d, want %d", exit, c.exit)
			}
			for said, patterns := range map[string][]string{stdout: c.stdout, stderr: c.stderr} {
				for _, p := range patterns {
					if !regexp.MustCompile(`(?m)` + p).MatchString(said) {
						t.Errorf("nothing that it says matches %q:\n%s", p, said)
					}
				}
			}
		})
	}
}

// interrupted runs the program and sends it SIGINT when it has written a line of progress.
func interrupted(t *testing.T, args ...string) (stdout, stderr string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "assent", args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var out bytes.Buffer
	cmd.Stdout = &out
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(pipe)
	for !strings.Contains(stderr, " %: ") {
		line, err := lines.ReadString('\n')
		if stderr += line; err != nil {
			t.Fatalf("it ends before it shows how far it is: %v, %s%s", errors.Join(err, cmd.Wait()), stderr, out.String())
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says how it ended
	return out.String(), stderr + string(rest), cmd.ProcessState.ExitCode()
}
