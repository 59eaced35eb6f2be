package journal

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors of directories.
var (
	// ErrForeign says that a directory holds something that is not a journal's.
	ErrForeign = errors.New("the directory holds something else")
	// ErrLocked says that another process, or another part of this one, holds the directory.
	ErrLocked = errors.New("the directory is in use")
)

const (
	segmentSuffix = ".segment"
	spareName     = "spare"
)

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// MakeDir makes dir, for its owner's eyes only, and makes the making stable.
func MakeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return SyncDir(fs, fs.PathDir(dir))
}

// SyncDir makes the names in dir stable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err == nil {
		err = d.Sync()
		if cerr := d.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("force the directory %s: %w", dir, err)
	}
	return nil
}

// Lock takes the lock file at path. It fails with ErrLocked where somebody holds it.
func Lock(fs vfs.FS, path string) (io.Closer, error) {
	lock, err := fs.Lock(path)
	switch {
	case err == nil:
		return lock, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES) && !errors.Is(err, iofs.ErrPermission),
		strings.Contains(err.Error(), "lock held by current process"):
		return nil, fmt.Errorf("%w: %s is locked: %w", ErrLocked, path, err)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// WriteFile puts a file with the given text in place of whatever is at path, in one stable step. It
// uses the name temp beside it.
func WriteFile(fs vfs.FS, path, temp, text string) error {
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(temp, path)
	}
	if err == nil {
		err = SyncDir(fs, fs.PathDir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
