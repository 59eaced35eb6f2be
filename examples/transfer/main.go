// Command transfer moves money from an account in one PostgreSQL database to an account in another:
// both balances change or neither does, whatever fails.
//
//	transfer -from DSN -to DSN alice bob 30
//
// Each database has a table accounts(name text PRIMARY KEY, balance bigint CHECK (balance >= 0)).
// The strings may come from ASSENT_FROM and ASSENT_TO instead. What a killed run leaves in doubt the
// next one finishes; that is why -log must name the same directory every time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"assent"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/postgres"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		if hint := resource.HintOf(err); hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", hint)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, arguments []string) (err error) {
	flags := flag.NewFlagSet("transfer", flag.ContinueOnError)
	from := flags.String("from", os.Getenv("ASSENT_FROM"), "the payer's database")
	to := flags.String("to", os.Getenv("ASSENT_TO"), "the payee's database")
	dir := flags.String("log", "decisions", "the directory of the decision log")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 3 {
		return errors.New("usage: transfer -from DSN -to DSN PAYER PAYEE AMOUNT")
	}
	amount, err := strconv.ParseInt(flags.Arg(2), 10, 64)
	if err != nil || amount <= 0 {
		return fmt.Errorf("the amount %q is not a positive number", flags.Arg(2))
	}
	b, err := open(ctx, *dir, *from, *to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	err = b.transfer(ctx, flags.Arg(0), flags.Arg(1), amount)
	switch {
	case err == nil:
		_, err = fmt.Fprintf(out, "moved %d from %s to %s\n", amount, flags.Arg(0), flags.Arg(1))
	case errors.Is(err, assent.ErrAborted):
		err = fmt.Errorf("nothing was moved: %w", err)
	case errors.Is(err, assent.ErrInDoubt):
		err = fmt.Errorf("do not repeat the transfer, look at the accounts later: %w", err)
	}
	return err
}

// bank is two databases and what makes them one.
type bank struct {
	manager  *assent.Manager
	log      *disk.Log
	from, to *postgres.Resource
}

// open opens the decision log, the databases and the manager, which finishes at once what an
// earlier run left prepared.
func open(ctx context.Context, dir, from, to string) (b *bank, err error) {
	b = &bank{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.log, err = disk.Open(dir, disk.Config{}); err != nil {
		return b, err
	}
	if b.from, err = postgres.Open(ctx, from, postgres.Config{}); err != nil {
		return b, fmt.Errorf("the payer's database: %w", err)
	}
	if b.to, err = postgres.Open(ctx, to, postgres.Config{}); err != nil {
		return b, fmt.Errorf("the payee's database: %w", err)
	}
	b.manager, err = assent.Open(ctx, assent.Config{
		Log: b.log,
		// The names become part of what is prepared in the databases: never change them.
		Resources: map[string]resource.Resource{"payer": b.from, "payee": b.to},
	})
	return b, err
}

// close closes the manager first, which gets some time to finish, and then what it uses.
func (b *bank) close() (err error) {
	if b.manager != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = b.manager.Close(ctx)
	}
	for _, database := range []*postgres.Resource{b.from, b.to} {
		if database != nil {
			err = errors.Join(err, database.Close())
		}
	}
	if b.log != nil {
		err = errors.Join(err, b.log.Close())
	}
	return err
}

var errNoAccount = errors.New("there is no such account")

// transfer moves the amount. Where payments collide, the work is done again.
func (b *bank) transfer(ctx context.Context, payer, payee string, amount int64) error {
	return b.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		if err := add(ctx, tx, b.from, payer, -amount); err != nil {
			return fmt.Errorf("take from %s: %w", payer, err)
		}
		if err := add(ctx, tx, b.to, payee, amount); err != nil {
			return fmt.Errorf("give to %s: %w", payee, err)
		}
		return nil
	}, assent.Retry(5))
}

// add changes one balance, in the transaction's branch in the database.
func add(ctx context.Context, tx *assent.Tx, database *postgres.Resource, name string, amount int64) error {
	branch, err := database.Join(ctx, tx)
	if err != nil {
		return err
	}
	tag, err := branch.Exec(ctx, `UPDATE accounts SET balance = balance + $1 WHERE name = $2`, amount, name)
	if err == nil && tag.RowsAffected() == 0 {
		err = errNoAccount
	}
	return err
}
