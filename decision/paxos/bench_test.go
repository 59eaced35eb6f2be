package paxos_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"assent/decision"
	"assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/transport"
)

// openThree opens three members on the disk of this machine, over TCP on the loopback.
func openThree(b *testing.B) []*paxos.Log {
	names := []protocol.NodeID{"a", "b", "c"}
	addresses := map[protocol.NodeID]string{}
	listeners := map[protocol.NodeID]net.Listener{}
	for _, n := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		listeners[n], addresses[n] = l, l.Addr().String()
	}
	dir, quiet := b.TempDir(), slog.New(slog.DiscardHandler)
	var logs []*paxos.Log
	var closers []func() error
	for _, n := range names {
		m, err := transport.Listen(transport.Config{Cluster: "bench", Self: n, Listener: listeners[n], Peers: addresses, Logger: quiet})
		if err != nil {
			b.Fatal(err)
		}
		l, err := paxos.Open(paxos.Config{Owner: "bench", Self: n, Epoch: paxos.Founders(names...), Network: m.Channel(0),
			Dir: filepath.Join(dir, string(n)), Logger: quiet, MaxOpen: 4_000_000})
		if err != nil {
			b.Fatal(err)
		}
		logs = append(logs, l)
		closers = append(closers, m.Close, l.Close)
	}
	b.Cleanup(func() {
		var err error
		for i := range closers {
			err = errors.Join(err, closers[len(closers)-1-i]())
		}
		if err != nil {
			b.Error(err)
		}
	})
	for logs[0].Status().Quorum != "3 of 3 votes, 2 needed" {
		time.Sleep(time.Millisecond)
	}
	return logs
}

// processorTime returns what this process has used of the processors.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecide measures decisions of many callers at one member of three.
func BenchmarkDecide(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			logs := openThree(b)
			l := logs[0]
			prefix := l.Prefix()
			var number, took atomic.Int64
			evidence := []byte("pg1 7425461853172437034 00000001 1234567")
			before, spent := l.Stats(), processorTime(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for n := number.Add(1); n <= int64(b.N); n = number.Add(1) {
						began := time.Now()
						_, err := l.Decide(b.Context(), decision.Entry{
							ID: commit.TransactionID(fmt.Sprint(prefix, "-", n)), Decision: commit.Commit,
							By: "coordinator", Time: began,
							Branches: []decision.Branch{{Resource: "first", Evidence: evidence}, {Resource: "second", Evidence: evidence}},
						})
						if err != nil {
							b.Error(err)
							return
						}
						took.Add(int64(time.Since(began)))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			after := l.Stats()
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(processorTime(b)-spent)/float64(b.N)/1000, "cpu-µs/decision")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			b.ReportMetric(float64(took.Load())/float64(b.N)/1000, "µs/decision")
			b.ReportMetric(float64(after.Forces-before.Forces)/float64(b.N), "forces/decision")
		})
	}
}
