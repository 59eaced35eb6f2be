package assent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// participant is the hands of one participant machine: it does to the branch what the machine
// says.
//
// The machine's stable record is the branch itself: what a resource has prepared is in its own
// stable storage, with all that Recover needs, before Prepare answers. So Force has nothing to
// write. See docs/decisions.
type participant struct {
	t      *transaction
	node   protocol.NodeID
	branch resource.Branch // nil where the work was done by another process
	loop   *engine.Loop
	unsure bool // a one-phase commit may have happened; for the goroutine at work alone

	mu       sync.Mutex
	evidence []byte             // what the vote gave, or the log or the resource told
	resource resource.Resource  // nil where no resource of that name is configured
	queue    []protocol.Value   // what the branch must do, one thing at a time
	working  bool               // a goroutine is at it
	calling  bool               // it is in a call of the branch
	cancel   context.CancelFunc // of a prepare that is under way
	doomed   bool               // it is rolled back whatever happens: a prepare is not worth waiting for
	promised bool               // it has voted yes, or may have committed alone
	done     bool
	state    string // for people
	outcome  commit.Outcome
	single   commit.Outcome // how a one-phase commit ended
	onePhase bool           // it was asked to commit in one phase
	left     bool           // another manager finishes it
	err      error          // the last error of the branch
	refusal  error          // why it voted no
}

func newParticipant(t *transaction, name string, r resource.Resource, evidence []byte) *participant {
	p := &participant{t: t, node: protocol.NodeID(name), resource: r, evidence: evidence, state: "working"}
	p.loop = engine.New(engine.Config{
		Scope: string(t.id), Node: p.node,
		Machine: commit.NewParticipant(t.id, coordinatorNode, t.m.cfg.options()),
		Hands:   p, Clock: t.m.cfg.Clock, Observer: t.m.cfg.Observer,
	})
	return p
}

// resume makes the machine anew from what its branch, being prepared, stands for.
func (p *participant) resume() {
	p.promise("prepared")
	p.loop.Deliver(protocol.Recover{Records: protocol.Records{commit.BranchKey: commit.PreparedRecord{
		ID: p.t.id, Coordinator: coordinatorNode, Evidence: p.proof(),
	}}})
}

// proof returns the evidence of the branch's vote, as far as it is known.
func (p *participant) proof() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.evidence
}

// Force has nothing to write; see participant.
func (p *participant) Force([]protocol.Write) error { return nil }

// Send gives a message to the coordinator. (Peers do not talk: they are one process.)
func (p *participant) Send(_ protocol.NodeID, message protocol.Message) {
	switch m := message.(type) {
	case commit.Acknowledge:
		p.finished(m.Outcome)
	case commit.Voted:
		switch m.Vote {
		case commit.Yes:
			p.promise("prepared")
		case commit.ReadOnly:
			p.finished(commit.Unfinished)
		}
	}
	p.t.loop.Deliver(protocol.Receive{From: p.node, Message: message})
	p.t.retireIfDone()
}

func (p *participant) finished(outcome commit.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.outcome, p.state = true, outcome, "finished"
	if outcome == commit.Unfinished {
		p.state = "read-only"
	}
}

// Emit has what the machine wants of its branch carried out, after what it wanted before.
func (p *participant) Emit(value protocol.Value) {
	if !p.enqueue(value) && !p.t.errands.take(p) {
		p.t.m.spawn(p.work)
	}
}

// enqueue queues a request and reports whether somebody is at work already.
func (p *participant) enqueue(value protocol.Value) (working bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch value.(type) {
	case commit.PrepareBranch:
		p.state = "preparing"
	case commit.CommitBranch, commit.CommitBranchOnePhase:
		p.state = "committing"
	case commit.RollbackBranch:
		p.state = "rolling back"
		p.doomed = true
		if p.cancel != nil {
			p.cancel()
		}
	}
	p.queue = append(p.queue, value)
	working, p.working = p.working, true
	return working
}

// work carries out what is queued.
func (p *participant) work() {
	for {
		next := p.next()
		if next == nil {
			return
		}
		input := p.do(next)
		p.returned()
		p.loop.Deliver(protocol.Input{Value: input})
	}
}

// next takes the next request from the queue; nil ends the work.
func (p *participant) next() protocol.Value {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.working = false
		return nil
	}
	next := p.queue[0]
	p.queue = p.queue[1:]
	p.calling = true
	return next
}

