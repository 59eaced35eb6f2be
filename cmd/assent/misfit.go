package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	simcluster "assent/sim/cluster"
	"assent/sim/stack"
)

// particular are the flags of check and sim that mean something to some systems alone.
var particular = []string{"participants", "votes", "cooperative", "vote-retries", "unilateral", "rounds", "nodes", "proposers",
	"weights", "log", "config"}

// flagsOf returns those of the particular flags that mean something to a system; ok is false where there is
// none of that name.
func flagsOf(name string) (flags []string, ok bool) {
	switch name {
	case stack.Name:
		return []string{"participants"}, true
	case simcluster.Name:
		return []string{"nodes", "weights", "log", "config"}, true
	}
	s, err := findSystem(name)
	return s.flags, err == nil
}

// meantFor returns the systems to which a flag means something.
func meantFor(flag string) (names []string) {
	for _, s := range systems() {
		if slices.Contains(s.flags, flag) {
			names = append(names, s.name)
		}
	}
	for _, name := range []string{stack.Name, simcluster.Name} {
		if flags, _ := flagsOf(name); slices.Contains(flags, flag) {
			names = append(names, name)
		}
	}
	return names
}

// refuseMisfits refuses the flags that were given and mean nothing to the system: a run without what they
// ask for would look like one with it.
func refuseMisfits(cmd *cobra.Command, name string) error {
	flags, ok := flagsOf(name)
	if !ok {
		return nil // whoever looks it up tells
	}
	for _, flag := range particular {
		if cmd.Flags().Lookup(flag) == nil || !cmd.Flags().Changed(flag) || slices.Contains(flags, flag) {
			continue
		}
		if name == stack.Name {
			return misuse("leave it out: each seed draws what clients do", "--%s means nothing to the stack", flag)
		}
		return misuse("leave it out; it is for "+strings.Join(meantFor(flag), ", "), "--%s means nothing to %s", flag, name)
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
