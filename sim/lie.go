package sim

import (
	"fmt"
	"reflect"
	"strings"

	"assent/protocol"
)

// lieAbout returns a message of the same type in which one of the protocol's own words (a vote, a
// decision, an outcome) is another one; ok is false where the message has none. The chance says which
// word, and which other one.
func lieAbout(message protocol.Message, chance uint64) (lie protocol.Message, ok bool) {
	v := reflect.New(reflect.TypeOf(message)).Elem()
	v.Set(reflect.ValueOf(message))
	if v.Kind() != reflect.Struct {
		return message, false
	}
	var fields []int
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint8 && len(words(v.Field(i))) > 1 {
			fields = append(fields, i)
		}
	}
	if len(fields) == 0 {
		return message, false
	}
	field := v.Field(fields[chance%uint64(len(fields))])
	var others []uint64
	for _, w := range words(field) {
		if w != field.Uint() {
			others = append(others, w)
		}
	}
	field.SetUint(others[chance>>32%uint64(len(others))])
	return v.Interface(), true
}

// words returns the values that a field may have: those that have a name of their own.
func words(field reflect.Value) (all []uint64) {
	v := reflect.New(field.Type()).Elem()
	for n := uint64(1); n < 32; n++ {
		v.SetUint(n)
		s, ok := v.Interface().(fmt.Stringer)
		if !ok || strings.HasPrefix(s.String(), "invalid") {
			return all
		}
		all = append(all, n)
	}
	return all
}
