package trace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"assent/protocol"
)

// Brief names a value by its type and by those of its fields that are the field's own words:
// decisions, votes and outcomes. Of a Raw value without such fields it tells up to two short ones.
// What is not known (nil) is "?".
func Brief(v any) string {
	switch v := v.(type) {
	case nil:
		return "?"
	case Raw:
		return briefRaw(v)
	case protocol.Receive:
		return fmt.Sprintf("%s from %s", Brief(v.Message), v.From)
	case protocol.Input:
		return Brief(v.Value)
	case protocol.Expire:
		return "timer " + v.Timer
	case []protocol.Write:
		names := make([]string, len(v))
		for i, w := range v {
			names[i] = "delete"
			if w.Record != nil {
				names[i] = Brief(w.Record)
			}
		}
		return strings.Join(names, ",")
	}
	rv := reflect.Indirect(reflect.ValueOf(v))
	name := rv.Type().Name()
	if rv.Kind() != reflect.Struct {
		return name
	}
	var words []string
	for i := range rv.NumField() {
		f := rv.Field(i)
		if f.Kind() != reflect.Uint8 || !f.CanInterface() {
			continue
		}
		if s, ok := f.Interface().(fmt.Stringer); ok && !f.IsZero() {
			words = append(words, s.String())
		}
	}
	return withWords(name, words)
}

func withWords(name string, words []string) string {
	if len(words) == 0 {
		return name
	}
	return name + "(" + strings.Join(words, " ") + ")"
}

// The fields of values that a brief text looks for, by name, and what they say when they say nothing.
var (
	tellingFields = []string{"Decision", "Vote", "Outcome", "Cause"}
	sayNothing    = []string{"", "undecided", "none", "unfinished"}
	dullFields    = []string{"ID", "Coordinator", "Reason", "Evidence"}
)

// briefRaw is Brief where types are not known.
func briefRaw(r Raw) string {
	name := r.Name[strings.LastIndexByte(r.Name, '.')+1:]
	var words, others []string
	for _, f := range fields(r.JSON) {
		var s string
		isText := json.Unmarshal(f.value, &s) == nil
		switch {
		case slices.Contains(tellingFields, f.name) && isText:
			if !slices.Contains(sayNothing, s) {
				words = append(words, s)
			}
		case slices.Contains(dullFields, f.name):
		case isText && s != "" && utf8.RuneCountInString(s) <= 12:
			others = append(others, s)
		case bytes.Equal(f.value, []byte("true")):
			others = append(others, f.name)
		case len(f.value) <= 12 && strings.IndexByte("-0123456789", f.value[0]) >= 0:
			others = append(others, f.name+" "+string(f.value))
		}
	}
	if len(words) == 0 {
		words = others[:min(2, len(others))]
	}
	return withWords(name, words)
}

// member is a part of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// fields returns the parts of a JSON object in their order; none of what is no object.
func fields(data []byte) (all []member) {
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return all
		}
		name, _ := key.(string)
		m := member{name: name}
		if err := d.Decode(&m.value); err != nil {
			return all
		}
		all = append(all, m)
	}
	return all
}
