package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"assent/transport"
)

const (
	authorityName  = "ca"
	authorityYears = 10
	certificateAge = 365 * 24 * time.Hour
	// clockSkew is how far another machine's clock may be behind.
	clockSkew = 5 * time.Minute
)

func (p *program) certsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "make the certificates of a cluster",
		Long: `Make the certificates of a cluster: an authority of its own, a certificate for each node, and
certificates for clients.

They are for trying out and for clusters that have no authority yet. Whoever has ca.key can make nodes:
keep it away from the nodes. A node needs ca.crt and its own two files. Nothing is ever overwritten.`,
		Example: `  assent certs init certs
  assent certs node certs a --host 10.0.0.1 --host a.example.net
  assent certs client certs alice`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.certsInitCommand(), p.certsNodeCommand(), p.certsClientCommand())
	return cmd
}

func (p *program) certsInitCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "init DIR",
		Short:   "make the authority: ca.crt and ca.key in DIR",
		Example: "  assent certs init certs",
		Args:    exactlyOne("directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := args[0]
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fail("", "cannot make the directory: %v", err)
			}
			c := template(name, authorityYears*365*24*time.Hour)
			c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero = true, true, true
			c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
			if err := issue(dir, authorityName, c, nil, nil); err != nil {
				return err
			}
			return p.made(dir, authorityName, c, "the authority; next: assent certs node "+dir+" NAME --host ADDRESS")
		},
	}
	cmd.Flags().StringVar(&name, "name", "assent development authority", "the authority's `name`")
	return cmd
}

func (p *program) certsNodeCommand() *cobra.Command {
	var hosts []string
	age := certificateAge
	cmd := &cobra.Command{
		Use:   "node DIR NAME",
		Short: "make the certificate of a node: NAME.crt and NAME.key in DIR",
		Long: `Make the certificate of the node NAME, which is its name in the cluster, too: NAME.crt and NAME.key.

--host adds the names and addresses by which clients call it. Without any it is good for this machine
alone: localhost, 127.0.0.1 and ::1. Other nodes go by its name and need none.`,
		Example: `  assent certs node certs a
  assent certs node certs b --host 10.0.0.2 --host b.example.net`,
		Args: directoryAndName("node"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, name := args[0], args[1]
			c := template(name, age)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			c.DNSNames = []string{name}
			if len(hosts) == 0 {
				hosts = []string{"localhost", "127.0.0.1", "::1"}
			}
			for _, h := range hosts {
				switch ip := net.ParseIP(h); {
				case ip != nil:
					c.IPAddresses = append(c.IPAddresses, ip)
				case h == "" || strings.ContainsAny(h, ":/ *"):
					return misuse("give a name or an IP address, without a port; one --host for each", "--host %q is neither a name nor an address", h)
				default:
					c.DNSNames = append(c.DNSNames, h)
				}
			}
			if err := issueFrom(dir, name, c); err != nil {
				return err
			}
			return p.made(dir, name, c, "node "+name+", for "+strings.Join(hosts, ", "))
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "a `name or address` by which clients call the node; may be given several times")
	cmd.Flags().DurationVar(&age, "valid", age, "for how `long` it is good")
	return cmd
}

func (p *program) certsClientCommand() *cobra.Command {
	age := certificateAge
	cmd := &cobra.Command{
		Use:   "client DIR NAME",
		Short: "make the certificate of a client: NAME.crt and NAME.key in DIR",
		Long: `Make the certificate of a client: NAME.crt and NAME.key, for --cert-file and --key-file. A node takes it
from callers of its API where tls.client_ca_file is ca.crt, and never for a node's.`,
		Example: `  assent certs client certs alice
  assent list --server https://127.0.0.1:7420 --ca-file certs/ca.crt --cert-file certs/alice.crt --key-file certs/alice.key`,
		Args: directoryAndName("client"),
		RunE: func(_ *cobra.Command, args []string) error {
			c := template(args[1], age)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			if err := issueFrom(args[0], args[1], c); err != nil {
				return err
			}
			return p.made(args[0], args[1], c, "client "+args[1])
		},
	}
	cmd.Flags().DurationVar(&age, "valid", age, "for how `long` it is good")
	return cmd
}

// directoryAndName asks for the two arguments of a command that makes a certificate.
func directoryAndName(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := cmd.CommandPath() + " --help shows examples"
		if len(args) != 2 || args[0] == "" {
			return misuse(hint, "give a directory and the %s's name; there are %d arguments", what, len(args))
		}
		if err := transport.CheckName(args[1]); err != nil {
			return misuse(hint, "the %s's name: %v", what, err)
		}
		if args[1] == authorityName {
			return misuse("choose another name", "the %s's name: %q is the authority's", what, authorityName)
		}
		return nil
	}
}

// made says what was made.
func (p *program) made(dir, name string, c *x509.Certificate, what string) error {
	_, err := fmt.Fprintf(p.out, "made %s and %s: %s\ngood until %s\n", filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"),
		what, c.NotAfter.UTC().Format(time.DateOnly))
	return err
}

// template is what all certificates have in common.
func template(name string, age time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-clockSkew), NotAfter: time.Now().Add(age),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// issueFrom makes a certificate with the authority in dir.
func issueFrom(dir, name string, c *x509.Certificate) error {
	hint := "make the authority first: assent certs init " + dir
	certPath, keyPath := filepath.Join(dir, authorityName+".crt"), filepath.Join(dir, authorityName+".key")
	der, err := readPEM(certPath, "CERTIFICATE")
	if err != nil {
		return fail(hint, "the authority: %v", err)
	}
	parent, err := x509.ParseCertificate(der)
	if err != nil || !parent.IsCA {
		return fail(hint, "the authority: %s is no authority's certificate", certPath)
	}
	if der, err = readPEM(keyPath, "PRIVATE KEY"); err != nil {
		return fail("ca.key is kept where certificates are made", "the authority's key: %v", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return fail("", "the authority's key in %s: %v", keyPath, err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	switch {
	case !ok || !signer.PublicKey.Equal(parent.PublicKey):
		return fail("", "%s is not the key of %s", keyPath, certPath)
	case !c.NotAfter.After(time.Now()):
		return misuse("", "--valid is not in the future")
	case c.NotAfter.After(parent.NotAfter):
		c.NotAfter = parent.NotAfter
	}
	return issue(dir, name, c, parent, signer)
}

// issue makes a key and the certificate for it, signed by the parent, or by itself where there is none,
// and writes both.
func issue(dir, name string, c, parent *x509.Certificate, signer *ecdsa.PrivateKey) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail("", "make a key: %v", err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return fail("", "make a serial number: %v", err)
	}
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		return fail("", "make the certificate: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail("", "make the key: %v", err)
	}
	keyPath := filepath.Join(dir, name+".key")
	if err := writeNew(keyPath, 0o600, "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	if err := writeNew(filepath.Join(dir, name+".crt"), 0o644, "CERTIFICATE", der); err != nil {
		_ = os.Remove(keyPath) // it was made above, and is of no use alone
		return err
	}
	return nil
}

// writeNew writes a file that must not be there.
func writeNew(path string, mode os.FileMode, kind string, der []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fail("remove it first, if nobody needs it any more", "%s is there already and is not overwritten", path)
	}
	if err != nil {
		return fail("", "cannot write: %v", err)
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close())
	if err != nil {
		_ = os.Remove(path)
		return fail("", "cannot write %s: %v", path, err)
	}
	return nil
}

// readPEM returns the first block of the kind in a file.
func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return block.Bytes, nil
		}
	}
	return nil, fmt.Errorf("%s holds no %s in PEM form", path, strings.ToLower(kind))
}
