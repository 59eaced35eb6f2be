//go:build unix

package transport

import "syscall"

// writeDescriptor is write(2).
func writeDescriptor(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
