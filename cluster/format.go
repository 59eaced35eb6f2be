package cluster

import (
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"strconv"
	"strings"
	"syscall"

	"assent/internal/journal"
	"assent/protocol"
	"assent/resource"
)

// The names in Config.Dir: one directory for the records of the membership, one for the decisions; and in the
// former.
const (
	membersName   = "members"
	decisionsName = "decisions"

	formatName   = "FORMAT"
	formatTemp   = "FORMAT.new"
	lockName     = "LOCK"
	segmentsName = "segments"

	formatNumber = 1
	formatTitle  = "assent membership"
)

// Errors of the directory, wrapped in a *resource.Error that carries a hint.
var (
	// ErrForeign says that the directory is not this node's.
	ErrForeign = errors.New("the directory is not this node's")
	// ErrFormat says that the directory was written in a format that this program does not know.
	ErrFormat = errors.New("the node's directory has an unknown format")

	errLostInPart = errors.New("the node's directory is lost in part")
)

func (r *records) formatText(storage string) string {
	text := fmt.Sprintf("%s\nformat %d\nowner %s\nnode %s\nstorage %s\n", formatTitle, formatNumber, r.cfg.owner, r.cfg.node, storage)
	return text + fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)))
}

// identify reads which storage this is, making a new one in an empty directory.
func (r *records) identify() (storage string, err error) {
	names, err := r.cfg.fs.List(r.cfg.dir)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", r.cfg.dir, err)
	}
	for _, name := range names {
		switch name {
		case formatName:
			return r.readFormat()
		case lockName, formatTemp, segmentsName:
		default:
			err = fmt.Errorf("%w: %s holds %q and no %s", ErrForeign, r.cfg.dir, name, formatName)
		}
	}
	if err != nil {
		return "", err
	}
	return r.create()
}

// readFormat reads the file FORMAT. A newer format is reported as such even where the rest of the file has
// changed.
func (r *records) readFormat() (storage string, err error) {
	path := r.path(formatName)
	data, err := journal.ReadFile(r.cfg.fs, path)
	if err != nil {
		return "", err
	}
	text := string(data)
	lines := strings.Split(text, "\n")
	if len(lines) < 2 || lines[0] != formatTitle {
		return "", fmt.Errorf("%w: %s begins with %.40q", ErrForeign, path, text)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(lines[1], "format "), 10, 32)
	if err == nil && number > formatNumber {
		return "", fmt.Errorf("%w: %s says format %d; this program knows up to %d", ErrFormat, path, number, formatNumber)
	}
	if len(lines) != 7 {
		return "", &journal.DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf("it has %d lines", len(lines)-1)}
	}
	owner, node := strings.TrimPrefix(lines[2], "owner "), strings.TrimPrefix(lines[3], "node ")
	storage = strings.TrimPrefix(lines[4], "storage ")
	was := &records{cfg: recordsConfig{owner: owner, node: protocol.NodeID(node)}}
	if text != was.formatText(storage) {
		return "", &journal.DamageError{Path: path, Offset: 0, Reason: "checksum does not match"}
	}
	if owner != r.cfg.owner || node != string(r.cfg.node) {
		return "", fmt.Errorf("%w: %s belongs to the node %q of the cluster %q, and this is %q of %q",
			ErrForeign, r.cfg.dir, node, owner, r.cfg.node, r.cfg.owner)
	}
	return storage, nil
}

// explain adds to err what a person can do about it.
func (c *Config) explain(err error) error {
	if _, ok := errors.AsType[*resource.Error](err); ok || errors.Is(err, ErrStranger) {
		return err
	}
	code, hint := resource.Unavailable, "look at the disk that holds "+c.Dir
	_, damaged := errors.AsType[*journal.DamageError](err)
	switch {
	case errors.Is(err, journal.ErrLocked):
		hint = "end the other process that uses " + c.Dir + ", or give this one a directory of its own"
	case errors.Is(err, ErrForeign):
		code, hint = resource.Invalid, "name an empty directory, or this node's own"
	case errors.Is(err, ErrFormat):
		code, hint = resource.Unsupported, "use the program that wrote "+c.Dir+", or a newer one"
	case errors.Is(err, errLostInPart):
		hint = "move what is left of " + c.Dir + " away and start the node again: it joins anew, and the others bring it up to date"
	case damaged:
		hint = "look for a failing disk; then move " + c.Dir + " away and start the node again: it joins anew, and the others bring it up to date"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code, hint = resource.Capacity, "make room on the disk that holds "+c.Dir
	case errors.Is(err, iofs.ErrPermission):
		code, hint = resource.Permission, "give this user the right to read and write "+c.Dir
	}
	return &resource.Error{Code: code, Op: "open the cluster's directory", Hint: hint, Err: err}
}
