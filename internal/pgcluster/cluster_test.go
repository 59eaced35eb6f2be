package pgcluster_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
)

// A prepared transaction survives every way of stopping the server.
func TestPreparedSurvivesStops(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := pgtest.Start(t, pgcluster.Options{TCP: true})
	pgtest.Database(t, c, "shop", "CREATE TABLE t (n int)")
	if err := c.Exec(ctx, "shop", "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'a'"); err != nil {
		t.Fatal(err)
	}
	stops := map[string]func(){
		"fast":      func() { _ = c.Stop(pgcluster.Fast) },
		"immediate": func() { _ = c.Stop(pgcluster.Immediate) },
		"kill":      c.Kill,
	}
	for name, stop := range stops {
		stop()
		if err := c.Exec(ctx, "shop", "SELECT 1"); err == nil {
			t.Fatalf("after %s: the server still answers", name)
		}
		if err := c.Start(ctx); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
		if n := count(t, c, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'a'"); n != 1 {
			t.Fatalf("after %s: %d prepared transactions, want 1", name, n)
		}
	}
}

func count(t *testing.T, c *pgcluster.Cluster, sql string) (n int) {
	t.Helper()
	conn, err := c.Conn(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStopRefusesAnUnknownMode(t *testing.T) {
	var c pgcluster.Cluster
	if err := c.Stop("soon"); err == nil || !strings.Contains(err.Error(), "soon") {
		t.Fatalf("got %v", err)
	}
}

// When the process that made a cluster is killed, the server goes and its files too.
func TestClusterDiesWithItsMaker(t *testing.T) {
	const role = "ASSENT_PGCLUSTER_ROLE"
	if os.Getenv(role) == "maker" {
		c := pgtest.Start(t, pgcluster.Options{})
		_, address := c.Addr()
		os.Stdout.WriteString("\nsocket " + address + "\n")
		select {} // until killed
	}
	pgtest.Start(t, pgcluster.Options{}) // skips the test where PostgreSQL is missing
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestClusterDiesWithItsMaker$")
	cmd.Env = append(os.Environ(), role+"=maker")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	socket := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if after, ok := strings.CutPrefix(lines.Text(), "socket "); ok {
			socket = after
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if socket == "" {
		t.Fatal("the maker did not say where its server listens")
	}
	dir := socket[:strings.LastIndexByte(socket, '/')]
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", dir)
		}
		time.Sleep(20 * time.Millisecond) // polling another process
	}
}
