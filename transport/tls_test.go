package transport_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"assent/transport"
)

// authority issues certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{t: t}
	c := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) issue(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

var both = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// node returns the configuration of the node of that name.
func (a *authority) node(name string) *tls.Config {
	return a.config(a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"}, ExtKeyUsage: both}))
}

func (a *authority) config(c tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{c}, RootCAs: pool, ClientCAs: pool}
}

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t, "ours")
	l := newLAN(t, "a", "b")
	cfg := l.config("a")
	cfg.TLS = ca.node("a")
	a := l.listen(cfg)
	cfg = l.config("b")
	cfg.TLS = ca.node("b")
	b := l.listen(cfg)
	in := newInbox(b.Channel(1))
	awaitConnected(t, a, b)
	var want []string
	for i := range 1000 {
		text := fmt.Sprintf("%d %s", i, strings.Repeat("y", 3000))
		want = append(want, "a: "+text)
		a.Channel(1).Send("b", []byte(text))
	}
	in.await(t, want...)
}

// Whoever cannot prove to be the node that it says is refused, and both sides say why.
func TestTLSRefusals(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	as := func(name string) *tls.Config { return ours.node(name) }
	for name, c := range map[string]struct {
		of          func(*transport.Config) // b's configuration
		here, there string                  // what a's and b's logs say
	}{
		"another authority": {
			func(c *transport.Config) {
				c.TLS = theirs.node("b")
				c.TLS.RootCAs = ours.node("b").RootCAs // b trusts a, and a does not trust b
			},
			"certificate signed by unknown authority", "does not accept this node's certificate"},
		"no trust in ours": {
			func(c *transport.Config) { c.TLS = theirs.node("b") },
			"does not accept this node's certificate", "certificate signed by unknown authority"},
		"another node's certificate": {
			func(c *transport.Config) { c.Self, c.TLS = "x", as("x") }, // at b's address
			"node x is not among the peers", "it refuses this node"},
		"no TLS": {
			func(c *transport.Config) { c.TLS = nil },
			"speaks no TLS", "the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t, "a", "b")
			cfg := l.config("a")
			cfg.TLS = ours.node("a")
			a := l.listen(cfg)
			cfg = l.config("b")
			c.of(&cfg)
			b := l.listen(cfg)
			if name == "no TLS" {
				c.there = "EOF"
			}
			eventually(t, "a says "+c.here, func() bool { return strings.Contains(l.logs["a"].String(), c.here) })
			eventually(t, "b says "+c.there, func() bool { return strings.Contains(l.logs["b"].String(), c.there) })
			if statusOf(a, "b").Connected || statusOf(b, "a").Connected {
				t.Error("connected")
			}
		})
	}
}

// A certificate is for one node, and for a node.
func TestCertificatesOfOthers(t *testing.T) {
	ca := newAuthority(t, "ours")
	cert := func(name string, usage []x509.ExtKeyUsage, dns ...string) *tls.Config {
		return ca.config(ca.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: dns, ExtKeyUsage: usage}))
	}
	for want, c := range map[string]*tls.Config{
		`it is for "c" and not for node b`: cert("c", both, "c", "b"),
		"lack the node's name b":           cert("b", both, "localhost"),
		"it is not a node's":               cert("b", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, "b"),
	} {
		l := newLAN(t, "a", "b")
		cfg := l.config("a")
		cfg.TLS = ca.node("a")
		a := l.listen(cfg)
		// b does not check itself where its certificate comes from a function.
		own := c.Certificates[0]
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &own, nil }
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		c.Certificates = nil
		cfg = l.config("b")
		cfg.TLS = c
		b := l.listen(cfg)
		eventually(t, "a says "+want, func() bool {
			return strings.Contains(l.logs["a"].String(), strings.ReplaceAll(want, `"`, `\"`))
		})
		if s := statusOf(a, "b"); s.Connected || s.Hears {
			t.Errorf("%s: %+v", want, s)
		}
		if s := statusOf(b, "a"); s.Connected {
			t.Errorf("%s: %+v", want, s)
		}
	}
	// A certificate without a common name is the first DNS name's.
	l := newLAN(t, "a", "b")
	cfg := l.config("a")
	cfg.TLS = cert("", both, "a", "elsewhere")
	a := l.listen(cfg)
	cfg = l.config("b")
	cfg.TLS = ca.node("b")
	awaitConnected(t, a, l.listen(cfg))
}

func TestOwnCertificateIsChecked(t *testing.T) {
	ca := newAuthority(t, "ours")
	for want, c := range map[string]*tls.Config{
		"needs RootCAs and ClientCAs": {Certificates: ca.node("a").Certificates},
		`it is for "b"`:               ca.node("b"),
		"has no certificate":          {RootCAs: ca.node("a").RootCAs, ClientCAs: ca.node("a").ClientCAs},
		"read this node's certificate": {RootCAs: ca.node("a").RootCAs, ClientCAs: ca.node("a").ClientCAs,
			Certificates: []tls.Certificate{{Certificate: [][]byte{{1}}}}},
	} {
		if _, err := transport.Listen(transport.Config{Cluster: "c", Self: "a", Address: "127.0.0.1:0", TLS: c}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
