package disk

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var errFenced = errors.New("a newer opening of the decision log has taken over")

// fence is the file system of one store. Once it is raised nothing that is left of the store can
// change anything any more, however long it hangs, so that another store may take its place.
type fence struct {
	vfs.FS
	gate   sync.RWMutex // held shared while something is being changed
	raised bool
}

func newFence(fs vfs.FS) *fence { return &fence{FS: fs} }

// raise stops all changes. It waits for those under way, no longer than patience, and reports
// whether they have ended.
func (f *fence) raise(patience time.Duration) bool {
	up := make(chan struct{})
	go func() {
		defer close(up)
		f.gate.Lock()
		defer f.gate.Unlock()
		f.raised = true
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-up:
		return true
	case <-timer.C:
		return false
	}
}

func (f *fence) do(change func() error) error {
	f.gate.RLock()
	defer f.gate.RUnlock()
	if f.raised {
		return errFenced
	}
	return change()
}

func (f *fence) file(open func() (vfs.File, error)) (file vfs.File, err error) {
	err = f.do(func() error {
		file, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return fencedFile{file, f}, nil
}

// Create implements vfs.FS. The engine moves its marker to a new manifest by making a file, and
// forces the directory once for both. Nothing says that the manifest's name is stable before the
// marker's, and a marker that leads nowhere keeps the index from opening: so the directory is
// forced before a marker is made as well.
func (f *fence) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) {
		if strings.HasPrefix(f.PathBase(name), "marker.") {
			if err := syncDir(f.FS, f.PathDir(name)); err != nil {
				return nil, err
			}
		}
		return f.FS.Create(name, c)
	})
}

// OpenReadWrite implements vfs.FS.
func (f *fence) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, opts...) })
}

// ReuseForWrite implements vfs.FS.
func (f *fence) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) })
}

// Link implements vfs.FS.
func (f *fence) Link(from, to string) error {
	return f.do(func() error { return f.FS.Link(from, to) })
}

// Remove implements vfs.FS.
func (f *fence) Remove(name string) error {
	return f.do(func() error { return f.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (f *fence) RemoveAll(name string) error {
	return f.do(func() error { return f.FS.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (f *fence) Rename(from, to string) error {
	return f.do(func() error { return f.FS.Rename(from, to) })
}

// MkdirAll implements vfs.FS.
func (f *fence) MkdirAll(dir string, perm os.FileMode) error {
	return f.do(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Lock implements vfs.FS. The engine's lock is not needed: the log holds one on its directory,
// and a store that hangs could not give the engine's back.
func (f *fence) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// Unwrap implements vfs.FS.
func (f *fence) Unwrap() vfs.FS { return f.FS }

// fencedFile is a file that is being written.
type fencedFile struct {
	vfs.File
	f *fence
}

// Write implements vfs.File.
func (w fencedFile) Write(b []byte) (n int, err error) {
	err = w.f.do(func() error {
		n, err = w.File.Write(b)
		return err
	})
	return n, err
}

// WriteAt implements vfs.File.
func (w fencedFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = w.f.do(func() error {
		n, err = w.File.WriteAt(b, at)
		return err
	})
	return n, err
}

// Preallocate implements vfs.File.
func (w fencedFile) Preallocate(at, n int64) error {
	return w.f.do(func() error { return w.File.Preallocate(at, n) })
}
