package spec

import (
	"slices"

	"assent/protocol"
)

// Learned is a machine that may come to know what is decided.
type Learned interface {
	// Learned returns what the machine knows to be decided, and whether it knows. The value can be
	// compared with ==.
	Learned() (value any, ok bool)
}

// Agreement says that no two nodes that are up know different decisions.
func Agreement() Property {
	return Property{Name: "agreement", Holds: func(v View) bool {
		var first any
		for i := range v.Nodes() {
			value, ok := learned(v.Machine(i))
			if !ok {
				continue
			}
			if first != nil && value != first {
				return false
			}
			first = value
		}
		return true
	}}
}

// Validity says that only what was proposed is decided.
func Validity(proposed ...any) Property {
	return Property{Name: "validity", Holds: func(v View) bool {
		for i := range v.Nodes() {
			if value, ok := learned(v.Machine(i)); ok && !slices.Contains(proposed, value) {
				return false
			}
		}
		return true
	}}
}

// Learns says that some node knows that value is decided: a good thing that must be possible.
func Learns(value any) Property {
	return Property{Name: "somebody learns the decision", Holds: func(v View) bool {
		for i := range v.Nodes() {
			if got, ok := learned(v.Machine(i)); ok && got == value {
				return true
			}
		}
		return false
	}}
}

func learned(m protocol.Machine) (any, bool) {
	l, ok := m.(Learned)
	if !ok {
		return nil, false
	}
	return l.Learned()
}
