// Package museum keeps bugs: the machines of packages commit, paxos and membership, each with one line changed, as somebody
// might write it. Both tools must find every one, the checker and the simulator; docs/museum.md tells how
// soon they do.
//
// It promises that what is searched is the source as it stands with that line changed, built by the go
// command with an overlay, and that a line which is not there any more is an error. It says nothing about
// bugs that nobody has thought of.
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
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// Apply returns the source of File with the line changed. It returns an ErrStale, which says what to do,
// where that cannot be.
func (e Exhibit) Apply(source []byte) ([]byte, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, e.File, source, 0)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || method(f) != e.Func {
			continue
		}
		from, to := files.Position(f.Pos()).Offset, files.Position(f.End()).Offset
		old, changed := []byte("\t"+e.Old+"\n"), []byte("\t"+e.New+"\n")
		if n := bytes.Count(source[from:to], old); n != 1 {
			return nil, e.stale(fmt.Sprintf("it has the line %q %d times", e.Old, n))
		}
		body := bytes.Replace(source[from:to], old, changed, 1)
		return append(append(bytes.Clone(source[:from]), body...), source[to:]...), nil
	}
	return nil, e.stale("it is not there")
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

// Hunt builds the finder from the sources under root, with the exhibit's line changed, and lets it look.
// It writes to the folder dir, and needs the go command.
func Hunt(ctx context.Context, root, dir string, e Exhibit) (f Found, err error) {
	path := filepath.Join(root, e.File)
	source, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	changed, err := e.Apply(source)
	if err != nil {
		return f, err
	}
	mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
	if err != nil {
		return f, err
	}
	if err := errors.Join(os.WriteFile(mutant, changed, 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		return f, err
	}
	finder, err := build(ctx, root, dir, "-overlay", overlay)
	if err != nil {
		return f, fmt.Errorf("exhibit %q: %w", e.Name, err)
	}
	if f, err = run(ctx, finder, e.System, mostSeeds); err != nil {
		return f, fmt.Errorf("exhibit %q: %w", e.Name, err)
	}
	return f, nil
}

// build builds the finder, with these flags, in the folder dir.
func build(ctx context.Context, root, dir string, flags ...string) (finder string, err error) {
	finder = filepath.Join(dir, "finder")
	command := exec.CommandContext(ctx, "go", append(append([]string{"build", "-ldflags=-s -w", "-o", finder}, flags...), "./internal/museum/finder")...)
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the finder: %w\n%s", err, out)
	}
	return finder, nil
}

// run lets a finder look at a system.
func run(ctx context.Context, finder, system string, seeds int) (f Found, err error) {
	command := exec.CommandContext(ctx, finder, system, strconv.Itoa(seeds))
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return f, fmt.Errorf("run the finder: %w\n%s", err, complaint.Bytes())
	}
	return f, json.Unmarshal(out, &f)
}
