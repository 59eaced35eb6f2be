package linear

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/protocol/membership"
)

// Each history is in order or not; what overlaps is begun before the other has ended.
func TestHistories(t *testing.T) {
	const applied, refused, unsure = membership.Applied, membership.Refused, membership.Unsure
	get := Operation{Do: Get}
	set := func(value string) Operation { return Operation{Do: Set, Key: "x", Value: value} }
	swap := func(value string, epoch uint64) Operation {
		return Operation{Do: Swap, Key: "x", Value: value, Epoch: epoch}
	}
	for name, c := range map[string]struct {
		does func(h *History)
		want porcupine.CheckResult
	}{
		"in order": {func(h *History) {
			h.End(h.Begin(set("1")), Answer{applied, 5, "", ""})
			h.End(h.Begin(get), Answer{applied, 7, "1", ""})
			h.End(h.Begin(swap("2", 7)), Answer{applied, 8, "", ""})
			h.End(h.Begin(swap("3", 7)), Answer{refused, 8, "", ""})
			h.End(h.Begin(Operation{Do: Unset, Key: "x"}), Answer{applied, 9, "", ""})
			h.End(h.Begin(get), Answer{applied, 9, "", ""})
		}, porcupine.Ok},
		"a stale look": {func(h *History) {
			h.End(h.Begin(set("1")), Answer{applied, 5, "", ""})
			h.End(h.Begin(get), Answer{applied, 4, "", ""})
		}, porcupine.Illegal},
		"at once, both are possible": {func(h *History) {
			c := h.Begin(set("1"))
			h.End(h.Begin(get), Answer{applied, 4, "", ""})
			h.End(c, Answer{applied, 5, "", ""})
		}, porcupine.Ok},
		"unsure, and seen much later": {func(h *History) {
			h.End(h.Begin(set("1")), Answer{unsure, 0, "", ""})
			h.End(h.Begin(set("2")), Answer{applied, 5, "", ""})
			h.End(h.Begin(get), Answer{applied, 5, "2", ""})
			h.End(h.Begin(get), Answer{applied, 6, "1", ""})
		}, porcupine.Ok},
		"unsure, and seen twice": {func(h *History) {
			h.Begin(set("1"))
			h.End(h.Begin(get), Answer{applied, 5, "1", ""})
			h.End(h.Begin(set("2")), Answer{applied, 6, "", ""})
			h.End(h.Begin(get), Answer{applied, 7, "1", ""})
		}, porcupine.Illegal},
		"refused, and seen": {func(h *History) {
			h.End(h.Begin(get), Answer{applied, 5, "", ""})
			h.End(h.Begin(swap("1", 5)), Answer{refused, 6, "", ""})
			h.End(h.Begin(get), Answer{applied, 6, "1", ""})
		}, porcupine.Illegal},
		"two swaps at one epoch": {func(h *History) {
			h.End(h.Begin(swap("1", 5)), Answer{applied, 6, "", ""})
			h.End(h.Begin(swap("2", 5)), Answer{applied, 6, "", ""})
		}, porcupine.Illegal},
		"a swap that may have been": {func(h *History) {
			h.Begin(swap("1", 5))
			h.End(h.Begin(swap("2", 5)), Answer{refused, 6, "", ""})
			h.End(h.Begin(get), Answer{applied, 6, "1", ""})
		}, porcupine.Ok},
		"a swap that cannot have been": {func(h *History) {
			h.End(h.Begin(set("0")), Answer{applied, 9, "", ""})
			h.End(h.Begin(get), Answer{applied, 9, "0", ""})
			h.Begin(swap("1", 5))
			h.End(h.Begin(get), Answer{applied, 10, "1", ""})
		}, porcupine.Illegal},
		"the epoch goes back": {func(h *History) {
			h.End(h.Begin(get), Answer{applied, 9, "", ""})
			h.End(h.Begin(get), Answer{applied, 8, "", ""})
		}, porcupine.Illegal},
		"nothing refuses a set": {func(h *History) {
			h.End(h.Begin(set("1")), Answer{refused, 9, "", ""})
		}, porcupine.Illegal},
	} {
		t.Run(name, func(t *testing.T) {
			h := &History{}
			c.does(h)
			if got := h.Check(time.Minute); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	if c := (Operation{Do: Get}).Change(); c.Kind != membership.Barrier {
		t.Errorf("%+v", c)
	}
	if c := (Operation{Do: Unset, Key: "x"}).Change(); c.Kind != membership.Unset || c.Key != "x" {
		t.Errorf("%+v", c)
	}
}
