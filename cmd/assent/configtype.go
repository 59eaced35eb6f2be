package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mistyped is what the decoder says of a value of the wrong kind. The value, shortened, is missing where
// there is no short form of it.
var mistyped = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `([^`]*)`)? into (.+)$")

// kinds are the kinds of values in the words of the page, by YAML's tags.
var kinds = map[string]string{
	"str": "text", "int": "a number", "float": "a number with a fraction", "bool": "true or false",
	"null": "empty", "seq": "a list", "map": "a group of keys", "timestamp": "a date", "binary": "binary data",
}

// explainType tells of a value that has the wrong kind: which key it is of, what it is and what it should
// be. ok is false for errors of another sort. The value itself is not shown: it may be a secret.
func (c *config) explainType(text string, line int) (told, hint string, ok bool) {
	m := mistyped.FindStringSubmatch(text)
	if m == nil {
		return "", "", false
	}
	is := kinds[m[1]]
	if is == "" {
		is = "of another kind"
	}
	wanted, hint := wantedKind(m[3])
	key := keyAt(c.root, line, "!!"+m[1], strings.TrimSuffix(m[2], "..."), "")
	if key == "" {
		key = "a value"
	}
	return fmt.Sprintf("%s is %s; it must be %s", key, is, wanted), hint, true
}

// wantedKind says in words what the Go type is, and how to write it.
func wantedKind(goType string) (words, hint string) {
	section := strings.TrimPrefix(strings.TrimPrefix(goType, "*"), "main.")
	switch {
	case goType == "time.Duration":
		return "a duration", "write durations with a unit: 500ms, 30s, 24h"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number", "write it in digits alone"
	case goType == "bool":
		return "true or false", ""
	case goType == "string" || goType == "api.Role":
		return "text", "put it in quotes if it looks like something else"
	case strings.HasPrefix(goType, "["):
		return "a list", "begin each of its items with a dash"
	case strings.HasPrefix(goType, "map["):
		return "a group of keys, one for each name", "assent serve --print-config-example shows one"
	}
	if known := keysOf(section); len(known) > 0 {
		return "a group of keys", "known here are " + strings.Join(known, ", ")
	}
	return "something else", "assent serve --print-config-example shows what"
}

// keyAt returns the path of the key whose value stands on the line, has the tag and, if it is a scalar,
// begins so: "timeouts.idle". It is empty where there is none.
func keyAt(node *yaml.Node, line int, tag, begin, path string) string {
	if node == nil {
		return ""
	}
	for i, child := range node.Content {
		below := path
		switch {
		case node.Kind == yaml.MappingNode && i%2 == 0:
			continue // a key
		case node.Kind == yaml.MappingNode:
			below = strings.TrimPrefix(path+"."+node.Content[i-1].Value, ".")
		case node.Kind == yaml.SequenceNode:
			below = fmt.Sprintf("%s[%d]", path, i)
		}
		if found := keyAt(child, line, tag, begin, below); found != "" {
			return found
		}
	}
	if path != "" && node.Line == line && node.ShortTag() == tag && strings.HasPrefix(node.Value, begin) {
		return path
	}
	return ""
}

// fraction returns a number with a fraction that stands in node where the type t has a whole one, or nil. The
// decoder would cut the fraction off without a word.
func fraction(node *yaml.Node, t reflect.Type) *yaml.Node {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return nil
	case node.Kind == yaml.AliasNode:
		return fraction(node.Alias, t)
	case node.Kind == yaml.ScalarNode:
		if node.ShortTag() == "!!float" && (t.Kind() == reflect.Int || t.Kind() == reflect.Int32) {
			return node
		}
		return nil
	}
	for i, child := range node.Content {
		below := t
		switch {
		case node.Kind == yaml.MappingNode && i%2 == 0:
			continue // a key
		case node.Kind == yaml.MappingNode:
			below = memberType(t, node.Content[i-1].Value)
		case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
			below = t.Elem()
		}
		if found := fraction(child, below); found != nil {
			return found
		}
	}
	return nil
}

// memberType returns the type of what the key names in t, or nil.
func memberType(t reflect.Type, key string) reflect.Type {
	switch {
	case key == "<<": // what is merged into it
		return t
	case t.Kind() == reflect.Map:
		return t.Elem()
	case t.Kind() != reflect.Struct:
		return nil
	}
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("yaml") == key {
			return t.Field(i).Type
		}
	}
	return nil
}
