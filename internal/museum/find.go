package museum

import (
	"context"
	"slices"
	"time"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
)

// Found says what the two tools have found wrong in a system.
type Found struct{ Checker, Simulator Finding }

// Finding is what one tool has found first.
type Finding struct {
	// Claim is the one that is broken, or empty.
	Claim string
	// Tried counts the states, or the seeds, up to the first that is wrong. It is the same in every run.
	Tried int
	// Steps is the length of the shortest run that shows it. The checker knows it.
	Steps int
	Took  time.Duration
}

const (
	mostStates = 1_000_000
	mostSeeds  = 20_000
)

// Find lets both tools look for what is wrong in the machines that this program is built with.
func Find(ctx context.Context, s System, seeds int) (f Found, err error) {
	types := s.Types
	if len(types) == 0 {
		types = commit.Types()
	}
	codec, err := protocol.NewCodec(types...)
	if err != nil {
		return f, err
	}
	if f.Checker, err = s.explore(ctx, codec); err != nil {
		return f, err
	}
	f.Simulator, err = s.simulate(ctx, codec, seeds)
	return f, err
}

// explore goes through the states until one is wrong. It has one worker, who goes through them in the
// same order always.
func (s System) explore(ctx context.Context, codec *protocol.Codec) (f Finding, err error) {
	nodes, err := s.Small.Nodes()
	if err != nil {
		return f, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	begun := time.Now()
	judged := 0
	var claims check.Claims
	for i, p := range s.Always {
		claims.Always = append(claims.Always, spec.Property{Name: p.Name, Holds: func(v spec.View) bool {
			if i == 0 {
				judged++
			}
			ok := p.Holds(v)
			if !ok && f.Claim == "" {
				f = Finding{Claim: p.Name, Tried: judged, Took: time.Since(begun)}
				stop()
			}
			return ok
		}})
	}
	if s.Nonblocking {
		claims.Decided = spec.AC5().Decided
	}
	r, err := check.Run(ctx, check.System{Nodes: nodes, Codec: codec, Faults: s.Faults, Model: s.Model}, claims,
		check.Limits{States: mostStates, Workers: 1})
	switch {
	case err != nil:
		return Finding{}, err
	case len(r.Broken) > 0:
		f.Steps, err = s.shortest(nodes, codec, f)
	case r.Blocked != nil:
		f = Finding{Claim: spec.AC5().Name, Tried: r.States, Took: r.Elapsed, Steps: len(r.Blocked.Steps) - 1}
	default:
		f = Finding{Tried: r.States, Took: r.Elapsed}
	}
	return f, err
}

// shortest returns the length of the shortest run to what was found, in a search of as many states.
func (s System) shortest(nodes []protocol.Node, codec *protocol.Codec, f Finding) (steps int, err error) {
	i := slices.IndexFunc(s.Always, func(p spec.Property) bool { return p.Name == f.Claim })
	r, err := check.Run(context.Background(), check.System{Nodes: nodes, Codec: codec, Faults: s.Faults, Model: s.Model},
		check.Claims{Always: s.Always[i : i+1]}, check.Limits{States: f.Tried + f.Tried/4 + 1000, Workers: 1})
	if err != nil || len(r.Broken) == 0 {
		return 0, err
	}
	return len(r.Broken[0].Steps) - 1, nil
}

// simulate runs one seed after the other until one is wrong.
func (s System) simulate(ctx context.Context, codec *protocol.Codec, seeds int) (f Finding, err error) {
	nodes, err := s.Large.Nodes()
	if err != nil {
		return f, err
	}
	system := sim.System{Name: s.Name, Nodes: nodes, Codec: codec, Always: s.Always}
	if system.Done = s.Done; s.Done == nil && !s.Open {
		system.Done = spec.ParticipantDone
	}
	begun := time.Now()
	for f.Tried < seeds && f.Claim == "" && ctx.Err() == nil {
		f.Tried++
		r, err := system.Run(system.Draw(uint64(f.Tried), s.Classes), nil)
		if err != nil {
			return f, err
		}
		if r.Failure != nil {
			f.Claim = r.Failure.Claim
		}
	}
	f.Took = time.Since(begun)
	return f, ctx.Err()
}
