package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"assent"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/kv"
)

// published has Spanner's figures for two-phase commit by the number of participants: mean and 99th
// percentile, in milliseconds (Corbett et al. 2012, table 4).
var published = map[int][2]float64{1: {17.0, 75.0}, 50: {42.7, 93.7}, 100: {71.4, 131.2}, 200: {150.5, 320.3}}

// scaleOptions are what the user of `assent bench scale` asks for.
type scaleOptions struct {
	participants []int
	transactions int
	rounds       int
	slowSync     time.Duration
	dir          string
	json         bool
}

// The limits on what may be asked for.
const (
	mostParticipants = 500
	mostTransactions = 10_000
)

func scaleCommand() *cobra.Command {
	var o scaleOptions
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "one transaction over 1 to 200 participants: how much longer it takes than over one",
		Long: `A transaction changes one key in each of so many embedded stores; the next one begins when it is
over. Each store has files of its own and forces them itself, as if it were a machine of its own, but
all share this machine's processors. So every sync, of the stores and of the decision log, is made
slower by --slow-sync: what is waited for then resembles participants on machines of their own, each
of which writes to a disk or to a quorum. Its default makes a transaction over one participant take
the 17 ms that were published of Spanner. With --slow-sync 0 this machine's processors are all that is
measured.

The last columns are what was published of Spanner, whose coordinator replies, as "early reply" does,
when the decision is stable. Compare the ratios, not the milliseconds.`,
		Example: `  assent bench scale
  assent bench scale --participants 1,10,100 --slow-sync 0 --json`,
		Args:         noArguments(o.validate),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			r, err := benchScale(ctx, o, newProgress(cmd.ErrOrStderr()))
			return r.print(cmd.OutOrStdout(), o.json, err)
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.participants, "participants", []int{1, 2, 5, 10, 25, 50, 100, 200}, "how many participants a transaction has; the first is what the others are compared with")
	f.IntVar(&o.transactions, "transactions", 20, "transactions of each kind in each round")
	f.IntVar(&o.rounds, "rounds", 5, "rounds, in which all kinds take turns")
	f.DurationVar(&o.slowSync, "slow-sync", 16*time.Millisecond, "how much longer every sync takes; 0 leaves it as it is")
	f.StringVar(&o.dir, "dir", "", "the directory for stores and logs; they are deleted in the end (default: a temporary one)")
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	return cmd
}

func (o *scaleOptions) validate() error {
	if len(o.participants) == 0 || len(o.participants) > 16 {
		return fmt.Errorf("--participants has %d numbers; it must have from 1 to 16", len(o.participants))
	}
	for _, n := range o.participants {
		if n < 1 || n > mostParticipants {
			return fmt.Errorf("--participants has %d in it; it must be from 1 to %d", n, mostParticipants)
		}
	}
	if o.transactions < 1 || o.transactions > mostTransactions {
		return fmt.Errorf("--transactions is %d; it must be from 1 to %d", o.transactions, mostTransactions)
	}
	if o.rounds < 1 || o.rounds > 1000 {
		return fmt.Errorf("--rounds is %d; it must be from 1 to 1000", o.rounds)
	}
	if o.slowSync < 0 || o.slowSync > time.Second {
		return fmt.Errorf("--slow-sync is %v; it must be from 0 to 1s", o.slowSync)
	}
	return nil
}

// scaleReport is what `assent bench scale` prints. Times are in microseconds.
type scaleReport struct {
	Machine      machine    `json:"machine"`
	Rounds       int        `json:"rounds"`
	Transactions int        `json:"transactionsPerRound"`
	SlowSync     float64    `json:"slowSyncMicroseconds"`
	Incomplete   bool       `json:"incomplete"`
	Lines        []scaleRow `json:"results"`
}

