package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/resource"
)

const smallSegment = 64 << 10

// memLog makes a log in memory with n decisions, of which every third is finished, and returns
// its file system once it is closed in good order.
func memLog(t testing.TB, n int, cfg Config) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	cfg.FS, cfg.SegmentBytes, cfg.Logger = fs, smallSegment, quiet()
	l, err := Open("log", cfg)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 0, n)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

func fill(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := l.Decide(context.Background(), entry(i)); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			n := decision.Note{Kind: decision.Finished, Forced: true}
			if err := l.Annotate(context.Background(), entry(i).ID, n); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// missing returns what is wrong with the first of n entries that is not as fill left it.
func missing(l *Log, n int) error {
	for i := range n {
		e, err := l.Lookup(context.Background(), entry(i).ID)
		if err != nil {
			return err
		}
		if e.Decision != entry(i).Decision || e.By != "coordinator" || len(e.Branches) != 2 {
			return fmt.Errorf("entry %d is %+v", i, e)
		}
		if done := e.Status() == decision.Done; done != (i%3 == 0) {
			return fmt.Errorf("entry %d is %v", i, e.Status())
		}
	}
	return nil
}

// spoil returns a copy of the log on fs in which the file at path was changed by f.
func spoil(t testing.TB, fs *vfs.MemFS, path string, f func([]byte) []byte) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewMem()
	if _, err := vfs.Clone(fs, mem, "log", "log"); err != nil {
		t.Fatal(err)
	}
	data, err := readFile(mem, path)
	if err != nil {
		t.Fatal(err)
	}
	if data = f(data); data == nil {
		if err := mem.Remove(path); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	w, err := mem.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	return mem
}

// survives opens the damaged log on fs. Either it is refused, with the place and a hint, or all n
// entries are there. It reports which.
func survives(t testing.TB, fs vfs.FS, n int, what string) (opened bool) {
	t.Helper()
	l, err := Open("log", Config{FS: fs, SegmentBytes: smallSegment, Logger: quiet()})
	if err != nil {
		if !strings.Contains(err.Error(), "log") || resource.HintOf(err) == "" {
			t.Errorf("%s: the error names no place or gives no hint: %v", what, err)
		}
		return false
	}
	defer l.Close()
	if err := missing(l, n); err != nil {
		t.Errorf("%s: opened, but %v", what, err)
	}
	return true
}

func flip(at int, mask byte) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at] ^= mask
		return b
	}
}

func zero(at, n int) func([]byte) []byte {
	return func(b []byte) []byte {
		clear(b[at:min(at+n, len(b))])
		return b
	}
}

func onlySegment(t testing.TB, fs vfs.FS) (path string, data []byte) {
	t.Helper()
	names, err := fs.List("log/" + segmentsName)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			if path != "" {
				t.Fatalf("more than one segment: %v", names)
			}
			path = "log/" + segmentsName + "/" + name
		}
	}
	if data, err = readFile(fs, path); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func records(c *contents) (n int) {
	for _, g := range c.groups {
		n += len(g.records)
	}
	return n
}

