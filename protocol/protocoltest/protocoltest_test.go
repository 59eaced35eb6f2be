package protocoltest

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"

	"assent/protocol"
)

var bad = flag.String("bad", "", "run the test on the named bad machine; it must fail")

// hidden's state is not all exported.
type hidden struct{ count int }

func (h *hidden) Step(protocol.Event, *protocol.Effects) { h.count++ }

// moody depends on something that is not its state.
type moody struct{ Steps int }

var mood int

type noise struct{ N int }

func (m *moody) Step(_ protocol.Event, out *protocol.Effects) {
	mood++
	out.Emit(noise{N: mood})
}

// sharer sends memory that it goes on using.
type sharer struct{ Items []byte }

type parcel struct{ Items []byte }

func (s *sharer) Step(_ protocol.Event, out *protocol.Effects) {
	if len(s.Items) == 0 {
		s.Items = []byte{0}
	}
	s.Items[0]++
	out.Send("x", parcel{Items: s.Items})
}

func subject(t *testing.T, name string) Subject {
	t.Helper()
	machines := map[string]func() protocol.Machine{
		"hidden": func() protocol.Machine { return &hidden{} },
		"moody":  func() protocol.Machine { return &moody{} },
		"sharer": func() protocol.Machine { return &sharer{} },
	}
	codec, err := protocol.NewCodec(
		protocol.Type{Name: "moody", Zero: moody{}}, protocol.Type{Name: "noise", Zero: noise{}},
		protocol.Type{Name: "sharer", Zero: sharer{}}, protocol.Type{Name: "parcel", Zero: parcel{}})
	if err != nil {
		t.Fatal(err)
	}
	return Subject{New: []func() protocol.Machine{machines[name]}, Events: []protocol.Event{protocol.Start{}}, Codec: codec}
}

// TestBadMachine is the far end of TestBadMachinesFail.
func TestBadMachine(t *testing.T) {
	if *bad == "" {
		t.Skip("run by TestBadMachinesFail")
	}
	Run(t, subject(t, *bad))
}

func TestBadMachinesFail(t *testing.T) {
	for name, complaint := range map[string]string{
		"hidden": "unexported state",
		"moody":  "has other effects",
		"sharer": "shares memory",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestBadMachine$", "-bad="+name, "-rapid.nofailfile")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), complaint) {
			t.Errorf("%s: the test must fail and say %q, got %v:\n%s", name, complaint, err, out)
		}
	}
}
