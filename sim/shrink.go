package sim

import (
	"context"
	"slices"

	"assent/protocol"
	"assent/trace"
)

// Shrink makes a plan that fails smaller: it takes out faults, and pieces of work, as long as the run
// still breaks the same claim (delta debugging: Zeller and Hildebrandt 2002). It returns the smallest
// plan it has found, run once more, and how many runs it took. When ctx ends it returns what it has.
func Shrink(ctx context.Context, s Subject, failed Report, work int) (small Report, runs int, err error) {
	small = failed
	if failed.Failure == nil {
		return small, 0, nil
	}
	try := func(p Plan) bool {
		runs++
		r, rerr := s.Run(p, nil)
		if rerr != nil {
			err = rerr
			return false
		}
		if r.Failure == nil || r.Failure.Claim != failed.Failure.Claim {
			return false
		}
		r.Plan = p
		small = r
		return true
	}
	for before := -1; err == nil && ctx.Err() == nil && before != size(small.Plan, work); {
		before = size(small.Plan, work)
		plan := small.Plan
		plan.Faults = Minimise(ctx, plan.Faults, func(kept []Fault) bool {
			p := plan
			p.Faults = kept
			return try(p)
		})
		Minimise(ctx, without(work, plan.Skip), func(kept []int) bool {
			p := plan
			p.Skip = without(work, kept)
			return try(p)
		})
	}
	return small, runs, err
}

// size is what shrinking makes less.
func size(p Plan, work int) int { return len(p.Faults) + work - len(p.Skip) }

// without returns the numbers below n that are not in list.
func without(n int, list []int) (rest []int) {
	for i := range n {
		if !slices.Contains(list, i) {
			rest = append(rest, i)
		}
	}
	return rest
}

// Minimise returns a part of list, in its order, for which fails is true and of which no element can
// be left out: the algorithm ddmin. It takes for granted that fails is true of the whole list. When
// ctx ends it returns the smallest part that it has found.
func Minimise[T any](ctx context.Context, list []T, fails func([]T) bool) []T {
	for chunks := 2; len(list) > 0; {
		if ctx.Err() != nil {
			return list
		}
		size := (len(list) + chunks - 1) / chunks
		smaller := false
		for at := 0; at < len(list) && ctx.Err() == nil; at += size {
			rest := slices.Concat(list[:at], list[min(at+size, len(list)):])
			if fails(rest) {
				list, smaller = rest, true
				break
			}
		}
		switch {
		case smaller:
			chunks = max(chunks-1, 2)
		case size == 1:
			return list
		default:
			chunks = min(2*chunks, len(list))
		}
	}
	return list
}

// Script makes of the events of a run that broke a claim the shortest script that it can find which
// still breaks it: choices alone. A choice that cannot be made any more, because one before it was
// left out, is left out as well. Where the claim is one of liveness, the script is all choices: what
// is left out there is missing at the end.
func (s *System) Script(ctx context.Context, plan Plan, events []trace.Event, claim string) ([]trace.Event, error) {
	choices := choicesOf(events)
	if claim == Ended {
		return choices, nil
	}
	best, ok, err := s.follow(plan, choices, claim)
	if err != nil || !ok {
		return choices, err
	}
	for {
		before := len(best)
		Minimise(ctx, best, func(kept []trace.Event) bool {
			made, ok, ferr := s.follow(plan, kept, claim)
			if ferr != nil {
				err = ferr
			}
			if ok && len(made) < len(best) {
				best = made
			}
			return ok
		})
		if len(best) == before || err != nil || ctx.Err() != nil {
			return best, err
		}
	}
}

// follow makes those of the choices that can be made, until the claim is broken. It returns what was
// made and whether the claim broke.
func (s *System) follow(plan Plan, choices []trace.Event, claim string) (made []trace.Event, broke bool, err error) {
	var r recording
	w, err := s.scripted(plan, &r)
	if err != nil {
		return nil, false, err
	}
	choices = slices.Clone(choices)
	for i, e := range choices {
		if _, ok := e.Value.(protocol.Recover); ok { // what is left out may have written the records
			choices[i].Value = protocol.Recover{}
		}
	}
	for i := 0; i < len(choices) && w.err == nil; {
		used, cerr := w.script.choose(choices[i:])
		i += max(used, 1)
		if cerr != nil {
			continue
		}
		w.judge()
		if w.failure != nil {
			return choicesOf(r.events), w.failure.Claim == claim, w.err
		}
	}
	return nil, false, w.err
}
