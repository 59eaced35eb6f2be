// Package decisiontest is the conformance suite of decision logs.
//
// The package promises that a log which passes Run is a write-once register with the housekeeping
// of decision.Log: the first decision stands, everybody is told the same, concurrent histories are
// linearizable, and, where the storage can be closed or crashed, whatever was told is found again.
// It does not measure speed and does not damage storage; a log's own tests do that.
package decisiontest

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"assent/decision"
	"assent/protocol/commit"
)

// Harness says how the tests make and break the logs under test. New is required; a test that
// needs one of the others is skipped where it is nil.
type Harness struct {
	// New makes a log that holds nothing, and closes it when t ends.
	New func(t *testing.T) decision.Log
	// Reopen closes log in good order and opens its storage again. The old log answers
	// decision.ErrClosed from then on.
	Reopen func(t *testing.T, log decision.Log) decision.Log
	// Crash ends log as a crash of its machine would, at whatever it is doing, and opens what is
	// left of its storage. Calls under way on the old log may fail, but must end.
	Crash func(t *testing.T, log decision.Log) decision.Log
	// Another opens the storage of log a second time, as another process would, where several
	// may use it at the same time.
	Another func(t *testing.T, log decision.Log) decision.Log
}

// Run tests the logs of h.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"FirstStands", firstStands},
		{"AbortStands", abortStands},
		{"EntryIsKeptWhole", entryIsKeptWhole},
		{"LookupBeforeAndAfter", lookupBeforeAndAfter},
		{"PrefixesAreDifferentIDs", prefixes},
		{"InvalidIsRefused", invalidIsRefused},
		{"LimitsAreAccepted", limitsAreAccepted},
		{"CancelledContext", cancelledContext},
		{"Statuses", statuses},
		{"AnnotateWithoutEntry", annotateWithoutEntry},
		{"NotesEnd", notesEnd},
		{"ListInOrder", listInOrder},
		{"ListStops", listStops},
		{"ListWhileChanging", listWhileChanging},
		{"Forget", forget},
		{"Owner", owner},
		{"Race", race},
		{"RaceOfTwoProcesses", raceOfTwo},
		{"ConcurrentNotes", concurrentNotes},
		{"Linearizable", linearizable},
		{"Reopen", reopen},
		{"Closed", closed},
		{"CrashKeepsWhatWasTold", crashKeeps},
		{"CrashUnderLoad", crashUnderLoad},
		{"CrashKeepsForcedNotes", crashKeepsNotes},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			c.test(&suite{T: t, h: h, ctx: ctx, log: h.New(t)})
		})
	}
}

// suite is one test with its log.
type suite struct {
	*testing.T
	h   Harness
	ctx context.Context
	log decision.Log
}

// entry returns a proposal for the transaction id.
func entry(id string, d commit.Decision) decision.Entry {
	return decision.Entry{
		ID: commit.TransactionID(id), Decision: d, By: "coordinator",
		Time:     time.Date(2024, 2, 29, 23, 59, 59, 123456789, time.UTC),
		Branches: []decision.Branch{{Resource: "orders", Evidence: []byte("4711")}, {Resource: "stock"}},
	}
}

func name(prefix string, i int) string { return fmt.Sprintf("%s-%05d", prefix, i) }

// decide proposes e, which must succeed, and returns what stands.
func (s *suite) decide(e decision.Entry) decision.Entry {
	s.Helper()
	stands, err := s.log.Decide(s.ctx, e)
	if err != nil {
		s.Fatalf("decide %q: %v", e.ID, err)
	}
	return stands
}

func (s *suite) annotate(id string, n decision.Note) {
	s.Helper()
	if err := s.log.Annotate(s.ctx, commit.TransactionID(id), n); err != nil {
		s.Fatalf("annotate %q: %v", id, err)
	}
}

func (s *suite) lookup(id string) decision.Entry {
	s.Helper()
	e, err := s.log.Lookup(s.ctx, commit.TransactionID(id))
	if err != nil {
		s.Fatalf("look up %q: %v", id, err)
	}
	return e
}

// list returns the ids of the entries of a status.
func (s *suite) list(status decision.Status) []string {
	s.Helper()
	ids := []string{}
	for e, err := range s.log.List(s.ctx, status) {
		if err != nil {
			s.Fatalf("list %v: %v", status, err)
		}
		if status != 0 && e.Status() != status {
			s.Errorf("list %v: %q is %v", status, e.ID, e.Status())
		}
		ids = append(ids, string(e.ID))
	}
	return ids
}

// lists checks which entries have which status; all is their order of decision.
func (s *suite) lists(unfinished, damaged, done, all []string) {
	s.Helper()
	for status, want := range map[decision.Status][]string{
		decision.Unfinished: unfinished, decision.Damaged: damaged, decision.Done: done, 0: all,
	} {
		if diff := cmp.Diff(want, s.list(status), cmpopts.EquateEmpty()); diff != "" {
			s.Errorf("list %v (-want +got):\n%s", status, diff)
		}
	}
}

// same compares entries; an empty list is as good as none.
func (s *suite) same(what string, want, got decision.Entry) {
	s.Helper()
	branches := cmp.Comparer(func(a, b decision.Branch) bool {
		return a.Resource == b.Resource && bytes.Equal(a.Evidence, b.Evidence)
	})
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), branches); diff != "" {
		s.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
