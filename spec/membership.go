package spec

import (
	"slices"

	"assent/protocol/membership"
)

// Chronicler is a machine, or the stable record under membership.ChronicleKey, that shows the views that it
// was told, in order.
type Chronicler interface{ Chronicles() []membership.View }

// Denier is a machine, or the stable record under membership.ChronicleKey, that shows which changes it was told
// were refused, or has refused, and which it has as applied.
type Denier interface {
	// Denied returns those that were refused.
	Denied() []membership.Session
	// Applied returns those that are applied, with no Refused.
	Applied() []membership.Session
}

// RefusedForGood says that a change which was refused, as anybody was told, is not applied anywhere.
func RefusedForGood() Property {
	return Property{Name: "refused for good", Holds: func(v View) bool {
		var denied []membership.Session
		for _, d := range deniers(v) {
			denied = append(denied, d.Denied()...)
		}
		if len(denied) == 0 {
			return true
		}
		for _, d := range deniers(v) {
			for _, done := range d.Applied() {
				if slices.ContainsFunc(denied, func(x membership.Session) bool {
					x.Refused = ""
					return x == done
				}) {
					return false
				}
			}
		}
		return true
	}}
}

// deniers returns the nodes' machines and records that are Deniers.
func deniers(v View) (all []Denier) {
	for i := range v.Nodes() {
		if d, ok := v.Machine(i).(Denier); ok {
			all = append(all, d)
		}
		if d, ok := v.Record(i, membership.ChronicleKey).(Denier); ok {
			all = append(all, d)
		}
	}
	return all
}

// Denial says that some change was refused: that this is possible.
func Denial() Property {
	return Property{Name: "a change is refused", Holds: func(v View) bool {
		for i := range v.Nodes() {
			if d, ok := v.Machine(i).(Denier); ok && len(d.Denied()) > 0 {
				return true
			}
		}
		return false
	}}
}

// LinearMembership says that all nodes see the same views in the same order: no two views have one number,
// and what a node is told are views that follow one another.
func LinearMembership() Property {
	return Property{Name: "linear membership", Holds: func(v View) bool {
		var known []membership.View // by number less 1; those not known have none
		for i := range v.Nodes() {
			m, _ := v.Machine(i).(Chronicler)
			r, _ := v.Record(i, membership.ChronicleKey).(Chronicler)
			for k, c := range []Chronicler{m, r} {
				if c == nil {
					continue
				}
				var fits bool
				if known, fits = compareViews(known, c.Chronicles(), k == 0); !fits {
					return false
				}
			}
		}
		return true
	}}
}

// compareViews holds a node's views against those that are known, and adds them.
func compareViews(known, views []membership.View, inOrder bool) (all []membership.View, fit bool) {
	for i, view := range views {
		if inOrder && i > 0 && view.Number != views[i-1].Number+1 {
			return known, false
		}
		for uint64(len(known)) < view.Number {
			known = append(known, membership.View{})
		}
		k := &known[view.Number-1]
		if k.Number == 0 {
			*k = view
		} else if !slices.Equal(k.Members, view.Members) {
			return known, false
		}
	}
	return known, true
}

// ViewReached says that some node has seen a view with so many members that vote: a good thing that must be
// possible.
func ViewReached(voters int) Property {
	return Property{Name: "a view of other members", Holds: func(v View) bool {
		for i := range v.Nodes() {
			c, ok := v.Machine(i).(Chronicler)
			if !ok {
				continue
			}
			for _, view := range c.Chronicles() {
				if len(view.Quorums().Members) == voters {
					return true
				}
			}
		}
		return false
	}}
}
