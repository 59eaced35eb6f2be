package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// verdict is the result, as --json prints it.
type verdict struct {
	// Transactions are those that ended, with an answer or by a kill: the sum of the next six
	// and of Unanswered.
	Transactions int `json:"transactions"`
	Enrolled     int `json:"enrolled"`
	Withdrawn    int `json:"withdrawn"`
	Refused      int `json:"refused"`
	Aborted      int `json:"aborted"`
	Contradicted int `json:"contradicted"`
	Heuristic    int `json:"heuristic"`
	// Unanswered are the requests that were under way at a kill.
	Unanswered          int `json:"unanswered"`
	UnansweredCommitted int `json:"unansweredCommitted"`
	UnansweredAborted   int `json:"unansweredAborted"`
	Kills               int `json:"kills"`
	// KillsRecovering are the kills before the registrar was ready.
	KillsRecovering int `json:"killsRecovering"`
	// Recovered are the transactions that a registrar found unfinished and finished.
	Recovered int `json:"recovered"`
	// A restart lasts from the start of the process until all is recovered, and recovery from when
	// the stores and the log are open. Medians, and the slowest restart, in milliseconds.
	RestartMS        float64 `json:"restartMs"`
	RecoveryMS       float64 `json:"recoveryMs"`
	RestartSlowestMS float64 `json:"restartSlowestMs"`
	// InDoubt counts prepared branches and unfinished entries of the log in the end.
	InDoubt       int        `json:"inDoubt"`
	Mismatches    []Mismatch `json:"mismatches"`
	Seconds       float64    `json:"seconds"`
	ServedSeconds float64    `json:"servedSeconds"`
	// PerSecond is Transactions by ServedSeconds.
	PerSecond   float64 `json:"perSecond"`
	Interrupted bool    `json:"interrupted"`
	Seed        uint64  `json:"seed"`
	// Directory is where the machines are, if they were kept.
	Directory string `json:"directory,omitempty"`
}

// err is the verdict in one word: nil if all is well.
func (v *verdict) err() error {
	switch n := len(v.Mismatches); n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("1 mismatch; the machines are kept in %s", v.Directory)
	default:
		return fmt.Errorf("%d mismatches; the machines are kept in %s", n, v.Directory)
	}
}

func (v *verdict) writeJSON(w io.Writer) error {
	if v.Mismatches == nil {
		v.Mismatches = []Mismatch{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (v *verdict) writeTable(w io.Writer) error {
	var b strings.Builder
	row := func(label string, n int, remark string) {
		line := fmt.Sprintf("%-24s %9s  %s", label, thousands(n), remark)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	some := func(label string, n int, remark string) {
		if n > 0 {
			row(label, n, remark)
		}
	}
	row("transactions", v.Transactions, fmt.Sprintf("%s a second while the registrar served", thousands(int(v.PerSecond))))
	row("  enrolled", v.Enrolled, "one student, or two friends together")
	row("  withdrawn", v.Withdrawn, "")
	row("  refused", v.Refused, "the course was full")
	some("  aborted", v.Aborted, "a conflict, mostly")
	some("  contradicted", v.Contradicted, "see the mismatches")
	some("  ended heuristically", v.Heuristic, "see the mismatches")
	row("  unanswered at a kill", v.Unanswered, fmt.Sprintf("after recovery %s are committed, %s aborted",
		thousands(v.UnansweredCommitted), thousands(v.UnansweredAborted)))
	row("kills by SIGKILL", v.Kills, fmt.Sprintf("%d of them during a restart", v.KillsRecovering))
	row("recovered after a crash", v.Recovered, fmt.Sprintf("in %.0f ms; the whole restart took %.0f ms, %.0f ms at most",
		v.RecoveryMS, v.RestartMS, v.RestartSlowestMS))
	row("in doubt", v.InDoubt, "")
	row("mismatches", len(v.Mismatches), "")
	for i, m := range v.Mismatches {
		if i == maxShown {
			fmt.Fprintf(&b, "  and %d more; --json lists them all\n", len(v.Mismatches)-i)
			break
		}
		fmt.Fprintf(&b, "  %s\n", m)
	}
	b.WriteString(v.sentence() + "\n")
	if v.Directory != "" {
		fmt.Fprintf(&b, "the machines are kept in %s\n", v.Directory)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxShown is how many mismatches the table names.
const maxShown = 50

func (v *verdict) sentence() string {
	how := "done"
	if v.Interrupted {
		how = "stopped early"
	}
	if len(v.Mismatches) > 0 {
		return fmt.Sprintf("%s after %.1f s: FAILED, %d mismatches", how, v.Seconds, len(v.Mismatches))
	}
	return fmt.Sprintf("%s after %.1f s: every answer holds, on every machine", how, v.Seconds)
}

// thousands writes n with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