// Every byte of a segment is flipped, one at a time. After a close in good order all that was told
// is either there or the segment is refused. After a crash the same holds for all but the last
// group, to whose stability nothing may testify yet.
func TestEveryFlippedByteOfASegment(t *testing.T) {
	fs := memLog(t, 30, Config{})
	path, data := onlySegment(t, fs)
	l, err := Open("log", Config{FS: fs, SegmentBytes: smallSegment, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	owner := l.Owner()
	l.Close()

	whole, err := readBytes(path, data, owner)
	if err != nil {
		t.Fatal(err)
	}
	if got := records(whole); got != 40 {
		t.Fatalf("%d records; want 40", got)
	}
	// The crash: nothing testifies to the last group.
	last := whole.groups[len(whole.groups)-1]
	crashed := append([]byte(nil), data...)
	clear(crashed[sealOffset:groupsOffset])
	refused := 0
	for at := range int(whole.end) + 100 {
		for _, mask := range []byte{1, 0x80, 0xff} {
			c, err := readBytes(path, flip(at, mask)(data), owner)
			flip(at, mask)(data) // and back
			switch {
			case err != nil:
				refused++
				damage, ok := errors.AsType[*DamageError](err)
				if !ok || damage.Path != path || damage.Offset < 0 || damage.Offset > int64(at) {
					t.Fatalf("byte %d: got %v; want a DamageError at or before it", at, err)
				}
			case records(c) != records(whole):
				t.Fatalf("byte %d: %d of %d records, and no error", at, records(c), records(whole))
			}
			c, err = readBytes(path, flip(at, mask)(crashed), owner)
			flip(at, mask)(crashed)
			if err == nil && records(c) < records(whole)-len(last.records) {
				t.Fatalf("byte %d after a crash: %d of %d records, and no error", at, records(c), records(whole))
			}
		}
	}
	if refused < 3*int(whole.end-groupsOffset) {
		t.Errorf("only %d flips were refused", refused)
	}
	for _, n := range []int{1, 8, 64, 512, 4096} {
		for at := 0; at < int(whole.end); at += max(n/2, 7) {
			c, err := readBytes(path, zero(at, n)(append([]byte(nil), data...)), owner)
			if err == nil && records(c) != records(whole) {
				t.Fatalf("%d zeros at %d: %d of %d records, and no error", n, at, records(c), records(whole))
			}
		}
	}
	for n := 0; n < len(data); n += 997 {
		if _, err := readBytes(path, data[:n], owner); err == nil {
			t.Fatalf("cut to %d bytes, and no error", n)
		}
	}
	if _, err := readBytes(path, data, "another"); err == nil {
		t.Fatal("the segment of another log is accepted")
	}
}

// A torn last group is left out; so is what is not forced behind it.
func TestTornTailIsCut(t *testing.T) {
	fs := memLog(t, 20, Config{})
	path, data := onlySegment(t, fs)
	format, err := readFile(fs, "log/"+formatName)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := parseFormat(formatName, string(format))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := readBytes(path, data, owner)
	if err != nil {
		t.Fatal(err)
	}
	// What the writing of the last group looked like when it was cut off at n bytes.
	start, all := int(groupsOffset), records(whole)
	for off := start; off < int(whole.end); {
		h, _, ok := decodeGroup(data[off:], whole.first, salt(owner))
		if !ok {
			t.Fatalf("no group at %d", off)
		}
		start, off = off, off+groupHeaderSize+h.length
	}
	for n := start; n < int(whole.end); n += 5 {
		torn := append([]byte(nil), data...)
		clear(torn[n:])
		clear(torn[sealOffset:groupsOffset])
		c, err := readBytes(path, torn, owner)
		if err != nil || records(c) != all-1 {
			t.Fatalf("torn at %d: %v; want all records but the last", n, err)
		}
	}
	torn := spoil(t, fs, path, func(b []byte) []byte {
		clear(b[sealOffset:groupsOffset])
		clear(b[start+9:])
		return b
	})
	l := mustOpen(t, "log", Config{FS: torn, SegmentBytes: smallSegment})
	if err := missing(l, 19); err != nil {
		t.Error(err)
	}
	if _, err := l.Lookup(t.Context(), entry(19).ID); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("the torn entry: got %v; want %v", err, decision.ErrNotFound)
	}
}

// Open is all or nothing for every file in the directory: flips, zeroed sectors, cuts, removals.
func TestDamageAnywhere(t *testing.T) {
	const n = 60
	// Two generations, so that the index has tables and the segment has records that it lacks.
	fs := memLog(t, n/2, Config{})
	cfg := Config{FS: fs, SegmentBytes: smallSegment, Logger: quiet()}
	l, err := Open("log", cfg)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, n/2, n)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"log", "log/" + indexName, "log/" + segmentsName} {
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := dir + "/" + name
			if info, err := fs.Stat(path); err != nil || info.IsDir() || name == spareName {
				continue
			}
			data, err := readFile(fs, path)
			if err != nil {
				t.Fatal(err)
			}
			opened, tries := 0, 0
			try := func(what string, f func([]byte) []byte) {
				tries++
				if survives(t, spoil(t, fs, path, f), n, path+": "+what) {
					opened++
				}
			}
			used := len(strings.TrimRight(string(data), "\x00"))
			for at := 0; at < used; at += max(1, used/37) {
				try(fmt.Sprintf("flip at %d", at), flip(at, 0x10))
				try(fmt.Sprintf("cut at %d", at), func(b []byte) []byte { return b[:at:at] })
			}
			for at := 0; at < used; at += 512 {
				try(fmt.Sprintf("zeros at %d", at), zero(at, 512))
			}
			try("removed", func([]byte) []byte { return nil })
			t.Logf("%s, %d bytes: %d of %d damaged logs open", path, len(data), opened, tries)
		}
	}
}

// A log whose newest segment is gone, or comes from another time, is refused.
func TestSegmentsMustFollowTheIndex(t *testing.T) {
	old := memLog(t, 10, Config{})
	path, _ := onlySegment(t, old)
	if survives(t, spoil(t, old, path, func([]byte) []byte { return nil }), 10, "no segment") {
		t.Error("a log without its segment opens")
	}
	// The index of a younger self, the segments of an older one.
	now := vfs.NewMem()
	if _, err := vfs.Clone(old, now, "log", "log"); err != nil {
		t.Fatal(err)
	}
	l, err := Open("log", Config{FS: now, SegmentBytes: smallSegment, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 10, 1000)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := now.RemoveAll("log/" + indexName); err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.Clone(old, now, "log/"+indexName, "log/"+indexName); err != nil {
		t.Fatal(err)
	}
	_, err = Open("log", Config{FS: now, SegmentBytes: smallSegment, Logger: quiet()})
	if _, ok := errors.AsType[*DamageError](err); !ok || !strings.Contains(err.Error(), "record 1 is not there") {
		t.Errorf("got %v; want the missing record named", err)
	}
}
