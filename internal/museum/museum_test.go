package museum

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite-museum", false, "write docs/museum.md anew, with what this run has measured")

// root is the folder of the module.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBothFindEveryBug is what the museum is for. An exhibit that survives says that a tool has become
// blind to it, or that the line does not matter any more.
func TestBothFindEveryBug(t *testing.T) {
	all := Exhibits()
	finder, err := Build(t.Context(), root(t), t.TempDir(), all)
	if err != nil {
		t.Fatal(err)
	}
	found := make([]Found, len(all))
	t.Run("hunt", func(t *testing.T) {
		for i, e := range all {
			t.Run(e.Name, func(t *testing.T) {
				t.Parallel()
				f, err := Run(t.Context(), finder, i+1, e.System, mostSeeds)
				if err != nil {
					t.Fatal(err)
				}
				for tool, finding := range map[string]Finding{"checker": f.Checker, "simulator": f.Simulator} {
					if finding.Claim == "" {
						t.Errorf("it survives the %s, which has tried %d", tool, finding.Tried)
					}
				}
				found[i] = f
			})
		}
	})
	path := filepath.Join(root(t), "docs", "museum.md")
	if *rewrite && !t.Failed() {
		if err := os.WriteFile(path, []byte(page(all, found)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(unmeasured(page(all, found)), unmeasured(string(written))); d != "" {
		t.Errorf("docs/museum.md shows other exhibits; run make docs:\n%s", d)
	}
}

// unmeasured leaves out what is measured: it differs from run to run, and with every change of a machine.
func unmeasured(page string) string {
	var b strings.Builder
	for line := range strings.Lines(page) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			line = cells[1] + cells[2] + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestMachinesAreSound: in the machines as they are the same search finds nothing.
func TestMachinesAreSound(t *testing.T) {
	seeds := 1000
	if os.Getenv("ASSENT_SOAK") != "" {
		seeds = mostSeeds
	}
	finder, err := Build(t.Context(), root(t), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("system", func(t *testing.T) {
		for _, s := range Systems() {
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				seeds := seeds
				if s.Slow {
					seeds /= 10
				}
				f, err := Run(t.Context(), finder, 0, s.Name, seeds)
				if err != nil {
					t.Fatal(err)
				}
				if f.Checker.Claim != "" || f.Simulator.Claim != "" || f.Checker.Tried == 0 || f.Simulator.Tried != seeds {
					t.Errorf("%+v", f)
				}
			})
		}
	})
}

// TestSystemsAreUsed: a system in which no bug is looked for is of no use.
func TestSystemsAreUsed(t *testing.T) {
	used := map[string]bool{}
	for _, e := range Exhibits() {
		if _, err := FindSystem(e.System); err != nil || e.Why == "" {
			t.Errorf("exhibit %q says %q, in system %q", e.Name, e.Why, e.System)
		}
		used[e.System] = true
	}
	for _, s := range Systems() {
		if !used[s.Name] {
			t.Errorf("no bug is looked for in %s", s.Name)
		}
	}
}

func TestApply(t *testing.T) {
	const source = `package p

func (a A) Step() {
	one()
}

func (b *B) Step() {
	one()
	if b.two() {
		one()
		three()
	}
}

func free() {
	one()
}
`
	const again = "\n\tone()\n\tif b.two() {\n\t\tone()\n\t\tthree()\n\t}\n"
	for name, c := range map[string]struct {
		in, old, new string
		want         string // what stands in place of the body, or nothing for an ErrStale
	}{
		"a method":           {in: "A.Step", old: "one()", new: "two()", want: "A) Step() {\n\tswitch shownExhibit {\ncase 2:\n\ttwo()\ndefault:\n\tone()\n\t}\n}"},
		"of a pointer":       {in: "B.Step", old: "three()", new: "", want: "case 2:\n\tone()\n\tif b.two() {\n\t\tone()\n\t\t\n\t}\ndefault:" + again + "\t}\n}"},
		"a function":         {in: "free", old: "one()", new: "two()", want: "free() {\n\tswitch shownExhibit {\ncase 2:\n\ttwo()\ndefault:"},
		"a line there twice": {in: "B.Step", old: "one()"},
		"a line not there":   {in: "A.Step", old: "three()"},
		"a part of a line":   {in: "B.Step", old: "b.two()"},
		"no such method":     {in: "C.Step", old: "one()"},
	} {
		t.Run(name, func(t *testing.T) {
			exhibits := []Exhibit{{File: "q.go"}, {Name: name, File: "p.go", Func: c.in, Old: c.old, New: c.new}}
			got, err := apply(exhibits, "p.go", []byte(source))
			switch {
			case c.want == "" && (!errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "internal/museum/exhibits.go")):
				t.Errorf("got %v; want an ErrStale that says where", err)
			case c.want != "" && (err != nil || strings.Count(string(got), c.want) != 1):
				t.Errorf("got %v and\n%s", err, got)
			}
		})
	}
}

// TestApplyAll: several exhibits in one file, two of them in one method.
func TestApplyAll(t *testing.T) {
	const source = "package p\n\nfunc a() {\n\tone()\n}\n\nfunc b() {\n\tone()\n\ttwo()\n}\n"
	const want = "package p\n\nfunc a() {\n\tswitch shownExhibit {\ncase 2:\n\tfour()\ndefault:\n\tone()\n\t}\n}\n\n" +
		"func b() {\n\tswitch shownExhibit {\ncase 1:\n\tthree()\n\ttwo()\ncase 3:\n\tone()\n\t\ndefault:\n\tone()\n\ttwo()\n\t}\n}\n"
	got, err := apply([]Exhibit{
		{File: "p.go", Func: "b", Old: "one()", New: "three()"},
		{File: "p.go", Func: "a", Old: "one()", New: "four()"},
		{File: "p.go", Func: "b", Old: "two()"},
	}, "p.go", []byte(source))
	if d := cmp.Diff(want, string(got)); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}
