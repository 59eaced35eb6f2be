package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"assent/internal/journal"
	"assent/protocol"
	"assent/protocol/membership"
	"assent/resource"
)

func testRecords(t *testing.T, fs vfs.FS) recordsConfig {
	t.Helper()
	codec, err := protocol.NewCodec(membership.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	return recordsConfig{fs: fs, dir: "/data/members", owner: "shop", node: "a", codec: codec}
}

func reopen(t *testing.T, cfg recordsConfig) (*records, protocol.Records) {
	t.Helper()
	r, err := openRecords(cfg)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.load()
	if err != nil {
		t.Fatal(err)
	}
	return r, all
}

// What was forced is there after a crash, whatever was written since all was written in one; and the files do not
// grow with what is written, but with what counts.
func TestRecordsSurvive(t *testing.T) {
	fs := vfs.NewCrashableMem()
	cfg := testRecords(t, fs)
	r, all := reopen(t, cfg)
	if len(all) != 0 {
		t.Fatalf("%v", all)
	}
	storage := r.storage
	want := protocol.Records{}
	for i := range 6000 {
		key := fmt.Sprintf("key/%d", i%40)
		w := []protocol.Write{{Key: key, Record: membership.LifeRecord{Storage: strings.Repeat("s", i%900), Incarnation: uint64(i)}}}
		want[key] = w[0].Record
		if i%7 == 0 {
			gone := fmt.Sprintf("key/%d", (i+3)%40)
			w = append(w, protocol.Write{Key: gone})
			delete(want, gone)
		}
		if err := r.force(w); err != nil {
			t.Fatal(err)
		}
		if i%1500 == 77 { // the machine stops
			fs = fs.CrashClone(vfs.CrashCloneCfg{})
			cfg.fs = fs
			var again protocol.Records
			if r, again = reopen(t, cfg); r.storage != storage {
				t.Fatalf("storage %s, and then %s", storage, r.storage)
			} else if d := cmp.Diff(want, again); d != "" {
				t.Fatalf("after write %d:\n%s", i, d)
			}
		}
	}
	names, err := fs.List("/data/members/segments")
	if err != nil || len(names) > 3 {
		t.Errorf("files %v, %v", names, err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	r, again := reopen(t, cfg)
	if d := cmp.Diff(want, again); d != "" {
		t.Error(d)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// What is damaged, missing or another's is told with what to do; what was never finished is made anew.
func TestRecordsThatCannotBeOpened(t *testing.T) {
	remove := func(name string) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			if err := fs.Remove("/data/members/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, text string) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			if err := journal.WriteFile(fs, "/data/members/"+name, "/data/members/FORMAT.new", text); err != nil {
				t.Fatal(err)
			}
		}
	}
	const segment = "segments/00000000000000000001.segment"
	for name, c := range map[string]struct {
		do     func(*testing.T, vfs.FS)
		remain string
		node   protocol.NodeID
		want   error
		text   string
	}{
		"nothing":           {do: func(*testing.T, vfs.FS) {}},
		"no FORMAT":         {do: remove("FORMAT")},
		"lost in part":      {do: remove("FORMAT"), remain: "/data/decisions/FORMAT", want: errLostInPart, text: "/data/decisions/FORMAT is there"},
		"another's":         {do: func(*testing.T, vfs.FS) {}, node: "b", want: ErrForeign, text: `belongs to the node "a"`},
		"no FORMAT of ours": {do: write("FORMAT", "something else\n"), want: ErrForeign},
		"something else": {do: func(t *testing.T, fs vfs.FS) {
			remove("FORMAT")(t, fs)
			write("notes", "x")(t, fs)
		}, want: ErrForeign, text: `holds "notes"`},
		"a later format":  {do: write("FORMAT", "assent membership\nformat 2\n"), want: ErrFormat, text: "knows up to 1"},
		"a broken FORMAT": {do: write("FORMAT", "assent membership\nformat 1\nowner x\nnode y\nstorage z\ncrc32c 00000000\n"), text: "checksum"},
		"a short FORMAT":  {do: write("FORMAT", "assent membership\nformat 1\n"), text: "lines"},
		"no segment":      {do: remove(segment), text: "segment"},
		"a broken segment": {do: func(t *testing.T, fs vfs.FS) {
			f, err := fs.OpenReadWrite("/data/members/"+segment, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = f.WriteAt([]byte("xxxx"), 4096+70); err == nil {
				err = f.Sync()
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}, text: "no group can be read here"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			cfg := testRecords(t, fs)
			r, _ := reopen(t, cfg)
			for range 3 {
				if err := r.force([]protocol.Write{{Key: "k", Record: membership.LifeRecord{Storage: "s"}}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.close(); err != nil {
				t.Fatal(err)
			}
			c.do(t, fs)
			if cfg.remains = c.remain; c.node != "" {
				cfg.node = c.node
			}
			r, err := openRecords(cfg)
			if c.want == nil && c.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := r.close(); err != nil {
					t.Error(err)
				}
				return
			}
			house := Config{Dir: "/data"}
			explained := house.explain(err)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || resource.HintOf(explained) == "" {
				t.Errorf("got %v; want %v, %q; hint %q", err, c.want, c.text, resource.HintOf(explained))
			}
		})
	}
}

func TestRecordsAreLocked(t *testing.T) {
	cfg := testRecords(t, vfs.Default)
	cfg.dir = filepath.Join(t.TempDir(), "members")
	r, _ := reopen(t, cfg)
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := openRecords(cfg); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("%v", err)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{someRecords, 1, 1, 'k', 2, 'v'})
	f.Add([]byte{allRecords, 2, 1, 'k', 2, 'v', 1, 'l', 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &records{values: map[string][]byte{"old": {1}}}
		if kind, err := r.replay(data); err == nil && kind == allRecords {
			if _, ok := r.values["old"]; ok && !strings.Contains(string(data), "old") {
				t.Error("what was before is not replaced")
			}
		}
	})
}
