package archtest

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkPackageComments checks that every package, programs included, has its comment in exactly
// one file, and that it begins as go doc expects. A package of test files alone needs one too; an
// external test package needs none.
func checkPackageComments(t *tree) (found []finding) {
	packages := map[string][]*file{}
	for _, f := range t.files {
		if !f.external {
			key := f.dir + " " + f.ast.Name.Name
			packages[key] = append(packages[key], f)
		}
	}
	for _, files := range packages {
		slices.SortFunc(files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
		commented := slices.DeleteFunc(slices.Clone(files), func(f *file) bool { return f.ast.Doc == nil })
		if len(commented) == 0 {
			found = append(found, files[0].at(files[0].ast.Name, "package %s has no package comment", files[0].ast.Name.Name))
			continue
		}
		for _, f := range commented[1:] {
			found = append(found, f.at(f.ast.Name, "a second package comment; the first is in %s", commented[0].path))
		}
		f, name := commented[0], commented[0].ast.Name.Name
		if text := f.ast.Doc.Text(); name != "main" && !strings.HasPrefix(text, "Package "+name+" ") {
			found = append(found, f.at(f.ast.Name, "the package comment does not begin with %q", "Package "+name))
		}
	}
	return found
}

// checkDocComments checks that exported identifiers are documented, and the methods of exported
// interfaces that have several. A group of constants or variables may be documented as one.
func checkDocComments(t *tree) (found []finding) {
	for _, f := range t.files {
		if f.test || f.generated {
			continue
		}
		for _, decl := range f.ast.Decls {
			for _, name := range undocumented(decl) {
				found = append(found, f.at(name, "%s has no doc comment", name.Name))
			}
		}
	}
	return found
}

// undocumented returns the exported names of decl that have no doc comment.
func undocumented(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && receiverExported(d) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				names = append(names, undocumentedType(d, s)...)
			case *ast.ValueSpec:
				if d.Doc != nil || s.Doc != nil || s.Comment != nil {
					continue
				}
				names = append(names, exported(s.Names)...)
			}
		}
	}
	return names
}

func undocumentedType(d *ast.GenDecl, s *ast.TypeSpec) (names []*ast.Ident) {
	if !s.Name.IsExported() {
		return nil
	}
	if s.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
		names = append(names, s.Name)
	}
	if i, ok := s.Type.(*ast.InterfaceType); ok && methods(i) > 1 { // the comment on the type covers one
		for _, m := range i.Methods.List {
			if m.Doc == nil && m.Comment == nil {
				names = append(names, exported(m.Names)...)
			}
		}
	}
	return names
}

func exported(names []*ast.Ident) []*ast.Ident {
	return slices.DeleteFunc(slices.Clone(names), func(n *ast.Ident) bool { return !n.IsExported() })
}

// receiverExported reports whether d is a function, or a method of an exported type.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	expr := d.Recv.List[0].Type
	for {
		switch x := expr.(type) {
		case *ast.StarExpr: // *T
			expr = x.X
		case *ast.IndexExpr: // T[K]
			expr = x.X
		case *ast.IndexListExpr: // T[K, V]
			expr = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// banned names say nothing about what a package holds.
var banned = []string{"util", "utils", "utility", "common", "base", "types", "helper", "helpers", "misc", "shared", "lib", "pkg"}

// checkNames checks the names of packages and of their folders.
func checkNames(t *tree) (found []finding) {
	seen := map[string]bool{}
	for _, f := range t.files {
		names := append(strings.Split(f.dir, "/"), strings.TrimSuffix(f.ast.Name.Name, "_test"))
		for _, name := range names {
			if slices.Contains(banned, name) && !seen[f.dir] {
				seen[f.dir] = true
				found = append(found, f.at(f.ast.Name, "a package called %s: name it for what it holds", name))
			}
		}
	}
	return found
}

// checkInit checks that nothing happens behind the reader's back: no init functions and no dot
// imports. Wiring is done in cmd, with values.
func checkInit(t *tree) (found []finding) {
	for _, f := range t.files {
		if f.generated {
			continue
		}
		f.imports(func(spec *ast.ImportSpec, importPath string) {
			if spec.Name != nil && spec.Name.Name == "." {
				found = append(found, f.at(spec, "a dot import of %s", importPath))
			}
		})
		for _, decl := range f.ast.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
				found = append(found, f.at(d, "an init function"))
			}
		}
	}
	return found
}

// unfinished matches the marks of work left undone. They are put together here so that this file
// does not hold them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b|panic\("(not |un)` + `implemented`)

// checkUnfinished looks for marks of unfinished work in everything that people read.
func checkUnfinished(t *tree) (found []finding) {
	for _, x := range t.texts {
		if x.generated {
			continue
		}
		for i, line := range strings.Split(string(x.content), "\n") {
			if mark := unfinished.FindString(line); mark != "" {
				found = append(found, finding{x.path, i + 1, mark + " is left in the text"})
			}
		}
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// checkLinks checks that the pages' links to files of the project lead somewhere, and that the
// index of the decisions names each of them.
func checkLinks(t *tree) (found []finding) {
	const index = "docs/decisions/README.md"
	linked := map[string]bool{}
	for _, x := range t.texts {
		if path.Ext(x.path) != ".md" {
			continue
		}
		for i, line := range strings.Split(string(x.content), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target, _, _ := strings.Cut(m[1], "#")
				if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				to := path.Join(path.Dir(x.path), target)
				if x.path == index {
					linked[to] = true
				}
				if !t.paths[to] {
					found = append(found, finding{x.path, i + 1, "a link to " + target + ", which is not there"})
				}
			}
		}
	}
	for _, x := range t.texts {
		if path.Dir(x.path) == path.Dir(index) && x.path != index && !linked[x.path] {
			found = append(found, finding{x.path, 1, "the decision is not listed in " + index})
		}
	}
	return found
}
