package crashtest

import (
	"errors"
	"time"

	"assent"
	"assent/cluster"
	"assent/protocol/commit"
	"assent/resource"
)

// What the test and its coordinator process say to each other: lines of JSON, requests on the
// process's standard input and messages on its file descriptor 3.

// request asks a coordinator process for one thing: the field that is set.
type request struct {
	ID       int
	Open     *setup    `json:",omitempty"`
	Arm      []arm     `json:",omitempty"`
	Release  string    `json:",omitempty"` // the point at which a step is held
	Transfer *transfer `json:",omitempty"`
	Settle   bool      `json:",omitempty"`
	State    bool      `json:",omitempty"`
	Cluster  bool      `json:",omitempty"` // of the state, how the cluster stands: that waits for nobody
	Info     string    `json:",omitempty"` // the id of a transaction
	Bank     *workload `json:",omitempty"`
	Rest     bool      `json:",omitempty"` // end the workload
}

// message is an answer, where ID is not 0, or news.
type message struct {
	ID     int     `json:",omitempty"`
	Held   string  `json:",omitempty"` // a step is held at this point
	Err    string  `json:",omitempty"`
	Report *report `json:",omitempty"`
	State  *state  `json:",omitempty"`
	Info   *info   `json:",omitempty"`

	// The history of a workload.
	Invoke string  `json:",omitempty"` // an operation begins
	Did    *effect `json:",omitempty"` // an operation has read and written, and is about to commit
	Done   string  `json:",omitempty"` // an operation has ended as Report says
}

// setup says what a coordinator process opens.
type setup struct {
	Dir  string            // of the decision log and the kv store
	DSN  map[string]string // the databases, by resource name
	Arms []arm             `json:",omitempty"` // in place before recovery begins

	Retry          time.Duration // the first pause before anything is tried again
	FinishWait     time.Duration
	PrepareTimeout time.Duration
	LockTimeout    time.Duration
	OrphanGrace    time.Duration

	// Shared is where the decisions are, if not on the process's own disk or at the nodes of its cluster.
	Shared *sharedLog `json:",omitempty"`
	// Cluster makes the process a node of a cluster. It then has no kv store.
	Cluster *member `json:",omitempty"`
}

// member says which node of which cluster a coordinator process is.
type member struct {
	Self    string
	Nodes   map[string]string // addresses
	Alone   bool              `json:",omitempty"` // it decides in a log of its own, on its disk
	Exposed bool              `json:",omitempty"` // plaintext leaves the loopback
}

// arm says what happens when a point of the protocol is passed.
type arm struct {
	Point string
	N     int // the how manyth time; 0 is the first

	// One of these is set.
	Kill  bool     `json:",omitempty"` // the process kills itself with SIGKILL
	Hold  bool     `json:",omitempty"` // the step waits for a Release
	Await []string `json:",omitempty"` // the step waits until these points were passed

	Delay time.Duration `json:",omitempty"` // Kill comes so much later, while the step goes on
}

// transfer moves money between accounts in one transaction. The deltas add up to 0.
type transfer struct {
	ID   string
	Legs []leg
	// Then are statements in the branches, after the legs.
	Then []statement `json:",omitempty"`
	// Serializable asks PostgreSQL for that isolation level.
	Serializable bool `json:",omitempty"`
	// Fail makes the application give up after all work is done.
	Fail bool `json:",omitempty"`
}

type leg struct {
	Resource string
	Account  int
	Delta    int64
	Peek     bool `json:",omitempty"` // only read, without a lock that needs a transaction number
}

type statement struct {
	Resource string
	SQL      string
	Ignore   bool `json:",omitempty"` // the application does not look at the error
}

// account is what a resource keeps of an account. Version counts its changes; Writer is the
// transfer that made the last one.
type account struct {
	Balance int64
	Version int64
	Writer  string `json:",omitempty"`
}

// move is one leg that has happened: the change that made the given version of an account.
type move struct {
	Transfer string
	Account  string // with the resource: "pg1/3"
	Version  int64
	Delta    int64
}

// effect is what an operation has read and written, by account.
type effect struct {
	ID     string
	Reads  map[string]account
	Writes map[string]int64 `json:",omitempty"` // the versions made
}

// workload is what a coordinator process does in the bank test, until it is killed or told to rest.
type workload struct {
	Seed    uint64
	Prefix  string // of the ids of its operations
	Workers int
}

// The kinds of report.
const (
	committed = "committed"
	aborted   = "aborted"
	inDoubt   = "in doubt"
	heuristic = "heuristic"
)

// report is what Run returned.
type report struct {
	Kind     string
	ID       string // of the transaction
	Text     string `json:",omitempty"`
	Hint     string `json:",omitempty"`
	By       string `json:",omitempty"`
	Cause    commit.Cause
	Code     resource.Code
	Decision commit.Decision
	Branches []assent.Contradiction `json:",omitempty"`
}

// reportOf reads an error of Run as the package assent says that it is to be read.
func reportOf(id string, err error) *report {
	r := &report{ID: id, Kind: committed}
	if err == nil {
		return r
	}
	r.Text, r.Code = err.Error(), resource.CodeOf(err)
	matches := 0
	for kind, sentinel := range map[string]error{aborted: assent.ErrAborted, inDoubt: assent.ErrInDoubt, heuristic: assent.ErrHeuristic} {
		if errors.Is(err, sentinel) {
			r.Kind = kind
			matches++
		}
	}
	if matches != 1 {
		r.Kind = "neither committed, aborted, in doubt nor heuristic"
		return r
	}
	var a *assent.AbortedError
	var d *assent.InDoubtError
	var h *assent.HeuristicError
	switch {
	case r.Kind == aborted && errors.As(err, &a):
		r.By, r.Cause, r.Hint = a.By, a.Cause, a.Hint()
	case r.Kind == inDoubt && errors.As(err, &d):
		r.Hint = d.Hint()
	case r.Kind == heuristic && errors.As(err, &h):
		r.Decision, r.Branches, r.Hint = h.Decision, h.Branches, h.Hint()
	default:
		r.Kind = "an " + r.Kind + " error without its type"
	}
	return r
}

// info is what a manager tells of a transaction.
type info struct {
	State    assent.State
	Branches []assent.BranchInfo
	Notes    int
}

// state is what a coordinator process finds in its log and its stores.
type state struct {
	Points     []string            // those passed since it began, in order, repeated ones repeated
	Unfinished []string            // transactions
	Damaged    []string            // transactions
	Prepared   map[string][]string // own branches, by resource
	Foreign    map[string][]string
	Accounts   map[string]account // of the kv store
	Moves      []move             // of the kv store
	Seen       map[string]string  // what the last scan of a resource met with: its error
	Cluster    *cluster.Status    `json:",omitempty"`
}
