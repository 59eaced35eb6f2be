package api

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// strictJSON is Connect's JSON, but for one thing: a field that the contract does not know is an
// error. A misspelt timeout must not be ignored.
type strictJSON struct{ name string }

// Name is the name in the content type.
func (c strictJSON) Name() string { return c.name }

// Marshal writes message, a proto.Message.
func (c strictJSON) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", message)
	}
	return protojson.Marshal(m)
}

// Unmarshal reads message, a proto.Message.
func (c strictJSON) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", message)
	}
	if len(data) == 0 {
		return fmt.Errorf("the body is empty; send at least {}")
	}
	return protojson.Unmarshal(data, m)
}
