package archtest

import (
	"go/ast"
	"slices"
	"strings"
)

// layers lists the rooms of the house from top to bottom. A package may import packages of lower
// layers. Rooms of one layer do not import each other, but for protocols: machines are made of
// machines, and Paxos Commit is made of Paxos.
var layers = [][]string{
	{"cmd"},
	{"console"},
	{"api"},
	{"cluster"},
	{"."},
	{"sim", "check", "site"},
	{"decision"}, // a decision names branches and their evidence, so it stands on resource
	{"engine"},   // the simulator, and a decision log of several nodes, run machines in the live executor
	{"resource", "spec", "transport", "internal/journal"},
	{"trace"},
	{"protocol/*"},
	{"protocol"},
}

// contracts are the rooms that hold a contract with one adapter in each folder below. The contract
// does not know its adapters, and adapters do not know each other.
var contracts = []string{"decision", "resource"}

// room returns the room that the folder dir belongs to.
func room(dir string) string {
	if dir == "internal/journal" {
		return dir // it is part of the program, not a helper
	}
	top, below, _ := strings.Cut(dir, "/")
	if top == "protocol" && below != "" {
		return "protocol/*"
	}
	return top
}

// height returns the layer of a room, 0 at the bottom, or -1 for a room that is not in layers.
func height(room string) int {
	for i, layer := range layers {
		if slices.Contains(layer, room) {
			return len(layers) - 1 - i
		}
	}
	return -1
}

// suite reports whether dir is a package for tests alone: a conformance suite, resource/resourcetest.
func suite(dir string) bool { return strings.HasSuffix(dir, "test") && strings.Contains(dir, "/") }

// checkLayers checks the imports between the packages of this module.
//
// Files of external test packages (package x_test) are in nobody's way and may import upwards: so
// a protocol's test runs the checker. Two rules hold for them too: nobody imports cmd or examples,
// and sim and check stay clear of the root.
func checkLayers(t *tree) (found []finding) {
	for _, f := range t.files {
		f.imports(func(spec *ast.ImportSpec, importPath string) {
			to, ok := t.local(importPath)
			if !ok || to == f.dir {
				return
			}
			if why := refuse(f, to); why != "" {
				found = append(found, f.at(spec, "%s must not import %s: %s", f.dir, to, why))
			}
		})
	}
	return found
}

// refuse returns why f must not import the package in the folder to, or "".
func refuse(f *file, to string) string {
	from, target := room(f.dir), room(to)
	forTests := f.test || suite(f.dir) || from == "internal"
	switch {
	case target == "examples":
		return "an example is nobody's library"
	case target == "cmd" && from != "cmd":
		return "a program is nobody's library"
	case target == "internal":
		if forTests || from == "cmd" {
			return ""
		}
		return "helper packages in internal are for tests and cmd"
	case suite(to):
		if forTests {
			return ""
		}
		return "a conformance suite is for tests"
	case (from == "sim" || from == "check") && target == ".":
		return "the simulator and the checker run machines, not the library"
	case from == "examples" || from == "internal" || f.external:
		return ""
	case height(from) < 0:
		return "room " + from + " has no layer; see layers in internal/archtest"
	case height(target) < 0:
		return "room " + target + " has no layer; see layers in internal/archtest"
	case from == target:
		return refuseInside(f.dir, to, from)
	case height(target) == height(from):
		return "they are siblings"
	case height(target) > height(from):
		return "imports run only downwards"
	}
	return ""
}

// refuseInside is refuse for two packages of one room.
func refuseInside(from, to, room string) string {
	if !slices.Contains(contracts, room) || to == room || within(from, to) || within(to, from) && from != room {
		return ""
	}
	if from == room {
		return "a contract does not know its adapters"
	}
	return "adapters do not know each other"
}
