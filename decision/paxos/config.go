// Package paxos keeps the decision log on several nodes: a register for each transaction, decided by
// Paxos (package protocol/paxos) among acceptors with disks of their own.
//
// The package promises that at most one decision ever stands for a transaction, whichever nodes crash,
// come back or are cut off; that whoever is told a decision is told the one that stands; and that all
// goes on while a read quorum and a write quorum of the members are up, with no leader and no human. A
// Log decides about the ids that begin with its own Prefix in one round trip. A member whose disk fails
// is as good as down until the disk is back; a member that has lost its disk is not let vote again with
// another, for it has forgotten what it promised, until the others have gone on without it. The members can
// change while all goes on (Enter and Move); who they are is agreed on elsewhere. Where too few members can
// be reached calls fail, in the caller's time, and say who is missing. The package assumes that members do
// not lie.
//
// The layout of a member's directory is described in docs/format/acceptor.md.
package paxos

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/resource"
)

// Network carries payloads between the members.
type Network interface {
	// Send hands payload, which is not modified afterwards, to the node. It never waits. It may lose
	// the payload, when the node is away or there is too much waiting for it.
	Send(to protocol.NodeID, payload []byte)
	// Receive sets what is called with each payload that arrives: by one goroutine at a time for
	// one sender. It is called once, before anything is sent.
	Receive(func(from protocol.NodeID, payload []byte))
}

// MaxMembers is the greatest number of members of a Log, those of both sets of an Epoch together. It is a
// power of two: stamps end in a member's place.
const MaxMembers = 64

// Config says what a Log is part of and how it is kept. Owner, Self and Dir are required, and Network where
// there is ever more than one member.
type Config struct {
	// Owner names the cluster; it is the same at all members and never changes. At most
	// resource.MaxOwner bytes.
	Owner string
	// Self is this node.
	Self protocol.NodeID
	// Epoch are the members, as far as the caller knows; this node need not be one of them. A later epoch
	// that is on record in Dir counts instead. The zero Epoch says that the caller does not know: nothing can
	// be asked of the Log until it is told.
	Epoch Epoch
	// Network reaches the other members.
	Network Network
	// Dir is the directory of this node's acceptors. It belongs to Owner and Self for ever.
	Dir string
	// Storage is the name that a directory is given which is made now; see Member. It must never have been
	// given to another. Defaults to one that is drawn.
	Storage string
	// FS is the file system that holds Dir. Defaults to vfs.Default, the operating system's.
	FS vfs.FS

	// Retention is for how long an entry is kept for information after it is Done. Entries that are
	// not Done, or that a member is not known to hold, are kept longer. Defaults to 24 hours.
	Retention time.Duration
	// RetainCount is the number of Done entries above which the oldest go before their time.
	// Defaults to 100,000.
	RetainCount int
	// MaxOpen is the greatest number of entries beyond RetainCount: entries that are not Done, or that
	// wait for a member that is away. More are refused with resource.Capacity. They are kept in
	// memory, with about half a kilobyte each. Defaults to 1,000,000.
	MaxOpen int
	// MaxWaiting is the greatest number of transactions whose decision this Log has under way at a
	// time; more are refused with resource.Capacity. Defaults to 65,536.
	MaxWaiting int
	// SegmentBytes is the size of the journal's files, in bytes. At least 64 KiB. Defaults to 8 MiB.
	SegmentBytes int64
	// RetryInterval is the least time between two attempts to open storage again that has failed.
	// Defaults to one second.
	RetryInterval time.Duration
	// Options are the pauses of the proposers.
	Options paxos.Options
	// Logger receives what an operator should know. Defaults to slog.Default().
	Logger *slog.Logger
	// Clock tells the time by which Retention is counted and entries are put in order. Defaults to
	// time.Now.
	Clock func() time.Time
	// Random is what names are drawn from. It must not fail. Defaults to crypto/rand.Reader.
	Random io.Reader
}

// validate fills in the defaults and reports what is wrong with c.
func (c *Config) validate() error {
	c.fill()
	if err := (resource.ID{Owner: c.Owner, Transaction: "t", Branch: "b"}).Validate(); err != nil {
		return err
	}
	if c.Epoch.Number > 0 || len(c.Epoch.Members) > 0 {
		if err := c.Epoch.Validate(); err != nil {
			return err
		}
	}
	if err := c.reaches(c.Epoch); err != nil {
		return err
	}
	switch {
	case c.Self == "" || len(c.Self) > maxName:
		return fmt.Errorf("this node's name %.40q has %d bytes; give it 1 to %d", c.Self, len(c.Self), maxName)
	case len(c.Storage) > maxName || strings.ContainsFunc(c.Storage, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("the storage's name %.40q is not of 1 to %d printable characters", c.Storage, maxName)
	case c.Dir == "":
		return fmt.Errorf("no directory is named")
	case c.Retention < 0:
		return fmt.Errorf("retention is %v; it cannot be negative", c.Retention)
	case c.RetainCount < 0:
		return fmt.Errorf("retain count is %d; it cannot be negative", c.RetainCount)
	case c.MaxOpen < 0:
		return fmt.Errorf("the greatest number of open entries is %d; it cannot be negative", c.MaxOpen)
	case c.MaxWaiting < 0:
		return fmt.Errorf("the greatest number of waiting transactions is %d; it cannot be negative", c.MaxWaiting)
	case c.SegmentBytes < 64<<10 || c.SegmentBytes > 1<<30:
		return fmt.Errorf("segment size is %d bytes; it must be between 64 KiB and 1 GiB", c.SegmentBytes)
	case c.RetryInterval < 0:
		return fmt.Errorf("retry interval is %v; it cannot be negative", c.RetryInterval)
	}
	return nil
}

// reaches returns why the members of the epoch cannot be reached, or nil.
func (c *Config) reaches(e Epoch) error {
	for _, m := range e.named() {
		if m.Node != c.Self && c.Network == nil {
			return fmt.Errorf("%s is a member and there is no network", m.Node)
		}
	}
	return nil
}

func (c *Config) fill() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Retention == 0 {
		c.Retention = 24 * time.Hour
	}
	if c.RetainCount == 0 {
		c.RetainCount = 100_000
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = 1_000_000
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1 << 16
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 8 << 20
	}
	if c.RetryInterval == 0 {
		c.RetryInterval = time.Second
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
}
