package disk

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"assent/decision"
	"assent/protocol/commit"
)

var rewrite = flag.Bool("rewrite", false, "write the seeds of the fuzz targets and the golden bytes anew")

func fullEntry() decision.Entry {
	e := entry(7)
	e.Reason = "because"
	e.Notes = []decision.Note{
		{Kind: decision.Heuristic, Time: time.Unix(9, 8).UTC(), Branch: "orders", Outcome: commit.Hazard, Reason: "unknown"},
		{Kind: decision.Resolved, Time: time.Unix(10, 0).UTC(), Branch: "orders", By: "alice"},
		{Kind: decision.Finished, Time: time.Unix(11, 0).UTC()},
	}
	return e
}

// seeds returns something well-formed for every decoder.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	cborEntry, err := fullEntry().Encode()
	if err != nil {
		t.Fatal(err)
	}
	cborNote, err := fullEntry().Notes[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	key := entryKey(fullEntry().ID)
	value := appendStored(nil, key, &stored{status: decision.Done, decided: 1, done: 2, doneAt: 3, raw: cborEntry})
	recs := appendRecord(nil, record{decideRecord, "tx-000007", cborEntry})
	recs = appendRecord(recs, record{noteRecord, "tx-000007", cborNote})
	recs = appendRecord(recs, record{forgetRecord, "tx-000007", nil})
	group := append(make([]byte, groupHeaderSize), recs...)
	h := groupHeader{kind: recordGroup, length: len(recs), count: 3, segment: 1, seq: 1, proven: groupsOffset, at: 1_700_000_000_000}
	putGroupHeader(group, h, salt("OWNER"))
	segment := append(encodeSegmentHeader(1, groupsOffset, "OWNER"), make([]byte, groupsOffset-segmentHeaderSize)...)
	return map[string][]byte{
		"Entry": cborEntry, "Note": cborNote, "Stored": value, "Records": recs,
		"Segment": append(segment, group...), "Format": []byte(formatText("OWNER")),
	}
}

// The bytes on the disk do not change by accident: docs/format/decision-log.md describes these.
func TestGoldenBytes(t *testing.T) {
	for name, data := range seeds(t) {
		path := filepath.Join("testdata", "golden", name+".hex")
		text := hex.Dump(data)
		if *rewrite {
			write(t, path, text)
			write(t, filepath.Join("testdata", "fuzz", "Fuzz"+name, "wellformed"),
				fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data))
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whatever an entry's decoder accepts is valid and survives another round.
func FuzzEntry(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decision.DecodeEntry(data)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatalf("%+v cannot be encoded: %v", e, err)
		}
		back, err := decision.DecodeEntry(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, back, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzNote(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := decision.DecodeNote(data); err == nil && n.Check() != nil {
			t.Errorf("%+v is accepted", n)
		}
	})
}

func FuzzStored(f *testing.F) {
	key := entryKey("tx-000007")
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum is made right, or nothing behind it would ever be reached.
		if len(data) >= 4 {
			data = bytes.Clone(data)
			bindValue(key, data)
		}
		if s, err := decodeStored(key, data); err == nil {
			if err := s.decode(); err == nil && s.known.ID != "tx-000007" {
				t.Errorf("another's entry is accepted: %+v", s.known)
			}
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		for count := range 5 {
			records, err := decodeRecords(data, count)
			if err != nil {
				continue
			}
			var again []byte
			for _, r := range records {
				again = appendRecord(again, r)
				c := change{record: r}
				_ = c.parse()
			}
			if len(records) != count || len(again) > len(data) {
				t.Errorf("%d records of %d bytes from %d bytes", len(records), len(again), len(data))
			}
		}
	})
}

func FuzzSegment(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := readBytes("segment", data, "OWNER"); err == nil && c.next < c.first {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzFormat(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if owner, err := parseFormat(formatName, string(data)); err == nil && formatText(owner) != string(data) {
			t.Errorf("owner %q from %q", owner, data)
		}
	})
}
