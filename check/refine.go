package check

import (
	"context"
	"sync"

	"assent/spec"
)

// Behaviour is what a system does as an observer sees it who maps its states to values of type S: where
// it begins, and which value follows which. It is never changed and may be used concurrently.
type Behaviour[S comparable] struct {
	initial map[S]bool
	steps   map[S]map[S]bool
}

// BehaviourOf goes through all states of sys, which as shows to the observer. It returns the errors of
// Walk.
func BehaviourOf[S comparable](ctx context.Context, sys System, limits Limits, as func(spec.View) S) (*Behaviour[S], error) {
	b := &Behaviour[S]{initial: map[S]bool{}, steps: map[S]map[S]bool{}}
	_, err := Walk(ctx, sys, limits, func(from, to State, m Move) {
		if m.Initial {
			b.initial[as(to)] = true
			return
		}
		before, after := as(from), as(to)
		if b.steps[before] == nil {
			b.steps[before] = map[S]bool{}
		}
		b.steps[before][after] = true
	})
	return b, err
}

// Refined is the claim that a system, which as shows to the same observer, does nothing else: it begins
// where b begins, and each of its steps is none of b's, or one, or up to most of them one after another
// (Abadi and Lamport 1991). Where it holds of every step, every trace of the system is one of b's.
func (b *Behaviour[S]) Refined(name string, most int, as func(spec.View) S) StepProperty {
	var known sync.Map // of [2]S to bool
	return StepProperty{Name: name, Holds: func(before, after spec.View) bool {
		to := as(after)
		if before == nil {
			return b.initial[to]
		}
		pair := [2]S{as(before), to}
		if pair[0] == to {
			return true
		}
		if holds, ok := known.Load(pair); ok {
			return holds.(bool)
		}
		holds := b.leads(pair[0], to, most)
		known.Store(pair, holds)
		return holds
	}}
}

// leads reports whether at most most steps lead from one value to another.
func (b *Behaviour[S]) leads(from, to S, most int) bool {
	reached := map[S]bool{from: true}
	for range most {
		var next []S
		for s := range reached {
			for t := range b.steps[s] {
				next = append(next, t)
			}
		}
		for _, t := range next {
			reached[t] = true
		}
	}
	return reached[to]
}
