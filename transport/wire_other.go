//go:build !unix

package transport

import "syscall"

// writeDescriptor never writes: where there is no write(2), all is left to a goroutine that may wait.
func writeDescriptor(uintptr, []byte) (int, error) { return 0, syscall.EAGAIN }
