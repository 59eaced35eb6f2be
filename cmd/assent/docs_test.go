package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	shownCall = regexp.MustCompile(`(?s)    curl -s -H 'Content-Type: application/json' http://127\.0\.0\.1:7420(/\S+) -d '\n(.*?)'\n\n(    \{.*?)\n\n`)
	shownID   = regexp.MustCompile(`"id":"([0-9A-Z]{26}-[0-9a-z]+)"`)
)

// TestAPIPage sends every request of docs/api.md, in its order, to a new server, and wants the
// answers that the page shows, but for the ids.
func TestAPIPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	address := inProcess(t)
	calls := shownCall.FindAllStringSubmatch(string(page), -1)
	if want := strings.Count(string(page), "    curl "); len(calls) != want || want == 0 {
		t.Fatalf("the page shows %d calls, of which %d have the usual form", want, len(calls))
	}
	real := map[string]string{} // the ids of this run, by those of the page
	for _, call := range calls {
		procedure, body, shown := call[1], call[2], call[3]
		for onPage, id := range real {
			body, shown = strings.ReplaceAll(body, onPage, id), strings.ReplaceAll(shown, onPage, id)
		}
		response, err := http.Post(address+procedure, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(response.Body)
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, onPage := shownID.FindSubmatch(answer), shownID.FindStringSubmatch(shown); got != nil && onPage != nil {
			real[onPage[1]] = string(got[1])
			shown = strings.ReplaceAll(shown, onPage[1], string(got[1]))
		}
		if d := cmp.Diff(decoded(t, shown), decoded(t, string(answer))); d != "" {
			t.Errorf("%s: the page shows another answer:\n%s", procedure, d)
		}
	}
}

// decoded reads JSON without the binary form of errors' details, which the page leaves out.
func decoded(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	details, _ := m["details"].([]any)
	for _, d := range details {
		delete(d.(map[string]any), "value")
	}
	return m
}

// TestPagesNameEverything holds the pages to the code: every command, exit code and key.
func TestPagesNameEverything(t *testing.T) {
	cli, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	p := &program{out: io.Discard, err: io.Discard, getenv: os.Getenv}
	for _, c := range p.command().Commands() {
		if !strings.Contains(string(cli), "`assent "+c.Name()) {
			t.Errorf("docs/cli.md does not list assent %s", c.Name())
		}
		if c.HasAvailableSubCommands() {
			continue
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("assent %s has no short text, or no example", c.Name())
		}
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{config{}, logConfig{}, timeoutsConfig{}, limitsConfig{}, resourceConfig{}, tokenConfig{}, tlsConfig{},
		clusterConfig{}, nodeConfig{}, clusterTLSConfig{}, etcdLogConfig{}, etcdTLSConfig{}, postgresLogConfig{}} {
		for _, key := range keysOf(reflect.TypeOf(v).Name()) {
			if !regexp.MustCompile("[`.]" + key + "[`.\\[]").Match(operations) {
				t.Errorf("docs/operations.md does not describe the key %s", key)
			}
		}
	}
}

// TestOwnProtocolPage does what docs/your-own-protocol.md says: without its stable write the example's
// checker test prints what the page shows, and the simulator's fails, too.
func TestOwnProtocolPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/your-own-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "    not so: ")
	shown, _, ok := strings.Cut(rest, "\n\n")
	if !ok {
		t.Fatal("the page shows no counterexample")
	}
	file, err := filepath.Abs("../../examples/token/main.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(filepath.Join(filepath.Dir(file), "main_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(source)+string(tests), "\n"); lines > 150 {
		t.Errorf("the example and its tests have %d lines; the page says 150", lines)
	}
	before, after, ok := strings.Cut(string(source), `out.Put("seen", t)`)
	if !ok {
		t.Fatal("the example has no line with its stable write")
	}
	broken, overlay := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: broken}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(broken, []byte(before+after), 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "../../examples/token").CombinedOutput()
	if err == nil {
		t.Fatal("the tests of a ring that keeps nothing on record pass")
	}
	words := strings.Join(strings.Fields(string(said)), " ")
	for _, want := range []string{"not so: " + strings.Join(strings.Fields(shown), " "), "FAIL: TestSeeds"} {
		if !strings.Contains(words, want) {
			t.Errorf("the tests of a ring that keeps nothing on record say\n%s\nand not\n%s", said, want)
		}
	}
}

// TestSimulatorPage replays the script that docs/simulator.md shows: it breaks a claim.
func TestSimulatorPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n    # assent trace 1\n")
	shown, _, ok := strings.Cut(rest, "\n\n")
	if !ok {
		t.Fatal("the page shows no script")
	}
	script := filepath.Join(t.TempDir(), "script.txt")
	if err := os.WriteFile(script, []byte("# assent trace 1"+strings.ReplaceAll("\n"+shown, "\n    ", "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	p := &program{out: &said, err: &said, getenv: os.Getenv}
	if exit := p.run([]string{"replay", script}); exit != exitUnsound || !strings.Contains(said.String(), "not so: AC2: no decision is reversed") {
		t.Errorf("exit code %d: %s", exit, said.String())
	}
}
