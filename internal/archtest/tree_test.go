package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// tree is a module's source, as the rules see it.
type tree struct {
	module   string
	requires []require
	files    []*file
	texts    []text
	paths    map[string]bool // every file and folder
}

// require is a line of go.mod.
type require struct {
	module   string
	indirect bool
	line     int
}

// file is a Go file.
type file struct {
	path      string // from the module's root, with slashes
	dir       string // path's folder; "." for the root
	fset      *token.FileSet
	ast       *ast.File
	lines     int
	test      bool // its name ends in _test.go
	external  bool // its package is another than the folder's, for tests only
	generated bool
}

// text is any file that people read.
type text struct {
	path      string
	content   []byte
	generated bool
}

// finding is one breach of a rule.
type finding struct {
	path string
	line int
	what string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.what) }

// at returns a finding at node.
func (f *file) at(node ast.Node, format string, args ...any) finding {
	return finding{f.path, f.fset.Position(node.Pos()).Line, fmt.Sprintf(format, args...)}
}

// imports calls use with each import's path.
func (f *file) imports(use func(spec *ast.ImportSpec, path string)) {
	for _, spec := range f.ast.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			use(spec, p)
		}
	}
}

// importName returns the name under which f knows the package of the given import path, or "".
func (f *file) importName(importPath string) string {
	name := ""
	f.imports(func(spec *ast.ImportSpec, p string) {
		if p != importPath {
			return
		}
		name = path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
	})
	return name
}

// local returns the folder of a package of this module, and whether importPath is one.
func (t *tree) local(importPath string) (dir string, ok bool) {
	if importPath == t.module {
		return ".", true
	}
	return strings.CutPrefix(importPath, t.module+"/")
}

// moduleOf returns the required module that provides importPath, or "".
func (t *tree) moduleOf(importPath string) string {
	found := ""
	for _, r := range t.requires {
		if within(importPath, r.module) && len(r.module) > len(found) {
			found = r.module
		}
	}
	return found
}

// external reports whether importPath is neither of this module nor of the standard library, by
// the go tool's own criterion: a dot in the first element.
func (t *tree) external(importPath string) bool {
	_, local := t.local(importPath)
	first, _, _ := strings.Cut(importPath, "/")
	return !local && strings.Contains(first, ".")
}

// within reports whether name is top or below it.
func within(name, top string) bool {
	return name == top || strings.HasPrefix(name, top+"/")
}

// load reads the module in fsys.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{paths: map[string]bool{}}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skipDir(fsys, name) {
				return fs.SkipDir
			}
			t.paths[name] = true
			return nil
		}
		t.paths[name] = true
		if !entry.Type().IsRegular() || !isText(name) {
			return nil
		}
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if bytes.IndexByte(content, 0) >= 0 { // a program, say
			return nil
		}
		return t.add(name, content)
	})
	if err == nil && t.module == "" {
		err = fmt.Errorf("no module line in go.mod")
	}
	return t, err
}

func skipDir(fsys fs.FS, name string) bool {
	if name == "." || name == ".ci" {
		return false
	}
	base := path.Base(name)
	if base == "testdata" || base == "node_modules" || name == "bin" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := fs.Stat(fsys, name+"/go.mod") // another module
	return err == nil
}

func isText(name string) bool {
	switch path.Ext(name) {
	case ".go", ".mod", ".md", ".proto", ".html", ".css", ".js", ".yaml", ".yml", ".toml", ".conf", ".sql", ".sh":
		return true
	case "":
		return path.Base(name) != "LICENSE"
	}
	return false
}

func (t *tree) add(name string, content []byte) error {
	if name == "go.mod" {
		t.readMod(string(content))
	}
	if path.Ext(name) != ".go" {
		t.texts = append(t.texts, text{path: name, content: content})
		return nil
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{
		path: name, dir: path.Dir(name), fset: fset, ast: parsed,
		lines:     bytes.Count(content, []byte("\n")),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(parsed),
	}
	f.external = f.test && strings.HasSuffix(parsed.Name.Name, "_test")
	t.files = append(t.files, f)
	t.texts = append(t.texts, text{name, content, f.generated})
	return nil
}

// readMod reads go.mod's module and require lines.
func (t *tree) readMod(content string) {
	block := ""
	for i, line := range strings.Split(content, "\n") {
		code, comment, _ := strings.Cut(line, "//")
		words := strings.Fields(code)
		switch {
		case len(words) == 0:
			continue
		case block == "" && len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case words[0] == ")":
			block = ""
			continue
		case block != "":
			words = slices.Insert(words, 0, block)
		}
		switch {
		case words[0] == "module":
			t.module = words[1]
		case words[0] == "require" && len(words) == 3:
			t.requires = append(t.requires, require{words[1], strings.TrimSpace(comment) == "indirect", i + 1})
		}
	}
}
