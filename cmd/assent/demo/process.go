package demo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// logName is the file, in the demo's directory, that takes what registrars and their client log.
const logName = "demo.log"

// process is one run of the registrar, as its client sees it.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	log     *os.File
	started time.Time
	// messages is closed when the registrar says nothing more.
	messages chan message
	// bad is an error in what it said; read it when messages is closed.
	bad error
}

// startRegistrar starts this program again, with the arguments that run the registrar, and sends
// it the setup.
func startRegistrar(arguments []string, s setup) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p := &process{cmd: exec.Command(program, arguments...), messages: make(chan message, 64), started: time.Now()}
	p.cmd.Args[0] = os.Args[0] // some programs go by their name
	if p.log, err = openLog(s.Dir); err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, p.log.Close())
	}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start the registrar: %w", errors.Join(err, p.log.Close()))
	}
	go p.listen(out)
	return p, p.send(s)
}

func openLog(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// listen reads messages until the registrar ends. A last line that was cut off says nothing.
func (p *process) listen(out io.Reader) {
	defer close(p.messages)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			p.bad = errors.Join(p.bad, fmt.Errorf("the registrar said %.80q: %w", line, err))
			continue
		}
		p.messages <- m
	}
}

// send sends one line. That nobody reads it any more is no error here: it shows elsewhere. What is
// sent and not answered fits into the pipe, so that send does not wait.
func (p *process) send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, _ = p.in.Write(append(line, '\n'))
	return nil
}

// kill ends the registrar by SIGKILL.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the registrar: %w", err)
	}
	return nil
}

// wait returns how the registrar ended; messages must have been closed.
func (p *process) wait() error {
	_ = p.in.Close()
	err := p.cmd.Wait()
	_ = p.log.Close()
	if err != nil {
		err = fmt.Errorf("the registrar ended: %w; %s", err, lastLine(p.log.Name()))
	}
	return errors.Join(p.bad, err)
}

// end makes sure that nothing of the process is left, whatever happened.
func (p *process) end() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.kill()
	for range p.messages { // what it says now is of no interest
	}
	_ = p.wait()
}

// lastLine tells what a log ends with.
func lastLine(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return fmt.Sprintf("the last line of %s is %q", name, lines[len(lines)-1])
}
