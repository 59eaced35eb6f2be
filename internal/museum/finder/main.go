// Command finder looks for what is wrong in one system, whose name it is given, and prints what it has
// found as JSON. The museum builds it with bugs in the machines, one of which the environment chooses.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"

	"assent/internal/museum"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("got %q; a system's name and a number of seeds are wanted", args)
	}
	system, err := museum.FindSystem(args[0])
	if err != nil {
		return err
	}
	seeds, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	found, err := museum.Find(ctx, system, seeds)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
