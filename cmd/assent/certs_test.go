package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"assent/protocol"
	"assent/transport"
)

// certificates makes an authority, the nodes and the clients in a new directory.
func certificates(t *testing.T, nodes, clients []string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	p := &program{out: io.Discard, err: os.Stderr, getenv: func(string) string { return "" }}
	run := func(args ...string) {
		t.Helper()
		if code := p.run(append([]string{"certs"}, args...)); code != 0 {
			t.Fatalf("assent certs %q: exit code %d", args, code)
		}
	}
	run("init", dir)
	for _, n := range nodes {
		run("node", dir, n)
	}
	for _, c := range clients {
		run("client", dir, c)
	}
	return dir
}

func TestCertificatesAreKeptSafe(t *testing.T) {
	dir := certificates(t, []string{"a"}, []string{"alice"})
	for name, want := range map[string]os.FileMode{"": 0o700, "ca.key": 0o600, "a.key": 0o600, "alice.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
}

// The certificates are those that nodes take from each other, and a client's is not.
func TestCertificatesConnectNodes(t *testing.T) {
	dir := certificates(t, []string{"a", "b"}, []string{"c"})
	config := func(name string) *tls.Config {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool}
	}
	listen := func(name string, peers map[protocol.NodeID]string) *transport.Mesh {
		m, err := transport.Listen(transport.Config{Cluster: "test", Self: protocol.NodeID(name), Address: "127.0.0.1:0",
			TLS: config(name), Peers: peers, Retry: 5 * time.Millisecond, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	a := listen("a", nil)
	b := listen("b", map[protocol.NodeID]string{"a": a.Address()})
	if err := a.SetPeers(map[protocol.NodeID]string{"b": b.Address()}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !a.Status()[0].Connected || !b.Status()[0].Connected; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v, %+v", a.Status(), b.Status())
		}
	}
	if _, err := transport.Listen(transport.Config{Cluster: "test", Self: "c", Address: "127.0.0.1:0", TLS: config("c")}); err == nil {
		t.Error("a client's certificate makes a node")
	}
}
