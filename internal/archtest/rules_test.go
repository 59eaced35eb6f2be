package archtest

import (
	"cmp"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// rule is one rule of the house. Its check returns every breach of it.
type rule struct {
	name  string
	check func(*tree) []finding
}

var rules = []rule{
	{"layers", checkLayers},
	{"adapters", checkAdapters},
	{"protocols are pure", checkPurity},
	{"dependencies", checkDependencies},
	{"budgets", checkBudgets},
	{"package comments", checkPackageComments},
	{"doc comments", checkDocComments},
	{"names", checkNames},
	{"init and dot imports", checkInit},
	{"unfinished work", checkUnfinished},
	{"links", checkLinks},
}

// TestHouse holds the project to every rule.
func TestHouse(t *testing.T) {
	house, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if house.module != "assent" || len(house.files) < 10 {
		t.Fatalf("loaded module %q with %d files; want assent, whole", house.module, len(house.files))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			found := r.check(house)
			slices.SortFunc(found, func(a, b finding) int {
				return cmp.Or(strings.Compare(a.path, b.path), cmp.Compare(a.line, b.line))
			})
			for _, f := range found {
				t.Error(f)
			}
		})
	}
}

// TestRulesCanFail shows each rule a source that breaks it, and one that does not.
func TestRulesCanFail(t *testing.T) {
	shown := map[string]bool{}
	for _, c := range cases {
		shown[c.rule] = true
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			found := apply(t, c.rule, c.source)
			if len(c.want) != len(found) {
				t.Errorf("found %d breaches, want %d:\n%v", len(found), len(c.want), found)
			}
			for _, want := range c.want {
				if !slices.ContainsFunc(found, func(f finding) bool { return strings.Contains(f.String(), want) }) {
					t.Errorf("no finding has %q in\n%v", want, found)
				}
			}
		})
	}
	for _, r := range rules {
		if !shown[r.name] {
			t.Errorf("no case shows that the rule %q can fail", r.name)
		}
	}
}

// apply runs the named rule over a module made of the given files, each a path and a content.
func apply(t *testing.T, name string, source map[string]string) []finding {
	t.Helper()
	module := fstest.MapFS{"go.mod": {Data: []byte("module assent\n")}}
	for path, content := range source {
		module[path] = &fstest.MapFile{Data: []byte(content), Mode: fs.ModePerm}
	}
	small, err := load(module)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rules, func(r rule) bool { return r.name == name })
	if i < 0 {
		t.Fatalf("no rule is called %q", name)
	}
	return rules[i].check(small)
}