// hasMore reports whether there is another request; else the work ends.
func (p *participant) hasMore() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.working = len(p.queue) > 0
	return p.working
}

// returned notes that a call of the branch has returned.
func (p *participant) returned() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calling = false
}

// ask sends the branch its next request and returns what waits for the machine's next input. It returns
// nil where the branch cannot be asked so: a worker must do it.
func (p *participant) ask(c *calls) (answer func() protocol.Value) {
	s, ok := p.branch.(resource.Split)
	if !ok {
		return nil
	}
	p.mu.Lock()
	request := p.queue[0] // there is one, or nobody would ask
	p.mu.Unlock()
	switch request.(type) {
	case commit.PrepareBranch:
		answer = p.askToPrepare(s, c)
	case commit.CommitBranch:
		answer = p.askToCommit(s, c)
	}
	if answer != nil {
		p.next()
	}
	return answer
}

// do carries out one request and returns the machine's next input.
func (p *participant) do(request protocol.Value) protocol.Value {
	switch request.(type) {
	case commit.PrepareBranch:
		return p.prepare()
	case commit.CommitBranchOnePhase:
		return p.commitOnePhase()
	case commit.CommitBranch:
		return p.finish(p.commit)
	default:
		return p.finish(p.rollback)
	}
}

func (p *participant) prepare() protocol.Value {
	ctx, cancel := context.WithTimeout(p.t.m.life, p.t.m.cfg.PrepareTimeout)
	defer cancel()
	if p.preparing(cancel) {
		return commit.BranchPrepared{Vote: commit.No, Reason: "aborted before it was asked"}
	}
	return p.voted(p.branch.Prepare(ctx))
}

// askToPrepare is prepare in two parts.
func (p *participant) askToPrepare(s resource.Split, c *calls) func() protocol.Value {
	ctx := c.begin(p.t.m.life, p.t.m.cfg.PrepareTimeout)
	if !p.preparing(c.cancel) {
		if answer := s.StartPrepare(ctx); answer != nil {
			return func() protocol.Value {
				defer c.end()
				return p.voted(answer())
			}
		}
	}
	c.end()
	return nil
}

// preparing says how a rollback ends the prepare that begins. It reports whether there is one already.
func (p *participant) preparing(cancel context.CancelFunc) (doomed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel = cancel
	return p.doomed
}

// voted makes of a branch's answer to prepare the machine's next input.
func (p *participant) voted(v resource.Vote, err error) protocol.Value {
	p.mu.Lock()
	p.cancel = nil
	if err == nil && len(v.Evidence) <= resource.MaxEvidence {
		p.evidence = v.Evidence
	}
	p.mu.Unlock()
	switch {
	case err != nil:
	case v.Vote == commit.NoVote || v.Vote > commit.ReadOnly:
		err = fmt.Errorf("prepare returned the vote %v", v.Vote)
	case len(v.Evidence) > resource.MaxEvidence:
		err = fmt.Errorf("the evidence has %d bytes; at most %d are allowed", len(v.Evidence), resource.MaxEvidence)
	default:
		return commit.BranchPrepared{Vote: v.Vote, Evidence: v.Evidence}
	}
	p.setError(err)
	p.mu.Lock()
	p.refusal = err
	p.mu.Unlock()
	return commit.BranchPrepared{Vote: commit.No, Reason: bounded(err.Error())}
}

// commitOnePhase asks the branch to commit alone. Where the branch cannot say how that ended,
// because its resource is down say, it is asked again until it can: to roll back, which tells what
// became of it and leaves nothing of it open.
func (p *participant) commitOnePhase() protocol.Value {
	if p.unsure {
		return p.finish(p.rollback)
	}
	p.promise("committing")
	p.mu.Lock()
	p.onePhase = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.t.m.life, p.t.m.cfg.PrepareTimeout)
	defer cancel()
	outcome, err := p.branch.(resource.OnePhase).CommitOnePhase(ctx)
	if err != nil {
		p.setError(err)
	}
	sure := outcome == commit.Committed || outcome == commit.RolledBack
	if sure {
		p.mu.Lock()
		p.single = outcome
		p.mu.Unlock()
	}
	switch {
	case sure:
		return commit.BranchFinished{Outcome: outcome}
	case err == nil:
		return commit.BranchFinished{Outcome: commit.Hazard}
	}
	if p.t.m.life.Err() == nil {
		p.t.m.cfg.Logger.Warn("branch has not said whether it is committed; asking", "transaction", p.t.id, "resource", p.node, "error", err)
	}
	p.unsure = true
	close(p.t.unsure) // it has no other participant
	return commit.BranchFailed{}
}

