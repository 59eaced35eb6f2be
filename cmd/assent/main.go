// Command assent commits one change across several databases and stores, or none of it.
//
// It serves transactions to programs in any language, runs single ones from the shell, and shows
// and settles those that could not end by themselves. It promises the exit codes of docs/cli.md,
// and that no secret is printed. `assent help` teaches it.
package main

import "os"

func main() {
	p := &program{out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	os.Exit(p.run(os.Args[1:]))
}
