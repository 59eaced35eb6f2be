package postgres

import (
	"reflect"
	"time"
)

// maxTogether bounds, in bytes, a queue that travels with PREPARE: what the sockets take even if the server
// reads nothing yet. To write more is to wait, and the server, which waits in its turn until the rows that
// it returns are read, could wait for us.
const maxTogether = 32 << 10

// What a statement, and an argument that is no text, count for besides; they take less.
const (
	statementWeight = 128
	scalarWeight    = 24
)

// queueIsLight reports whether the queue can travel with PREPARE.
func (t *Tx) queueIsLight() bool {
	total := 0
	for _, q := range t.queue {
		total += statementWeight + len(q.sql)
		for _, a := range q.arguments {
			total += weight(reflect.ValueOf(a), 6)
		}
		if total > maxTogether {
			return false
		}
	}
	return true
}

// weight estimates the bytes that an argument takes. What cannot be estimated, and what is nested more
// than depth levels deep, is too heavy.
func weight(v reflect.Value, depth int) (total int) {
	if depth == 0 {
		return maxTogether + 1
	}
	add := func(part reflect.Value) (more bool) {
		total += weight(part, depth-1)
		return total <= maxTogether
	}
	switch v.Kind() {
	case reflect.String:
		return v.Len() + scalarWeight
	case reflect.Pointer, reflect.Interface:
		return weight(v.Elem(), depth-1)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return v.Len() + scalarWeight
		}
		for i := 0; i < v.Len() && add(v.Index(i)); i++ {
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			break
		}
		for i := 0; i < v.NumField() && add(v.Field(i)); i++ {
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next() && add(entries.Key()) && add(entries.Value()); {
		}
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return maxTogether + 1
	}
	return total + scalarWeight
}
