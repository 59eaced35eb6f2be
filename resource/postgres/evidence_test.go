package postgres

import (
	"bytes"
	"testing"

	"assent/resource"
)

func FuzzDecodeEvidence(f *testing.F) {
	f.Add([]byte("pg1 7412345678901234567 00000001 742"))
	f.Add([]byte("pg1 1 0000000A 18446744073709551615"))
	f.Add([]byte("pg1 1 00000001 0"))
	f.Add([]byte("pg2 1 00000001 1"))
	f.Add([]byte("pg1  1 00000001"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := decodeEvidence(text)
		if err != nil {
			return
		}
		if again := e.encode(); !bytes.Equal(again, text) {
			t.Fatalf("%q was read and is written as %q", text, again)
		}
		if len(text) > resource.MaxEvidence {
			t.Fatalf("%d bytes were read", len(text))
		}
	})
}

// A quoted text is one SQL literal: unquoting by the rules of the manual gives the text back.
func FuzzQuote(f *testing.F) {
	f.Add("assent:o:t:b")
	f.Add("it's")
	f.Add("''; DROP TABLE x; --")
	f.Add(`\'`)
	f.Fuzz(func(t *testing.T, text string) {
		q := quote(text)
		var got []byte
		if len(q) < 2 || q[0] != '\'' || q[len(q)-1] != '\'' {
			t.Fatalf("%q is no literal", q)
		}
		for i := 1; i < len(q)-1; i++ {
			if q[i] == '\'' {
				if i++; i >= len(q)-1 || q[i] != '\'' {
					t.Fatalf("the literal %q ends early", q)
				}
			}
			got = append(got, q[i])
		}
		if string(got) != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

// Numbers of 32 bits get the epoch that puts them nearest to the next number.
func TestFullXID(t *testing.T) {
	const epoch = 1 << 32
	for _, c := range []struct {
		short      uint32
		next, want uint64
	}{
		{742, 743, 742},
		{743, 743, 743},
		{745, 743, 745},
		{0xFFFFFFF0, epoch + 10, 0xFFFFFFF0},
		{5, epoch + 10, epoch + 5},
		{3, epoch - 1, epoch + 3},
		{0x80000006, 3*epoch + 5, 2*epoch + 0x80000006},
	} {
		if got := fullXID(c.short, c.next); got != c.want {
			t.Errorf("fullXID(%d, %d) = %d; want %d", c.short, c.next, got, c.want)
		}
	}
}

func TestFirstWord(t *testing.T) {
	for sql, want := range map[string]string{
		"commit": "COMMIT", "  ;\n-- x\nEnd;": "END", "/* a */Rollback to x": "ROLLBACK",
		"/* a /* b */ c */ set x": "SET", "/* open": "", "": "", "(select 1)": "", "select(1)": "SELECT",
	} {
		if got := firstWord(sql); got != want {
			t.Errorf("firstWord(%q) = %q; want %q", sql, got, want)
		}
	}
}
