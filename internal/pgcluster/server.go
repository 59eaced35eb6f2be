package pgcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/internal/ports"
)

// Mode says how Stop stops a server.
type Mode string

// The modes. They are those of pg_ctl.
const (
	// Fast rolls back what is open and shuts down in order.
	Fast Mode = "fast"
	// Immediate stops without a checkpoint: the next start recovers as after a crash.
	Immediate Mode = "immediate"
)

// Start starts a server that is stopped and returns when it accepts connections. It does nothing
// where the server runs.
func (c *Cluster) Start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running() {
		return nil
	}
	ctx, cancel := timeLeft(ctx)
	defer cancel()
	for {
		err := c.launch(ctx)
		if err == nil {
			return nil
		}
		c.stop(syscall.SIGQUIT)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, errPortTaken):
			c.port.Store(socketPort) // choose another
		case errors.Is(err, errStillUsed):
			// The processes of a killed server are still about to notice that it is gone.
		default:
			return err
		}
		pause(ctx)
	}
}

var (
	errPortTaken = errors.New("the port is taken")
	errStillUsed = errors.New("the killed server's processes are not gone yet")
)

func (c *Cluster) launch(ctx context.Context) error {
	args := []string{"-D", c.data()}
	if c.opts.TCP && c.port.Load() == socketPort {
		port, letGo, err := ports.Reserve()
		if err != nil {
			return err
		}
		if c.letGo != nil {
			c.letGo()
		}
		c.letGo = letGo
		c.port.Store(int32(port))
	}
	if c.opts.TCP {
		args = append(args, "-c", "listen_addresses=127.0.0.1")
	}
	args = append(args, "-c", "port="+strconv.Itoa(int(c.port.Load())))
	log, err := os.OpenFile(c.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close()
	start, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), args...)
	c.prepare(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	c.tellGuard(cmd.Process.Pid)
	exited := make(chan struct{})
	c.server, c.exited = cmd, exited
	go func() {
		_ = cmd.Wait() // the log says why it exited
		close(exited)
	}()
	return c.await(ctx, start)
}

// await waits until the server accepts a connection, or has exited; since is where its log began.
func (c *Cluster) await(ctx context.Context, since int64) error {
	for {
		conn, err := pgx.Connect(ctx, c.DSN(""))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.exited:
			return c.startError(since)
		default:
		}
		if ctx.Err() != nil {
			return fmt.Errorf("postgres in %s does not accept connections: %w", c.dir, err)
		}
		pause(ctx)
	}
}

func (c *Cluster) startError(since int64) error {
	log, err := os.ReadFile(c.LogFile())
	if err != nil {
		return fmt.Errorf("postgres exited, and its log cannot be read: %w", err)
	}
	log = bytes.TrimSpace(log[min(since, int64(len(log))):])
	text := string(log)
	err = fmt.Errorf("postgres in %s exited at its start: %s", c.dir, text)
	switch {
	case strings.Contains(text, "could not create any TCP/IP sockets"):
		return fmt.Errorf("%w: %w", errPortTaken, err)
	case strings.Contains(text, "still in use"), strings.Contains(text, "postmaster.pid"):
		return fmt.Errorf("%w: %w", errStillUsed, err)
	}
	return err
}

// Stop stops the server in the way that mode says and returns when it has exited. It does
// nothing where the server does not run.
func (c *Cluster) Stop(mode Mode) error {
	sig, ok := map[Mode]syscall.Signal{Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT}[mode]
	if !ok {
		return fmt.Errorf("stop a cluster: no mode %q", mode)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop(sig)
	return nil
}

// Kill kills the server's first process with SIGKILL, as the kernel does when memory runs out.
func (c *Cluster) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop(syscall.SIGKILL)
}

// Restart stops the server in the way that mode says and starts it again.
func (c *Cluster) Restart(ctx context.Context, mode Mode) error {
	if err := c.Stop(mode); err != nil {
		return err
	}
	return c.Start(ctx)
}

// Close stops the server and deletes the cluster.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop(syscall.SIGQUIT)
	if c.letGo != nil {
		c.letGo()
	}
	err := os.RemoveAll(c.dir)
	_ = c.guard.Close()
	_ = c.guards.Wait()
	return err
}

func (c *Cluster) running() bool {
	if c.server == nil {
		return false
	}
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// stop signals the server and waits for its exit; a server that does not heed the signal within a
// minute is killed.
func (c *Cluster) stop(sig syscall.Signal) {
	if !c.running() {
		return
	}
	_ = c.server.Process.Signal(sig) // it may just have exited
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	select {
	case <-c.exited:
	case <-patience.C:
		_ = c.server.Process.Kill()
		<-c.exited
	}
	c.server = nil
	c.tellGuard(0)
}

// guardScript waits until its standard input ends, which happens when this process dies, however
// it dies. Then it stops the server whose number it was told last and deletes the cluster.
const guardScript = `
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 0 ] 2>/dev/null; then
	kill -QUIT "$pid" 2>/dev/null
	tries=0
	while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do tries=$((tries+1)); sleep 0.1; done
fi
rm -rf "$1"
`

func (c *Cluster) watch() error {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "assent-pg-guard", c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the cluster's watchdog: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the cluster's watchdog: %w", err)
	}
	c.guard, c.guards = in, cmd
	return nil
}

func (c *Cluster) tellGuard(pid int) { fmt.Fprintln(c.guard, pid) }

// findBin returns the directory that holds initdb and postgres: that of PATH, or else the newest
// where distributions put them.
func findBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(real), nil
		}
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb", "/opt/homebrew/opt/postgresql@*/bin/initdb"} {
		found, _ := filepath.Glob(pattern) // the pattern is well formed
		if len(found) > 0 {
			newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
			return filepath.Dir(newest), nil
		}
	}
	return "", ErrNotInstalled
}

// version returns the last number in the name of the directory above path's.
func version(path string) int {
	name := filepath.Base(filepath.Dir(filepath.Dir(path)))
	n, _ := strconv.Atoi(name[strings.LastIndexFunc(name, func(r rune) bool { return r < '0' || r > '9' })+1:])
	return n
}

// serverCredential returns whom the server runs as: PostgreSQL refuses to run as root.
func serverCredential() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(User)
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root and there is no user %q: %w", User, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("the user %q: %w", User, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// pause lets a poll rest for a moment.
func pause(ctx context.Context) {
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
