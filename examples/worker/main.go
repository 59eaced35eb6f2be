// Command worker takes jobs from a queue in a PostgreSQL database and keeps the results in a store of
// its own, each job exactly once, however often it is killed: worker -queue DSN -dir data
//
// The queue is a table jobs(id bigint PRIMARY KEY, text text). The store counts the words of the jobs'
// texts. To take a job out and to count its words is one transaction, so that no kill loses a job or
// does it twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"assent"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
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
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	dsn := flags.String("queue", os.Getenv("ASSENT_QUEUE"), "the database with the queue")
	dir := flags.String("dir", "data", "where the results and the decision log are")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *dsn == "" {
		return errors.New("no queue is named: give -queue DSN, or set ASSENT_QUEUE")
	}
	log, err := disk.Open(filepath.Join(*dir, "decisions"), disk.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	results, err := kv.Open(filepath.Join(*dir, "results"), kv.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, results.Close()) }()
	queue, err := postgres.Open(ctx, *dsn, postgres.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, queue.Close()) }()
	resources := map[string]resource.Resource{"queue": queue, "results": results}
	manager, err := assent.Open(ctx, assent.Config{Log: log, Resources: resources})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, manager.Close(ctx))
	}()
	return worker{manager, queue, results, out}.work(ctx)
}

var errNoJob = errors.New("the queue has no job, or each is held by a worker or in doubt")

type worker struct {
	manager *assent.Manager
	queue   *postgres.Resource
	results *kv.Resource
	out     io.Writer
}

// work does jobs until ctx ends.
func (w worker) work(ctx context.Context) error {
	for {
		id, err := w.one(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			fmt.Fprintln(w.out, "did job", id)
			continue
		case errors.Is(err, errNoJob): // look again later
		case errors.Is(err, assent.ErrAborted), errors.Is(err, assent.ErrInDoubt):
			// Aborted, the job is in the queue again; in doubt, it is held until Assent has finished it.
			slog.Warn("a job is not done yet", "job", id, "error", err, "hint", resource.HintOf(err))
		default:
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// one does one job.
func (w worker) one(ctx context.Context) (id int64, err error) {
	err = w.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) (err error) {
		var text string
		if id, text, err = w.take(ctx, tx); err == nil {
			err = w.count(ctx, tx, text)
		}
		return err
	}, assent.Retry(5))
	return id, err
}

// take takes the first job that nobody holds out of the queue.
func (w worker) take(ctx context.Context, tx *assent.Tx) (id int64, text string, err error) {
	branch, err := w.queue.Join(ctx, tx)
	if err != nil {
		return id, text, err
	}
	err = branch.QueryRow(ctx, `DELETE FROM jobs WHERE id = (SELECT id FROM jobs
		ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, text`).Scan(&id, &text)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errNoJob
	}
	return id, text, err
}

// count counts the words of text, in order, so that two workers do not wait for each other.
func (w worker) count(ctx context.Context, tx *assent.Tx, text string) error {
	branch, err := w.results.Join(ctx, tx)
	if err != nil {
		return err
	}
	for _, word := range slices.Sorted(strings.FieldsSeq(text)) {
		value, _, err := branch.GetForUpdate(ctx, []byte(word))
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(value)) // 0 where there is none
		if err := branch.Put(ctx, []byte(word), []byte(strconv.Itoa(n+1))); err != nil {
			return err
		}
	}
	return nil
}
