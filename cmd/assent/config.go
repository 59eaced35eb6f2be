package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"assent/api"
	"assent/resource"
)

// exampleConfig is a configuration with every key at its default, or commented out.
//
//go:embed assent.example.yaml
var exampleConfig string

const (
	defaultListen  = "127.0.0.1:7420"
	defaultDataDir = "assent-data"
	maxConfigBytes = 1 << 20

	defaultShutdown    = 15 * time.Second
	defaultConnections = 1024
)

// config is the configuration file. docs/operations.md and assent.example.yaml describe the keys.
type config struct {
	Listen         string                     `yaml:"listen"`
	AllowPlaintext bool                       `yaml:"allow_plaintext"`
	DataDir        string                     `yaml:"data_dir"`
	Log            logConfig                  `yaml:"log"`
	Timeouts       timeoutsConfig             `yaml:"timeouts"`
	Limits         limitsConfig               `yaml:"limits"`
	Resources      map[string]*resourceConfig `yaml:"resources"`
	Tokens         []tokenConfig              `yaml:"tokens"`
	TLS            *tlsConfig                 `yaml:"tls"`
	Cluster        *clusterConfig             `yaml:"cluster"`

	name  string     // of the file, for errors; empty for defaults
	trace string     // the file that takes the trace; empty for none
	root  *yaml.Node // of the file, for line numbers
}

type logConfig struct {
	Backend     string        `yaml:"backend"`
	Retention   time.Duration `yaml:"retention"`
	RetainCount int           `yaml:"retain_count"`
	// OrphanGrace, Etcd and Postgres are of backends that several servers may share.
	OrphanGrace time.Duration      `yaml:"orphan_grace"`
	Etcd        *etcdLogConfig     `yaml:"etcd"`
	Postgres    *postgresLogConfig `yaml:"postgres"`
}

type timeoutsConfig struct {
	Transaction  time.Duration `yaml:"transaction"`
	Idle         time.Duration `yaml:"idle"`
	Statement    time.Duration `yaml:"statement"`
	Prepare      time.Duration `yaml:"prepare"`
	Finish       time.Duration `yaml:"finish"`
	FinishWait   time.Duration `yaml:"finish_wait"`
	ScanInterval time.Duration `yaml:"scan_interval"`
	Shutdown     time.Duration `yaml:"shutdown"`
}

type limitsConfig struct {
	OpenTransactions int `yaml:"open_transactions"`
	RequestBytes     int `yaml:"request_bytes"`
	ResultRows       int `yaml:"result_rows"`
	ResultBytes      int `yaml:"result_bytes"`
	Connections      int `yaml:"connections"`
}

type resourceConfig struct {
	Type        string        `yaml:"type"`
	Path        string        `yaml:"path"`
	DSN         string        `yaml:"dsn"`
	DSNEnv      string        `yaml:"dsn_env"`
	DSNFile     string        `yaml:"dsn_file"`
	MaxConns    int32         `yaml:"max_conns"`
	LockTimeout time.Duration `yaml:"lock_timeout"`
}

type tokenConfig struct {
	Name  string     `yaml:"name"`
	Env   string     `yaml:"env"`
	File  string     `yaml:"file"`
	Roles []api.Role `yaml:"roles"`
}

type tlsConfig struct {
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	ClientCAFile string `yaml:"client_ca_file"`
}

// defaultConfig is what holds where there is no file: one store, in the working directory.
func defaultConfig() *config {
	return &config{Listen: defaultListen, DataDir: defaultDataDir}
}

// readConfig reads the file. Relative paths in it start at its own folder.
func readConfig(path string) (*config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fail("assent serve --print-config-example prints one to start from", "cannot read the configuration: %v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, fail("", "cannot read the configuration: %v", err)
	}
	c, err := decodeConfig(path, data)
	if err != nil {
		return nil, err
	}
	c.anchor(filepath.Dir(path))
	return c, nil
}

// anchor makes relative paths start at folder.
func (c *config) anchor(folder string) {
	paths := append(c.Log.paths(), &c.DataDir)
	for _, r := range c.Resources {
		paths = append(paths, &r.Path, &r.DSNFile)
	}
	for i := range c.Tokens {
		paths = append(paths, &c.Tokens[i].File)
	}
	if c.TLS != nil {
		paths = append(paths, &c.TLS.CertFile, &c.TLS.KeyFile, &c.TLS.ClientCAFile)
	}
	if c.Cluster != nil && c.Cluster.TLS != nil {
		paths = append(paths, &c.Cluster.TLS.CertFile, &c.Cluster.TLS.KeyFile, &c.Cluster.TLS.CAFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
}

// decodeConfig reads a configuration and checks it. It touches no file. Errors name the line.
func decodeConfig(name string, data []byte) (*config, error) {
	if len(data) > maxConfigBytes {
		return nil, fail("", "%s: the configuration has more than %d bytes", name, maxConfigBytes)
	}
	c := defaultConfig()
	c.name = name
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, c.badYAML(err)
	}
	c.root = &root
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, c.badYAML(err)
	}
	if n := fraction(&root, reflect.TypeFor[config]()); n != nil {
		return nil, c.badYAML(fmt.Errorf("line %d: cannot unmarshal !!float `%s` into int", n.Line, n.Value))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fail("", "%s: the file holds a second document; one is enough", name)
	}
	return c, c.validate()
}

