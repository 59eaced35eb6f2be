package etcd

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/protocol/commit"
)

// keys names the keys of one log. No id has a slash in it.
type keys struct{ prefix string }

func (k keys) log() string                            { return k.prefix + "log" }
func (k keys) entry(id commit.TransactionID) string   { return k.prefix + "entry/" + string(id) }
func (k keys) open(id commit.TransactionID) string    { return k.prefix + "open/" + string(id) }
func (k keys) notesOf(id commit.TransactionID) string { return k.prefix + "note/" + string(id) + "/" }

// sheet is the key of some notes, which are kept some to a key.
func (k keys) sheet(id commit.TransactionID, number int) string {
	return fmt.Sprintf("%s%03d", k.notesOf(id), number)
}

// done is a key by which old entries are found: since when the entry is Done.
func (k keys) done(at time.Time, id commit.TransactionID) string {
	return fmt.Sprintf("%sdone/%013d/%s", k.prefix, max(at.UnixMilli(), 0), id)
}

// parseDone takes done apart.
func (k keys) parseDone(key string) (at time.Time, id commit.TransactionID, ok bool) {
	ms, name, ok := strings.Cut(strings.TrimPrefix(key, k.prefix+"done/"), "/")
	n, err := strconv.ParseInt(ms, 10, 64)
	return time.UnixMilli(n), commit.TransactionID(name), ok && err == nil && decision.CheckID(commit.TransactionID(name)) == nil
}

func absent(key string) clientv3.Cmp  { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
func present(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), ">", 0) }

// get reads all that is held of a transaction: two operations, whose answers parse takes.
func (k keys) get(id commit.TransactionID) []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(k.entry(id)), clientv3.OpGet(k.notesOf(id), clientv3.WithPrefix())}
}

// drop deletes all that is held of a transaction, but for its done keys, which retire finds to be
// without an entry.
func (k keys) drop(id commit.TransactionID) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(k.entry(id)), clientv3.OpDelete(k.open(id)), clientv3.OpDelete(k.notesOf(id), clientv3.WithPrefix()),
	}
}

// perSheet is the number of notes in a sheet. A sheet of the longest notes has some 70 KiB, and all
// sheets of an entry are few enough for one request.
const perSheet = 32

// held is what the log holds of a transaction.
type held struct {
	entry    decision.Entry
	revision int64 // at which it was decided
	// sheets tells at which revision each sheet of notes was written last, and last has the notes of the
	// last one.
	sheets []int64
	last   []decision.Note
}

// noted is the revision of the last change.
func (h *held) noted() int64 {
	if len(h.sheets) == 0 {
		return h.revision
	}
	return h.sheets[len(h.sheets)-1]
}

// parse reads the answers to keys.get.
func (l *Log) parse(id commit.TransactionID, answers []*pb.ResponseOp) (*held, error) {
	found := answers[0].GetResponseRange().Kvs
	if len(found) == 0 {
		return nil, nil
	}
	h := &held{revision: found[0].CreateRevision}
	var err error
	h.entry, err = decision.DecodeEntry(found[0].Value)
	if err == nil && h.entry.ID != id {
		err = fmt.Errorf("it holds the entry of %q", h.entry.ID)
	}
	if err != nil {
		return nil, damaged(string(found[0].Key), err)
	}
	for i, kv := range answers[1].GetResponseRange().Kvs {
		h.last, err = decision.DecodeNotes(kv.Value)
		if err == nil && (string(kv.Key) != l.keys.sheet(id, i) || len(h.entry.Notes) != i*perSheet) {
			err = fmt.Errorf("a sheet of notes before it is missing or short")
		}
		if err != nil {
			return nil, damaged(string(kv.Key), err)
		}
		h.sheets = append(h.sheets, kv.ModRevision)
		h.entry.Notes = append(h.entry.Notes, h.last...)
	}
	return h, nil
}

// write returns the conditions and operations that append notes to what is held of a transaction, and
// keep its other keys in step with its status. They change nothing if anything was appended since.
func (l *Log) write(id commit.TransactionID, h *held, more []decision.Note) (conditions []clientv3.Cmp, ops []clientv3.Op, err error) {
	sheet, notes := len(h.sheets), more
	if sheet > 0 {
		last := l.keys.sheet(id, sheet-1)
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(last), "=", h.sheets[sheet-1]))
	}
	if sheet > 0 && len(h.last) < perSheet {
		sheet, notes = sheet-1, append(append([]decision.Note(nil), h.last...), more...)
	} else {
		conditions = append(conditions, absent(l.keys.sheet(id, sheet)))
	}
	for ; len(notes) > 0; sheet++ {
		n := min(len(notes), perSheet)
		data, err := decision.EncodeNotes(notes[:n])
		if err != nil {
			return nil, nil, err
		}
		ops = append(ops, clientv3.OpPut(l.keys.sheet(id, sheet), string(data)))
		notes = notes[n:]
	}
	was, now := h.entry.Status(), decision.Entry{Notes: append(append([]decision.Note(nil), h.entry.Notes...), more...)}.Status()
	switch {
	case now == decision.Done:
		// Always a new one, which has the revision of the last note: it counts from there.
		ops = append(ops, clientv3.OpPut(l.keys.done(l.cfg.Clock(), id), ""))
		if was != decision.Done {
			ops = append(ops, clientv3.OpDelete(l.keys.open(id)))
		}
		l.finished()
	case was == decision.Done:
		// It must be listed by when it was decided.
		ops = append(ops, clientv3.OpPut(l.keys.open(id), strconv.FormatInt(h.revision, 10)))
	}
	return conditions, ops, nil
}
