package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"assent/sim/stack"
)

// meantFor returns the protocols to which a flag of check or sim means something; none says all.
func meantFor(flag string) []string {
	switch flag {
	case "cooperative":
		return []string{"2pc"}
	case "vote-retries":
		return []string{"2pc", "3pc", "q3pc", "paxos"}
	case "unilateral":
		return []string{"3pc"}
	case "rounds":
		return []string{"q3pc", "paxos"}
	}
	return nil
}

// refuseMisfits refuses the flags that were given and mean nothing to the protocol: a run without what
// they ask for would look like one with it.
func refuseMisfits(cmd *cobra.Command, name string) error {
	if _, err := findSystem(name); err != nil && name != stack.Name {
		return nil // whoever looks it up tells
	}
	for _, flag := range []string{"votes", "cooperative", "vote-retries", "unilateral", "rounds"} {
		if !cmd.Flags().Changed(flag) {
			continue
		}
		if name == stack.Name {
			return misuse("leave it out: each seed draws what clients do", "--%s means nothing to the stack", flag)
		}
		if fit := meantFor(flag); len(fit) > 0 && !slices.Contains(fit, name) {
			return misuse("leave it out; it is for "+strings.Join(fit, ", "), "--%s means nothing to %s", flag, name)
		}
	}
	return nil
}

// writable tells early why a file cannot be written, before there is long work whose result is to go
// there. It leaves nothing behind. Names that are empty, or -, are nobody's.
func writable(names ...string) error {
	for _, name := range names {
		if name == "" || name == "-" {
			continue
		}
		if err := tryWriting(name); err != nil {
			return fail("name a file in a folder that is there, where you may write", "cannot write there: %v", err)
		}
	}
	return nil
}

func tryWriting(name string) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(f.Close(), os.Remove(name))
	}
	if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
		return err // a pipe may be opened once only
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
