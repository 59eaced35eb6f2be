package main

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	assentv1 "assent/api/assent/v1"
	"assent/decision"
	"assent/decision/disk"
	"assent/protocol/commit"
)

// A log that is read without a server says of a branch only what is known: beside a heuristic outcome
// the others may be unfinished.
func TestOfflineBranches(t *testing.T) {
	ctx := t.Context()
	log, err := disk.Open(filepath.Join(t.TempDir(), "log"), disk.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	_, err = log.Decide(ctx, decision.Entry{ID: "t1", Decision: commit.Commit, By: "coordinator", Time: time.Now(),
		Branches: []decision.Branch{{Resource: "billing"}, {Resource: "orders"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &logReader{log}
	type branch struct {
		state   string
		outcome assentv1.BranchOutcome
	}
	const (
		none      = assentv1.BranchOutcome_BRANCH_OUTCOME_UNSPECIFIED
		committed = assentv1.BranchOutcome_BRANCH_OUTCOME_COMMITTED
		undone    = assentv1.BranchOutcome_BRANCH_OUTCOME_ROLLED_BACK
	)
	for _, step := range []struct {
		note  decision.Note
		state assentv1.State
		want  [2]branch
	}{
		{decision.Note{}, assentv1.State_STATE_COMMITTING, [2]branch{{"unknown", none}, {"unknown", none}}},
		{decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.RolledBack, By: "coordinator", Reason: "found so"},
			assentv1.State_STATE_HEURISTIC, [2]branch{{"unknown", none}, {"finished", undone}}},
		{decision.Note{Kind: decision.Finished}, assentv1.State_STATE_HEURISTIC, [2]branch{{"finished", committed}, {"finished", undone}}},
		{decision.Note{Kind: decision.Resolved, Branch: "orders", Outcome: commit.Committed, By: "ann", Reason: "done by hand"},
			assentv1.State_STATE_COMMITTED, [2]branch{{"finished", committed}, {"finished", committed}}},
	} {
		if step.note.Kind != 0 {
			step.note.Time = time.Now()
			if err := log.Annotate(ctx, "t1", step.note); err != nil {
				t.Fatal(err)
			}
		}
		got, err := r.Get(ctx, &assentv1.GetRequest{Id: "t1"})
		if err != nil {
			t.Fatal(err)
		}
		listed, err := r.List(ctx, &assentv1.ListRequest{})
		if err != nil || len(listed.GetTransactions()) != 1 {
			t.Fatal(listed, err)
		}
		for _, tx := range []*assentv1.Transaction{got.GetTransaction(), listed.GetTransactions()[0]} {
			if tx.GetState() != step.state {
				t.Errorf("after %v: %v; want %v", step.note.Kind, tx.GetState(), step.state)
			}
			for i, b := range tx.GetBranches() {
				if (branch{b.GetState(), b.GetOutcome()}) != step.want[i] {
					t.Errorf("after %v: branch %v; want %v", step.note.Kind, b, step.want[i])
				}
			}
		}
	}
}
