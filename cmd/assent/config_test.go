package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"assent/api"
)

// FuzzConfig reads any bytes as a configuration: they are refused with a place and a reason, or
// give one that validates.
func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeConfig("assent.yaml", data)
		if err == nil {
			if err := c.validate(); err != nil {
				t.Fatalf("accepted at first, then refused: %v", err)
			}
			c.anchor("/etc/assent")
			return
		}
		told, ok := errors.AsType[*failure](err)
		if !ok || !strings.HasPrefix(told.text, "assent.yaml") {
			t.Fatalf("the error does not name the file: %#v", err)
		}
		if told.exit != exitError {
			t.Fatalf("exit code %d", told.exit)
		}
	})
}

// A database may send four times as much in a row as a result may have, whether that is given or left out.
func TestLongestMessage(t *testing.T) {
	for resultBytes, want := range map[int]int{
		0: 4 * api.DefaultResultBytes, api.DefaultResultBytes: 4 * api.DefaultResultBytes, 1 << 20: 4 << 20,
		1: 1 << 20, 1 << 29: 1 << 30,
	} {
		if got := longestMessage(resultBytes); got != want {
			t.Errorf("result_bytes %d: a row of %d bytes is taken; want %d", resultBytes, got, want)
		}
	}
}

// TestExampleConfig holds the example to the code: its values are the defaults, and it names
// every key.
func TestExampleConfig(t *testing.T) {
	c, err := decodeConfig("example", []byte(exampleConfig))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != defaultListen || c.DataDir != defaultDataDir || c.Timeouts.Shutdown != defaultShutdown || c.Limits.Connections != defaultConnections {
		t.Errorf("the example's values are not the defaults: %+v", c)
	}
	for _, v := range []any{config{}, logConfig{}, timeoutsConfig{}, limitsConfig{}, resourceConfig{}, tokenConfig{}, tlsConfig{},
		clusterConfig{}, nodeConfig{}, clusterTLSConfig{}, etcdLogConfig{}, etcdTLSConfig{}, postgresLogConfig{}} {
		for _, key := range keysOf(reflect.TypeOf(v).Name()) {
			if !strings.Contains(exampleConfig, key+":") && key != "dsn" && key != "dsn_file" && key != "password_file" {
				t.Errorf("the example does not show the key %s", key)
			}
		}
	}
	if c.Limits.ResultBytes != api.DefaultResultBytes {
		t.Errorf("the example has result_bytes %d; the default is %d", c.Limits.ResultBytes, api.DefaultResultBytes)
	}
	// Without its comment signs, the optional part is valid too.
	full := strings.NewReplacer("\n  # ", "\n  ", "\n# tokens", "\ntokens", "\n#   ", "\n  ", "\n# tls", "\ntls", "\n# allow", "\nallow",
		"\n# cluster", "\ncluster", "\n  kv:", "\n  kv-a:").Replace(exampleConfig)
	// Servers share a log in etcd or in a database; this one is not shared.
	before, after, _ := strings.Cut(full, "  With etcd or postgres")
	sections, rest, _ := strings.Cut(after, "\ntimeouts:")
	full = before + "timeouts:" + rest
	if c, err = decodeConfig("example", []byte(full)); err != nil {
		t.Fatalf("%v\n%s", err, full)
	}
	_, sections, _ = strings.Cut(sections, "\n")
	inEtcd, inPostgres, _ := strings.Cut(sections, "\n  postgres:")
	grace, _, _ := strings.Cut(sections, "\n")
	for backend, section := range map[string]string{backendEtcd: inEtcd, backendPostgres: grace + "\n  postgres:" + inPostgres} {
		text := "resources: {orders: {type: postgres, dsn: x}}\nlog:\n  backend: " + backend + "\n" + section
		c, err := decodeConfig("example", []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
		} else if !c.shared() || c.Log.OrphanGrace != sharedGrace || c.Log.Etcd == nil && c.Log.Postgres == nil {
			t.Errorf("the log section gives %+v", c.Log)
		}
	}
	if c.Cluster == nil || len(c.Cluster.Nodes) != 3 || c.Cluster.TLS == nil || c.backend() != backendPaxos {
		t.Errorf("the cluster section gives %+v", c.Cluster)
	}
	if len(c.Resources) != 2 || len(c.Tokens) != 2 || c.TLS == nil || c.Resources["orders"].LockTimeout != 5*time.Second {
		t.Errorf("the optional part gives %+v", c)
	}
}

// A whole number is written as one: what the decoder would cut off is refused.
func TestFractions(t *testing.T) {
	for text, want := range map[string]string{
		"log: {retain_count: 1.5}":                                                    "log.retain_count",
		"limits:\n  connections: 1e3":                                                 "limits.connections",
		"resources:\n  a: {type: postgres, dsn: x, max_conns: 2.0}":                   "resources.a.max_conns",
		"resources:\n  a: &a {type: postgres, dsn: x, max_conns: 2.5}\n  b: *a":       "resources.a.max_conns",
		"resources:\n  a: {type: postgres, dsn: x, <<: {max_conns: 2.5}}":             "resources.a.<<.max_conns",
		"cluster: {name: c, node: a, nodes: {a: {address: 127.0.0.1:1, votes: 1.5}}}": "cluster.nodes.a.votes",
	} {
		_, err := decodeConfig("assent.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want+" is a number with a fraction; it must be a whole number") {
			t.Errorf("%s: %v", text, err)
		}
	}
	// Where text belongs, a number with a fraction is text.
	if _, err := decodeConfig("assent.yaml", []byte("resources: {a: {type: postgres, dsn_env: 1.5}}")); err != nil {
		t.Error(err)
	}
}

func TestLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:1": true, "127.8.9.10:1": true, "[::1]:1": true, "localhost:1": true,
		"0.0.0.0:1": false, "[::]:1": false, ":1": false, "10.0.0.1:1": false, "example.com:1": false,
		"localhost.example.com:1": false,
	} {
		if got, err := (&config{Listen: listen}).loopback(); err != nil || got != want {
			t.Errorf("loopback(%s): %v, %v; want %v", listen, got, err, want)
		}
	}
	for _, listen := range []string{"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"} {
		if _, err := (&config{Listen: listen}).loopback(); err == nil {
			t.Errorf("loopback(%q) is accepted", listen)
		}
	}
}

func TestNearest(t *testing.T) {
	for written, want := range map[string]string{"retantion": "retention", "listn": "listen", "zzz": "", "": ""} {
		if got := nearest(written, []string{"listen", "retention", "resources"}); got != want {
			t.Errorf("nearest(%q) = %q; want %q", written, got, want)
		}
	}
}

func TestTableIsPrintable(t *testing.T) {
	var b strings.Builder
	out := table{}
	out.add(plain("A", "B")...)
	out.add(plain("größe", "x\x1b[31m\ny\u202e")...)
	out.add(plain("s", "")...)
	if err := out.write(&b); err != nil {
		t.Fatal(err)
	}
	const want = "A      B\ngröße  x\\u001b[31m\\u000ay\\u202e\ns\n"
	if b.String() != want {
		t.Errorf("the table is %q; want %q", b.String(), want)
	}
}
