package archtest

import (
	"go/ast"
	"go/token"
)

// pure are the standard packages that a protocol may import: each computes from its arguments and
// nothing else.
var pure = map[string]string{
	"bytes":           "values",
	"cmp":             "order",
	"encoding/binary": "fixed layouts",
	"errors":          "sentinels",
	"fmt":             "text from values; maps are printed in key order",
	"iter":            "sequences as values",
	"maps":            "the keys of a map, to be sorted",
	"math":            "limits and rounding",
	"math/bits":       "sets in a word",
	"slices":          "order",
	"sort":            "order",
	"strconv":         "text from values",
	"strings":         "text",
	"time":            "durations, and nothing else of it",
}

// kernelOnly are the packages that the kernel may import besides: it encodes any machine's state.
var kernelOnly = map[string]string{
	"github.com/fxamacker/cbor/v2": "the canonical encoding",
	"reflect":                      "a machine's fields, for the encoding",
}

// durations are the names of package time that read no clock.
var durations = map[string]bool{
	"Duration": true, "Nanosecond": true, "Microsecond": true, "Millisecond": true,
	"Second": true, "Minute": true, "Hour": true,
}

// checkPurity checks that protocols and the kernel read no clock, draw no random number, start no
// goroutine and touch nothing outside, in files that are neither tests nor a suite of them.
func checkPurity(t *tree) (found []finding) {
	for _, f := range t.files {
		if f.test || suite(f.dir) || !within(f.dir, "protocol") {
			continue
		}
		f.imports(func(spec *ast.ImportSpec, importPath string) {
			_, local := t.local(importPath)
			_, kernel := kernelOnly[importPath]
			if _, ok := pure[importPath]; !ok && !local && (!kernel || f.dir != "protocol") {
				found = append(found, f.at(spec, "a protocol must not import %s, which is not in archtest's list of pure packages", importPath))
			}
		})
		clock := f.importName("time")
		ast.Inspect(f.ast, func(node ast.Node) bool {
			if why := impure(node, clock); why != "" {
				found = append(found, f.at(node, "a protocol must not %s", why))
			}
			return true
		})
	}
	return found
}

// impure returns what node does that a protocol must not, or "". clock is the name of package time
// in the file.
func impure(node ast.Node, clock string) string {
	switch n := node.(type) {
	case *ast.GoStmt:
		return "start a goroutine"
	case *ast.SelectStmt:
		return "select"
	case *ast.ChanType:
		return "have a channel"
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			return "receive from a channel"
		}
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.Ident); ok && clock != "" && x.Name == clock && !durations[n.Sel.Name] {
			return "use time." + n.Sel.Name + "; only durations are pure"
		}
	}
	return ""
}
