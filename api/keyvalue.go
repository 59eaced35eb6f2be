package api

import (
	"context"
	"iter"

	"connectrpc.com/connect"

	assentv1 "assent/api/assent/v1"
	"assent/resource"
	"assent/resource/kv"
)

// keyValue is the executor of a kv resource.
type keyValue struct{ store *kv.Resource }

func (keyValue) kind() string { return "kv" }

var (
	valueColumn = []*assentv1.Column{{Name: "value", Type: "bytes"}}
	pairColumns = []*assentv1.Column{{Name: "key", Type: "bytes"}, {Name: "value", Type: "bytes"}}
)

func (k keyValue) execute(ctx context.Context, t resource.Transaction, op *assentv1.Operation, b *budget) (*assentv1.Result, error) {
	do, err := k.plan(op, b)
	if err != nil {
		return nil, err // before anything is joined
	}
	tx, err := k.store.Join(ctx, t)
	if err != nil {
		return nil, err
	}
	return do(ctx, tx)
}

type keyValueWork func(ctx context.Context, tx *kv.Tx) (*assentv1.Result, error)

func (k keyValue) plan(op *assentv1.Operation, b *budget) (keyValueWork, error) {
	switch a := op.GetAction().(type) {
	case *assentv1.Operation_Get:
		return planGet(a.Get, b)
	case *assentv1.Operation_Put:
		return planPut(a.Put)
	case *assentv1.Operation_Delete:
		return planDelete(a.Delete)
	case *assentv1.Operation_Scan:
		return planScan(a.Scan, b), nil
	}
	return nil, wrongAction("kv", "get, put, delete and scan")
}

func planGet(get *assentv1.GetKey, b *budget) (keyValueWork, error) {
	key, err := keyOf(get.GetKey())
	return func(ctx context.Context, tx *kv.Tx) (*assentv1.Result, error) {
		result := &assentv1.Result{Columns: valueColumn}
		value, ok, err := tx.Get(ctx, key)
		if err == nil && ok {
			err = b.add(result, &assentv1.Row{Values: []*assentv1.Value{stringValue(string(value))}})
		}
		return result, err
	}, err
}

func planPut(put *assentv1.PutKey) (keyValueWork, error) {
	key, err := keyOf(put.GetKey())
	if err != nil {
		return nil, err
	}
	value, err := rawValue(put.GetValue())
	return func(ctx context.Context, tx *kv.Tx) (*assentv1.Result, error) {
		return &assentv1.Result{RowsAffected: 1}, tx.Put(ctx, key, value)
	}, err
}

func planDelete(del *assentv1.DeleteKey) (keyValueWork, error) {
	key, err := keyOf(del.GetKey())
	return func(ctx context.Context, tx *kv.Tx) (*assentv1.Result, error) {
		return &assentv1.Result{}, tx.Delete(ctx, key)
	}, err
}

func planScan(scan *assentv1.ScanKeys, b *budget) keyValueWork {
	return func(ctx context.Context, tx *kv.Tx) (*assentv1.Result, error) {
		var pairs iter.Seq2[kv.Pair, error]
		from, to := keyBytes(scan.GetFrom()), keyBytes(scan.GetTo())
		switch prefix := keyBytes(scan.GetPrefix()); {
		case len(prefix) > 0 && (from != nil || to != nil):
			return nil, refuse(connect.CodeInvalidArgument, "a scan has both a prefix and a range", "give one of them")
		case len(prefix) > 0:
			pairs = tx.ScanPrefix(ctx, prefix)
		default:
			pairs = tx.Scan(ctx, from, to)
		}
		result := &assentv1.Result{Columns: pairColumns}
		for pair, err := range pairs {
			if err == nil {
				err = b.add(result, &assentv1.Row{Values: []*assentv1.Value{stringValue(string(pair.Key)), stringValue(string(pair.Value))}})
			}
			if err != nil {
				return nil, err
			}
			if limit := scan.GetLimit(); limit > 0 && len(result.Rows) >= int(limit) {
				break
			}
		}
		return result, nil
	}
}

func keyBytes(k *assentv1.Key) []byte {
	switch form := k.GetForm().(type) {
	case *assentv1.Key_Text:
		return []byte(form.Text)
	case *assentv1.Key_Bytes:
		return form.Bytes
	}
	return nil
}

func keyOf(k *assentv1.Key) ([]byte, error) {
	key := keyBytes(k)
	if len(key) == 0 {
		return nil, refuse(connect.CodeInvalidArgument, "the key is missing or empty", `write it as {"text": "…"} or, in base64, {"bytes": "…"}`)
	}
	return key, nil
}

// rawValue returns the bytes of a value to put.
func rawValue(v *assentv1.Value) ([]byte, error) {
	switch k := v.GetKind().(type) {
	case *assentv1.Value_String_:
		return []byte(k.String_), nil
	case *assentv1.Value_Text:
		return []byte(k.Text), nil
	case *assentv1.Value_Bytes:
		return k.Bytes, nil
	}
	return nil, refuse(connect.CodeInvalidArgument, "the value to put is neither a string nor bytes",
		`write it as {"string": "…"} or, in base64, {"bytes": "…"}; to remove a key use delete`)
}
