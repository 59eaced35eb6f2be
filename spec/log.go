package spec

import "assent/protocol/paxos"

// Historian is a machine, or the stable record under paxos.HistoryKey, that shows what it was told to stand in
// the slots of a log, from the first on.
type Historian interface{ Standing() []string }

// LogAgreement says that of any two histories one begins with the other: no two values stand in one slot,
// nothing that stands is replaced, and nothing is left out. The histories of nodes that are down count,
// and those that a node had before it came back.
func LogAgreement() Property {
	return Property{Name: "log agreement", Holds: func(v View) bool {
		var longest []string
		for i := range v.Nodes() {
			m, _ := v.Machine(i).(Historian)
			r, _ := v.Record(i, paxos.HistoryKey).(Historian)
			for _, h := range []Historian{m, r} {
				if h == nil {
					continue
				}
				history := h.Standing()
				for k := range min(len(history), len(longest)) {
					if history[k] != longest[k] {
						return false
					}
				}
				if len(history) > len(longest) {
					longest = history
				}
			}
		}
		return true
	}}
}

// LogReaches says that some node knows what stands in so many slots: a good thing that must be possible.
func LogReaches(slots int) Property {
	return Property{Name: "the log grows", Holds: func(v View) bool {
		for i := range v.Nodes() {
			if h, ok := v.Machine(i).(Historian); ok && len(h.Standing()) >= slots {
				return true
			}
		}
		return false
	}}
}

// LogHas says that some node knows a value to stand somewhere.
func LogHas(value string) Property {
	return Property{Name: "the log has " + value, Holds: func(v View) bool {
		for i := range v.Nodes() {
			if h, ok := v.Machine(i).(Historian); ok {
				for _, s := range h.Standing() {
					if s == value {
						return true
					}
				}
			}
		}
		return false
	}}
}
