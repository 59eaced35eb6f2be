package cluster

import (
	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/sim/bank"
)

// What clients and nodes say to each other.
type (
	// Begin asks a node to run a transaction. Client → node.
	Begin struct {
		Ref   uint64
		Parts []bank.Part
	}
	// Begun tells the transaction's name. Node → client.
	Begun struct {
		Ref uint64
		ID  commit.TransactionID
	}
	// Told tells how a transaction ends; Undecided says that nothing is known to be decided. Sum is of what
	// was read. Node → client.
	Told struct {
		ID       commit.TransactionID
		Decision commit.Decision
		Sum      int64 `cbor:",omitempty" json:",omitempty"`
	}
	// Inquiry asks any node how a transaction ends. Client → node.
	Inquiry struct{ ID commit.TransactionID }
	// Configure asks a node to have the cluster's own state changed: its configuration, its members. Client → node.
	Configure struct {
		Ref    uint64
		Change membership.Change
	}
	// Configured answers it. Node → client.
	Configured struct {
		Ref    uint64
		Result membership.Result
	}
)

// What nodes say to each other, besides what their machines say.
type (
	// Work asks a node to do a transaction's work at its store. Bank.Worked answers it.
	Work struct {
		ID         commit.TransactionID
		Operations []bank.Operation
		// Sent is when it was sent, in nanoseconds of the run. It stands for the connection that it is
		// sent on, which does not outlive the receiver's process.
		Sent int64
	}
	// News names the sender's present life.
	News struct{ Prefix string }
	// Dated is what is said of registers, with the number of the sender's epoch: a payload of decision/paxos.
	// Another field is set, or none: then the sender asks for the receiver's epoch.
	Dated struct {
		Epoch uint64
		paxos.Said[register.Value]
		Void      *register.Void     `cbor:",omitempty" json:",omitempty"`
		Learn     *register.Learn    `cbor:",omitempty" json:",omitempty"`
		Annotate  *register.Annotate `cbor:",omitempty" json:",omitempty"`
		Query     *Query             `cbor:",omitempty" json:",omitempty"`
		Page      *Page              `cbor:",omitempty" json:",omitempty"`
		Survey    *Survey            `cbor:",omitempty" json:",omitempty"`
		Inventory *Inventory         `cbor:",omitempty" json:",omitempty"`
		Teach     *Teach             `cbor:",omitempty" json:",omitempty"`
		Taught    *Taught            `cbor:",omitempty" json:",omitempty"`
		// Entered is the epoch in which the sender is.
		Entered *register.Epoch `cbor:",omitempty" json:",omitempty"`
	}
	// Entering has the copies of a node enter an epoch. It stays at the node.
	Entering struct{ Epoch register.Epoch }
	// Query asks what is held of a transaction, or of all where it names none.
	Query struct {
		Number uint64
		ID     commit.TransactionID `cbor:",omitempty" json:",omitempty"`
	}
	// Page answers Query.
	Page struct {
		Number uint64
		States []Held `cbor:",omitempty" json:",omitempty"`
	}
	// Survey asks a member before, in an epoch of both, how far it is with what it held when that began. Leader → member.
	Survey struct{}
	// Inventory answers it: how much is left, and what of that is not known to be decided.
	Inventory struct {
		Left      int
		Unsettled []Held `cbor:",omitempty" json:",omitempty"`
	}
	// Teach tells a member after what is decided. Member before → member after.
	Teach struct{ States []Held }
	// Taught says that it is held, stable.
	Taught struct{ IDs []commit.TransactionID }
	// Held is what a node holds of a transaction: what is decided, or else what its acceptor has accepted last.
	Held struct {
		ID     commit.TransactionID
		Chosen bool
		Value  register.Value
		Notes  []register.Note `cbor:",omitempty" json:",omitempty"`
	}
)

// What a node keeps on its disk, besides the records of its machines.
type (
	// Balance is an account.
	Balance struct{ Amount int64 }
	// PreparedBranch is a branch that is prepared: what each account it changes holds when it commits.
	PreparedBranch struct {
		ID          commit.TransactionID
		Coordinator protocol.NodeID
		Writes      []Entry
	}
	// Entry is an account with what it is to hold.
	Entry struct {
		Account int
		Amount  int64
	}
	// EpochRecord is the epoch that a node's copies have entered.
	// Blank says that what they held before is void.
	EpochRecord struct {
		Epoch register.Epoch
		Blank bool `cbor:",omitempty" json:",omitempty"`
	}
	// Ended says what became of a branch.
	Ended struct{ Outcome commit.Outcome }
)

func types() []protocol.Type {
	return []protocol.Type{
		{Name: "cluster.Begin", Zero: Begin{}}, {Name: "cluster.Begun", Zero: Begun{}},
		{Name: "cluster.Told", Zero: Told{}}, {Name: "cluster.Inquiry", Zero: Inquiry{}},
		{Name: "cluster.Configure", Zero: Configure{}}, {Name: "cluster.Configured", Zero: Configured{}},
		{Name: "cluster.Work", Zero: Work{}}, {Name: "cluster.Worked", Zero: bank.Worked{}},
		{Name: "cluster.News", Zero: News{}}, {Name: "cluster.Dated", Zero: Dated{}},
		{Name: "cluster.Entering", Zero: Entering{}}, {Name: "cluster.EpochRecord", Zero: EpochRecord{}},
		{Name: "paxos.Epoch", Zero: paxos.Epoch{}}, {Name: "cluster.Balance", Zero: Balance{}},
		{Name: "cluster.PreparedBranch", Zero: PreparedBranch{}}, {Name: "cluster.Ended", Zero: Ended{}},
		{Name: "register.Copy", Zero: register.Copy{}}, {Name: "register.Void", Zero: register.Void{}},
		{Name: "register.Learn", Zero: register.Learn{}}, {Name: "register.Annotate", Zero: register.Annotate{}},
		{Name: "register.ChosenRecord", Zero: register.ChosenRecord{}}, {Name: "register.NoteRecord", Zero: register.NoteRecord{}},
		{Name: "register.ForgottenRecord", Zero: register.ForgottenRecord{}},
	}
}

// date returns a message about registers as it is sent.
func date(epoch uint64, message protocol.Message) Dated {
	d := Dated{Epoch: epoch, Said: paxos.Say[register.Value](message)}
	switch m := message.(type) {
	case register.Void:
		d.Void = &m
	case register.Learn:
		d.Learn = &m
	case register.Annotate:
		d.Annotate = &m
	case Query:
		d.Query = &m
	case Page:
		d.Page = &m
	case Survey:
		d.Survey = &m
	case Inventory:
		d.Inventory = &m
	case Teach:
		d.Teach = &m
	case Taught:
		d.Taught = &m
	case register.Epoch:
		d.Entered = &m
	}
	return d
}

// message returns what was sent, or nil.
func (d Dated) message() protocol.Message {
	switch {
	case d.Void != nil:
		return *d.Void
	case d.Learn != nil:
		return *d.Learn
	case d.Annotate != nil:
		return *d.Annotate
	case d.Query != nil:
		return *d.Query
	case d.Page != nil:
		return *d.Page
	case d.Survey != nil:
		return *d.Survey
	case d.Inventory != nil:
		return *d.Inventory
	case d.Teach != nil:
		return *d.Teach
	case d.Taught != nil:
		return *d.Taught
	}
	return d.Message()
}
