package paxos

import (
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"slices"
	"strconv"
	"strings"

	"assent/decision"
	"assent/engine"
	"assent/internal/journal"
	"assent/protocol"
	"assent/protocol/commit"
)

// The names in the directory of a member.
const (
	formatName   = "FORMAT"
	formatTemp   = "FORMAT.new"
	lockName     = "LOCK"
	segmentsName = "segments"

	formatNumber = 2 // 1 was never released
	formatTitle  = "assent acceptor"
	journalMagic = "assentAJ"
)

// Errors that Open returns, wrapped in a *resource.Error that carries a hint.
var (
	// ErrForeign says that the directory is not this member's.
	ErrForeign = errors.New("the directory is not this member's")
	// ErrFormat says that the directory was written in a format that this program does not know.
	ErrFormat = errors.New("the member's directory has an unknown format")
	// ErrLocked says that another process, or another Log of this one, holds the directory.
	ErrLocked = journal.ErrLocked
)

// DamageError says, with its place, that what the directory holds is not what was written.
type DamageError = journal.DamageError

func formatText(owner string, node protocol.NodeID, storage string) string {
	text := fmt.Sprintf("%s\nformat %d\nowner %s\nnode %s\nstorage %s\n", formatTitle, formatNumber, owner, node, storage)
	return text + fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)))
}

// identify reads which storage this is, making a new one in an empty directory.
func (l *Log) identify() (storage string, err error) {
	names, err := l.fs.List(l.cfg.Dir)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", l.cfg.Dir, err)
	}
	if slices.Contains(names, formatName) {
		path := l.fs.PathJoin(l.cfg.Dir, formatName)
		text, err := journal.ReadFile(l.fs, path)
		if err != nil {
			return "", err
		}
		return l.parseFormat(path, string(text))
	}
	for _, name := range names {
		if name != lockName && name != formatTemp && name != segmentsName {
			return "", fmt.Errorf("%w: %s holds %q and no %s", ErrForeign, l.cfg.Dir, name, formatName)
		}
	}
	return l.create()
}

// parseFormat reads the file FORMAT. Another format is reported as such even where the rest of the file
// differs.
func (l *Log) parseFormat(path, text string) (storage string, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 2 || lines[0] != formatTitle {
		return "", fmt.Errorf("%w: %s begins with %.40q", ErrForeign, path, text)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(lines[1], "format "), 10, 32)
	if err == nil && number != formatNumber {
		return "", fmt.Errorf("%w: %s says format %d; this program knows format %d alone", ErrFormat, path, number, formatNumber)
	}
	if len(lines) != 7 {
		return "", &DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf("it has %d lines", len(lines)-1)}
	}
	owner, node := strings.TrimPrefix(lines[2], "owner "), strings.TrimPrefix(lines[3], "node ")
	storage = strings.TrimPrefix(lines[4], "storage ")
	if text != formatText(owner, protocol.NodeID(node), storage) {
		return "", &DamageError{Path: path, Offset: 0, Reason: "checksum does not match"}
	}
	if owner != l.cfg.Owner || node != string(l.cfg.Self) {
		return "", fmt.Errorf("%w: %s belongs to the node %q of the cluster %q, and this is %q of %q",
			ErrForeign, l.cfg.Dir, node, owner, l.cfg.Self, l.cfg.Owner)
	}
	return storage, nil
}

// create makes a member's storage. The file FORMAT comes last: a directory without it holds no promise.
func (l *Log) create() (storage string, err error) {
	segments := l.segmentDir()
	if names, err := l.fs.List(segments); err == nil && len(names) > 0 {
		first := fmt.Sprintf("%020d.segment", 1)
		for _, name := range names {
			if name != "spare" && name != first {
				return "", &DamageError{Path: l.fs.PathJoin(l.cfg.Dir, formatName), Offset: -1,
					Reason: "the file is gone, but there are segments"}
			}
		}
	}
	if storage = l.cfg.Storage; storage == "" {
		if storage, err = draw(l.cfg.Random, 26); err != nil {
			return "", err
		}
	}
	if err := l.fs.RemoveAll(segments); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return "", err
	}
	if err := journal.MakeDir(l.fs, segments); err != nil {
		return "", err
	}
	j, err := journal.Begin(l.journalConfig(storage, nil), 1)
	if err != nil {
		return "", err
	}
	if err := j.Close(); err != nil {
		return "", err
	}
	return storage, journal.WriteFile(l.fs, l.fs.PathJoin(l.cfg.Dir, formatName),
		l.fs.PathJoin(l.cfg.Dir, formatTemp), formatText(l.cfg.Owner, l.cfg.Self, storage))
}

func (l *Log) segmentDir() string { return l.fs.PathJoin(l.cfg.Dir, segmentsName) }

func (l *Log) journalConfig(storage string, stop <-chan struct{}) journal.Config {
	return journal.Config{
		FS: l.fs, Dir: l.segmentDir(), Format: journal.Format{Magic: journalMagic, Owner: storage},
		SegmentBytes: l.cfg.SegmentBytes, Stop: stop,
	}
}

