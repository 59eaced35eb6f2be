// Command replicated keeps one value in several stores. Every store has the same value or says that
// its value is not available now, whatever fails. It is the exercise of lectures on two-phase commit.
//
//	replicated -dir data set hello
//	replicated -dir data get
//
// The workers are embedded stores in one directory; in life they would be on several machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"assent"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/kv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, arguments []string) (err error) {
	flags := flag.NewFlagSet("replicated", flag.ContinueOnError)
	dir := flags.String("dir", "data", "where the workers and the coordinator's log are")
	n := flags.Int("workers", 3, "how many workers there are")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	w, err := openWorkers(*dir, *n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	switch {
	case flags.Arg(0) == "get" && flags.NArg() == 1:
		_, err = fmt.Fprintln(out, strings.Join(w.values(), "\n"))
	case flags.Arg(0) == "set" && flags.NArg() == 2:
		err = coordinate(ctx, *dir, w, flags.Arg(1))
	default:
		err = errors.New("usage: replicated [-dir DIR] [-workers N] get | set VALUE")
	}
	return err
}

// workers are the stores.
type workers []*kv.Resource

func openWorkers(dir string, n int) (w workers, err error) {
	for i := range n {
		store, err := kv.Open(filepath.Join(dir, name(i)), kv.Config{})
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		w = append(w, store)
	}
	return w, nil
}

func name(i int) string { return fmt.Sprintf("worker-%d", i) }

func (w workers) close() (err error) {
	for _, store := range w {
		err = errors.Join(err, store.Close())
	}
	return err
}

var key = []byte("value")

// The answers of a worker that has no value to give.
const (
	unavailable = "(unavailable)"
	unset       = "(unset)"
)

// values asks each worker, without any coordinator. A worker that has voted and does not know the
// decision has no value to give: the old one or the new one may be wrong in a moment.
func (w workers) values() (all []string) {
	for _, store := range w {
		value, ok, err := store.Peek(key)
		switch {
		case resource.CodeOf(err) == resource.Unavailable:
			all = append(all, unavailable)
		case err != nil:
			all = append(all, err.Error())
		case !ok:
			all = append(all, unset)
		default:
			all = append(all, string(value))
		}
	}
	return all
}

// coordinate opens the coordinator over the workers, has it finish what an earlier one left, and
// sets the value, unless there is none to set.
func coordinate(ctx context.Context, dir string, w workers, value string, configure ...func(*assent.Config)) (err error) {
	log, err := disk.Open(filepath.Join(dir, "coordinator"), disk.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	config := assent.Config{Log: log, Resources: map[string]resource.Resource{}}
	for i, store := range w {
		config.Resources[name(i)] = store
	}
	for _, change := range configure {
		change(&config)
	}
	coordinator, err := assent.Open(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, coordinator.Close(ctx))
	}()
	// Without these two the value is set all the same; it may have to wait for workers in doubt.
	if err := errors.Join(coordinator.Scan(ctx), coordinator.Quiesce(ctx)); err != nil || value == "" {
		return err
	}
	return coordinator.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		for _, store := range w {
			branch, err := store.Join(ctx, tx)
			if err != nil {
				return err
			}
			if err := branch.Put(ctx, key, []byte(value)); err != nil {
				return err
			}
		}
		return nil
	})
}
