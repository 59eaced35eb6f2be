package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"unsafe"
)

// tunnel is the main function of a process that is run within a network namespace: it makes the interface
// t0 there, whose packets go through a file, and passes the file to its parent by the socket 3.
func tunnel() int {
	fd, err := makeTunnel()
	if err == nil {
		err = syscall.Sendmsg(3, []byte{0}, syscall.UnixRights(fd), nil, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a tunnel:", err)
		return 1
	}
	return 0
}

// makeTunnel is the one thing that needs a bare system call.
func makeTunnel() (int, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "t0")
	request.flags = syscall.IFF_TUN | syscall.IFF_NO_PI
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); e != 0 {
		return 0, e
	}
	return fd, nil
}

// openTunnel makes an interface with the address in the namespace and returns the file of its packets.
func openTunnel(namespace, address string) (*os.File, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("ip", "netns", "exec", namespace, self)
	cmd.Env = append(os.Environ(), roleEnv+"=tunnel")
	cmd.ExtraFiles = []*os.File{theirs}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	data, control := make([]byte, 1), make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := syscall.Recvmsg(pair[0], data, control, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("no file was passed"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("no file was passed"), err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil { // so that Close ends Read
		return nil, err
	}
	file := os.NewFile(uintptr(fds[0]), "tunnel")
	for _, args := range [][]string{{"address", "add", address + "/24", "dev", "t0"}, {"link", "set", "t0", "up"}, {"link", "set", "lo", "up"}} {
		if err := ip(append([]string{"-n", namespace}, args...)...); err != nil {
			_ = file.Close()
			return nil, err
		}
	}
	return file, nil
}
