package assent

import (
	"fmt"
	"maps"
	"slices"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/trace"
)

// OpenTrace opens the trace in the file path, to be the Observer of a Config with these Resources.
// Each transaction is a scope of the trace. A trace of an earlier process is continued; see
// trace.OpenFile for what survives a crash, and for the errors. Close it after the manager.
// `assent chart` draws it.
func OpenTrace(path string, resources map[string]resource.Resource, options ...trace.Option) (*trace.File, error) {
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		return nil, fmt.Errorf("assent: types of a trace: %w", err)
	}
	h := trace.Header{Executor: trace.Live, System: "2pc", Nodes: []protocol.NodeID{coordinatorNode}}
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		h.Nodes = append(h.Nodes, protocol.NodeID(name))
	}
	f, err := trace.OpenFile(path, codec, h, options...)
	if err != nil {
		return nil, fmt.Errorf("assent: %w", err)
	}
	return f, nil
}