var (
	atLine       = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (.+) not found in type main\.(\w+)$`)
	quotedValue  = regexp.MustCompile(" `[^`]*`")
)

// badYAML tells the decoder's first error with file, line and hint. It leaves out values, which
// may be secrets.
func (c *config) badYAML(err error) error {
	text := err.Error()
	if typeErr, ok := errors.AsType[*yaml.TypeError](err); ok && len(typeErr.Errors) > 0 {
		text = typeErr.Errors[0]
	}
	at, line := c.name, 0
	if m := atLine.FindStringSubmatch(text); m != nil {
		at, text = at+":"+m[1], m[2]
		line, _ = strconv.Atoi(m[1]) // it is digits; too many of them are no line
	}
	if m := unknownField.FindStringSubmatch(text); m != nil {
		known := keysOf(m[2])
		hint := "known here are " + strings.Join(known, ", ")
		if near := nearest(m[1], known); near != "" {
			hint = fmt.Sprintf("did you mean %q? %s", near, hint)
		}
		return fail(hint, "%s: unknown key %q", at, m[1])
	}
	if told, hint, ok := c.explainType(text, line); ok {
		return fail(hint, "%s: %s", at, told)
	}
	return fail("", "%s: %s", at, strings.TrimPrefix(quotedValue.ReplaceAllString(text, ""), "yaml: "))
}

// keysOf returns the keys of the configuration's struct of that name.
func keysOf(structName string) (keys []string) {
	for _, v := range []any{config{}, logConfig{}, timeoutsConfig{}, limitsConfig{}, resourceConfig{}, tokenConfig{}, tlsConfig{},
		clusterConfig{}, nodeConfig{}, clusterTLSConfig{}, etcdLogConfig{}, etcdTLSConfig{}, postgresLogConfig{}} {
		t := reflect.TypeOf(v)
		if t.Name() != structName {
			continue
		}
		for i := range t.NumField() {
			if key := t.Field(i).Tag.Get("yaml"); key != "" {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// validate checks what can be checked without touching anything.
func (c *config) validate() error {
	if _, err := c.loopback(); err != nil {
		return err
	}
	if c.DataDir == "" {
		return c.wrong("data_dir is empty", "", "data_dir")
	}
	if err := c.validateNumbers(); err != nil {
		return err
	}
	for name, r := range c.Resources {
		if err := c.validateResource(name, r); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for i, t := range c.Tokens {
		at := []string{"tokens", strconv.Itoa(i)}
		switch {
		case t.Name == "" || seen[t.Name]:
			return c.wrong("each token needs a name of its own", "it is shown in logs and audit trails", at...)
		case (t.Env == "") == (t.File == ""):
			return c.wrong(fmt.Sprintf("token %q needs env or file, and not both", t.Name), "they name where the secret is; it is never in this file", at...)
		case len(t.Roles) == 0:
			return c.wrong(fmt.Sprintf("token %q has no roles", t.Name), "known are begin, resolve, decide and admin", at...)
		}
		for _, role := range t.Roles {
			if !slices.Contains(api.Roles(), role) {
				return c.wrong(fmt.Sprintf("token %q has the unknown role %q", t.Name, role), "known are begin, resolve, decide and admin", at...)
			}
		}
		seen[t.Name] = true
	}
	if c.TLS != nil && (c.TLS.CertFile == "" || c.TLS.KeyFile == "") {
		return c.wrong("tls needs cert_file and key_file", "", "tls")
	}
	if err := c.validateCluster(); err != nil {
		return err
	}
	if err := c.validateBackend(); err != nil {
		return err
	}
	return c.validateExposure()
}

// validateNumbers checks that no duration or limit is negative.
func (c *config) validateNumbers() error {
	for _, section := range []struct {
		name  string
		value any
	}{{"log", c.Log}, {"timeouts", c.Timeouts}, {"limits", c.Limits}} {
		v := reflect.ValueOf(section.value)
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("yaml")
			if v.Field(i).CanInt() && v.Field(i).Int() < 0 {
				return c.wrong(section.name+"."+key+" is negative", "leave it out for its default", section.name, key)
			}
		}
	}
	return nil
}

func (c *config) validateResource(name string, r *resourceConfig) error {
	at := func(key string) []string { return []string{"resources", name, key} }
	if err := resource.CheckName(name); err != nil {
		return c.wrong(err.Error(), "", "resources", name)
	}
	if r == nil {
		return c.wrong(fmt.Sprintf("resource %q is empty", name), "give it a type: kv or postgres", "resources", name)
	}
	sources := 0
	for _, s := range []string{r.DSN, r.DSNEnv, r.DSNFile} {
		if s != "" {
			sources++
		}
	}
	switch {
	case r.Type == "kv" && sources > 0:
		return c.wrong(fmt.Sprintf("resource %q is a kv; it has a path and no dsn", name), "", at("dsn")...)
	case r.Type == "kv" && r.MaxConns != 0:
		return c.wrong(fmt.Sprintf("resource %q is a kv; it has no max_conns", name), "", at("max_conns")...)
	case r.Type == "kv":
	case r.Type == "postgres" && r.Path != "":
		return c.wrong(fmt.Sprintf("resource %q is a postgres; it has a dsn and no path", name), "", at("path")...)
	case r.Type == "postgres" && sources != 1:
		return c.wrong(fmt.Sprintf("resource %q needs one of dsn, dsn_env and dsn_file", name),
			"dsn_env names an environment variable that holds the connection string", "resources", name)
	case r.Type == "postgres":
	default:
		return c.wrong(fmt.Sprintf("resource %q has the unknown type %q", name, r.Type), "known are kv and postgres", at("type")...)
	}
	if r.MaxConns < 0 || r.LockTimeout < 0 {
		return c.wrong(fmt.Sprintf("resource %q has a negative limit", name), "leave it out for its default", "resources", name)
	}
	return nil
}

// validateExposure refuses to serve other machines without protection.
func (c *config) validateExposure() error {
	local, err := c.loopback()
	if err != nil || local {
		return err
	}
	known := len(c.Tokens) > 0 || c.TLS != nil && c.TLS.ClientCAFile != ""
	const hint = "listen on 127.0.0.1, or set tls, and tokens or tls.client_ca_file; see docs/operations.md"
	switch {
	case !known:
		return c.wrong(fmt.Sprintf("listen is %s, which other machines can reach, and anybody would be let in", c.Listen), hint, "listen")
	case c.TLS == nil && !c.AllowPlaintext:
		return c.wrong(fmt.Sprintf("listen is %s, which other machines can reach, and without tls tokens could be read on the way", c.Listen),
			hint+"; behind a proxy that speaks tls, set allow_plaintext", "listen")
	}
	return nil
}

// loopback reports whether only this machine can reach the address to listen on.
func (c *config) loopback() (bool, error) {
	i := strings.LastIndexByte(c.Listen, ':')
	if i < 0 {
		return false, c.wrong(fmt.Sprintf("listen is %q; it has no port", c.Listen), "write it as host:port: "+defaultListen, "listen")
	}
	host, port := strings.Trim(c.Listen[:i], "[]"), c.Listen[i+1:]
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return false, c.wrong(fmt.Sprintf("listen has the port %q", port), "give a number from 0 (any free port) to 65535", "listen")
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback(), nil
}

// wrong is an error at the key with the given path.
func (c *config) wrong(text, hint string, path ...string) error {
	at := c.name
	if at == "" {
		return misuse(hint, "%s", text)
	}
	if line := lineOf(c.root, path); line > 0 {
		at += ":" + strconv.Itoa(line)
	}
	return fail(hint, "%s: %s", at, text)
}

// lineOf returns the line of the key with the given path, or of the last part of it that is there.
func lineOf(node *yaml.Node, path []string) int {
	line := 0
	for node != nil && node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	for _, key := range path {
		var next *yaml.Node
		switch {
		case node == nil:
		case node.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == key {
					line, next = node.Content[i].Line, node.Content[i+1]
				}
			}
		case node.Kind == yaml.SequenceNode:
			if i, err := strconv.Atoi(key); err == nil && i < len(node.Content) {
				line, next = node.Content[i].Line, node.Content[i]
			}
		}
		node = next
	}
	return line
}

// nearest returns the name that is at most two letters away from what was written, or "".
func nearest(written string, known []string) string {
	best, least := "", 3
	for _, name := range known {
		if d := distance(written, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is the Levenshtein distance, or a great number for names too long to care.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(previous[j+1]+1, row[j]+1, previous[j]+cost)
		}
	}
	return row[len(b)]
}
