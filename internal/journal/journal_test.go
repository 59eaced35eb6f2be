package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var format = Format{Magic: "assentXX", Owner: "OWNER"}

func config(fs vfs.FS) Config {
	return Config{FS: fs, Dir: "j", Format: format, SegmentBytes: 64 << 10}
}

// begin begins a journal in an empty directory, or goes on with the one that is there.
func begin(t *testing.T, fs vfs.FS) (*Journal, *Contents) {
	t.Helper()
	if err := MakeDir(fs, "j"); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("j")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(names, func(n string) bool { return n != spareName }) {
		j, err := Begin(config(fs), 1)
		if err != nil {
			t.Fatal(err)
		}
		return j, &Contents{}
	}
	c, err := Read(fs, "j", format, 0)
	if err != nil {
		t.Fatal(err)
	}
	j, err := Resume(config(fs), c)
	if err != nil {
		t.Fatal(err)
	}
	return j, c
}

// record returns the record of that number: eight bytes to 2 KiB.
func record(n uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%08d", n), int(n*7%256)+1) }

// write writes the next record and forces it where it is told to.
func write(t *testing.T, j *Journal, force bool) (rotated bool) {
	t.Helper()
	rotated, err := j.Write(append(make([]byte, GroupHeader), record(j.Next())...), 1, 5)
	if err == nil && force {
		err = j.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	return rotated
}

// check reports records that are not what was written. The first expected is from.
func check(t *testing.T, c *Contents, from uint64) {
	t.Helper()
	for _, g := range c.Groups {
		if g.Seq != from || g.Count != 1 || g.At != 5 || !bytes.Equal(g.Records, record(from)) {
			t.Fatalf("record %d: got %d, count %d, %d bytes", from, g.Seq, g.Count, len(g.Records))
		}
		from++
	}
	if c.Next != from {
		t.Fatalf("next is %d, want %d", c.Next, from)
	}
}

// TestCrashes: after any crash what was forced is there, in order, across many segments and openings.
func TestCrashes(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		forced := uint64(0)
		for range 8 {
			j, c := begin(t, fs)
			if c.Next > 0 {
				check(t, c, 1)
				if c.Next <= forced {
					t.Fatalf("seed %d: %d records, but %d were forced", seed, c.Next-1, forced)
				}
			}
			for range rng.IntN(200) {
				force := rng.IntN(3) == 0
				if write(t, j, force); force {
					forced = j.Next() - 1
				}
				if rng.IntN(20) == 0 {
					if err := j.Rest(5); err != nil {
						t.Fatal(err)
					}
					forced = j.Next() - 1
				}
			}
			fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// fill writes n records, closes the journal, and returns its segments.
func fill(t *testing.T, fs vfs.FS, n int) []string {
	t.Helper()
	j, _ := begin(t, fs)
	for range n {
		write(t, j, true)
	}
	if err := errors.Join(j.Rest(5), j.Sync(), j.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("j")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// TestDamage: a flipped bit in what was stable is reported with its place, wherever it falls; so is a
// segment that is gone.
func TestDamage(t *testing.T) {
	fs := vfs.NewMem()
	names := fill(t, fs, 200)
	if len(names) < 3 {
		t.Fatalf("only %v", names)
	}
	path := "j/" + names[1]
	data, err := ReadFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := readBytes(path, data, format)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < whole.end-GroupHeader; at += 101 {
		if at >= headerSize && at < groupsOffset {
			continue
		}
		spoilt := bytes.Clone(data)
		spoilt[at] ^= 4
		_, err := readBytes(path, spoilt, format)
		damage, ok := errors.AsType[*DamageError](err)
		if !ok {
			t.Fatalf("a flipped bit at byte %d: %v", at, err)
		}
		if damage.Path != path || damage.Offset > at {
			t.Errorf("a flipped bit at byte %d is reported as %v", at, err)
		}
	}
	end := whole.end - 10 // in the group that says that the journal goes on in the next segment
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.WriteAt([]byte{data[end] ^ 4}, end)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(fs, "j", format, 0); err == nil {
		t.Error("a segment's end is damaged and nobody noticed")
	}
	for _, missing := range []int{1, len(names) - 1} {
		half := vfs.NewMem()
		fill(t, half, 200)
		if err := half.Remove("j/" + names[missing]); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(half, "j", format, 0); err == nil {
			t.Errorf("%s is gone and nobody noticed", names[missing])
		}
	}
	if _, err := readBytes(path, data, Format{Magic: format.Magic, Owner: "ANOTHER"}); err == nil {
		t.Error("another owner's segment is read")
	}
}

// TestTornTail: a last group that a crash tore is cut off, and what comes after it is read again.
func TestTornTail(t *testing.T) {
	fs := vfs.NewMem()
	j, _ := begin(t, fs)
	for range 10 {
		write(t, j, true)
	}
	path := j.seg.path
	torn := append(make([]byte, GroupHeader), record(11)...)
	putGroupHeader(torn, groupHeader{kind: recordGroup, length: len(torn) - GroupHeader, count: 1, segment: 1, seq: 11, proven: j.seg.proven}, j.salt)
	if _, err := j.seg.file.WriteAt(torn[:len(torn)-3], j.seg.off); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, c := begin(t, fs)
	check(t, c, 1)
	if c.Next != 11 {
		t.Fatalf("%d records; the last whole one is number 10", c.Next-1)
	}
	write(t, j, true)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, c = begin(t, fs)
	if check(t, c, 1); c.Next != 12 {
		t.Fatalf("%d records were read again; 11 were written", c.Next-1)
	}
	if c.Segments[0] != 1 || path != "j/"+segmentName(1) {
		t.Errorf("segments %v", c.Segments)
	}
	for !write(t, j, true) {
	}
	if err := errors.Join(j.Drop(1), j.Close()); err != nil {
		t.Fatal(err)
	}
	if c, err := Read(fs, "j", format, 0); err != nil || c.First != j.Segment() || c.Next != c.First+1 {
		t.Errorf("without the first segment: first %d, next %d, %v", c.First, c.Next, err)
	}
}

// TestResumeWritesAgain: what a failed sync left in memory alone is on the disk after Resume: a crash
// that loses all that was never forced finds it.
func TestResumeWritesAgain(t *testing.T) {
	for _, records := range []int{3, 150} { // in the first segment, and in a later one
		fs := vfs.NewCrashableMem()
		j, _ := begin(t, fs)
		for range records {
			write(t, j, false)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j, c := begin(t, fs)
		check(t, c, 1)
		if c.Next != uint64(records)+1 {
			t.Fatalf("%d records can be read; %d were written", c.Next-1, records)
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{})
		c, err := Read(after, "j", format, 0)
		if err != nil {
			t.Fatal(err)
		}
		if check(t, c, 1); c.Next != uint64(records)+1 {
			t.Errorf("%d of %d records are left", c.Next-1, records)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForeign(t *testing.T) {
	fs := vfs.NewMem()
	fill(t, fs, 1)
	if err := WriteFile(fs, "j/notes.txt", "j/temp", "mine"); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(fs, "j", format, 0); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v, want %v", err, ErrForeign)
	}
	lock, err := Lock(fs, "j/LOCK")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(fs, "j/LOCK"); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
}
