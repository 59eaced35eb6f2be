package kv

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// What a store draws, it draws from Config.Random alone: the same bytes make the same evidence.
func TestEvidenceComesFromRandom(t *testing.T) {
	vote := func(seed byte) []byte {
		r := open(t, "store", Config{FS: vfs.NewMem(), Random: rand.NewChaCha8([32]byte{seed})})
		tx := begin(t, r, "x")
		put(t, tx, "k", "v")
		return prepare(t, tx).Evidence
	}
	if first, again := vote(1), vote(1); !bytes.Equal(first, again) {
		t.Errorf("the same bytes made %x and %x", first, again)
	}
	if first, other := vote(1), vote(2); bytes.Equal(first, other) {
		t.Errorf("other bytes made the same evidence %x", first)
	}
}