// finish makes one attempt to finish the branch. Attempts of recovery take turns, so that a
// resource that comes back is not trampled.
func (p *participant) finish(attempt func(context.Context) (commit.Outcome, error)) protocol.Value {
	if s := p.t.m.scans[string(p.node)]; s != nil && p.branch == nil {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-p.t.m.life.Done():
			return commit.BranchFailed{}
		}
	}
	ctx, cancel := context.WithTimeout(p.t.m.life, p.t.m.cfg.FinishTimeout)
	defer cancel()
	return p.tried(attempt(ctx))
}

// askToCommit is finish, for commit, in two parts.
func (p *participant) askToCommit(s resource.Split, c *calls) func() protocol.Value {
	answer := s.StartCommit(c.begin(p.t.m.life, p.t.m.cfg.FinishTimeout))
	if answer == nil {
		c.end()
		return nil
	}
	return func() protocol.Value {
		defer c.end()
		return p.tried(answer())
	}
}

// tried makes of the result of an attempt to finish the branch the machine's next input.
func (p *participant) tried(outcome commit.Outcome, err error) protocol.Value {
	if err == nil && outcome == commit.Unfinished {
		err = errors.New("the resource gave no outcome")
	}
	if err == nil {
		return commit.BranchFinished{Outcome: outcome}
	}
	if p.isElsewhere() {
		p.t.leave(p)
		return commit.BranchFailed{}
	}
	if p.setError(err) && p.t.m.life.Err() == nil {
		p.t.m.cfg.Logger.Warn("branch cannot be finished yet; trying again", "transaction", p.t.id, "resource", p.node, "error", err)
	}
	return commit.BranchFailed{}
}

// found says which resource holds the branch, where none of its name is configured.
func (p *participant) found(r resource.Resource) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.resource == nil {
		p.resource = r
	}
}

// holder returns the resource that holds the branch, or nil.
func (p *participant) holder() resource.Resource {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resource
}

// isElsewhere reports whether the branch is another manager's to finish.
func (p *participant) isElsewhere() bool {
	return p.branch == nil && p.holder() == nil && p.t.m.elsewhere(string(p.node))
}

func (p *participant) commit(ctx context.Context) (commit.Outcome, error) {
	if p.branch != nil {
		return p.branch.Commit(ctx)
	}
	if r := p.holder(); r != nil {
		return r.Commit(ctx, p.prepared())
	}
	return 0, p.notConfigured()
}

func (p *participant) rollback(ctx context.Context) (commit.Outcome, error) {
	if p.branch != nil {
		return p.branch.Rollback(ctx)
	}
	if r := p.holder(); r != nil {
		return r.Rollback(ctx, p.prepared())
	}
	return 0, p.notConfigured()
}

func (p *participant) prepared() resource.Prepared {
	return resource.Prepared{ID: p.t.m.branchID(p.t.id, string(p.node)), Evidence: p.proof()}
}

func (p *participant) notConfigured() error {
	return &resource.Error{Code: resource.Unavailable, Op: "finish",
		Detail: fmt.Sprintf("no resource is named %q", p.node),
		Hint:   "configure the resource again under this name, or resolve the branch by hand"}
}

// promisesNothing reports whether to roll the branch back cannot be wrong: it is unfinished, and
// has made no promise or is to be rolled back anyway.
func (p *participant) promisesNothing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.done && (p.doomed || !p.promised)
}

// inCall reports whether a call of the branch has not returned.
func (p *participant) inCall() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calling
}

// alone reports whether the branch was asked to commit in one phase, and how that ended where it is
// known.
func (p *participant) alone() (asked bool, outcome commit.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.onePhase, p.single
}

// promise notes that the branch must not be rolled back any more unless the decision says so.
func (p *participant) promise(state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised, p.state = true, state
}

// setError remembers err and reports whether it is the first.
func (p *participant) setError(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.err == nil
	p.err = err
	return first
}

func (p *participant) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// whyNot returns why the branch voted no, or else its last error.
func (p *participant) whyNot() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusal != nil {
		return p.refusal
	}
	return p.err
}

// settled reports whether this manager has nothing left to do with the branch.
func (p *participant) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done || p.left
}

func (p *participant) isDone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// bounded makes of a text what the log takes as a reason: not too long, and UTF-8.
func bounded(text string) string {
	const most = 512
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
