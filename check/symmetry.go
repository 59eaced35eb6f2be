package check

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"assent/protocol"
)

// symmetry makes states the same that differ only in which of the interchangeable nodes is which
// (Ip and Dill 1996). Every state is replaced by a representative of its orbit: the nodes of a group
// are put in the order of how each looks to somebody who cannot tell the others apart. Two nodes that
// look the same are left in their order, so an orbit may keep more than one representative: that
// costs states and is as sound.
type symmetry struct {
	x      *explorer
	nodes  []int                   // the interchangeable nodes
	group  []int                   // by place in nodes
	place  []int                   // by node: its place in nodes, or -1
	places map[protocol.NodeID]int // by id
}

// maxSymmetric is the greatest number of interchangeable nodes: four bits number one.
const maxSymmetric = 16

// renaming is a permutation of the interchangeable nodes: four bits for each place.
type renaming uint64

const sameNames renaming = 0xfedcba9876543210

func (r renaming) of(place int) int { return int(r >> (4 * place) & 15) }

func (r renaming) with(place, becomes int) renaming {
	return r&^(15<<(4*place)) | renaming(becomes)<<(4*place)
}

// inverse returns the renaming that undoes r.
func (r renaming) inverse() (inverse renaming) {
	for i := range maxSymmetric {
		inverse = inverse.with(r.of(i), i)
	}
	return inverse
}

// after returns the renaming that does first and then r.
func (r renaming) after(first renaming) (both renaming) {
	for i := range maxSymmetric {
		both = both.with(i, r.of(first.of(i)))
	}
	return both
}

func newSymmetry(x *explorer, groups [][]int) *symmetry {
	y := &symmetry{x: x, place: make([]int, len(x.sys.Nodes)), places: map[protocol.NodeID]int{}}
	for i := range y.place {
		y.place[i] = -1
	}
	for g, group := range groups {
		for _, node := range group {
			y.place[node] = len(y.nodes)
			y.places[x.sys.Nodes[node].ID] = len(y.nodes)
			y.nodes, y.group = append(y.nodes, node), append(y.group, g)
		}
	}
	return y
}

// node returns what a node becomes.
func (y *symmetry) node(i int, r renaming) int {
	if y.place[i] < 0 {
		return i
	}
	return y.nodes[r.of(y.place[i])]
}

// rename returns a copy of a machine, message or record with other ids in it, in normal form: lists
// of nodes, and of structs that name a node, are in the order of the ids. A nil f leaves the ids.
func (y *symmetry) rename(value any, f func(protocol.NodeID) protocol.NodeID) (any, error) {
	data, err := y.x.sys.Codec.Encode(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSystem, err)
	}
	v, err := y.x.sys.Codec.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSystem, err)
	}
	p := reflect.New(reflect.TypeOf(v))
	p.Elem().Set(reflect.ValueOf(v))
	renameIn(p.Elem(), f)
	if reflect.TypeOf(value).Kind() == reflect.Pointer {
		return p.Interface(), nil
	}
	return p.Elem().Interface(), nil
}

var nodeID = reflect.TypeFor[protocol.NodeID]()

