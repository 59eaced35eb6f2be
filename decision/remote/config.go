// Package remote uses the decision log of assent servers, over HTTP: for an application that has
// connections to its databases of its own and coordinates its transactions itself.
//
// The package promises what the servers' log promises, and that a call goes to another server where one
// does not answer: a decision that may have been written is asked for again and never taken for
// absent, and servers of another log than the one that was opened are not believed (ErrStopped). It
// tells all servers again and again that this process lives, so that they leave its prepared branches
// alone while it does, and settle them within seconds when it is gone.
//
// Both ends are here: Open makes the log, NewHandler is what the servers answer with. Requests are POSTs
// below Path, entries and notes in the encoding of package decision.
package remote

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Path is where a server's Handler belongs.
const Path = "/register/"

// Config says which servers keep the log. Servers is required.
type Config struct {
	// Servers are the base URLs of the servers, all of one log: https://10.0.0.1:7420. A call goes to the
	// one that answered last.
	Servers []string

	// Token is sent to the servers, which want one with the role decide where they have tokens.
	Token string

	// Client makes the requests, with what TLS needs. Defaults to one that keeps 128 connections.
	Client *http.Client

	// Patience is for how long a call goes on trying where no server answers. Defaults to 5 s.
	Patience time.Duration

	// AttemptTimeout bounds one attempt. Defaults to 3 s.
	AttemptTimeout time.Duration

	// Logger receives what an operator should know: that no server answers, or one is not told that this
	// process lives, and that it is so no longer. Defaults to slog.Default().
	Logger *slog.Logger
}

// validate fills in the defaults and reports what is wrong with c.
func (c *Config) validate() error {
	if c.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 128
		c.Client = &http.Client{Transport: transport}
	}
	if c.Patience == 0 {
		c.Patience = 5 * time.Second
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = 3 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Patience < 0 || c.AttemptTimeout < 0 {
		return errors.New("a time is negative")
	}
	if len(c.Servers) == 0 {
		return errors.New("there is no server")
	}
	c.Servers = append([]string(nil), c.Servers...)
	for i, s := range c.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			return fmt.Errorf("server %d is not a URL of http or https, without a password", i+1)
		}
		c.Servers[i] = strings.TrimSuffix(s, "/")
	}
	return nil
}

// newPrefix returns 100 random bits.
func newPrefix() string { return rand.Text()[:prefixSize] }

const prefixSize = 20
