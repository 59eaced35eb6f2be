package kv

// A span is the keys from from up to, not including, to. An empty to stands for no end.
type span struct{ from, to string }

// point is the span of one key.
func point(key string) span { return span{key, key + "\x00"} }

func (s span) overlaps(o span) bool { return endsAfter(s.to, o.from) && endsAfter(o.to, s.from) }

func (s span) contains(o span) bool { return s.from <= o.from && !later(o.to, s.to) }

// endsAfter reports whether an end lies after a key.
func endsAfter(end, key string) bool { return end == "" || end > key }

// later reports whether the end a lies after the end b.
func later(a, b string) bool { return b != "" && (a == "" || a > b) }

// spanTree holds requests by their spans: an interval tree, kept in balance as a treap. A node is
// the request itself. It is not safe for concurrent use.
type spanTree struct{ root *request }

// node is the part of a request that the tree uses.
type node struct {
	left, right *request
	number      uint64 // of arrival; it makes the order strict
	priority    uint64
	end         string // the last end in this subtree
}

func before(a, b *request) bool {
	return a.from < b.from || a.from == b.from && a.number < b.number
}

func (t *spanTree) insert(r *request) {
	// The arrival number, scrambled (the finalizer of SplitMix64), is as good as random here.
	z := r.number * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	r.priority = z ^ z>>31
	t.root = insert(t.root, r)
}

func (t *spanTree) remove(r *request) { t.root = remove(t.root, r) }

// overlapping calls visit for each request whose span overlaps s, in the order of the spans.
func (t *spanTree) overlapping(s span, visit func(*request)) { overlapping(t.root, s, visit) }

func overlapping(n *request, s span, visit func(*request)) {
	if n == nil || !endsAfter(n.end, s.from) {
		return
	}
	overlapping(n.left, s, visit)
	if n.span.overlaps(s) {
		visit(n)
	}
	if endsAfter(s.to, n.from) {
		overlapping(n.right, s, visit)
	}
}

func insert(n, r *request) *request {
	switch {
	case n == nil:
		r.left, r.right = nil, nil
		return renew(r)
	case r.priority > n.priority:
		r.left, r.right = split(n, r)
		return renew(r)
	case before(r, n):
		n.left = insert(n.left, r)
	default:
		n.right = insert(n.right, r)
	}
	return renew(n)
}

// split divides the tree n into what comes before r and what comes after.
func split(n, r *request) (left, right *request) {
	if n == nil {
		return nil, nil
	}
	if before(n, r) {
		n.right, right = split(n.right, r)
		return renew(n), right
	}
	left, n.left = split(n.left, r)
	return left, renew(n)
}

func remove(n, r *request) *request {
	switch {
	case n == nil:
		return nil
	case n == r:
		return merge(n.left, n.right)
	case before(r, n):
		n.left = remove(n.left, r)
	default:
		n.right = remove(n.right, r)
	}
	return renew(n)
}

// merge joins two trees of which the first lies before the second.
func merge(a, b *request) *request {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = merge(a.right, b)
		return renew(a)
	default:
		b.left = merge(a, b.left)
		return renew(b)
	}
}

// renew computes the end of the subtree n after a change below it.
func renew(n *request) *request {
	n.end = n.to
	for _, c := range [...]*request{n.left, n.right} {
		if c != nil && later(c.end, n.end) {
			n.end = c.end
		}
	}
	return n
}
