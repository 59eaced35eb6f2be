package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"assent/api"
	assentv1 "assent/api/assent/v1"
)

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes NAME.crt and NAME.key.
func (a *authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// TestTLS serves with certificates of a private authority, and asks callers for one.
func TestTLS(t *testing.T) {
	a, other := newAuthority(t, "ca"), newAuthority(t, "ca")
	a.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	a.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	other.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	address := servedWith(t, func(c *config) {
		c.TLS = &tlsConfig{CertFile: a.file("server.crt"), KeyFile: a.file("server.key"), ClientCAFile: a.file("ca.crt")}
	}, nil)
	if !strings.HasPrefix(address, "https://127.0.0.1:") {
		t.Fatalf("the server is at %s", address)
	}
	run := func(args ...string) int {
		var said strings.Builder
		p := &program{out: io.Discard, err: &said, getenv: func(string) string { return "" }}
		code := p.run(append([]string{"list", "--server", address}, args...))
		t.Logf("%v: %d %s", args, code, said.String())
		return code
	}
	trust := []string{"--ca-file", a.file("ca.crt")}
	if code := run(append(trust, "--cert-file", a.file("client.crt"), "--key-file", a.file("client.key"))...); code != exitOK {
		t.Errorf("with the right certificate: exit code %d", code)
	}
	if code := run(append(trust, "--cert-file", other.file("client.crt"), "--key-file", other.file("client.key"))...); code != exitError {
		t.Errorf("with a stranger's certificate: exit code %d", code)
	}
	if code := run(trust...); code != exitError {
		t.Errorf("without a certificate: exit code %d", code)
	}
	if code := run("--cert-file", a.file("client.crt"), "--key-file", a.file("client.key")); code != exitError {
		t.Errorf("without trust in the server: exit code %d", code)
	}
	if code := run("--ca-file", a.file("ca.key")); code != exitError {
		t.Errorf("with a key for a certificate: exit code %d", code)
	}
}

// TestTokenOverTLS is how other machines are served.
func TestTokenOverTLS(t *testing.T) {
	a := newAuthority(t, "ca")
	a.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	const secret = "0123456789-secret"
	address := servedWith(t, func(c *config) {
		c.TLS = &tlsConfig{CertFile: a.file("server.crt"), KeyFile: a.file("server.key")}
		c.Tokens = []tokenConfig{{Name: "ops", Env: "OPS", Roles: []api.Role{api.RoleAdmin}}}
		c.Listen = "0.0.0.0:0"
		if err := c.validateExposure(); err != nil {
			t.Errorf("tls and tokens do not suffice: %v", err)
		}
		c.Listen = "127.0.0.1:0"
	}, map[string]string{"OPS": secret})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	grpc := assentv1.NewOperatorServiceClient(&http.Client{Transport: transport}, address, connect.WithGRPC())
	if _, err := grpc.Status(t.Context(), &assentv1.StatusRequest{}); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("gRPC without a token: %v; want unauthenticated", err)
	}
	for token, want := range map[string]int{secret: exitOK, "": exitError, "wrong-0123456789": exitError} {
		p := &program{out: io.Discard, err: io.Discard, getenv: func(name string) string {
			return map[string]string{"ASSENT_TOKEN": token}[name]
		}}
		if code := p.run([]string{"doctor", "--server", address, "--ca-file", a.file("ca.crt")}); code != want {
			t.Errorf("token %q: exit code %d; want %d", token, code, want)
		}
	}
}

// TestLimitListener lets one caller in at a time.
func TestLimitListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitListener(inner, 1)
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("a second caller is let in: %v", err)
	default:
	}
	for range 2 { // a connection may be closed twice
		_ = first.Close()
	}
	if err := <-second; err != nil {
		t.Errorf("the second caller: %v", err)
	}
	if third, err := net.Dial("tcp", l.Addr().String()); err == nil {
		defer third.Close()
	}
	if _, err := l.Accept(); err != nil { // it takes the only place
		t.Fatal(err)
	}
	go func() { _, err := l.Accept(); second <- err }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-second; err == nil {
		t.Error("Accept goes on after Close")
	}
}
