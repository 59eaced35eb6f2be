package archtest

import (
	"go/ast"
	"slices"
	"strings"
)

// dependency is a module that this one may require directly.
type dependency struct {
	module string
	why    string
	// dirs are the folders whose packages may import it, besides tests; empty means that only
	// tests and conformance suites may.
	dirs []string
}

// dependencies is the whole list. To add one, add its reason.
var dependencies = []dependency{
	{"connectrpc.com/connect", "one server for gRPC, gRPC-Web and JSON over net/http", []string{"api", "cmd", "console", "decision/paxos", "engine", "resource/service", "examples", "."}},
	{"google.golang.org/protobuf", "the messages of the api's contract", []string{"api", "cmd", "console", "resource/service", "examples"}},
	{"github.com/cockroachdb/pebble/v2", "an embedded store whose loss of unsynced bytes can be tested", []string{"decision/disk", "decision/paxos", "internal/journal", "resource/kv", "engine", "sim/stack", "site", "cluster", "cmd/assent/bench"}},
	{"github.com/fxamacker/cbor/v2", "the one canonical encoding of states, messages and records", []string{"protocol", "trace", "engine", "sim", "check", "decision", "resource/kv", "resource/service"}},
	{"github.com/go-sql-driver/mysql", "MySQL and MariaDB", []string{"resource/mysql", "examples"}},
	{"github.com/jackc/pgx/v5", "PostgreSQL with its command tags and pipelines, which database/sql hides", []string{"resource/postgres", "decision/postgres", "examples", "cmd/assent/bench"}},
	{"github.com/oklog/ulid/v2", "transaction ids that sort by time, from entropy that is an argument", []string{".", "engine", "api", "cmd", "decision", "resource", "site"}},
	{"github.com/spf13/cobra", "the program's subcommands, help and completion", []string{"cmd"}},
	{"github.com/hashicorp/go-hclog", "the logger that hashicorp/raft insists on", []string{"cmd/assent/bench"}},
	{"github.com/hashicorp/raft", "a peer to be measured beside, in builds with the tag peers", []string{"cmd/assent/bench"}},
	{"github.com/hashicorp/raft-wal", "its store", []string{"cmd/assent/bench"}},
	{"go.etcd.io/etcd/api/v3", "etcd's own names for its errors", []string{"decision/etcd"}},
	{"go.etcd.io/etcd/client/v3", "an etcd cluster that the user already runs", []string{"decision/etcd", "examples", "cmd/assent"}},
	{"go.uber.org/zap", "the logger that etcd's client insists on", []string{"decision/etcd", "cmd/assent/bench"}},
	{"golang.org/x/term", "whether the program speaks to a terminal", []string{"cmd"}},
	{"go.yaml.in/yaml/v3", "the program's configuration file, with line numbers in errors", []string{"cmd", "api"}},

	{"github.com/anishathalye/porcupine", "linearizability, in tests", nil},
	{"github.com/cockroachdb/datadriven", "scenarios as text with golden output, in tests", []string{"sim", "check"}},
	{"github.com/google/go-cmp", "readable differences, in tests", nil},
	{"github.com/rogpeppe/go-internal", "scripts of the program's behaviour, in tests", nil},
	{"go.etcd.io/etcd/server/v3", "etcd for real, in tests and in builds with the tag peers", nil},
	{"go.etcd.io/raft/v3", "its quorums' cases and code to compare ours with, in tests", nil},
	{"pgregory.net/rapid", "properties over generated input, in tests", nil},
}

// adapters names the driver of each adapter, "" where the standard library is enough.
var adapters = map[string]string{
	"decision/disk":     "github.com/cockroachdb/pebble/v2",
	"decision/etcd":     "go.etcd.io/etcd/client/v3",
	"decision/paxos":    "github.com/cockroachdb/pebble/v2", // its file system alone
	"decision/remote":   "",
	"decision/postgres": "github.com/jackc/pgx/v5",
	"resource/kv":       "github.com/cockroachdb/pebble/v2",
	"resource/mysql":    "github.com/go-sql-driver/mysql",
	"resource/postgres": "github.com/jackc/pgx/v5",
	"resource/service":  "",
}

