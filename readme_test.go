package assent_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"assent"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
)

// readme is the README's program. It is compiled here, and TestReadme keeps the two the same; the
// tests of examples/transfer run its like.
func readme(ctx context.Context, ordersDSN, billingDSN string, check func(error)) error {
	// begin
	orders, err := postgres.Open(ctx, ordersDSN, postgres.Config{})
	check(err) // stop here if it is not nil
	billing, err := postgres.Open(ctx, billingDSN, postgres.Config{})
	check(err)
	stock, err := kv.Open("data/stock", kv.Config{})
	check(err)
	decisions, err := disk.Open("data/decisions", disk.Config{})
	check(err)

	m, err := assent.Open(ctx, assent.Config{
		Log:       decisions,
		Resources: map[string]resource.Resource{"orders": orders, "billing": billing, "stock": stock},
	})
	check(err)

	err = m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		o, err := orders.Join(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := o.Exec(ctx, "INSERT INTO orders (id, item) VALUES ($1, $2)", 7, "lamp"); err != nil {
			return err
		}
		b, err := billing.Join(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := b.Exec(ctx, "UPDATE accounts SET balance = balance - 30 WHERE id = $1", 1); err != nil {
			return err
		}
		s, err := stock.Join(ctx, tx)
		if err != nil {
			return err
		}
		return s.Delete(ctx, []byte("lamp/4711"))
	}, assent.Retry(3))
	// end
	return err
}

var _ = readme

func TestReadme(t *testing.T) {
	between := func(file, from, to string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), from)
		text, _, ok := strings.Cut(rest, to)
		if !ok {
			t.Fatalf("%s has nothing between %q and %q", file, from, to)
		}
		return text
	}
	shown := between("README.md", "```go\n", "```")
	compiled := strings.ReplaceAll(between("readme_test.go", "// begin\n", "\t// end"), "\n\t", "\n")
	if compiled = strings.TrimPrefix(compiled, "\t"); shown != compiled {
		t.Errorf("README.md shows\n%s\nand the test compiles\n%s", shown, compiled)
	}
}
