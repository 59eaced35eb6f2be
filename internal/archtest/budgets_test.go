package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
)

// The budgets. They are lowered when the house allows it and are not raised.
const (
	maxFunctionLines = 70 // of functions that are not tests
	maxFileLines     = 500
	maxTestFileLines = 1000
	maxMethods       = 4 // declared by an interface itself; what it embeds has its own budget
	maxReadmeLines   = 200
)

func checkBudgets(t *tree) (found []finding) {
	for _, f := range t.files {
		if f.generated {
			continue
		}
		most := maxFileLines
		if f.test {
			most = maxTestFileLines
		}
		if f.lines > most {
			found = append(found, finding{f.path, most + 1, "the file has " + count(f.lines, "line", most)})
		}
		ast.Inspect(f.ast, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.FuncDecl:
				lines := f.fset.Position(n.End()).Line - f.fset.Position(n.Pos()).Line + 1
				if lines > maxFunctionLines && !f.test {
					found = append(found, f.at(n.Name, "%s has %s", n.Name.Name, count(lines, "line", maxFunctionLines)))
				}
			case *ast.TypeSpec:
				if i, ok := n.Type.(*ast.InterfaceType); ok && methods(i) > maxMethods {
					found = append(found, f.at(n, "%s has %s", n.Name.Name, count(methods(i), "method", maxMethods)))
				}
			}
			return true
		})
	}
	for _, x := range t.texts {
		if lines := bytes.Count(x.content, []byte("\n")); path.Base(x.path) == "README.md" && lines > maxReadmeLines {
			found = append(found, finding{x.path, maxReadmeLines + 1, "the page has " + count(lines, "line", maxReadmeLines)})
		}
	}
	return found
}

// methods counts the methods that an interface declares itself.
func methods(i *ast.InterfaceType) (n int) {
	for _, m := range i.Methods.List {
		n += len(m.Names)
	}
	return n
}

// count says how many there are and how many there may be.
func count(n int, what string, most int) string {
	return fmt.Sprintf("%d %ss; at most %d are allowed", n, what, most)
}
