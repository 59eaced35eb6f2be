package chart_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/trace"
	"assent/trace/chart"
)

var rewrite = flag.Bool("rewrite-docs", false, "rewrite the golden files and the picture in docs")

// load reads a trace without a codec.
func load(t testing.TB, in io.Reader) (trace.Header, []trace.Event) {
	t.Helper()
	r, err := trace.NewReader(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	var events []trace.Event
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Header(), events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
}

func loadFile(t testing.TB, name string) (trace.Header, []trace.Event) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, bytes.NewReader(data))
}

func draw(t testing.TB, h trace.Header, events []trace.Event) *chart.Chart {
	t.Helper()
	c, err := chart.New(h, events, chart.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func svg(t testing.TB, c *chart.Chart) string {
	t.Helper()
	var b strings.Builder
	if err := c.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func page(t testing.TB, c *chart.Chart) string {
	t.Helper()
	var b strings.Builder
	if err := c.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s is not what is made now; look at both, then run make docs:\n%s", name, cmp.Diff(string(want), got))
	}
}

// TestGolden pins what is made of a recorded live commit, and of a run in which everything happens.
func TestGolden(t *testing.T) {
	h, events := loadFile(t, "testdata/live-2pc.jsonl")
	var text bytes.Buffer
	w, err := trace.NewWriter(&text, nil, h, trace.Text())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		w.Observe(e)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/live-2pc.txt", text.String())
	var log strings.Builder
	if err := trace.WriteShiViz(&log, events); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/live-2pc.shiviz", log.String())
	golden(t, "../../docs/chart-2pc.svg", svg(t, draw(t, h, events)))

	h, events = loadFile(t, "testdata/faults.txt")
	golden(t, "testdata/faults.svg", svg(t, draw(t, h, events)))
}

// TestSelfContained: a chart is well-formed XML, loads nothing and runs nothing.
func TestSelfContained(t *testing.T) {
	outside := regexp.MustCompile(`(?i)https?:|@import|<script|<image|<use|href|url\([^#]`)
	for _, name := range []string{"testdata/live-2pc.jsonl", "testdata/faults.txt"} {
		h, events := loadFile(t, name)
		c := draw(t, h, events)
		picture := svg(t, c)
		wellFormed(t, picture)
		if found := outside.FindString(strings.Replace(picture, "http://www.w3.org/2000/svg", "", 1)); found != "" {
			t.Errorf("%s: the picture has %q", name, found)
		}
		html := strings.ReplaceAll(page(t, c), "http://www.w3.org/2000/svg", "")
		if found := regexp.MustCompile(`(?i)https?:|@import|<link|<image|<use|href=|src=`).FindString(html); found != "" {
			t.Errorf("%s: the page has %q", name, found)
		}
	}
}

func wellFormed(t testing.TB, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

// TestHostileNames: names and texts cannot get out of their place.
func TestHostileNames(t *testing.T) {
	evil := `</script><script>alert("x")</script>` + "\x01]]>&"
	value := trace.Raw{Name: "a." + evil, JSON: json.RawMessage(`{"Decision":` + string(must(json.Marshal(evil))) + `}`)}
	c := draw(t, trace.Header{System: evil}, []trace.Event{
		{Scope: evil, Node: protocol.NodeID(evil), Kind: trace.Deliver, Value: protocol.Input{Value: value}},
		{Scope: evil, Node: protocol.NodeID(evil), Kind: trace.Forced, Value: []protocol.Write{{Key: evil, Record: value}}},
		{Scope: evil, Node: protocol.NodeID(evil), Kind: trace.Timer, Value: protocol.Timer{Name: evil, After: 1}},
		{Scope: evil, Node: protocol.NodeID(evil), Kind: trace.Send, Peer: "b", Value: value},
		{Scope: evil, Node: "b", Kind: trace.Deliver, Value: protocol.Receive{From: protocol.NodeID(evil), Message: value}},
		{Node: "b", Kind: trace.Damage, Value: evil},
		{Node: "b", Kind: trace.Cut, Peer: protocol.NodeID(evil)},
	})
	picture, html := svg(t, c), page(t, c)
	wellFormed(t, picture)
	for name, text := range map[string]string{"picture": picture, "page": html} {
		if strings.Contains(text, "<script>alert") || strings.Contains(text, "\x01") {
			t.Errorf("the %s lets it through:\n%s", name, text)
		}
	}
	if n := strings.Count(html, "<script"); n != 2 {
		t.Errorf("the page has %d scripts, want its data and its own", n)
	}
	dataOf(t, html)
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

// pageData is what a page steps through.
type pageData struct {
	Parts []string
	Steps []struct {
		Number  int
		What    string
		Events  []struct{ Text, Value string }
		Changes []struct {
			Part, Stands string
			Down         bool
			Put          map[string]string
			Arm, Disarm  string
		}
	}
}

func dataOf(t testing.TB, html string) (d pageData) {
	t.Helper()
	m := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>`).FindStringSubmatch(html)
	if m == nil {
		t.Fatal("the page has no data")
	}
	if err := json.Unmarshal([]byte(m[1]), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPageData follows one participant through the page's data: promise, silence, hazard.
func TestPageData(t *testing.T) {
	h, events := loadFile(t, "testdata/faults.txt")
	d := dataOf(t, page(t, draw(t, h, events)))
	if diff := cmp.Diff([]string{"c", "p1", "p2", "p3"}, d.Parts); diff != "" {
		t.Error(diff)
	}
	var story []string
	for _, s := range d.Steps {
		for _, c := range s.Changes {
			if c.Part != "p1" && c.Part != "p2" {
				continue
			}
			switch {
			case c.Down:
				story = append(story, fmt.Sprintf("%d %s down", s.Number, c.Part))
			case len(c.Put) > 0:
				story = append(story, fmt.Sprintf("%d %s puts %s", s.Number, c.Part, c.Put["branch"]))
			case c.Stands != "":
				story = append(story, fmt.Sprintf("%d %s %s", s.Number, c.Part, c.Stands))
			case c.Arm != "":
				story = append(story, fmt.Sprintf("%d %s arms %s", s.Number, c.Part, c.Arm))
			case c.Disarm != "":
				story = append(story, fmt.Sprintf("%d %s disarms %s", s.Number, c.Part, c.Disarm))
			}
		}
	}
	want := []string{
		`9 p1 puts commit.PreparedRecord {"ID":"t","Coordinator":"c"}`, "9 p1 in doubt", "9 p1 arms inquire",
		"18 p2 down", "23 p1 disarms inquire", "23 p1 arms inquire", "27 p2 working", "27 p2 working",
		`29 p2 puts commit.Tombstone {"ID":"t","Decision":"undecided"}`, "29 p2 aborted",
		"56 p1 aborted", "56 p1 disarms inquire", `56 p1 puts commit.FinishedRecord {"ID":"t","Decision":"abort","Outcome":"hazard"}`, "56 p1 hazard",
	}
	if diff := cmp.Diff(want, story); diff != "" {
		t.Error(diff)
	}
}

// TestLimits: too much is refused, and nothing too.
func TestLimits(t *testing.T) {
	h, events := loadFile(t, "testdata/faults.txt")
	if _, err := chart.New(h, events, chart.Options{MaxSteps: 5}); !errors.Is(err, chart.ErrTooLong) {
		t.Errorf("got %v", err)
	}
	if _, err := chart.New(h, nil, chart.Options{}); !errors.Is(err, chart.ErrEmpty) {
		t.Errorf("got %v", err)
	}
	c, err := chart.New(h, events[:1], chart.Options{Numbers: []int{4711}, Title: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if picture := svg(t, c); !strings.Contains(picture, ">4711</text>") || !strings.Contains(picture, "<title>mine</title>") {
		t.Errorf("number or title are missing in\n%s", picture)
	}
}

// TestSeveralScopes: machines of one node in several scopes are told apart.
func TestSeveralScopes(t *testing.T) {
	h, events := load(t, strings.NewReader("# assent trace 1\n"+
		"0 t1 a deliver start\n0 t2 a deliver start\n0 t2 a timer arm x 1s\n0 t2 a stepped\n"+
		"0 t1 a forced put k commit.PreparedRecord{}\n0 - a crash\n0 t1 a deliver recover\n"))
	d := dataOf(t, page(t, draw(t, h, events)))
	if diff := cmp.Diff([]string{"a · t1", "a · t2"}, d.Parts); diff != "" {
		t.Error(diff)
	}
	downs := 0
	for _, s := range d.Steps {
		for _, c := range s.Changes {
			if c.Down {
				downs++
			}
		}
	}
	if len(d.Steps) != 4 || downs != 2 {
		t.Errorf("%d steps with %d changes to down, want 4 and 2", len(d.Steps), downs)
	}
}

// TestPageSteps opens the page in a browser, if there is one: its script runs and goes to the step
// that the address names.
func TestPageSteps(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium is installed to open the page in (Debian: apt-get install chromium)")
	}
	h, events := loadFile(t, "testdata/faults.txt")
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(page(t, draw(t, h, events))), 0o600); err != nil {
		t.Fatal(err)
	}
	for hash, want := range map[string]string{"": "step 23 of 23", "#29": "step 12 of 23"} {
		cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+path+hash)
		dom, err := cmd.Output()
		if err != nil {
			t.Skipf("chromium does not run here: %v", err)
		}
		if !bytes.Contains(dom, []byte(want)) || !bytes.Contains(dom, []byte(`aria-current="step"`)) {
			t.Errorf("%s: the page does not say %q", hash, want)
		}
	}
}

// FuzzChart: whatever can be read can be drawn, as well-formed XML and as data that a page can read.
func FuzzChart(f *testing.F) {
	for _, name := range []string{"testdata/live-2pc.jsonl", "testdata/faults.txt"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		lines := bytes.SplitAfter(data, []byte("\n"))
		f.Add(bytes.Join(lines[:min(18, len(lines))], nil))
	}
	f.Add([]byte("# assent trace 1\n0 - a lose from a m{}\n0 - a duplicate from b m{}\n0 t a alter from a m{}\n0 t a deliver receive a m{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := trace.NewReader(bytes.NewReader(data), nil)
		if err != nil {
			return
		}
		var events []trace.Event
		for len(events) < 200 {
			e, err := r.Next()
			if err != nil {
				break
			}
			events = append(events, e)
		}
		c, err := chart.New(r.Header(), events, chart.Options{})
		if err != nil {
			return
		}
		wellFormed(t, svg(t, c))
		dataOf(t, page(t, c))
	})
}
