package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"assent/internal/etcdcluster"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
)

// TestSharedLogScripts has a real PostgreSQL with the databases orders, billing and log, and an etcd of one
// member, at which etcd.yaml points. Both sides of etcd show certificates.
func TestSharedLogScripts(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{})
	certs := filepath.Join(t.TempDir(), "certs")
	p := &program{out: io.Discard, err: io.Discard, getenv: func(string) string { return "" }}
	for _, args := range [][]string{{"init", certs}, {"node", certs, "etcd", "--host", "127.0.0.1"}, {"client", certs, "assent"}} {
		if code := p.run(append([]string{"certs"}, args...)); code != exitOK {
			t.Fatalf("assent certs %v: exit code %d", args, code)
		}
	}
	file := func(name string) string { return filepath.Join(certs, name) }
	member, err := etcdcluster.New(t.Context(), etcdcluster.Options{Members: 1, InProcess: true, Dir: t.TempDir(),
		CertFile: file("etcd.crt"), KeyFile: file("etcd.key"), CAFile: file("ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(member.Close)
	testscript.Run(t, scripts("testdata/shared", func(env *testscript.Env) error {
		for _, name := range []string{"orders", "billing", "log"} {
			dsn, err := cluster.CreateDatabase(context.Background(), name)
			if err == nil && name != "log" {
				err = cluster.Exec(context.Background(), name, "CREATE TABLE t (i int PRIMARY KEY)")
			}
			if err != nil {
				return err
			}
			env.Setenv(strings.ToUpper(name)+"_DSN", dsn)
		}
		text := fmt.Sprintf(`listen: 127.0.0.1:0
log:
  backend: etcd
  orphan_grace: 2s
  etcd: {endpoints: ["%s"], tls: {ca_file: %q, cert_file: %q, key_file: %q}}
resources: {orders: {type: postgres, dsn_env: ORDERS_DSN}, billing: {type: postgres, dsn_env: BILLING_DSN}}
`, member.Endpoints()[0], file("ca.crt"), file("assent.crt"), file("assent.key"))
		return os.WriteFile(filepath.Join(env.WorkDir, "etcd.yaml"), []byte(text), 0o600)
	}))
}
