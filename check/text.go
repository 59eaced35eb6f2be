package check

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// text names a value by its type and content.
func text(v any) string {
	name := reflect.Indirect(reflect.ValueOf(v)).Type().Name()
	data, err := json.Marshal(v)
	if err != nil {
		return name
	}
	return name + string(data)
}

// texts tells each node's state.
func (x *explorer) texts(tuple []uint32) []string {
	all := make([]string, len(x.sys.Nodes))
	for i := range all {
		l := x.local(tuple[i])
		all[i] = "down"
		if l.up {
			all[i] = text(l.machine)
		}
	}
	return all
}

// String tells the run, a line for each step.
func (c Counterexample) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "not so: %s\n", c.Claim)
	for i, s := range c.Steps {
		fmt.Fprintf(&b, "%3d. %s\n", i, s.What)
	}
	return b.String()
}
