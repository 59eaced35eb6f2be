package skeen

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/protocol/commit"
)

var rewrite = flag.Bool("rewrite-docs", false, "rewrite the golden files and the pictures in docs")

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is not what is made now; look at both, then run make docs:\n%s", name, d)
	}
}

// TestGoldens: every form of the analyses of central two-phase and decentralised three-phase commit.
func TestGoldens(t *testing.T) {
	for name, a := range map[string]*Analysis{
		"2pc":       analysed(t, oneLess(TwoPhase), 3, 1),
		"3pc-peers": analysed(t, DecentralisedThreePhase, 2, 1),
	} {
		var table, dot strings.Builder
		if err := a.WriteTable(&table); err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join("testdata", name+".txt"), table.String())
		whole, err := json.MarshalIndent(a, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, filepath.Join("testdata", name+".json"), string(whole)+"\n")
		for _, d := range a.Diagrams() {
			dot.WriteString(d.DOT())
		}
		golden(t, filepath.Join("testdata", name+".dot"), dot.String())
		golden(t, filepath.Join("testdata", name+".svg"), drawn(t, a.Diagrams()...))
	}
}

// TestPictureInDocs: docs/skeen.md shows the participant of two-phase commit.
func TestPictureInDocs(t *testing.T) {
	for _, d := range analysed(t, oneLess(TwoPhase), 3, 0).Diagrams() {
		if d.Name == Participant {
			golden(t, filepath.Join("..", "..", "docs", "skeen-2pc.svg"), drawn(t, d))
		}
	}
}

// TestTableInDocs: docs/skeen.md shows the table that is made.
func TestTableInDocs(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "skeen.md"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join("testdata", "2pc.txt"))
	if err != nil {
		t.Fatal(err)
	}
	shown, _, _ := strings.Cut(string(table), "\n118 global states") // the page leaves the numbers out
	for line := range strings.Lines(shown) {
		if line = strings.TrimSpace(line); !strings.Contains(string(page), line) {
			t.Errorf("docs/skeen.md does not show: %s", line)
		}
	}
}

func drawn(t *testing.T, all ...Diagram) string {
	t.Helper()
	picture, err := SVG(all...)
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

// TestDrawing: a picture is well-formed, names everything that it shows, refers to nothing outside, has
// all of it within its frame, and no two boxes on one another.
func TestDrawing(t *testing.T) {
	for _, c := range published {
		a := analysed(t, c.make, 3, 0)
		for _, d := range a.Diagrams() {
			picture := drawn(t, d)
			decoder := xml.NewDecoder(strings.NewReader(picture))
			for {
				if _, err := decoder.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s, %s: %v", a.Protocol, d.Name, err)
				}
			}
			for _, n := range d.nodes {
				if !strings.Contains(picture, ">"+n.label+"<") {
					t.Errorf("%s, %s: %s is missing", a.Protocol, d.Name, n.label)
				}
			}
			if strings.Contains(strings.ReplaceAll(picture, "http://www.w3.org/2000/svg", ""), "http") {
				t.Errorf("%s, %s: the picture refers to something outside", a.Protocol, d.Name)
			}
			boxesStandApart(t, layOut(d))
		}
	}
}

func boxesStandApart(t *testing.T, l *layout) {
	t.Helper()
	boxes := append([]*box{}, l.nodes...)
	for _, label := range l.labels {
		if label != nil {
			boxes = append(boxes, label)
		}
	}
	for i, a := range boxes {
		if a.x-a.w/2 < 0 || a.y-a.h/2 < 0 || a.x+a.w/2 > l.width || a.y+a.h/2 > l.height {
			t.Errorf("%+v is outside of %.0f × %.0f", *a, l.width, l.height)
		}
		for _, b := range boxes[:i] {
			if abs(a.x-b.x) < (a.w+b.w)/2 && abs(a.y-b.y) < (a.h+b.h)/2 {
				t.Errorf("%+v lies on %+v", *a, *b)
			}
		}
	}
}

func abs(x float64) float64 { return max(x, -x) }

// TestTooLarge: what cannot be drawn is refused; DOT has no bound.
func TestTooLarge(t *testing.T) {
	d := Diagram{Name: "many", nodes: make([]node, MaxDrawn+1)}
	if _, err := SVG(d); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(d.DOT(), "n300 ") {
		t.Error("the DOT is not whole")
	}
	back := Diagram{Name: "back", nodes: make([]node, 2), edges: []edge{{from: 0, to: 1}, {from: 1, to: 0}}}
	drawn(t, back) // a cycle has no longest way, and ends all the same
}

// TestGraphvizReads has Graphviz read what is written for it, where there is one.
func TestGraphvizReads(t *testing.T) {
	if _, err := exec.LookPath("dot"); err != nil {
		t.Skip("no Graphviz here")
	}
	for _, d := range analysed(t, CentralThreePhase, 3, 0).Diagrams() {
		cmd := exec.Command("dot", "-Tcanon")
		cmd.Stdin = strings.NewReader(d.DOT())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", d.Name, err, out)
		}
	}
}

// TestTableTells: the table says what the sets alone do not.
func TestTableTells(t *testing.T) {
	var b strings.Builder
	a := analysed(t, CentralThreePhase, 2, 1)
	if err := a.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "nonblocking. No state breaks a condition") || !strings.Contains(b.String(), "after one crash no site") {
		t.Error(b.String())
	}
	s := LocalState{Letter: commit.LetterInitial, Risky: true}
	if s.verdict() != "no (2)" || (LocalState{Mixed: true}).verdict() != "no (1)" {
		t.Error("the conditions are confused")
	}
}
