package chart_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"assent"
	"assent/decision/disk"
	"assent/protocol"
	"assent/resource"
	"assent/resource/kv"
	"assent/trace"
)

// commitLive commits a transaction over two stores with the library, and returns its trace.
func commitLive(t *testing.T) (trace.Header, []trace.Event) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	log, err := disk.Open(filepath.Join(dir, "log"), disk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	stores, resources := map[string]*kv.Resource{}, map[string]resource.Resource{}
	for _, name := range []string{"billing", "orders"} {
		if stores[name], err = kv.Open(filepath.Join(dir, name), kv.Config{}); err != nil {
			t.Fatal(err)
		}
		resources[name] = stores[name]
	}
	path := filepath.Join(dir, "run.trace")
	f, err := assent.OpenTrace(path, resources)
	if err != nil {
		t.Fatal(err)
	}
	m, err := assent.Open(ctx, assent.Config{Log: log, Resources: resources, Observer: f})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		for _, r := range stores {
			b, err := r.Join(ctx, tx)
			if err != nil {
				return err
			}
			if err := b.Put(ctx, []byte("k"), []byte("v")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, stop := range []func() error{
		func() error { return m.Close(ctx) }, f.Close, stores["billing"].Close, stores["orders"].Close, log.Close,
	} {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return load(t, file)
}

// TestLiveCommit: the trace of a commit through the library is whole, and its chart shows two phases:
// every message leaves and arrives, the promises come before the decision, all end committed.
func TestLiveCommit(t *testing.T) {
	h, events := commitLive(t)
	if h.Executor != trace.Live || !slices.Equal(h.Nodes, []protocol.NodeID{"coordinator:", "billing", "orders"}) {
		t.Errorf("the header is %+v", h)
	}
	causes := trace.Causes(events)
	sent, arrived := 0, 0
	for i, e := range events {
		if e.Kind == trace.Send {
			sent++
		}
		if _, ok := e.Value.(protocol.Receive); ok && e.Kind == trace.Deliver {
			arrived++
			if causes[i] < 0 || events[causes[i]].Kind != trace.Send {
				t.Errorf("event %d, %s at %s, comes from nowhere", i+1, trace.Describe(e), e.Node)
			}
		}
	}
	if sent != arrived || sent < 8 {
		t.Errorf("%d messages left and %d arrived, want the same number, at least 8", sent, arrived)
	}

	picture := svg(t, draw(t, h, events))
	wellFormed(t, picture)
	for label, want := range map[string]int{"Prepare": 2, "Voted(yes)": 2, "Finish(commit)": 2, "Acknowledge(committed)": 2} {
		if got := len(regexp.MustCompile(`<text class="label[^>]*>`+regexp.QuoteMeta(label)+`</text>`).FindAllString(picture, -1)); got != want {
			t.Errorf("%d arrows are named %s, want %d", got, label, want)
		}
	}
	for shape, want := range map[string]int{`<path class="lane in-doubt"`: 2, `<path class="lane committed"`: 3} {
		if got := strings.Count(picture, shape); got != want {
			t.Errorf("%d times %s, want %d", got, shape, want)
		}
	}
	d := dataOf(t, page(t, draw(t, h, events)))
	var story []string
	for _, s := range d.Steps {
		for _, c := range s.Changes {
			if c.Stands != "" && (len(story) == 0 || story[len(story)-1] != c.Stands) {
				story = append(story, c.Stands)
			}
		}
	}
	if want := []string{"in doubt", "committed"}; !slices.Equal(story, want) {
		t.Errorf("the nodes are %q, one after the other, want %q", story, want)
	}
}