// scaleRow is one way with one number of participants.
type scaleRow struct {
	Participants int     `json:"participants"`
	Way          string  `json:"way"`
	Mean         float64 `json:"meanMicroseconds"`
	P50          float64 `json:"p50Microseconds"`
	P99          float64 `json:"p99Microseconds"`
	// OfFirst is the mean beside that of the first number of participants, P99OfMean the spread.
	OfFirst   float64 `json:"meanOfFirst"`
	P99OfMean float64 `json:"p99OfMean"`
}

func (r *scaleReport) print(w io.Writer, asJSON bool, err error) error {
	r.Incomplete = err != nil
	return printReport(w, asJSON, r, r.Incomplete && len(r.Lines) == 0, r.text, err)
}

func (r *scaleReport) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "one transaction at a time over many participants: %d CPUs, %s, %s; %d rounds of %d transactions\n",
		r.Machine.CPUs, r.Machine.Platform, r.Machine.Go, r.Rounds, r.Transactions)
	if r.SlowSync > 0 {
		fmt.Fprintf(&b, "every sync takes %v longer\n", seconds(r.SlowSync/1e6))
	}
	if r.Incomplete {
		b.WriteString("interrupted: this is what was known by then\n")
	}
	b.WriteString("\n")
	rows := [][]string{{"participants", "way", "mean ms", "of first", "p50 ms", "p99 ms", "p99 of mean", "Spanner: of first", "p99 of mean"}}
	for _, x := range r.Lines {
		row := []string{fmt.Sprint(x.Participants), x.Way, figures(x.Mean / 1000), figures(x.OfFirst), figures(x.P50 / 1000),
			figures(x.P99 / 1000), figures(x.P99OfMean), "-", "-"}
		s, ok := published[x.Participants]
		if first, both := published[r.Lines[0].Participants]; ok && both {
			row[7], row[8] = figures(s[0]/first[0]), figures(s[1]/s[0])
		}
		rows = append(rows, row)
	}
	b.WriteString(lineUp(rows))
	return b.String()
}

// scaleWays are compared at every number of participants.
var scaleWays = []struct {
	name  string
	early bool
}{{"assent", false}, {"assent early reply", true}}

// crowd is a manager over many stores.
type crowd struct {
	dir     string
	log     *disk.Log
	stores  []*kv.Resource
	manager *assent.Manager
	keys    uint64
}

func openCrowd(ctx context.Context, o scaleOptions, p *progress) (c *crowd, err error) {
	c = &crowd{}
	if c.dir, err = os.MkdirTemp(o.dir, "assent-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	quiet := slog.New(slog.DiscardHandler)
	fs := slowDisk{vfs.Default, o.slowSync}
	if c.log, err = disk.Open(filepath.Join(c.dir, "decisions"), disk.Config{FS: disk.SlowSync(vfs.Default, o.slowSync), Logger: quiet}); err != nil {
		return c, err
	}
	resources := map[string]resource.Resource{}
	for i := range slices.Max(o.participants) {
		p.say("opening store %d", i+1)
		name := fmt.Sprintf("store-%d", i+1)
		s, err := kv.Open(filepath.Join(c.dir, name), kv.Config{FS: fs})
		if err != nil {
			return c, err
		}
		c.stores, resources[name] = append(c.stores, s), s
		if err := ctx.Err(); err != nil {
			return c, err
		}
	}
	c.manager, err = assent.Open(ctx, assent.Config{Log: c.log, Logger: quiet, Resources: resources, ScanInterval: time.Hour})
	return c, err
}

// transact changes a key in each of the first n stores.
func (c *crowd) transact(ctx context.Context, n int, early bool) error {
	c.keys++
	key := binary.BigEndian.AppendUint64(nil, c.keys)
	return c.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		for _, s := range c.stores[:n] {
			b, err := s.Join(ctx, tx)
			if err != nil {
				return err
			}
			if err := b.Put(ctx, key, key); err != nil {
				return err
			}
		}
		return nil
	}, assent.EarlyReply(early))
}

