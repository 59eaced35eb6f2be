// How errors are told. An error is two lines: "error:" says what failed, on what and why, and
// "hint:" what to do, where there is something to do. They are lower case, without a period at
// the end, and go to standard error. No error shows a secret.

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/resource"
)

// The exit codes, which scripts rely on. docs/cli.md is their list.
const (
	exitOK        = 0
	exitError     = 1
	exitUsage     = 2
	exitAborted   = 3
	exitInDoubt   = 4
	exitHeuristic = 5
	exitUnknown   = 6
	exitUnsound   = 7
	exitUnsure    = 8
	exitChanged   = 9
)

// failure is an error with what to do about it and the exit code that it makes.
type failure struct {
	text string
	hint string
	exit int
	err  error // the cause, for errors.Is; its text is in text already. It may be nil
}

func fail(hint, format string, args ...any) *failure {
	return &failure{text: fmt.Sprintf(format, args...), hint: hint, exit: exitError}
}

func misuse(hint, format string, args ...any) *failure {
	return &failure{text: fmt.Sprintf(format, args...), hint: hint, exit: exitUsage}
}

// Error returns what failed.
func (f *failure) Error() string { return f.text }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

// silence is the error of a command that has said everything already.
type silence struct{ exit int }

// Error returns nothing that anybody sees.
func (s silence) Error() string { return fmt.Sprintf("exit code %d", s.exit) }

// report prints err and returns the exit code.
func (p *program) report(err error) int {
	if s, ok := errors.AsType[silence](err); ok {
		return s.exit
	}
	f := p.explain(err)
	red := palette(p.err, p.getenv)
	fmt.Fprintf(p.err, "%s %s\n", red.paint(red.bad, "error:"), oneLine(f.text))
	if f.hint != "" {
		fmt.Fprintf(p.err, "%s %s\n", red.paint(red.faint, "hint:"), oneLine(f.hint))
	}
	return f.exit
}

// explain makes any error a failure.
func (p *program) explain(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if told, ok := errors.AsType[*connect.Error](err); ok {
		return explainCall(told)
	}
	if !p.running {
		return misuse("see assent help, or assent COMMAND --help", "%s", strings.TrimSuffix(err.Error(), "\n"))
	}
	if errors.Is(err, assent.ErrUnknown) { // without a server there is no code of the contract that says it
		return &failure{text: err.Error(), hint: noOutcome, exit: exitUnknown, err: err}
	}
	return &failure{text: err.Error(), hint: resource.HintOf(err), exit: exitError, err: err}
}

// noOutcome says what it means that a transaction is not known.
const noOutcome = "not known is no outcome: what aborted before a decision leaves no record, nor what committed in a single resource"

// explainCall tells the error of a call of the contract.
func explainCall(err *connect.Error) *failure {
	f := &failure{text: err.Message(), exit: exitError, err: err}
	for _, d := range err.Details() {
		if value, derr := d.Value(); derr == nil {
			if detail, ok := value.(*assentv1.ErrorDetail); ok {
				f.hint = detail.GetHint()
			}
		}
	}
	if err.Code() == connect.CodeUnauthenticated {
		f.hint = "give the token with --token-file, or in ASSENT_TOKEN"
	}
	if err.Code() == connect.CodeNotFound {
		f.exit = exitUnknown
		if f.hint == "" {
			f.hint = noOutcome
		}
	}
	return f
}

// reason tells why the network refused, without the names of system calls.
func reason(err error) string {
	var (
		unknown *net.DNSError
		number  syscall.Errno
	)
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return fmt.Sprintf("there is no host %q", unknown.Name)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the name %q could not be looked up", unknown.Name)
	case errors.As(err, &number):
		return number.Error()
	}
	return err.Error()
}

// unreachable explains why the server at address did not answer, or returns err as it is.
func unreachable(address string, err error) error {
	var (
		op        *net.OpError
		untrusted *tls.CertificateVerificationError
		plain     tls.RecordHeaderError
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return &failure{exit: exitError, err: err, text: fmt.Sprintf("no server answers at %s", address),
			hint: "start one with assent serve, name another with --server, or give -c to work on the data directory itself"}
	case errors.As(err, &untrusted):
		return &failure{exit: exitError, err: err, text: fmt.Sprintf("the server at %s is not trusted: %v", address, untrusted.Err),
			hint: "name its certificate authority with --ca-file"}
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &plain):
		return &failure{exit: exitError, err: err, text: fmt.Sprintf("the server at %s does not speak TLS", address),
			hint: "write http:// in place of https:// in --server, or in ASSENT_SERVER"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &failure{exit: exitError, err: err, text: fmt.Sprintf("the server at %s ended the connection without an answer", address),
			hint: "it has stopped, or is no assent serve: see its log, and --server"}
	case errors.As(err, &op):
		return &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot reach the server at %s: %s", address, reason(op.Err)),
			hint: "see --server, --ca-file and --token-file"}
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{exit: exitError, err: err, text: fmt.Sprintf("the server at %s took too long", address),
			hint: "see whether it is stopped or overloaded; --timeout gives it more time"}
	}
	return err
}

// oneLine keeps an error on its line.
func oneLine(text string) string {
	var b strings.Builder
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(line)
		switch {
		case b.Len() == 0 || line == "":
		case strings.HasSuffix(b.String(), ":"):
			b.WriteByte(' ')
		default:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// colours are the escape codes of a terminal, or empty.
type colours struct{ good, bad, warn, faint, reset string }

// palette returns the colours for w: none unless w is a terminal and NO_COLOR is unset.
func palette(w io.Writer, getenv func(string) string) colours {
	f, ok := w.(*os.File)
	if !ok || getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return colours{}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return colours{}
	}
	return colours{good: "\x1b[32m", bad: "\x1b[1;31m", warn: "\x1b[33m", faint: "\x1b[36m", reset: "\x1b[0m"}
}

func (c colours) paint(colour, text string) string {
	if colour == "" {
		return text
	}
	return colour + text + c.reset
}
