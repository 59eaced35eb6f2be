package main

import (
	"testing"

	"google.golang.org/protobuf/proto"

	assentv1 "assent/api/assent/v1"
)

// FuzzOperation reads any text as every kind of operation: what is accepted can be sent, says what to
// do, and says all that was written.
func FuzzOperation(f *testing.F) {
	for _, seed := range []string{
		"kv/alice=90", "kv/a/b=c=d", "kv/k=", "kv/\xff=\xfe", "kv", "kv/", "/k=v", "=", "", "\xff/k=v",
		"orders=UPDATE t SET x = $1", "orders= ", "orders=SELECT '\xe9'", "a=b=c",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, value, argument string) {
		for _, flag := range operationFlags {
			ops, err := flag.parse(value, nil)
			if err != nil {
				continue
			}
			if len(ops) != 1 || ops[0].GetResource() == "" || ops[0].GetAction() == nil {
				t.Fatalf("--%s %q: %v", flag.name, value, ops)
			}
			if got := written(ops[0]); got != value && got != value+"/" {
				t.Errorf("--%s %q says %q", flag.name, value, got)
			}
			if withArgument, err := parseArgument(argument, ops); err == nil {
				if args := withArgument[0].GetStatement().GetArgs(); len(args) != 1 || args[0].GetText() != argument {
					t.Errorf("--%s %q --arg %q: %v", flag.name, value, argument, args)
				}
			}
			if _, err := proto.Marshal(ops[0]); err != nil {
				t.Errorf("--%s %q --arg %q cannot be sent: %v", flag.name, value, argument, err)
			}
		}
	})
}

// written is how an operation is written on the command line.
func written(op *assentv1.Operation) string {
	key := func(k *assentv1.Key) string { return op.GetResource() + "/" + k.GetText() + string(k.GetBytes()) }
	switch a := op.GetAction().(type) {
	case *assentv1.Operation_Statement:
		return op.GetResource() + "=" + a.Statement.GetSql()
	case *assentv1.Operation_Put:
		return key(a.Put.GetKey()) + "=" + a.Put.GetValue().GetString_() + string(a.Put.GetValue().GetBytes())
	case *assentv1.Operation_Get:
		return key(a.Get.GetKey())
	case *assentv1.Operation_Delete:
		return key(a.Delete.GetKey())
	case *assentv1.Operation_Scan:
		return key(a.Scan.GetPrefix())
	}
	return ""
}
