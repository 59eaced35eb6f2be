// Package museum keeps bugs: the machines of packages commit, paxos and membership, each with one line changed, as somebody
// might write it. Both tools must find every one, the checker and the simulator; docs/museum.md tells how
// soon they do.
//
// It promises that what is searched is the source as it stands with that line changed, and that a line which
// is not there any more is an error. The go command builds one finder for all bugs, with an overlay: a method
// that has bugs stands in it as it is, and once more for each of them. The package says nothing about bugs that
// nobody has thought of.
package museum

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Exhibit is a bug: one line of a machine changed.
type Exhibit struct {
	// Name says what the changed machine does, Why what comes of it.
	Name, Why string
	// File is the source, a path below the module's root.
	File string
	// Func is the method in which the line is, with the type of its receiver: "Participant.abandon".
	Func string
	// Old is the line, which is there once; New stands in its place, and is empty where it is left out.
	Old, New string
	// System is the name of that of Systems in which the bug is looked for.
	System string
}

// ErrStale says that an exhibit is about a line that is not there, or not once.
var ErrStale = errors.New("exhibit is out of date")

// shownEnv has the number of the exhibit that a finder shows; the first is 1. At 0 the machines are as they are.
const shownEnv = "ASSENT_EXHIBIT"

// shown is put beside the machines of a package.
const shown = `package %s

import (
	"os"
	"strconv"
)

var shownExhibit, _ = strconv.Atoi(os.Getenv("` + shownEnv + `"))
`

// body says where in a file the body of a method is, between its braces.
type body struct{ from, to int }

// apply returns the source of the file with the exhibits that are about it: the body of each method that they change
// stands there once for each of them, and once as it is. It returns an ErrStale, which says what to do, where a line
// is not there.
func apply(exhibits []Exhibit, file string, source []byte) (changed []byte, err error) {
	files := token.NewFileSet()
	syntax, err := parser.ParseFile(files, file, source, 0)
	if err != nil {
		return nil, err
	}
	bodies := map[string]body{}
	for _, decl := range syntax.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Body != nil {
			bodies[method(f)] = body{files.Position(f.Body.Lbrace).Offset + 1, files.Position(f.Body.Rbrace).Offset}
		}
	}
	cases := map[body]string{}
	for i, e := range exhibits {
		if e.File != file {
			continue
		}
		at, ok := bodies[e.Func]
		if !ok {
			return nil, e.stale("it is not there")
		}
		line := "\t" + e.Old + "\n"
		if n := strings.Count(string(source[at.from:at.to]), line); n != 1 {
			return nil, e.stale(fmt.Sprintf("it has the line %q %d times", e.Old, n))
		}
		cases[at] += fmt.Sprintf("case %d:%s", i+1, strings.Replace(string(source[at.from:at.to]), line, "\t"+e.New+"\n", 1))
	}
	changed = bytes.Clone(source)
	for _, at := range slices.SortedFunc(maps.Keys(cases), func(a, b body) int { return b.from - a.from }) { // the last first
		choice := fmt.Sprintf("\n\tswitch shownExhibit {\n%sdefault:%s\t}\n", cases[at], source[at.from:at.to])
		changed = slices.Replace(changed, at.from, at.to, []byte(choice)...)
	}
	return changed, nil
}

func (e Exhibit) stale(why string) error {
	return fmt.Errorf("%w: %q changes %s in %s, and %s: change the entry in internal/museum/exhibits.go to what the machine does now",
		ErrStale, e.Name, e.Func, e.File, why)
}

// method names a method with the type of its receiver.
func method(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) != 1 {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	if pointer, ok := of.(*ast.StarExpr); ok {
		of = pointer.X
	}
	switch generic := of.(type) { // the parameters of a type are no part of its name
	case *ast.IndexExpr:
		of = generic.X
	case *ast.IndexListExpr:
		of = generic.X
	}
	name, ok := of.(*ast.Ident)
	if !ok {
		return f.Name.Name
	}
	return name.Name + "." + f.Name.Name
}

// Build builds a finder from the sources under root, with the exhibits in it. It writes to the folder dir, and needs
// the go command.
func Build(ctx context.Context, root, dir string, exhibits []Exhibit) (finder string, err error) {
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	replace := func(path string, source []byte) error {
		instead := filepath.Join(dir, fmt.Sprint(len(overlay.Replace), ".go"))
		overlay.Replace[path] = instead
		return os.WriteFile(instead, source, 0o600)
	}
	for _, e := range exhibits {
		path := filepath.Join(root, e.File)
		if overlay.Replace[path] != "" {
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		changed, err := apply(exhibits, e.File, source)
		if err != nil {
			return "", err
		}
		err = replace(path, changed)
		if beside := filepath.Join(filepath.Dir(path), "exhibit.go"); err == nil && overlay.Replace[beside] == "" {
			err = replace(beside, fmt.Appendf(nil, shown, filepath.Base(filepath.Dir(path))))
		}
		if err != nil {
			return "", err
		}
	}
	file, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		return "", err
	}
	finder = filepath.Join(dir, "finder")
	command := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-overlay", path, "-o", finder, "./internal/museum/finder")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the finder: %w\n%s", err, out)
	}
	return finder, nil
}

// Run lets a finder look at a system in which the exhibit of that number is shown. The first is 1; at 0 the machines
// are as they are.
func Run(ctx context.Context, finder string, exhibit int, system string, seeds int) (f Found, err error) {
	command := exec.CommandContext(ctx, finder, system, strconv.Itoa(seeds))
	command.Env = append(os.Environ(), shownEnv+"="+strconv.Itoa(exhibit))
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return f, fmt.Errorf("run the finder: %w\n%s", err, complaint.Bytes())
	}
	return f, json.Unmarshal(out, &f)
}
