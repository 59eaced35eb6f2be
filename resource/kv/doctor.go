package kv

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"assent/resource"
)

// What the doctor warns of.
const (
	lowSpace   = 1 << 30     // bytes that are left
	longDoubt  = time.Hour   // for which a branch has been prepared
	slowForce  = time.Second // that one forced write takes
	loosePerms = 0o077       // bits of others on the directory
	fullShare  = 0.8         // of MaxBranches that is in use
)

// Doctor examines the store: whether the disk can be forced and how long it takes, the space that
// is left, who may enter the directory, how many branches are prepared or unfinished and for how
// long, and how many outcomes are on record. It writes an empty record to the log.
func (r *Resource) Doctor(ctx context.Context) ([]resource.Finding, error) {
	const op = "doctor"
	if err := r.engine.enter(); err != nil {
		return nil, unavailable(op, err)
	}
	defer r.engine.leave()
	list, err := r.Recover(ctx)
	if err != nil {
		return nil, err
	}
	return []resource.Finding{
		r.examineForce(), r.examineSpace(), r.examineDirectory(), r.examineDoubt(list),
		r.examineBranches(), r.examineOutcomes(),
	}, nil
}

func finding(check string, good bool, bad resource.Severity, detail, hint string) resource.Finding {
	if good {
		return resource.Finding{Check: check, Severity: resource.OK, Detail: detail}
	}
	return resource.Finding{Check: check, Severity: bad, Detail: detail, Hint: hint}
}

func (r *Resource) examineForce() resource.Finding {
	const check = "forced writes"
	began := time.Now() // a duration of this machine, whatever Config.Clock says
	if err := r.engine.logEmpty(); err != nil {
		return finding(check, false, resource.Failure, err.Error(), hintStopped)
	}
	took := time.Since(began)
	return finding(check, took < slowForce, resource.Warning, fmt.Sprintf("one took %v", took.Round(time.Microsecond)),
		"the disk is slow or busy; every vote and every commit waits for it")
}

func (r *Resource) examineSpace() resource.Finding {
	const check = "free space"
	usage, err := r.cfg.FS.GetDiskUsage(r.dir)
	if err != nil {
		return finding(check, false, resource.Warning, fmt.Sprintf("not known: %v", err), "look at the disk yourself")
	}
	return finding(check, usage.AvailBytes >= lowSpace, resource.Warning,
		fmt.Sprintf("%d MiB of %d MiB are left", usage.AvailBytes>>20, usage.TotalBytes>>20),
		"make room: a store that cannot write stops")
}

func (r *Resource) examineDirectory() resource.Finding {
	const check = "directory"
	info, err := r.cfg.FS.Stat(r.dir)
	if err != nil {
		return finding(check, false, resource.Failure, err.Error(), "somebody moved or removed the directory of an open store")
	}
	mode := info.Mode().Perm()
	return finding(check, mode&loosePerms == 0, resource.Warning, fmt.Sprintf("the mode of %s is %#o", r.dir, mode),
		"take the rights of others away: chmod 700")
}

func (r *Resource) examineDoubt(list []resource.Prepared) resource.Finding {
	var oldest time.Duration
	for _, p := range list {
		oldest = max(oldest, p.Age)
	}
	detail := fmt.Sprintf("%d branches are prepared", len(list))
	if len(list) > 0 {
		detail += fmt.Sprintf(", the oldest for %v", oldest.Round(time.Millisecond))
	}
	return finding("prepared branches", oldest < longDoubt, resource.Warning, detail,
		"a branch that stays prepared blocks its keys; see to its coordinator")
}

func (r *Resource) examineBranches() resource.Finding {
	r.mu.Lock()
	n := len(r.branches)
	r.mu.Unlock()
	return finding("unfinished branches", float64(n) < fullShare*float64(r.cfg.MaxBranches), resource.Warning,
		fmt.Sprintf("%d of at most %d", n, r.cfg.MaxBranches), "finish what is in doubt, or raise MaxBranches")
}

func (r *Resource) examineOutcomes() resource.Finding {
	n := r.outcomes.last.Load() - r.outcomes.pruned.Load()
	return finding("outcomes on record", true, 0, fmt.Sprintf("about %d of at most %d, for %v",
		n, r.cfg.KeepOutcomes, r.cfg.KeepFor), "")
}

// logEmpty forces an empty record to the log.
func (e *engine) logEmpty() error {
	if err := e.failure(); err != nil {
		return err
	}
	if err := e.db.LogData(nil, pebble.Sync); err != nil {
		e.fail(err)
	}
	return e.failure()
}