// take returns how long each of count transactions over n participants took to commit, from the
// beginning of its work on. What an early reply leaves to do is done before the next begins.
func (c *crowd) take(ctx context.Context, n, count int, early bool) ([]time.Duration, error) {
	latencies := make([]time.Duration, 0, count)
	for range count {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := c.transact(context.WithoutCancel(ctx), n, early); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(begin))
		if err := c.manager.Quiesce(ctx); err != nil {
			return nil, err
		}
	}
	return latencies, nil
}

func (c *crowd) close() (err error) {
	if c.manager != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = c.manager.Close(ctx)
	}
	errs := make([]error, len(c.stores))
	var closing sync.WaitGroup
	for i, s := range c.stores {
		closing.Go(func() { errs[i] = s.Close() })
	}
	closing.Wait()
	err = errors.Join(err, errors.Join(errs...))
	if c.log != nil {
		err = errors.Join(err, c.log.Close())
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// benchScale measures every number of participants. Where it fails or ctx ends, it returns what is
// known by then, too.
func benchScale(ctx context.Context, o scaleOptions, p *progress) (r *scaleReport, err error) {
	r = &scaleReport{Machine: thisMachine(), Transactions: o.transactions,
		SlowSync: float64(o.slowSync) / float64(time.Microsecond), Lines: []scaleRow{}}
	defer p.done()
	c, err := openCrowd(ctx, o, p)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	all := make([][]time.Duration, len(o.participants)*len(scaleWays))
	for round := range o.rounds + 1 {
		for i := range all {
			n, w := o.participants[i/len(scaleWays)], scaleWays[i%len(scaleWays)]
			count := o.transactions
			if round == 0 {
				count = 1 // to grow stacks and make files
			}
			p.say("%d participants, %s: round %d of %d", n, w.name, round, o.rounds)
			took, err := c.take(ctx, n, count, w.early)
			if err != nil {
				r.summarize(o, all)
				return r, err
			}
			if round > 0 {
				all[i] = append(all[i], took...)
			}
		}
		r.Rounds = round
	}
	r.summarize(o, all)
	return r, nil
}

// summarize adds the lines of those kinds of which something is known.
func (r *scaleReport) summarize(o scaleOptions, all [][]time.Duration) {
	first := map[string]float64{}
	for i, latencies := range all {
		if len(latencies) == 0 {
			return
		}
		slices.Sort(latencies)
		sum := time.Duration(0)
		for _, d := range latencies {
			sum += d
		}
		x := scaleRow{
			Participants: o.participants[i/len(scaleWays)], Way: scaleWays[i%len(scaleWays)].name,
			Mean: microseconds(sum) / float64(len(latencies)),
			P50:  microseconds(percentile(latencies, 0.5)), P99: microseconds(percentile(latencies, 0.99)),
		}
		if first[x.Way] == 0 {
			first[x.Way] = x.Mean
		}
		x.OfFirst, x.P99OfMean = ratio(x.Mean, first[x.Way]), ratio(x.P99, x.Mean)
		r.Lines = append(r.Lines, x)
	}
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// slowDisk is a file system on which every sync takes d longer.
type slowDisk struct {
	vfs.FS
	d time.Duration
}

func (s slowDisk) slow(f vfs.File, err error) (vfs.File, error) {
	if err != nil || s.d == 0 {
		return f, err
	}
	return slowDiskFile{f, s.d}, nil
}

// Create implements vfs.FS.
func (s slowDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.slow(s.FS.Create(name, c))
}

// OpenReadWrite implements vfs.FS.
func (s slowDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return s.slow(s.FS.OpenReadWrite(name, c, opts...))
}

// ReuseForWrite implements vfs.FS.
func (s slowDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.slow(s.FS.ReuseForWrite(from, to, c))
}

// Unwrap implements vfs.FS.
func (s slowDisk) Unwrap() vfs.FS { return s.FS }

type slowDiskFile struct {
	vfs.File
	d time.Duration
}

// Sync implements vfs.File.
func (f slowDiskFile) Sync() error {
	time.Sleep(f.d)
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f slowDiskFile) SyncData() error {
	time.Sleep(f.d)
	return f.File.SyncData()
}
