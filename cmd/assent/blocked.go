package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"assent/spec"
)

// blockedKind is a kind of states in which somebody is blocked.
type blockedKind struct {
	// Blocked are the nodes that are up and cannot come to their end, each with how its branch stands.
	Blocked []string `json:"blocked"`
	// Down are the nodes that are down.
	Down   []string `json:"down"`
	States int      `json:"states"`
}

// String returns the kind in words.
func (k blockedKind) String() string {
	text := strings.Join(k.Blocked, ", ")
	if len(k.Down) > 0 {
		text += "; down: " + strings.Join(k.Down, ", ")
	}
	return text
}

// blockedKinds counts the states in which somebody is blocked, by who it is and who is down.
type blockedKinds map[string]*blockedKind

// count is a check.Claims.Blocked for these nodes.
func (b blockedKinds) count(whole composition) func(spec.View, []int) {
	return func(v spec.View, nodes []int) {
		if len(nodes) == 0 {
			return
		}
		k := &blockedKind{Down: []string{}}
		for i := range v.Nodes() {
			id, m := string(whole.nodes[i].ID), v.Machine(i)
			site, shows := m.(spec.Site)
			switch {
			case m == nil:
				k.Down = append(k.Down, id)
			case slices.Contains(nodes, i) && shows:
				k.Blocked = append(k.Blocked, id+" "+site.Standing().Branch.String())
			case slices.Contains(nodes, i):
				k.Blocked = append(k.Blocked, id)
			}
		}
		name := k.String()
		if b[name] == nil {
			b[name] = k
		}
		b[name].States++
	}
}

// list returns the kinds, the most frequent first.
func (b blockedKinds) list() []blockedKind {
	all := make([]blockedKind, 0, len(b))
	for _, k := range b {
		all = append(all, *k)
	}
	slices.SortFunc(all, func(x, y blockedKind) int {
		return cmp.Or(cmp.Compare(y.States, x.States), strings.Compare(x.String(), y.String()))
	})
	return all
}

// mostKinds bounds what is printed of them; JSON has all.
const mostKinds = 12

// tellBlocked says in which states somebody is blocked.
func (v verdict) tellBlocked(b *strings.Builder) {
	fmt.Fprintf(b, "\nin %s of the states a participant is blocked:\n", thousands(v.Blocking))
	for i, k := range v.Blocked {
		if i == mostKinds {
			fmt.Fprintf(b, "  and %s more kinds of states, which --json lists\n", thousands(len(v.Blocked)-mostKinds))
			return
		}
		fmt.Fprintf(b, "%7s  %s\n", thousands(k.States), k)
	}
}