func renameIn(v reflect.Value, f func(protocol.NodeID) protocol.NodeID) {
	switch v.Kind() {
	case reflect.String:
		if f != nil && v.Type() == nodeID {
			v.SetString(string(f(protocol.NodeID(v.String()))))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			renameIn(v.Elem(), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			renameIn(v.Field(i), f)
		}
	case reflect.Array:
		for i := range v.Len() {
			renameIn(v.Index(i), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			renameIn(v.Index(i), f)
		}
		sortByNode(v)
	case reflect.Map:
		renameMap(v, f)
	}
}

func renameMap(v reflect.Value, f func(protocol.NodeID) protocol.NodeID) {
	if v.IsNil() {
		return
	}
	renamed := reflect.MakeMapWithSize(v.Type(), v.Len())
	for it := v.MapRange(); it.Next(); {
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		key.Set(it.Key())
		value.Set(it.Value())
		renameIn(key, f)
		renameIn(value, f)
		renamed.SetMapIndex(key, value)
	}
	v.Set(renamed)
}

// sortByNode sorts a slice of node ids, or of structs by their first node id, and those that name the same
// node by all that they say: to somebody who cannot tell nodes apart, many are the same. Others it leaves.
func sortByNode(v reflect.Value) {
	at := func(e reflect.Value) reflect.Value { return e }
	elem := v.Type().Elem()
	if elem != nodeID {
		field := -1
		if elem.Kind() == reflect.Struct {
			for i := range elem.NumField() {
				if elem.Field(i).Type == nodeID {
					field = i
					break
				}
			}
		}
		if field < 0 {
			return
		}
		at = func(e reflect.Value) reflect.Value { return e.Field(field) }
	}
	swap := reflect.Swapper(v.Interface())
	for i := 1; i < v.Len(); i++ { // insertion: stable, and lists are short
		for j := i; j > 0; j-- {
			before, this := v.Index(j-1), v.Index(j)
			order := cmp.Compare(at(this).String(), at(before).String())
			if order == 0 && elem != nodeID {
				order = cmp.Compare(text(this.Interface()), text(before.Interface()))
			}
			if order >= 0 {
				break
			}
			swap(j, j-1)
		}
	}
}

// renameSnapshot returns s with other ids in it; its node is what node becomes.
func (y *symmetry) renameSnapshot(s snapshot, node int, f func(protocol.NodeID) protocol.NodeID) (snapshot, error) {
	s.node = node
	if s.machine != nil {
		m, err := y.rename(s.machine, f)
		if err != nil {
			return s, err
		}
		s.machine = m.(protocol.Machine)
	}
	if len(s.records) == 0 {
		return s, nil
	}
	records := protocol.Records{}
	for k, record := range s.records {
		renamed, err := y.rename(record, f)
		if err != nil {
			return s, err
		}
		records[k] = renamed
	}
	s.records = records
	return s, nil
}

// normalise brings s into normal form.
func (y *symmetry) normalise(s *snapshot) (err error) {
	*s, err = y.renameSnapshot(*s, s.node, nil)
	return err
}

// role is how a node is known to somebody who looks for the node at a place alone.
func (y *symmetry) role(id protocol.NodeID, place int) protocol.NodeID {
	at, ok := y.places[id]
	switch {
	case !ok:
		return id
	case at == place:
		return "\x00self"
	}
	return protocol.NodeID(fmt.Sprintf("\x00other %d", y.group[at]))
}

// looksOfLocal returns, for each interchangeable node, a hash of what s says of it.
func (y *symmetry) looksOfLocal(s snapshot) (looks []uint64, err error) {
	id := y.x.sys.Nodes[s.node].ID
	for place := range y.nodes {
		blind, err := y.renameSnapshot(s, 0, func(id protocol.NodeID) protocol.NodeID { return y.role(id, place) })
		if err != nil {
			return nil, err
		}
		key, _, err := y.x.key(blind)
		if err != nil {
			return nil, err
		}
		looks = append(looks, hash(fmt.Sprintf("looks %s %s", y.role(id, place), key)))
	}
	return looks, nil
}

func (y *symmetry) looksOfMessage(m *message) (looks []uint64, err error) {
	from, to := y.x.sys.Nodes[m.from].ID, y.x.sys.Nodes[m.to].ID
	for place := range y.nodes {
		blind, err := y.rename(m.value, func(id protocol.NodeID) protocol.NodeID { return y.role(id, place) })
		if err != nil {
			return nil, err
		}
		data, err := y.x.sys.Codec.Encode(blind)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrSystem, err)
		}
		looks = append(looks, hash(fmt.Sprintf("looks %s %s %s", y.role(from, place), y.role(to, place), data)))
	}
	return looks, nil
}

// looksOfWorld returns how the cut links look to the node at each place.
func (y *symmetry) looksOfWorld(v *world, place int) uint64 {
	if v.cut == nil {
		return 0
	}
	in, out, i := 0, 0, y.nodes[place]
	for j := range v.cut {
		if v.severed(j, i) {
			in++
		}
		if v.severed(i, j) {
			out++
		}
	}
	return hash(fmt.Sprint("cut ", in, out))
}

// order returns the renaming that puts the interchangeable nodes in order.
func (y *symmetry) order(looks []uint64) renaming {
	r := sameNames
	for from := 0; from < len(y.nodes); {
		to := from
		for to < len(y.nodes) && y.group[to] == y.group[from] {
			to++
		}
		members := make([]int, 0, maxSymmetric)
		for p := from; p < to; p++ {
			members = append(members, p)
		}
		slices.SortStableFunc(members, func(a, b int) int { return cmp.Compare(looks[a], looks[b]) })
		for i, p := range members {
			r = r.with(p, from+i)
		}
		from = to
	}
	return r
}

// refuseNames refuses names of timers and keys of records that tell interchangeable nodes apart: they are
// not renamed.
func (y *symmetry) refuseNames(s snapshot) error {
	for _, timer := range s.timers {
		if err := y.refuseName("timer", timer, s.node); err != nil {
			return err
		}
	}
	for key := range s.records {
		if err := y.refuseName("key of a record", key, s.node); err != nil {
			return err
		}
	}
	return nil
}

func (y *symmetry) refuseName(what, name string, node int) error {
	for id := range y.places {
		if mentions(name, string(id)) {
			return fmt.Errorf("%w: the %s %q of %s has the id of the interchangeable node %s in it, where it is not renamed; leave out the symmetry, or the id",
				ErrSystem, what, name, y.x.sys.Nodes[node].ID, id)
		}
	}
	return nil
}

// mentions reports whether id stands in text as a word.
func mentions(text, id string) bool {
	letter := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	for at := 0; ; at++ {
		i := strings.Index(text[at:], id)
		if i < 0 {
			return false
		}
		at += i
		before, _ := utf8.DecodeLastRuneInString(text[:at])
		after, _ := utf8.DecodeRuneInString(text[at+len(id):])
		if !letter(before) && !letter(after) {
			return true
		}
	}
}
