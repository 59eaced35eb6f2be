package disk

import (
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SlowSync returns a file system like fs on which every sync of a segment of the log takes d
// longer. It is for measurements: a machine's disk may be faster than the one to plan for.
func SlowSync(fs vfs.FS, d time.Duration) vfs.FS { return slowFS{fs, d} }

type slowFS struct {
	vfs.FS
	d time.Duration
}

// OpenReadWrite implements vfs.FS. It is how segments, and they alone, are opened to be written.
func (s slowFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, c, opts...)
	if err != nil || !strings.HasSuffix(name, segmentSuffix) {
		return f, err
	}
	return slowFile{f, s.d}, nil
}

// Unwrap implements vfs.FS.
func (s slowFS) Unwrap() vfs.FS { return s.FS }

type slowFile struct {
	vfs.File
	d time.Duration
}

// Sync implements vfs.File.
func (f slowFile) Sync() error {
	time.Sleep(f.d)
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f slowFile) SyncData() error {
	time.Sleep(f.d)
	return f.File.SyncData()
}
