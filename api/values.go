package api

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	assentv1 "assent/api/assent/v1"
)

// argument returns v as a driver takes it. A text is a string to the driver, which the database
// reads as the type that its statement asks for.
func argument(v *assentv1.Value) (any, error) {
	switch k := v.GetKind().(type) {
	case nil, *assentv1.Value_Null:
		return nil, nil
	case *assentv1.Value_Bool:
		return k.Bool, nil
	case *assentv1.Value_Int64:
		return k.Int64, nil
	case *assentv1.Value_Double:
		return k.Double, nil
	case *assentv1.Value_String_:
		return k.String_, nil
	case *assentv1.Value_Text:
		return k.Text, nil
	case *assentv1.Value_Bytes:
		if k.Bytes == nil {
			return []byte{}, nil // nil would be NULL
		}
		return k.Bytes, nil
	default:
		return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("an argument is a %T", k), "")
	}
}

// maxArguments is PostgreSQL's limit on the parameters of a statement.
const maxArguments = 65535

func arguments(values []*assentv1.Value) ([]any, error) {
	if len(values) > maxArguments {
		return nil, refuse(connect.CodeInvalidArgument,
			fmt.Sprintf("the statement has %d arguments; at most %d are allowed", len(values), maxArguments), "")
	}
	args := make([]any, len(values))
	for i, v := range values {
		arg, err := argument(v)
		if err != nil {
			return nil, err
		}
		args[i] = arg
	}
	return args, nil
}

// valueOf turns what a driver decoded into a Value. What has no kind of its own is written as
// text says, which returns the database's text form of x, or false where x is NULL after all.
func valueOf(x any, text func(x any) (string, bool, error)) (*assentv1.Value, error) {
	switch x := x.(type) {
	case nil:
		return null(), nil
	case bool:
		return &assentv1.Value{Kind: &assentv1.Value_Bool{Bool: x}}, nil
	case int16:
		return integer(int64(x)), nil
	case int32:
		return integer(int64(x)), nil
	case int64:
		return integer(x), nil
	case uint32: // an oid
		return integer(int64(x)), nil
	case float32:
		return double(widen(x)), nil
	case float64:
		return double(x), nil
	case string:
		return stringValue(x), nil
	case []byte:
		return bytesValue(x), nil
	}
	s, ok, err := text(x)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return null(), nil
	}
	return textValue(s), nil
}

// widen returns the double that is written as f is: 1.1, not 1.10000002384.
func widen(f float32) float64 {
	d, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	if err != nil {
		return float64(f)
	}
	return d
}

func null() *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_Null{Null: true}}
}

func integer(i int64) *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_Int64{Int64: i}}
}

func double(f float64) *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_Double{Double: f}}
}

func bytesValue(b []byte) *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_Bytes{Bytes: b}}
}

// stringValue returns s as a string, or as bytes where it is not UTF-8, which the contract's
// strings must be: the database's encoding may be SQL_ASCII, and a key may be anything.
func stringValue(s string) *assentv1.Value {
	if !utf8.ValidString(s) {
		return bytesValue([]byte(s))
	}
	return &assentv1.Value{Kind: &assentv1.Value_String_{String_: s}}
}

// textValue is stringValue for the text form of a type that has no kind.
func textValue(s string) *assentv1.Value {
	if !utf8.ValidString(s) {
		return bytesValue([]byte(s))
	}
	return &assentv1.Value{Kind: &assentv1.Value_Text{Text: s}}
}

// duration returns what was asked for, at most and by default most.
func duration(what string, asked *durationpb.Duration, most time.Duration) (time.Duration, error) {
	if asked == nil {
		return most, nil
	}
	d := asked.AsDuration()
	if err := asked.CheckValid(); err != nil || d <= 0 {
		return 0, refuse(connect.CodeInvalidArgument, fmt.Sprintf("%s is %v", what, d), `write it in seconds: "2.5s"`)
	}
	return min(d, most), nil
}
