package resource

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestErrorTellsAll(t *testing.T) {
	err := fmt.Errorf("commit: %w", &Error{Code: Capacity, Op: "prepare", Detail: "SQLSTATE 53200",
		Hint: "raise max_prepared_transactions", Err: io.ErrUnexpectedEOF})
	if got := err.Error(); got != "commit: prepare: out of capacity (SQLSTATE 53200): unexpected EOF" {
		t.Errorf("text %q", got)
	}
	if CodeOf(err) != Capacity || HintOf(err) != "raise max_prepared_transactions" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("code %v, hint %q", CodeOf(err), HintOf(err))
	}
	if CodeOf(io.EOF) != 0 || HintOf(nil) != "" {
		t.Error("an error of another kind has a code or a hint")
	}
}

func TestCodesHaveNames(t *testing.T) {
	retryable := 0
	for c := Serialization; c <= Broken; c++ {
		if strings.HasPrefix(c.String(), "invalid(") {
			t.Errorf("code %d has no name", c)
		}
		if c.Retryable() {
			retryable++
		}
	}
	if retryable != 3 || Code(0).Retryable() || Code(99).String() != "invalid(99)" {
		t.Errorf("%d codes are retryable", retryable)
	}
}
