package trace

import (
	"errors"
	"fmt"

	"assent/protocol"
)

// shape says what kind of value the events of a kind carry.
type shape uint8

const (
	shapeNone shape = iota
	shapeStep
	shapeWrites
	shapeTyped
	shapeTimer
	shapeText
)

var shapes = [...]shape{
	Deliver: shapeStep, Stepped: shapeStep,
	Force: shapeWrites, Forced: shapeWrites, Failed: shapeWrites,
	Send: shapeTyped, Emit: shapeTyped, Lose: shapeTyped, Duplicate: shapeTyped, Alter: shapeTyped,
	Timer: shapeTimer, Damage: shapeText, Crash: shapeText, Cut: shapeNone, Heal: shapeNone,
}

// kindOf returns the kind of that name.
func kindOf(name string) (Kind, error) {
	for k, n := range kindNames {
		if k > 0 && n != "" && n == name {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("no kind of event is named %q", clip([]byte(name)))
}

// validate reports what is wrong with e, if it is to stand in a trace.
func (e Event) validate() error {
	_, err := kindOf(e.Kind.String())
	switch {
	case err != nil:
		return err
	case e.Node == "":
		return errors.New("the event has no node")
	case e.At < 0:
		return fmt.Errorf("the time %v is before the run", e.At)
	case e.Value == nil && int(e.Kind) < len(required) && required[e.Kind]:
		return errors.New("the event has no value")
	case e.Value != nil && shapeOf(e.Value) != shapes[e.Kind]:
		return fmt.Errorf("an event of this kind does not carry a %T", e.Value)
	}
	return nil
}

// required are the kinds that say nothing without a value.
var required = [...]bool{
	Deliver: true, Force: true, Forced: true, Failed: true, Send: true, Emit: true, Timer: true, Alter: true,
}

func shapeOf(value any) shape {
	switch value.(type) {
	case protocol.Event:
		return shapeStep
	case []protocol.Write:
		return shapeWrites
	case protocol.Timer:
		return shapeTimer
	case string:
		return shapeText
	}
	return shapeTyped
}
