package archtest

import "strings"

// breach is a small source and what the rule must find in it: one finding for each text wanted, none
// where nothing is wanted.
type breach struct {
	rule, name string
	source     map[string]string
	want       []string
}

// one is the source of a module with one file.
func one(path, content string) map[string]string { return map[string]string{path: content} }

// goMod is a go.mod with the given require lines.
func goMod(requires ...string) string {
	return "module assent\n\nrequire (\n\t" + strings.Join(requires, "\n\t") + "\n)\n"
}

const (
	pebble = "github.com/cockroachdb/pebble/v2"
	pgx    = "github.com/jackc/pgx/v5"
	rapid  = "pgregory.net/rapid"
)

var cases = []breach{
	{"layers", "downwards", map[string]string{
		"assent.go":                  `package assent; import ("assent/engine"; "assent/decision/disk")`,
		"engine/e.go":                `package engine; import ("assent/resource"; "assent/protocol/commit"; "assent/engine/wal")`,
		"decision/disk/d.go":         `package disk; import "assent/decision"`,
		"decision/disk/d_test.go":    `package disk; import ("assent/decision/decisiontest"; "assent/internal/pg")`,
		"decision/decision.go":       `package decision; import "assent/protocol/commit"`,
		"protocol/commit/c.go":       `package commit; import ("assent/protocol"; "assent/protocol/paxos")`,
		"protocol/commit/c_test.go":  `package commit_test; import "assent/check"`,
		"resource/resourcetest/r.go": `package resourcetest; import ("assent/resource"; "assent/internal/pg")`,
		"resource/kv/lock/l.go":      `package lock; import ("assent/resource/kv"; "assent/resource")`,
		"cmd/assent/main.go":         `package main; import ("assent/console"; "assent/internal/pg"; "assent")`,
		"examples/bank/main.go":      `package main; import ("assent"; "assent/resource/kv")`,
	}, nil},
	{"layers", "upwards", one("resource/d.go", `package resource; import "assent/engine"`), []string{"only downwards"}},
	{"layers", "upwards from the kernel", one("protocol/p.go", `package protocol; import "assent/protocol/commit"`), []string{"only downwards"}},
	{"layers", "upwards in a test of the package itself", one("trace/t_test.go", `package trace; import "assent/sim"`), []string{"only downwards"}},
	{"layers", "siblings", map[string]string{
		"engine/e.go":   `package engine; import "assent/sim"`,
		"resource/r.go": `package resource; import "assent/decision"`,
		"spec/s.go":     `package spec; import "assent/resource"`,
	}, []string{"engine must not import sim", "resource must not import decision", "spec must not import resource"}},
	{"layers", "adapters", map[string]string{
		"resource/kv/k.go": `package kv; import "assent/resource/mysql"`,
		"resource/r.go":    `package resource; import "assent/resource/kv"`,
	}, []string{"adapters do not know each other", "does not know its adapters"}},
	{"layers", "suites", one("decision/disk/d.go", `package disk; import "assent/decision/decisiontest"`), []string{"a conformance suite is for tests"}},
	{"layers", "helpers", one("engine/e.go", `package engine; import "assent/internal/pg"`), []string{"are for tests and cmd"}},
	{"layers", "the root", one("sim/s_test.go", `package sim_test; import "assent"`), []string{"not the library"}},
	{"layers", "programs", map[string]string{
		"api/a_test.go": `package api_test; import "assent/cmd/assent"`,
		"api/b_test.go": `package api_test; import "assent/examples/bank"`,
	}, []string{"a program is nobody's library", "an example is nobody's library"}},
	{"layers", "unknown rooms", map[string]string{
		"attic/a.go":  `package attic; import "assent/trace"`,
		"engine/e.go": `package engine; import "assent/attic"`,
	}, []string{"room attic has no layer", "room attic has no layer"}},

	{"adapters", "own driver", map[string]string{
		"go.mod":                     goMod(pebble+" v2.1.7", pgx+" v5.12.0"),
		"resource/kv/k.go":           `package kv; import "` + pebble + `"`,
		"resource/service/s.go":      `package service`,
		"resource/resourcetest/r.go": `package resourcetest`,
	}, nil},
	{"adapters", "another's driver", map[string]string{
		"go.mod":           goMod(pebble+" v2.1.7", pgx+" v5.12.0"),
		"resource/kv/k.go": `package kv; import ("` + pebble + `/vfs"; "` + pgx + `/pgconn")`,
	}, []string{"resource/kv imports " + pgx}},
	{"adapters", "no driver", one("resource/kv/k.go", `package kv`), []string{"does not import its driver"}},
	{"adapters", "unknown", one("resource/tape/t.go", `package tape`), []string{"not in archtest's list of adapters"}},

	{"protocols are pure", "durations", map[string]string{
		"protocol/commit/c.go":       `package commit; import ("fmt"; "time"; "assent/protocol"); const after = 2*time.Second`,
		"protocol/commit/c_test.go":  `package commit; import ("os"; "time"); var now = time.Now`,
		"protocol/p.go":              `package protocol; import "github.com/fxamacker/cbor/v2"`,
		"protocol/protocoltest/t.go": `package protocoltest; import ("reflect"; "testing")`,
		"engine/e.go":                `package engine; import ("sync"; "time"); var now = time.Now`,
	}, nil},
	{"protocols are pure", "imports", one("protocol/commit/c.go",
		`package commit; import ("os"; "sync"; "context"; "math/rand/v2"; "github.com/fxamacker/cbor/v2")`),
		[]string{"import os", "import sync", "import context", "import math/rand/v2", "import github.com/fxamacker/cbor/v2"}},
	{"protocols are pure", "clock", one("protocol/commit/c.go",
		`package commit; import t "time"; func f() { t.Sleep(1); _ = t.Now() }; var after = t.After; var at t.Time`),
		[]string{"time.Sleep", "time.Now", "time.After", "time.Time"}},
	{"protocols are pure", "concurrency", one("protocol/p.go",
		`package protocol; func f(a, b int) { go f(a, b); select {} }; var c chan int; func g() { <-c }`),
		[]string{"start a goroutine", "select", "have a channel", "receive from a channel"}},

	{"dependencies", "as listed", map[string]string{
		"go.mod":                     goMod(pebble+" v2.1.7", rapid+" v1.3.0", "honnef.co/go/tools v0.8.2", "github.com/kr/text v0.2.0 // indirect"),
		"resource/kv/k.go":           `package kv; import "` + pebble + `/vfs"`,
		"resource/kv/k_test.go":      `package kv; import "` + rapid + `"`,
		"resource/resourcetest/r.go": `package resourcetest; import "` + rapid + `"`,
	}, nil},
	{"dependencies", "not listed", map[string]string{
		"go.mod": goMod("example.com/left v1.0.0"),
		"a.go":   `package assent; import ("example.com/left/pad"; "example.com/right")`,
	}, []string{"a.go:1: example.com/left is not in", "go.mod:4: example.com/left is not in", "provides example.com/right"}},
	{"dependencies", "not there", map[string]string{
		"go.mod":      goMod(pebble+" v2.1.7", rapid+" v1.3.0"),
		"engine/e.go": `package engine; import "` + rapid + `"`,
		"spec/s.go":   `package spec; import "` + pebble + `"`,
	}, []string{"which is for tests", "which is for decision/disk"}},
	{"dependencies", "untidy", map[string]string{
		"go.mod":           "module assent\n\nrequire " + pebble + " v2.1.7 // indirect\n\nrequire " + rapid + " v1.3.0\n",
		"resource/kv/k.go": `package kv; import "` + pebble + `"`,
	}, []string{"go.mod:3: " + pebble + " is imported and marked indirect", "go.mod:5: " + rapid + " is required and nothing imports it"}},

	{"budgets", "within", map[string]string{
		"a.go":      "package assent\n" + function(70) + "type I interface { A(); B(); C(); D(); E }\n",
		"a_test.go": "package assent\n" + function(900),
		"gen.go":    "// Code generated by a tool. DO NOT EDIT.\n\npackage assent\n" + function(600),
		"README.md": strings.Repeat("line\n", 200),
	}, nil},
	{"budgets", "functions", one("a.go", "package assent\n"+function(71)), []string{"a.go:2: long has 71 lines"}},
	{"budgets", "files", map[string]string{
		"a.go":      "package assent\n" + strings.Repeat("\n", 500),
		"a_test.go": "package assent\n" + strings.Repeat("\n", 1000),
	}, []string{"501 lines", "1001 lines"}},
	{"budgets", "interfaces", one("a.go", "package assent\ntype I interface { A(); B(); C(); D(); E() }"), []string{"I has 5 methods"}},
	{"budgets", "README", one("docs/README.md", strings.Repeat("line\n", 201)), []string{"201 lines"}},

	{"package comments", "one each", map[string]string{
		"a.go":                 "// Package assent is.\npackage assent",
		"b.go":                 "package assent",
		"a_test.go":            "// Tests of it.\npackage assent_test",
		"cmd/assent/main.go":   "// Assent commits.\npackage main",
		"internal/x/x_test.go": "// Package x tests.\npackage x",
	}, nil},
	{"package comments", "none", map[string]string{
		"a.go":               "// A licence.\n\npackage assent",
		"cmd/assent/main.go": "package main",
	}, []string{"package assent has no", "package main has no"}},
	{"package comments", "two", map[string]string{
		"a.go": "// Package assent is.\npackage assent",
		"b.go": "// Package assent was.\npackage assent",
	}, []string{"b.go:2: a second package comment; the first is in a.go"}},
	{"package comments", "misnamed", one("a.go", "// Here is assent.\npackage assent"), []string{"does not begin"}},

	{"doc comments", "documented", one("a.go", `package assent

// T is.
type T[K any] struct{ Field int }

// M does.
func (T[K]) M() {}

type hidden struct{}

func (*hidden) Close() {}

// The codes.
const (
	A = iota
	B
)

var (
	// C is.
	C int
	D int // D is.
)

// I is.
type I interface {
	// Do does.
	Do()
	hide()
}

// J does.
type J interface{ Do() }
`), nil},
	{"doc comments", "undocumented", one("a.go", `package assent

type T[K any] struct{}

func (*T[k]) M() {}
func F()         {}

const A = 1

// Several.
type (
	U int
	// V is.
	V interface {
		Do()
		hide()
	}
)
`), []string{"T has no", "M has no", "F has no", "A has no", "U has no", "Do has no"}},

	{"names", "telling", one("engine/e.go", "package engine"), nil},
	{"names", "empty words", map[string]string{
		"engine/util/u.go":   "package timing",
		"engine/clock/c.go":  "package helpers",
		"engine/clock/d.go":  "package helpers",
		"internal/misc/m.go": "package misc_test",
	}, []string{"called util", "called helpers", "called misc"}},

	{"init and dot imports", "neither", one("a.go", `package assent; import _ "embed"; type t int; func (t) init() {}`), nil},
	{"init and dot imports", "both", one("a_test.go", `package assent; import . "fmt"; func init() {}`),
		[]string{"a dot import of fmt", "an init function"}},

	{"unfinished work", "finished", map[string]string{
		"a.go":   "package assent // hacksaw, fixmes, XXXL",
		"gen.go": "// Code generated by a tool. DO NOT EDIT.\n\npackage assent // TO" + "DO(tool)",
	}, nil},
	{"unfinished work", "marks", map[string]string{
		"a.go":      "package assent\n\n// TO" + "DO: more.\nfunc f() { panic(\"un" + "implemented\") }",
		"README.md": "FIX" + "ME",
		"Makefile":  "# X" + "XX\n# HA" + "CK",
	}, []string{"a.go:3", "a.go:4", "README.md:1", "Makefile:1", "Makefile:2"}},

	{"links", "whole", map[string]string{
		"README.md":                        "[a](docs/a.md#x) [b](https://example.com/b) [c](#c)",
		"docs/a.md":                        "[up](../README.md) [folder](decisions)",
		"docs/decisions/README.md":         "[one](2026-01-01-one.md)",
		"docs/decisions/2026-01-01-one.md": "One.",
	}, nil},
	{"links", "broken", map[string]string{
		"docs/a.md":                        "line\n[b](b.md)",
		"docs/decisions/README.md":         "none",
		"docs/decisions/2026-01-01-one.md": "One.",
	}, []string{"docs/a.md:2: a link to b.md", "not listed in docs/decisions/README.md"}},
}

// function is a function of the given number of lines.
func function(lines int) string {
	return "func long() {\n" + strings.Repeat("\n", lines-2) + "}\n"
}
