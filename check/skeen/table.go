package skeen

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the analysis for people: a row for each local state of each role, the verdict, and
// the schedules that block. It returns the error of w.
func (a *Analysis) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d sites:", a.Protocol, a.Sites)
	for i, n := range a.Nodes {
		fmt.Fprintf(&b, " %d is %s", i+1, n)
		if i < len(a.Nodes)-1 {
			b.WriteByte(',')
		}
	}
	b.WriteString("\n\n")
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ROLE\tSTATE\tCONCURRENCY SET\tCOMMITTABLE\tNONBLOCKING\tTHE MACHINE'S STATES")
	for _, r := range a.Roles {
		name := r.Name
		for _, s := range r.States {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", name, s.Letter, words(s.Concurrency), yesOrNo(s.Committable), s.verdict(), strings.Join(s.Machine, "; "))
			name = ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString("\n" + a.conclusion() + "\n")
	for _, r := range a.Roles {
		for _, s := range r.States {
			s.writeSchedule(&b, r.Name)
		}
	}
	fmt.Fprintf(&b, "\n%d global states of the machines and %d transitions; projected, %d vectors and %d edges\n",
		a.States, a.Transitions, len(a.Global.Vectors), len(a.Global.Edges))
	_, err := io.WriteString(w, b.String())
	return err
}

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// verdict says which conditions of the theorem are broken.
func (s LocalState) verdict() string {
	switch {
	case s.Mixed && s.Risky:
		return "no (1, 2)"
	case s.Mixed:
		return "no (1)"
	case s.Risky:
		return "no (2)"
	}
	return "yes"
}

func (a *Analysis) conclusion() string {
	var blocking, stuck []string
	mixed, risky := false, false
	for _, r := range a.Roles {
		for _, s := range r.States {
			if !s.Nonblocking {
				blocking = append(blocking, r.Name+" in "+string(s.Letter))
			}
			if s.Blocked != nil {
				stuck = append(stuck, string(s.Letter))
			}
			mixed, risky = mixed || s.Mixed, risky || s.Risky
		}
	}
	text := "The theorem's verdict: nonblocking. No state breaks a condition."
	if len(blocking) > 0 {
		text = "The theorem's verdict: blocking, because of the " + strings.Join(blocking, ", the ") + "."
	}
	if mixed {
		text += "\n(1) beside the state there is both a commit and an abort state"
	}
	if risky {
		text += "\n(2) the state is not committable, and beside it there is a commit state"
	}
	if a.Crashes > 0 && len(stuck) == 0 {
		text += fmt.Sprintf("\nThe machines: after %s no site that is up stays in doubt for ever.", upTo(a.Crashes))
	}
	return text
}

func upTo(crashes int) string {
	if crashes == 1 {
		return number(crashes)
	}
	return "up to " + number(crashes)
}

func number(crashes int) string {
	if crashes == 1 {
		return "one crash"
	}
	return fmt.Sprintf("%d crashes", crashes)
}

func (s LocalState) writeSchedule(b *strings.Builder, role string) {
	if s.Blocked == nil {
		return
	}
	fmt.Fprintf(b, "\nthe shortest schedule with %s after which a %s stays in %s, whatever follows\n", number(s.Blocked.Crashes), role, s.Letter)
	for i, step := range s.Blocked.Steps {
		fmt.Fprintf(b, "%3d. %s\n", i+1, step)
	}
}
