package check

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"assent/protocol"
)

// snapshot is the state of one node: its machine, its stable storage and its armed timers.
type snapshot struct {
	node    int
	up      bool
	started bool
	machine protocol.Machine
	records protocol.Records
	timers  []string // armed, sorted
}

// local is a distinct snapshot, and what is known to follow from it. The snapshot is never changed.
type local struct {
	snapshot
	number  uint32
	encoded string // of machine
	hash    uint64
	looks   []uint64 // see symmetry.looksOfLocal

	ended atomic.Uint32 // see explorer.ended

	// moot has a bit for each message that is known to mean nothing here, by its number; those of
	// high numbers have none. For inputs and expiries see explorer.inputsOf.
	moot             [mootWords]atomic.Uint32
	inputs, expiries atomic.Pointer[[]act]

	// What follows, filled in when it is first asked for: mu is held while a machine is stepped.
	// own is by ^trigger; got is by the message's slot, and longer the more messages there are.
	mu  sync.Mutex
	own []atomic.Pointer[result]
	got atomic.Pointer[[]atomic.Pointer[result]]
}

const mootWords = 8

// act is something that a node does without a message.
type act struct {
	t trigger
	r *result
}

// message is a distinct message from one node to another.
type message struct {
	from, to int
	value    protocol.Message
	hash     uint64
	slot     uint32   // its number among the messages to the same node
	looks    []uint64 // see symmetry.looksOfMessage

	once sync.Once
	lies []uint32 // what the liar at from may say instead
}

// table numbers things by their content. Reading what has a number takes no lock.
type table[T any] struct {
	mu      sync.Mutex
	numbers map[string]uint32
	items   []*T
	shown   atomic.Pointer[[]*T] // items, for readers; what it shows is never changed
}

func (t *table[T]) get(n uint32) *T { return (*t.shown.Load())[n] }

func (t *table[T]) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.items)
}

// put returns the number of the item with this key; where there is none it is made, under a lock.
func (t *table[T]) put(key string, make func(number uint32) *T) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.numbers[key]; ok {
		return n
	}
	if t.numbers == nil {
		t.numbers = map[string]uint32{}
	}
	n := uint32(len(t.items))
	t.numbers[key] = n
	t.items = append(t.items, make(n))
	shown := t.items
	t.shown.Store(&shown)
	return n
}

// hash is FNV-1a with a final mix, so that sums of hashes spread.
func hash(text string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return mix(h)
}

func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// intern numbers s, whose machine is handed over: nobody else may keep it.
func (x *explorer) intern(s snapshot) (uint32, error) {
	if !s.up {
		s.machine, s.timers = nil, nil
	}
	if x.symmetry != nil {
		if err := x.symmetry.refuseNames(s); err != nil {
			return 0, err
		}
		if err := x.symmetry.normalise(&s); err != nil {
			return 0, err
		}
	}
	key, encoded, err := x.key(s)
	if err != nil {
		return 0, err
	}
	if n, ok := x.locals.number(key); ok {
		return n, nil
	}
	l := &local{snapshot: s, encoded: encoded, hash: hash("local " + key)}
	l.own = make([]atomic.Pointer[result], firstTimer+len(s.timers))
	if x.symmetry != nil {
		if l.looks, err = x.symmetry.looksOfLocal(s); err != nil {
			return 0, err
		}
	}
	return x.locals.put(key, func(number uint32) *local {
		l.number = number
		return l
	}), nil
}

// number returns the number of the item with this key, if there is one.
func (t *table[T]) number(key string) (uint32, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.numbers[key]
	return n, ok
}

// key is a snapshot's content, and the encoding of its machine.
func (x *explorer) key(s snapshot) (key, encoded string, err error) {
	if s.up {
		data, err := x.sys.Codec.Encode(s.machine)
		if err != nil {
			return "", "", fmt.Errorf("%w: node %s: %v", ErrSystem, x.sys.Nodes[s.node].ID, err)
		}
		encoded = string(data)
	}
	b := make([]byte, 0, 64+len(encoded))
	b = strconv.AppendInt(b, int64(s.node), 10)
	b = strconv.AppendBool(append(b, ' '), s.up)
	b = strconv.AppendBool(append(b, ' '), s.started)
	for _, timer := range s.timers {
		b = strconv.AppendQuote(append(b, ' '), timer)
	}
	stable, err := x.encodeRecords(s.records)
	if err != nil {
		return "", "", err
	}
	b = append(append(append(b, " {"...), stable...), "} "...)
	return string(append(b, encoded...)), encoded, nil
}

func (x *explorer) encodeRecords(records protocol.Records) (string, error) {
	if len(records) == 0 {
		return "", nil
	}
	keys := make([]string, 0, len(records))
	for k := range records {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		data, err := x.sys.Codec.Encode(records[k])
		if err != nil {
			return "", fmt.Errorf("%w: record %q: %v", ErrSystem, k, err)
		}
		fmt.Fprintf(&b, "%q=%d %s;", k, len(data), data)
	}
	return b.String(), nil
}

// internSend numbers a message that a node sends.
func (x *explorer) internSend(from int, s protocol.Send) (uint32, error) {
	to := slices.IndexFunc(x.sys.Nodes, func(n protocol.Node) bool { return n.ID == s.To })
	if to < 0 {
		return 0, fmt.Errorf("%w: %s sends %T to %q, which is no node", ErrSystem, x.sys.Nodes[from].ID, s.Message, s.To)
	}
	return x.internMessage(from, to, s.Message)
}

func (x *explorer) internMessage(from, to int, value protocol.Message) (uint32, error) {
	m := &message{from: from, to: to, value: value}
	var err error
	if x.symmetry != nil {
		if m.value, err = x.symmetry.rename(value, nil); err != nil {
			return 0, err
		}
	}
	data, err := x.sys.Codec.Encode(m.value)
	if err != nil {
		return 0, fmt.Errorf("%w: %s sends: %v", ErrSystem, x.sys.Nodes[from].ID, err)
	}
	key := fmt.Sprintf("%d %d %s", from, to, data)
	m.hash = hash("message " + key)
	if x.symmetry != nil {
		if m.looks, err = x.symmetry.looksOfMessage(m); err != nil {
			return 0, err
		}
	}
	return x.messages.put(key, func(uint32) *message {
		m.slot = x.slots[to]
		x.slots[to]++
		return m
	}), nil
}

// lies returns what may be said instead of the message with a number.
func (x *explorer) lies(number uint32) (lies []uint32, err error) {
	m := x.messages.get(number)
	m.once.Do(func() {
		from, to := x.sys.Nodes[m.from].ID, x.sys.Nodes[m.to].ID
		for _, lie := range x.sys.Lie(from, to, m.value) {
			var n uint32
			if n, err = x.internMessage(m.from, m.to, lie); err != nil {
				return
			}
			if n != number && !slices.Contains(m.lies, n) {
				m.lies = append(m.lies, n)
			}
		}
	})
	return m.lies, err
}

// remake returns a machine equal to the one of l that shares nothing with it.
func (x *explorer) remake(l *local) (protocol.Machine, error) {
	v, err := x.sys.Codec.Decode([]byte(l.encoded))
	if err != nil {
		return nil, fmt.Errorf("%w: node %s: %v", ErrSystem, x.sys.Nodes[l.node].ID, err)
	}
	p := reflect.New(reflect.TypeOf(v))
	p.Elem().Set(reflect.ValueOf(v))
	m, ok := p.Interface().(protocol.Machine)
	if !ok {
		return nil, fmt.Errorf("%w: %T is no machine", ErrSystem, p.Interface())
	}
	return m, nil
}
