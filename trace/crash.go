package trace

import (
	"fmt"
	"strconv"
	"strings"
)

const sentForm = "after %d sends"

// Sent is the Value of a Crash that falls within a step: after the step's stable writes, when n of
// its messages have left. A Crash between two steps has no Value.
func Sent(n int) string { return fmt.Sprintf(sentForm, n) }

// SentBefore returns how many messages of the last step of its node had left when the crash e fell,
// and whether it fell within a step at all.
func SentBefore(e Event) (n int, within bool) {
	text, ok := e.Value.(string)
	if !ok || e.Kind != Crash {
		return 0, false
	}
	count, ok := strings.CutPrefix(text, "after ")
	count, ok2 := strings.CutSuffix(count, " sends")
	n, err := strconv.Atoi(count)
	return n, ok && ok2 && err == nil && n >= 0
}
