package crashtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/decision/etcd"
	"assent/decision/postgres"
	"assent/internal/etcdcluster"
	"assent/internal/pgcluster/pgtest"
)

// sharedLog is a decision log that several coordinators use at the same time: in etcd, or in a database.
type sharedLog struct {
	Etcd []string // endpoints
	DSN  string
	Name string // the prefix of the keys, or the schema
}

func (l *sharedLog) open(logger *slog.Logger) (decision.Log, error) {
	if l.DSN != "" {
		return postgres.Open(context.Background(), l.DSN, postgres.Config{Schema: l.Name, CreateSchema: true, Logger: logger})
	}
	return etcd.Open(context.Background(), etcd.Config{Client: clientv3.Config{Endpoints: l.Etcd}, Prefix: l.Name, Logger: logger})
}

// TestCoordinatorOfASharedLogLostForGood kills a coordinator in the middle of a commit and removes its disk. The
// decisions are in etcd or in a database, and another coordinator finishes what it has begun: a node of the same
// cluster, which has seen it die, or one that knows nothing of it and waits for the grace to be over.
func TestCoordinatorOfASharedLogLostForGood(t *testing.T) {
	newSite(t) // starts the databases
	members, err := etcdcluster.New(t.Context(), etcdcluster.Options{InProcess: true, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(members.Close)
	inDatabase := pgtest.Database(t, shared.clusters["pg1"], fmt.Sprint("decisions", shared.sites.Add(1)), "")
	number := 0
	for _, c := range []struct {
		name    string
		log     sharedLog
		cluster bool
		kills   []string
	}{
		{"etcd, nodes", sharedLog{Etcd: members.Endpoints()}, true, []string{"coordinator: deliver Decided(commit)"}},
		{"etcd, strangers", sharedLog{Etcd: members.Endpoints()}, false, []string{"coordinator: emit Propose(commit)"}},
		{"postgres, strangers", sharedLog{DSN: inDatabase}, false, []string{"coordinator: emit Propose(commit)", "pg1 deliver BranchFinished(committed)"}},
	} {
		for _, point := range c.kills {
			number++
			log := c.log
			log.Name = fmt.Sprintf("log-%d", number)
			t.Run(c.name+" "+point, func(t *testing.T) {
				t.Parallel()
				b := newBand(t, "a", "b")
				for _, n := range b.nodes {
					n.setup.Shared = &log
					if !c.cluster {
						n.setup.Cluster, n.setup.OrphanGrace = nil, 5*time.Second // a busy machine may take a while to commit
					}
				}
				kill := arm{Point: point, Kill: true}
				if c.cluster {
					b.openAll(kill)
				} else {
					b.nodes[0].open(kill)
					b.nodes[1].open()
				}
				loseFirst(b, point)
			})
		}
	}
}

// loseFirst lets the first coordinator of two run into its death at the point, and the other finish.
func loseFirst(b *band, point string) {
	b.Helper()
	tr := b.between()
	if r := b.run(tr); r != nil {
		b.Fatalf("the coordinator was killed, and reported %+v", r)
	}
	if err := os.RemoveAll(b.setup.Dir); err != nil {
		b.Fatal(err)
	}
	gids, id := b.prepared(), ""
	if len(gids) > 0 {
		id = transactionOf(b, gids)
	}
	took := b.finished()
	left := b.nodes[1]
	decided := point == "coordinator: deliver Decided(commit)" || point == "pg1 deliver BranchFinished(committed)"
	if found := b.audit(id, left); found.happened(tr.ID) != decided {
		b.Errorf("killed at %q: happened %v; want %v", point, found.happened(tr.ID), decided)
	}
	left.mustReport(left.run(b.between()), committed, "", nil, false)
	b.audit("", left)
	b.Logf("finished %v after the kill", took)
}