// openStore reads what the storage holds, checks it, and goes on behind it, in the latest epoch that is on
// record or known.
func (l *Log) openStore(storage string) (*store, error) {
	s := &store{
		log: l, name: storage, table: map[commit.TransactionID]*instance{},
		members: map[protocol.NodeID]string{}, welcomes: map[protocol.NodeID]bool{},
		roster: l.roster.Load(), failed: make(chan struct{}),
		based: map[uint64][]*instance{}, group: make([]byte, journal.GroupHeader, 64<<10),
		out: map[protocol.NodeID][]byte{}, compactAt: 4,
	}
	s.batch = engine.NewBatch(engine.BatchConfig{Node: l.cfg.Self, Hands: s, Gather: true})
	cfg := l.journalConfig(storage, s.failed)
	contents, err := journal.Read(l.fs, cfg.Dir, cfg.Format, 0)
	if err != nil {
		return nil, err
	}
	recorded, err := s.replay(contents)
	if err != nil {
		return nil, err
	}
	if err := s.resume(recorded); err != nil {
		return nil, err
	}
	if s.journal, err = journal.Resume(cfg, contents); err != nil {
		return nil, err
	}
	s.journal.Prepare()
	s.segments = contents.Segments
	if s.roster.number() > recorded.Number {
		s.putEpoch(s.anew(newRoster(l.cfg.Self, recorded, nil), s.roster), s.roster.epoch)
		if s.rest(); s.failure() != nil {
			return nil, errors.Join(s.cause, s.journal.Close())
		}
	}
	for _, in := range s.table {
		s.owe(in, ^uint64(0))
	}
	return s, nil
}

// resume takes up the epoch that is on record, unless a later one is known.
func (s *store) resume(recorded Epoch) error {
	known := s.roster.epoch
	switch {
	case recorded.Number > known.Number:
		if err := s.log.cfg.reaches(recorded); err != nil {
			return err
		}
		s.roster = newRoster(s.log.cfg.Self, recorded, s.roster)
	case recorded.Number > 0 && recorded.Number == known.Number && !recorded.equal(known):
		s.log.cfg.Logger.Warn("the members are those on record, not those of the configuration",
			"member", s.log.cfg.Self, "epoch", recorded.Number, "recorded", recorded.Members, "configured", known.Members)
		s.roster = newRoster(s.log.cfg.Self, recorded, s.roster)
	}
	s.judge()
	return nil
}

// replay takes back what the journal holds, and returns the latest epoch of all.
func (s *store) replay(c *journal.Contents) (recorded Epoch, err error) {
	begin := uint64(0)
	for _, g := range c.Groups {
		r := reader{data: g.Records}
		for range g.Count {
			rec := r.record()
			if r.err != nil {
				return recorded, g.Damage(r.err)
			}
			switch rec.kind {
			case recordBegin:
				begin = rec.first
			case recordEpoch:
				if rec.epoch.Number > recorded.Number {
					recorded = rec.epoch
				}
			}
			s.restore(rec, g)
		}
		if len(r.data) > 0 {
			return recorded, g.Damage(fmt.Errorf("%d bytes are left over", len(r.data)))
		}
	}
	if c.First > max(begin, 1) {
		return recorded, &DamageError{Path: s.log.segmentDir(), Offset: -1, Reason: fmt.Sprintf(
			"the segment that begins with record %d is not there", max(begin, 1))}
	}
	for _, in := range s.table {
		if err := s.restored(in); err != nil {
			return recorded, &DamageError{Path: s.log.segmentDir(), Offset: -1, Reason: fmt.Sprintf("%q: %v", in.ID, err), Err: err}
		}
	}
	slices.SortFunc(s.done, func(a, b doneItem) int { return int(a.in.since - b.in.since) })
	return recorded, nil
}

// restore takes back one record.
func (s *store) restore(rec record, g journal.Group) {
	switch rec.kind {
	case recordMember:
		s.members[rec.node] = rec.text
		return
	case recordAdmitted:
		s.admitted = true
		return
	case recordBegin, recordEpoch:
		return
	case recordBlank:
		for _, in := range s.table {
			in.dropped = true
		}
		clear(s.table)
		return
	case recordDropped:
		if in, ok := s.table[rec.id]; ok {
			in.dropped = true
			delete(s.table, rec.id)
		}
		return
	}
	in, ok := s.table[rec.id]
	if !ok {
		// Where the first record is not one to begin with, those before went with their segment: a
		// copy of all is to follow.
		in = &instance{Copy: Copy{ID: rec.id}, store: s}
		s.table[rec.id] = in
	}
	if rec.state != nil {
		in.Copy, in.base = *rec.state, 0
	} else {
		in.restore(rec.change)
		if _, ok := rec.change.(acceptorRecord); ok && in.Forgotten == 0 && len(in.Notes) == 0 && !in.Chosen {
			in.base = 0
		}
	}
	if in.base == 0 {
		in.base = g.Segment
		s.based[g.Segment] = append(s.based[g.Segment], in)
	}
	in.since = g.At
}

// restored puts an instance that was read back in its place.
func (s *store) restored(in *instance) error {
	s.log.stamps.heard(max(in.Value.Stamp, in.accepted().Stamp, in.Forgotten))
	for _, n := range in.Notes {
		s.log.stamps.heard(n.Stamp)
	}
	s.measure(in)
	status, err := in.Copy.status()
	if err != nil {
		return err
	}
	since := in.since
	s.setStatus(in, status)
	if in.status == decision.Done {
		in.since = since
		s.done[len(s.done)-1].since = since
	}
	return nil
}
