package assent

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"assent/decision"
	"assent/engine"
	"assent/protocol/commit"
	"assent/resource"
	"assent/trace"
)

// Config says what a Manager coordinates and how long it waits. Log and Resources are required.
type Config struct {
	// Log is where decisions are recorded. The manager does not close it. Its owner's name is
	// part of every branch's name, so whoever opens the same log later finds and finishes what
	// this manager leaves behind.
	Log decision.Log

	// Resources are what transactions may join, by name. The name becomes part of the names of
	// prepared branches: keep it for as long as a branch may be in doubt. The manager does not
	// close resources.
	Resources map[string]resource.Resource

	// Timeout bounds a transaction from Begin to Commit. A transaction that is open for longer is
	// rolled back. Defaults to 60 s.
	Timeout time.Duration

	// PrepareTimeout bounds the wait for votes; then the transaction aborts. Defaults to 10 s.
	PrepareTimeout time.Duration

	// FinishTimeout bounds one attempt to finish a branch; then it is tried again, after a
	// pause. Defaults to 10 s.
	FinishTimeout time.Duration

	// FinishWait is for how long Commit waits, once the decision is stable, for the branches to
	// be finished. When it is over Commit returns the decision and the branches are finished in
	// the background. Defaults to 10 s.
	FinishWait time.Duration

	// EarlyReply makes Commit return as soon as the decision is stable, without waiting for the
	// branches to be finished. A reader may then, for a moment, find a branch unchanged or
	// locked. Defaults to false.
	EarlyReply bool

	// Retry and RetryMost are the first and the greatest pause before something that failed is
	// tried again; each pause is twice the one before. Default to 100 ms and 30 s.
	Retry, RetryMost time.Duration

	// ScanInterval is the pause between two scans of a resource for orphans. After scans that
	// failed, the pauses begin with Retry and double up to ScanInterval. Defaults to 15 s.
	ScanInterval time.Duration

	// OrphanGrace is how long a branch of another manager of the same log must have been prepared,
	// by the resource's clock, before this one settles it. It only spares live transactions from
	// being aborted; no harm to consistency comes from a short one. Where there is no Alive, what another
	// manager has decided is left to it for as long, too. Defaults to 0, which is right where only one
	// manager at a time can have the log open.
	OrphanGrace time.Duration

	// Alive reports whether whoever began the transaction is believed to live, which is for a failure
	// detector to say. The prepared branches of another manager's transaction are left alone while it
	// does, until OrphanGrace, and are settled at once when it does not. It must not wait. It only
	// spares live transactions from being aborted: consistency never depends on it. Defaults to none:
	// then OrphanGrace alone counts.
	Alive func(id commit.TransactionID) bool

	// Elsewhere reports whether the resource of that name, which is not in Resources, is another
	// manager's of the same log. The finishing of its branches is left to that manager. Defaults to
	// none: then a resource that is not configured is waited for.
	Elsewhere func(resource string) bool

	// Logger gets what an operator should know: recoveries, heuristics, resources that fail.
	// Defaults to slog.Default().
	Logger *slog.Logger

	// Clock runs the timers: the machines' (the wait for votes, the pauses before a branch is tried
	// again) and the end of transactions that are open for too long. It governs nothing else. The
	// bounds of single calls (PrepareTimeout, FinishTimeout), FinishWait, the pauses between scans,
	// between attempts to write the log and between Run's retries are the system's, and so is the time
	// of day that is recorded. Defaults to engine.SystemClock.
	Clock engine.Clock

	// Observer is told of every step of every machine. Defaults to none.
	Observer trace.Observer
}

func (c *Config) setDefaults() {
	for _, d := range [...]struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Timeout, 60 * time.Second},
		{&c.PrepareTimeout, 10 * time.Second},
		{&c.FinishTimeout, 10 * time.Second},
		{&c.FinishWait, 10 * time.Second},
		{&c.Retry, 100 * time.Millisecond},
		{&c.RetryMost, 30 * time.Second},
		{&c.ScanInterval, 15 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = engine.SystemClock{}
	}
}

func (c *Config) validate() error {
	if c.Log == nil {
		return errors.New("assent: Config.Log is missing; open one with decision/disk")
	}
	if len(c.Resources) == 0 {
		return errors.New("assent: Config.Resources is empty; a transaction needs something to change")
	}
	if len(c.Resources) > decision.MaxBranches {
		return fmt.Errorf("assent: %d resources; at most %d are allowed", len(c.Resources), decision.MaxBranches)
	}
	seen := map[resource.Resource]string{}
	for name, r := range c.Resources {
		if err := resource.CheckName(name); err != nil {
			return fmt.Errorf("assent: %w", err)
		}
		if r == nil || !reflect.TypeOf(r).Comparable() {
			return fmt.Errorf("assent: resource %q is nil or not comparable; pass a pointer", name)
		}
		if other, ok := seen[r]; ok {
			return fmt.Errorf("assent: resources %q and %q are the same; give it one name", name, other)
		}
		seen[r] = name
	}
	for name, d := range map[string]time.Duration{
		"Timeout": c.Timeout, "PrepareTimeout": c.PrepareTimeout, "FinishTimeout": c.FinishTimeout,
		"FinishWait": c.FinishWait, "Retry": c.Retry, "RetryMost": c.RetryMost,
		"ScanInterval": c.ScanInterval, "OrphanGrace": c.OrphanGrace,
	} {
		if d < 0 {
			return fmt.Errorf("assent: Config.%s is negative: %v", name, d)
		}
		if d > mostDuration {
			return fmt.Errorf("assent: Config.%s is %v; at most %v are allowed", name, d, mostDuration)
		}
	}
	return nil
}

// mostDuration bounds every time of a Config, so that doubled pauses do not overflow.
const mostDuration = 30 * 24 * time.Hour

func (c *Config) options() commit.Options {
	// A branch is given PrepareTimeout; its own error, which says more than silence, may take a
	// little longer to arrive.
	return commit.Options{Vote: c.PrepareTimeout + c.PrepareTimeout/4, Retry: c.Retry, RetryMost: c.RetryMost}
}
