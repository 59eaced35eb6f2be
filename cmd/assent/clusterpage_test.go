package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"assent/internal/ports"
)

// TestClusterPage runs the commands with which docs/cluster.md makes a cluster of three nodes, at other ports,
// and wants the status that the page shows.
func TestClusterPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "## Three nodes by hand\n\n")
	commands, rest, ok := strings.Cut(rest, "\n\n")
	if !ok || strings.Count(commands, "assent serve") != 3 || strings.Count(commands, "\n") != 4 {
		t.Fatalf("the page does not make three nodes in five lines:\n%s", commands)
	}
	shown := regexp.MustCompile(`(?m)^    (cluster   assent\n(?:    .*\n)+)`).FindStringSubmatch(rest)
	if shown == nil {
		t.Fatal("the page shows no status")
	}
	for _, address := range regexp.MustCompile(`127\.0\.0\.1:74[23][123]`).FindAllString(commands, -1) {
		commands = strings.ReplaceAll(commands, address, ports.Address(t))
	}
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "assent")); err != nil { // see testscript.Main
		t.Fatal(err)
	}
	lines := strings.Split(commands, "\n")
	status := strings.TrimSpace(lines[4])
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	environment := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0")
	nodes := exec.CommandContext(ctx, "sh", "-c", strings.Join(lines[:4], "\n")+"\nwait")
	nodes.Dir, nodes.Env, nodes.SysProcAttr = dir, environment, &syscall.SysProcAttr{Setpgid: true}
	var log strings.Builder
	nodes.Stderr = &log
	if err := nodes.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-nodes.Process.Pid, syscall.SIGKILL) // the shell and its servers
		_ = nodes.Wait()
	}()
	// How often the state has changed so far, and who leads it, is another matter in each run.
	changing := regexp.MustCompile(`view \d+, epoch \d+, led by [abc]`)
	want := changing.ReplaceAllString(strings.ReplaceAll(shown[1], "\n    ", "\n"), "view and leader")
	for {
		show := exec.CommandContext(ctx, "sh", "-c", status)
		show.Dir, show.Env = dir, environment
		out, _ := show.CombinedOutput() // it fails until the nodes have found each other
		if strings.HasPrefix(changing.ReplaceAllString(string(out), "view and leader"), want) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the last status:\n%s\nthe page shows:\n%s\nthe nodes said:\n%s", out, want, &log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