// tools are modules that go.mod requires for its tool lines.
var tools = map[string]string{
	"honnef.co/go/tools": "staticcheck",
}

func allowed(module string) (dependency, bool) {
	i := slices.IndexFunc(dependencies, func(d dependency) bool { return d.module == module })
	if i < 0 {
		return dependency{}, false
	}
	return dependencies[i], true
}

// checkDependencies checks the direct requirements of go.mod, in both directions, and who imports
// what: a module that is for tests is imported by tests alone, any other by the folders listed.
func checkDependencies(t *tree) (found []finding) {
	imported := map[string]bool{}
	for _, f := range t.files {
		f.imports(func(spec *ast.ImportSpec, importPath string) {
			if !t.external(importPath) {
				return
			}
			module := t.moduleOf(importPath)
			imported[module] = true
			d, ok := allowed(module)
			switch {
			case module == "":
				found = append(found, f.at(spec, "no module that go.mod requires provides %s", importPath))
			case !ok:
				found = append(found, f.at(spec, "%s is not in archtest's list of dependencies; add it with a reason", module))
			case f.test || suite(f.dir) || room(f.dir) == "internal":
			case !slices.ContainsFunc(d.dirs, func(dir string) bool { return covers(dir, f.dir) }):
				found = append(found, f.at(spec, "%s must not import %s, which is for %s", f.dir, module, strings.Join(orTests(d.dirs), ", ")))
			}
		})
	}
	for _, r := range t.requires {
		_, ok := allowed(r.module)
		_, tool := tools[r.module]
		switch {
		case r.indirect && imported[r.module]:
			found = append(found, finding{"go.mod", r.line, r.module + " is imported and marked indirect; run go mod tidy"})
		case !r.indirect && !ok && !tool:
			found = append(found, finding{"go.mod", r.line, r.module + " is not in archtest's list of dependencies; add it with a reason"})
		case !r.indirect && !imported[r.module] && !tool:
			found = append(found, finding{"go.mod", r.line, r.module + " is required and nothing imports it; run go mod tidy"})
		}
	}
	return found
}

// covers reports whether the folder dir is one that listed stands for: itself and what is below,
// but for the root, which is itself alone, and the kernel, which must not lend its rights to the
// protocols.
func covers(listed, dir string) bool {
	if listed == "." || listed == "protocol" {
		return dir == listed
	}
	return within(dir, listed)
}

func orTests(dirs []string) []string {
	if len(dirs) == 0 {
		return []string{"tests"}
	}
	return dirs
}

// checkAdapters checks that every folder of a contract is a known adapter, or a conformance suite,
// and imports its own driver and no other.
func checkAdapters(t *tree) (found []finding) {
	drivers := map[string]bool{}
	for _, d := range adapters {
		drivers[d] = d != ""
	}
	first := map[string]*file{}  // an adapter's first file
	uses := map[string]bool{}    // adapters that import their driver
	unknown := map[string]bool{} // folders reported already
	for _, f := range t.files {
		adapter := adapterOf(f.dir)
		if adapter == "" || f.test || suite(adapter) {
			continue
		}
		own, known := adapters[adapter]
		if !known {
			if !unknown[adapter] {
				found = append(found, f.at(f.ast.Name, "%s is not in archtest's list of adapters; add it with its driver", adapter))
			}
			unknown[adapter] = true
			continue
		}
		if first[adapter] == nil {
			first[adapter] = f
		}
		f.imports(func(spec *ast.ImportSpec, importPath string) {
			module := t.moduleOf(importPath)
			if module == own {
				uses[adapter] = true
			} else if drivers[module] {
				found = append(found, f.at(spec, "%s imports %s, the driver of another adapter", adapter, module))
			}
		})
	}
	for adapter, f := range first {
		if own := adapters[adapter]; own != "" && !uses[adapter] {
			found = append(found, f.at(f.ast.Name, "%s does not import its driver %s", adapter, own))
		}
	}
	return found
}

// adapterOf returns the adapter that the folder dir belongs to, resource/kv say, or "".
func adapterOf(dir string) string {
	parts := strings.Split(dir, "/")
	if len(parts) < 2 || !slices.Contains(contracts, parts[0]) {
		return ""
	}
	return parts[0] + "/" + parts[1]
}
