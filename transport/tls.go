package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"assent/protocol"
)

// checkTLS checks what of a configuration can be checked before anybody calls.
func checkTLS(c *tls.Config, self protocol.NodeID) error {
	if c.RootCAs == nil || c.ClientCAs == nil {
		return errors.New("transport: Config.TLS needs RootCAs and ClientCAs: the authorities of the nodes' certificates")
	}
	if len(c.Certificates) == 0 {
		if c.GetCertificate == nil || c.GetClientCertificate == nil {
			return errors.New("transport: Config.TLS has no certificate")
		}
		return nil
	}
	leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		return fmt.Errorf("transport: read this node's certificate: %w", err)
	}
	if err := belongs(leaf, self); err != nil {
		return fmt.Errorf("transport: this node's own certificate: %w", err)
	}
	return nil
}

// belongs returns why the certificate is not that of the node.
func belongs(c *x509.Certificate, node protocol.NodeID) error {
	name := c.Subject.CommonName
	if name == "" && len(c.DNSNames) > 0 {
		name = c.DNSNames[0]
	}
	switch {
	case name != string(node):
		return fmt.Errorf("it is for %q and not for node %s", name, node)
	case !slices.Contains(c.DNSNames, string(node)):
		return fmt.Errorf("its DNS names (%s) lack the node's name %s", strings.Join(c.DNSNames, ", "), node)
	case !goodFor(c, x509.ExtKeyUsageServerAuth) || !goodFor(c, x509.ExtKeyUsageClientAuth):
		return errors.New("it is not a node's: a node's certificate is good for servers and for clients")
	}
	return nil
}

func goodFor(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	return slices.Contains(c.ExtKeyUsage, usage) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// calling returns the configuration for a connection to the node.
func calling(c *tls.Config, node protocol.NodeID) *tls.Config {
	c = c.Clone()
	c.ServerName = string(node)
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	c.InsecureSkipVerify = false
	c.VerifyConnection = func(s tls.ConnectionState) error { return belongs(s.PeerCertificates[0], node) }
	return c
}

// called returns the configuration for connections that come in.
func called(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	return c
}

// hintOfTLS says in words what the error of a handshake mostly means.
func hintOfTLS(err error) error {
	var header tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &header):
		return fmt.Errorf("the other side speaks no TLS, and this node asks for it: %w", err)
	case errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls's word for an alert
		return fmt.Errorf("the other side does not accept this node's certificate: %w", err)
	}
	return err
}
