package stack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/sim"
)

// medium is a node's file system in memory. What was not forced is lost in a crash, all of it unless a
// fault says that a part is kept: how much the store's own goroutines have written by then must not
// matter.
type medium struct {
	memory *vfs.MemFS
	fs     vfs.FS
	// suffix is that of the files in which the store or the log keeps what it forces.
	suffix string
	// ailing is the class of the fault that the next forced write meets.
	ailing atomic.Uint32
}

var errSync = errors.New("the disk does not answer")

const (
	storeSuffix = ".log"
	logSuffix   = ".segment"
)

func newMedium(memory *vfs.MemFS, suffix string) *medium {
	d := &medium{memory: memory, suffix: suffix}
	d.fs = errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
		c := sim.Class(d.ailing.Load())
		if c == 0 || !d.forced(op.Path) {
			return nil
		}
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpFileWriteAt:
			if c == sim.DiskFull {
				return fmt.Errorf("%s: %w", op.Path, syscall.ENOSPC)
			}
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			return fmt.Errorf("%s: %w", op.Path, errSync)
		}
		return nil
	}))
	return d
}

func (d *medium) forced(path string) bool { return strings.HasSuffix(path, d.suffix) }

// ail makes forced writes fail in the way of f, or not any more where it is nil.
func (d *medium) ail(f *sim.Fault) {
	c := sim.Class(0)
	if f != nil {
		c = f.Class
	}
	d.ailing.Store(uint32(c))
}

// crashed returns the disk as it is found after a crash that keeps so many percent of what a failed
// force has left.
func (d *medium) crashed(dir string, percent int) (*medium, error) {
	after := d.memory.CrashClone(vfs.CrashCloneCfg{})
	if percent > 0 {
		kept := d.memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100,
			RNG: rand.New(rand.NewPCG(0, 0))}) // all of it is kept, whatever is drawn
		paths, err := find(after, dir, d.forced)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if err := keep(after, kept, path, percent); err != nil {
				return nil, err
			}
		}
	}
	return newMedium(after, d.suffix), nil
}

// find returns the files below dir that are wanted, in order.
func find(fs vfs.FS, dir string, wanted func(string) bool) (paths []string, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		path := fs.PathJoin(dir, name)
		info, err := fs.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			below, err := find(fs, path, wanted)
			if err != nil {
				return nil, err
			}
			paths = append(paths, below...)
		} else if wanted(path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// keep writes the first part of what differs in the file path of kept into that of fs.
func keep(fs, kept *vfs.MemFS, path string, percent int) error {
	stable, err := read(fs, path)
	if err != nil {
		return err
	}
	written, err := read(kept, path)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil // the store has just dropped it: it needs it no more
	}
	if err != nil {
		return err
	}
	from, to := 0, len(written)
	for from < len(stable) && from < to && stable[from] == written[from] {
		from++
	}
	for len(stable) == len(written) && to > from && stable[to-1] == written[to-1] {
		to--
	}
	part := written[from : from+(to-from)*percent/100]
	return overwrite(fs, path, append(append(bytes.Clone(stable[:from]), part...), stable[min(from+len(part), len(stable)):]...))
}

func read(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func overwrite(fs vfs.FS, path string, data []byte) error {
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0) // no shorter than what was there
	return errors.Join(err, f.Sync(), f.Close())
}

// The form of the decision log's segments, from docs/format/decision-log.md.
const (
	firstGroup  = 4096
	groupHeader = 56
	groupMagic  = "AGrp"
)

// corrupt changes one byte of a record that is stable, in the first segment of a decision log, if the
// log itself can know that it was stable: a later group testifies to that. It returns what puts the
// byte back, or nil where there is no such record.
func (d *medium) corrupt(dir string, chance uint64) (repair func() error, err error) {
	paths, err := find(d.memory, dir, d.forced)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	data, err := read(d.memory, paths[0])
	if err != nil {
		return nil, err
	}
	var groups []int
	for at := firstGroup; at+groupHeader < len(data) && string(data[at:at+4]) == groupMagic; {
		groups = append(groups, at)
		at += groupHeader + int(binary.BigEndian.Uint32(data[at+8:]))
	}
	if len(groups) < 2 || binary.BigEndian.Uint64(data[groups[len(groups)-1]+40:]) < uint64(groups[1]) {
		return nil, nil
	}
	good := bytes.Clone(data)
	data[groups[0]+int(chance%uint64(groups[1]-groups[0]))] ^= 0x40
	repair = func() error { return overwrite(d.memory, paths[0], good) }
	return repair, overwrite(d.memory, paths[0], data)
}
