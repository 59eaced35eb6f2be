package check

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"assent/protocol"
)

// local is a distinct state of one node: its machine, its stable storage and its armed timers. It is
// never changed.
type local struct {
	node    int
	up      bool
	started bool
	machine protocol.Machine
	encoded string // of machine
	records protocol.Records
	timers  []string // armed, sorted
	hash    uint64
}

// message is a distinct message.
type message struct {
	from, to int
	value    protocol.Message
	hash     uint64
}

// table numbers things by their content. Reading what has a number takes no lock.
type table[T any] struct {
	mu      sync.RWMutex
	numbers map[string]uint32
	items   []*T
	shown   atomic.Pointer[[]*T] // items, for readers; what it shows is never changed
}

func (t *table[T]) get(n uint32) *T { return (*t.shown.Load())[n] }

func (t *table[T]) len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.items)
}

// put returns the number of the item with this key, making it if there is none.
func (t *table[T]) put(key string, make func() *T) uint32 {
	t.mu.RLock()
	n, ok := t.numbers[key]
	t.mu.RUnlock()
	if ok {
		return n
	}
	item := make()
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.numbers[key]; ok {
		return n
	}
	if t.numbers == nil {
		t.numbers = map[string]uint32{}
	}
	n = uint32(len(t.items))
	t.numbers[key] = n
	t.items = append(t.items, item)
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

// intern numbers l, whose machine is handed over: nobody else may keep it.
func (x *explorer) intern(l local) (uint32, error) {
	if l.up {
		data, err := x.sys.Codec.Encode(l.machine)
		if err != nil {
			return 0, fmt.Errorf("%w: node %s: %v", ErrSystem, x.sys.Nodes[l.node].ID, err)
		}
		l.encoded = string(data)
	} else {
		l.machine, l.timers = nil, nil
	}
	stable, err := x.encodeRecords(l.records)
	if err != nil {
		return 0, err
	}
	key := fmt.Sprintf("%d %v %v %q %q %s", l.node, l.up, l.started, l.timers, stable, l.encoded)
	return x.locals.put(key, func() *local {
		l.hash = hash(key)
		return &l
	}), nil
}

func (x *explorer) encodeRecords(records protocol.Records) (string, error) {
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
		fmt.Fprintf(&b, "%q=%s;", k, data)
	}
	return b.String(), nil
}

func (x *explorer) internMessage(from int, s protocol.Send) (uint32, error) {
	to := slices.IndexFunc(x.sys.Nodes, func(n protocol.Node) bool { return n.ID == s.To })
	if to < 0 {
		return 0, fmt.Errorf("%w: %s sends %T to %q, which is no node", ErrSystem, x.sys.Nodes[from].ID, s.Message, s.To)
	}
	data, err := x.sys.Codec.Encode(s.Message)
	if err != nil {
		return 0, fmt.Errorf("%w: %s sends: %v", ErrSystem, x.sys.Nodes[from].ID, err)
	}
	key := fmt.Sprintf("%d %d %s", from, to, data)
	return x.messages.put(key, func() *message {
		return &message{from: from, to: to, value: s.Message, hash: hash(key)}
	}), nil
}

// copyMachine returns a machine equal to m that shares nothing with it.
func (x *explorer) copyMachine(l *local) (protocol.Machine, error) {
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
