package remote

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"assent/decision"
	"assent/resource"
)

// ownerHeader carries the log's owner in every answer, and in a request that of the log that is meant.
const ownerHeader = "Assent-Owner"

// The limits on a request and on an answer, or one entry of it: an entry with all that Check admits.
const maxBody = 8 << 20

// problem is an error on its way to the caller.
type problem struct {
	// Kind is the name of one of kinds, or empty.
	Kind string `json:"kind,omitempty"`
	// Code is the resource.Code, or 0.
	Code uint8  `json:"code,omitempty"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// kinds are the errors that callers ask for by name.
var kinds = map[string]error{
	"not found": decision.ErrNotFound, "stopped": decision.ErrStopped, "closed": decision.ErrClosed,
}

// tell answers with err.
func tell(w http.ResponseWriter, err error) {
	p := problem{Code: uint8(resource.CodeOf(err)), Text: err.Error(), Hint: resource.HintOf(err)}
	status := http.StatusServiceUnavailable
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			p.Kind = name
		}
	}
	switch {
	case p.Kind == "not found":
		status = http.StatusNotFound
	case resource.Code(p.Code) == resource.Invalid:
		status = http.StatusBadRequest
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p) // whoever asked has gone
}

// answered is an error that a server has told.
type answered struct {
	problem
	status int
}

// Error returns what the server said.
func (a *answered) Error() string { return a.Text }

// Unwrap returns the error of that name.
func (a *answered) Unwrap() error { return kinds[a.Kind] }

// readProblem reads what tell wrote. What does not come from a Handler is told by its status.
func readProblem(resp *http.Response) error {
	a := &answered{status: resp.StatusCode}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(data, &a.problem) != nil || a.Text == "" {
		a.problem = problem{Text: fmt.Sprintf("the server answers %s", resp.Status)}
	}
	return a
}

// writeFrame and readFrame are how a listing is sent: each entry after its length, and a length of zero at
// the end, so that a listing that was cut short is not taken for a whole one.
func writeFrame(w io.Writer, data []byte) error {
	_, err := w.Write(append(binary.AppendUvarint(nil, uint64(len(data))), data...))
	return err
}

func readFrame(r *bufio.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > maxBody {
		return nil, errors.Join(errors.New("a listing is cut short"), err)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("a listing is cut short: %w", err)
	}
	return data, nil
}
