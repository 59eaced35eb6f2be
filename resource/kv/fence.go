package kv

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fence stands between Pebble and the file system. The first write, force or creation that fails
// stops the engine, and from then on nothing is written any more: a database that was given up
// must not disturb the one that is opened after it.
//
// Pebble is told of the failure, except where it is about the log: an error there makes Pebble
// panic while it holds what it must not, which ends the process. There the fence pretends that
// all is well. Nobody is deceived, because the engine acknowledges nothing after it has stopped,
// and it has stopped before the call returns.
type fence struct {
	vfs.FS
	e *engine
}

// How slowly operations fail after the first failure, so that Pebble's retries in the background
// do not spin.
const penalty = 10 * time.Millisecond

// refusal returns an error where the engine has stopped.
func (f fence) refusal() error {
	err := f.e.failure()
	if err != nil {
		time.Sleep(penalty)
	}
	return err
}

func (f fence) isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// made is what Create and its like return for the file name.
func (f fence) made(file vfs.File, name string, err error) (vfs.File, error) {
	log := f.isLog(name)
	if err != nil {
		f.e.fail(fmt.Errorf("make %s: %w", f.PathBase(name), err))
		if !log {
			return nil, err
		}
		file = nowhere{name: f.PathBase(name)}
	}
	return &fencedFile{File: file, e: f.e, log: log}, nil
}

// Create implements vfs.FS.
func (f fence) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.refusal(); err != nil {
		return f.made(nil, name, err)
	}
	file, err := f.FS.Create(name, category)
	return f.made(file, name, err)
}

// ReuseForWrite implements vfs.FS.
func (f fence) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.refusal(); err != nil {
		return f.made(nil, newname, err)
	}
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	return f.made(file, newname, err)
}

// OpenReadWrite implements vfs.FS.
func (f fence) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.refusal(); err != nil {
		return f.made(nil, name, err)
	}
	file, err := f.FS.OpenReadWrite(name, category, opts...)
	return f.made(file, name, err)
}

// OpenDir implements vfs.FS. Directories are forced for the sake of the log, among others.
func (f fence) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &fencedFile{File: file, e: f.e, log: true}, nil
}

// Link implements vfs.FS.
func (f fence) Link(oldname, newname string) error {
	if err := f.refusal(); err != nil {
		return err
	}
	return f.FS.Link(oldname, newname)
}

// Remove implements vfs.FS.
func (f fence) Remove(name string) error {
	if err := f.refusal(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (f fence) RemoveAll(name string) error {
	if err := f.refusal(); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (f fence) Rename(oldname, newname string) error {
	if err := f.refusal(); err != nil {
		return err
	}
	return f.FS.Rename(oldname, newname)
}

// Unwrap implements vfs.FS.
func (f fence) Unwrap() vfs.FS { return f.FS }

// fencedFile is a file that Pebble writes, or a directory that it forces.
type fencedFile struct {
	vfs.File
	e *engine
	// log says that errors are kept from Pebble.
	log bool
}

// guard does the operation unless the engine has stopped, and stops it where the operation fails.
func (f *fencedFile) guard(what string, operation func() error) error {
	err := f.e.failure()
	if err == nil {
		if err = operation(); err != nil {
			f.e.fail(fmt.Errorf("%s: %w", what, err))
		}
	}
	if f.log {
		return nil
	}
	return err
}

// Write implements vfs.File.
func (f *fencedFile) Write(p []byte) (n int, err error) {
	err = f.guard("write", func() (err error) {
		n, err = f.File.Write(p)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

// WriteAt implements vfs.File.
func (f *fencedFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.guard("write", func() (err error) {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

// Preallocate implements vfs.File. It is a hint, which some file systems refuse.
func (f *fencedFile) Preallocate(offset, length int64) error {
	if f.e.failure() != nil {
		return nil
	}
	return f.File.Preallocate(offset, length)
}

// Sync implements vfs.File.
func (f *fencedFile) Sync() error { return f.guard("force", f.File.Sync) }

// SyncData implements vfs.File.
func (f *fencedFile) SyncData() error { return f.guard("force", f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *fencedFile) SyncTo(length int64) (full bool, err error) {
	err = f.guard("force", func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// Close implements vfs.File. It closes the file in any case.
func (f *fencedFile) Close() error {
	err := f.File.Close()
	if err != nil {
		f.e.fail(fmt.Errorf("close: %w", err))
	}
	if f.log {
		return nil
	}
	return err
}

// nowhere is a log that could not be made. Nothing is ever written to it, since the engine has
// stopped.
type nowhere struct {
	vfs.File
	name string
}

// Stat implements vfs.File.
func (n nowhere) Stat() (vfs.FileInfo, error) { return nothing{n.name}, nil }

// Close implements vfs.File.
func (nowhere) Close() error { return nil }

// Fd implements vfs.File.
func (nowhere) Fd() uintptr { return vfs.InvalidFd }

// nothing describes nowhere: an empty file.
type nothing struct{ name string }

// Name implements os.FileInfo.
func (n nothing) Name() string { return n.name }

// Size implements os.FileInfo.
func (nothing) Size() int64 { return 0 }

// Mode implements os.FileInfo.
func (nothing) Mode() os.FileMode { return 0o600 }

// ModTime implements os.FileInfo.
func (nothing) ModTime() time.Time { return time.Time{} }

// IsDir implements os.FileInfo.
func (nothing) IsDir() bool { return false }

// Sys implements os.FileInfo.
func (nothing) Sys() any { return nil }

// DeviceID implements vfs.FileInfo.
func (nothing) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
