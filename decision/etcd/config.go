// Package etcd keeps the decision log in an etcd cluster (version 3.4 or later) that the user already
// runs. Several processes may use one log at the same time.
//
// The package promises that nobody is told a decision before a majority of etcd's members has forced
// it; that the first decision stands, by a condition on the key's create revision and without leases or
// locks; that decisions made at the same time share a request; that an answer which does not come
// leaves no doubt, because what stands is read again; and that a cluster which holds another log than
// the one that was opened is never decided in. It survives what etcd survives: the loss of a minority
// of its members. A cluster that is restored from a snapshot has forgotten what was decided since.
//
// The keys are described in docs/format/decision-etcd.md.
package etcd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Config says how a log is kept. Client.Endpoints is required.
type Config struct {
	// Client says how etcd is reached: endpoints, TLS, user and password. Where it has no logger, the
	// client is silent; where it has no keep-alive, it asks every ten seconds whether a member lives.
	Client clientv3.Config

	// Prefix is what all keys of the log begin with; two logs may be in one cluster under two prefixes
	// of which neither begins with the other. Defaults to "assent/".
	Prefix string

	// Existing refuses to make a log: Open fails with ErrMissing where there is none. Defaults to false.
	Existing bool

	// Retention is for how long an entry is kept for information after it is Done. Entries that are not
	// Done are kept for ever. Defaults to 24 hours.
	Retention time.Duration

	// RetainCount is the greatest number of Done entries that are kept; a few hundredths more may be
	// found. Where there are more, the oldest go before their time. Defaults to 100,000.
	RetainCount int

	// RetireInterval is the pause between two searches for entries that are not to be kept any longer.
	// Defaults to one minute.
	RetireInterval time.Duration

	// MaxWaiting is the greatest number of decisions that wait for etcd at a time, and that of notes;
	// more are refused with resource.Capacity. Defaults to 65,536.
	MaxWaiting int

	// Patience is for how long a call goes on trying where etcd does not answer, before it returns an
	// error. Defaults to 5 s.
	Patience time.Duration

	// AttemptTimeout bounds one attempt. Defaults to 3 s.
	AttemptTimeout time.Duration

	// Logger receives what an operator should know: that etcd does not answer, and that it does again.
	// Defaults to slog.Default().
	Logger *slog.Logger

	// Clock tells the time by which Retention is counted. Defaults to time.Now.
	Clock func() time.Time

	// Random is what the owner of a new log is drawn from. It must not fail. Defaults to
	// crypto/rand.Reader.
	Random io.Reader
}

// validate fills in the defaults and reports what is wrong with c.
func (c *Config) validate() error {
	if c.Prefix == "" {
		c.Prefix = "assent/"
	}
	for _, d := range [...]struct {
		name  string
		field *time.Duration
		value time.Duration
	}{
		{"retention", &c.Retention, 24 * time.Hour},
		{"retire interval", &c.RetireInterval, time.Minute},
		{"patience", &c.Patience, 5 * time.Second},
		{"attempt timeout", &c.AttemptTimeout, 3 * time.Second},
		{"keep-alive time", &c.Client.DialKeepAliveTime, 10 * time.Second},
		{"keep-alive timeout", &c.Client.DialKeepAliveTimeout, 3 * time.Second},
		{"dial timeout", &c.Client.DialTimeout, 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return fmt.Errorf("%s is %v; it cannot be negative", d.name, *d.field)
		}
	}
	if c.RetainCount == 0 {
		c.RetainCount = 100_000
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1 << 16
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.Client.Logger == nil && c.Client.LogConfig == nil {
		c.Client.Logger = zap.NewNop()
	}
	switch {
	case len(c.Client.Endpoints) == 0:
		return errors.New("there is no endpoint; name etcd's members: 127.0.0.1:2379")
	case len(c.Prefix) > 256 || !utf8.ValidString(c.Prefix):
		return fmt.Errorf("prefix %.40q is longer than 256 bytes, or no text", c.Prefix)
	case c.RetainCount < 0:
		return fmt.Errorf("retain count is %d; it cannot be negative", c.RetainCount)
	case c.MaxWaiting < 0:
		return fmt.Errorf("the greatest number of waiting calls is %d; it cannot be negative", c.MaxWaiting)
	}
	return nil
}
