package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	assentv1 "assent/api/assent/v1"
)

// FuzzOperation reads any text as every kind of operation: what is accepted can be sent, says what to
// do, and says all that was written.
func FuzzOperation(f *testing.F) {
	for _, seed := range []string{
		"kv/alice=90", "kv/a/b=c=d", "kv/k=", "kv/\xff=\xfe", "kv", "kv/", "/k=v", "=", "", "\xff/k=v",
		"orders=UPDATE t SET x = $1", "orders= ", "orders=SELECT '\xe9'", "a=b=c",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, value, argument string) {
		for _, flag := range operationFlags {
			ops, err := flag.parse(value, nil)
			if err != nil {
				continue
			}
			if len(ops) != 1 || ops[0].GetResource() == "" || ops[0].GetAction() == nil {
				t.Fatalf("--%s %q: %v", flag.name, value, ops)
			}
			if got := written(ops[0]); got != value && got != value+"/" {
				t.Errorf("--%s %q says %q", flag.name, value, got)
			}
			if withArgument, err := parseArgument(argument, ops); err == nil {
				if args := withArgument[0].GetStatement().GetArgs(); len(args) != 1 || args[0].GetText() != argument {
					t.Errorf("--%s %q --arg %q: %v", flag.name, value, argument, args)
				}
			}
			if _, err := proto.Marshal(ops[0]); err != nil {
				t.Errorf("--%s %q --arg %q cannot be sent: %v", flag.name, value, argument, err)
			}
		}
	})
}

// written is how an operation is written on the command line.
func written(op *assentv1.Operation) string {
	key := func(k *assentv1.Key) string { return op.GetResource() + "/" + k.GetText() + string(k.GetBytes()) }
	switch a := op.GetAction().(type) {
	case *assentv1.Operation_Statement:
		return op.GetResource() + "=" + a.Statement.GetSql()
	case *assentv1.Operation_Put:
		return key(a.Put.GetKey()) + "=" + a.Put.GetValue().GetString_() + string(a.Put.GetValue().GetBytes())
	case *assentv1.Operation_Get:
		return key(a.Get.GetKey())
	case *assentv1.Operation_Delete:
		return key(a.Delete.GetKey())
	case *assentv1.Operation_Scan:
		return key(a.Scan.GetPrefix())
	}
	return ""
}

// TestLostAnswer: a server takes a transaction and ends the connection without a word. Exit code 8 says that the
// transaction may have committed; one that only reads has nothing to repeat, and fails like any call.
func TestLostAnswer(t *testing.T) {
	dead := deadServer(t)
	for operation, exit := range map[string]int{
		"--put kv/x=1": exitUnsure, "--delete kv/x": exitUnsure, "--pg orders=SELECT": exitUnsure,
		"--get kv/x": exitError, "--scan kv/": exitError,
	} {
		var out, told bytes.Buffer
		p := &program{out: &out, err: &told, getenv: func(string) string { return "" }}
		got := p.run(append([]string{"txn", "--server", "http://" + dead, "--get", "kv/y"}, strings.SplitN(operation, " ", 2)...))
		unsure := strings.HasPrefix(told.String(), "error: it is not known what became of the transaction: the server at "+dead+" ended the connection")
		if got != exit || unsure != (exit == exitUnsure) || !strings.Contains(told.String(), "\nhint: ") || out.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d\n%s%s", operation, got, exit, &out, &told)
		}
	}
}

// deadServer returns the address of a server that reads what it is sent, and dies.
func deadServer(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, req.Body) // all of it, or the connection would be reset
			}
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

// TestOneLine: what others have written on several lines stands on one.
func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                                  "plain",
		"failed to connect:\n\ta: x\r\n\tb: y\n": "failed to connect: a: x; b: y",
		"a\n\n \nb":                              "a; b",
		"":                                       "",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("%q becomes %q; want %q", text, got, want)
		}
	}
}
