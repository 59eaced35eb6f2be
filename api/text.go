package api

import (
	"strings"
	"unicode/utf8"
)

// Bounds, in bytes, of a text that is for people: a reason or a name in an answer, and the text of an
// error, which gRPC sends twice, in trailers that are allowed a few thousand bytes.
const (
	maxText  = 4096
	maxError = 1024
)

// told makes of a text what the contract's strings must be. One that is not UTF-8 would make the
// whole answer fail, and a database may send what it likes: U+FFFD stands for what cannot be told.
// What is too long ends with an ellipsis.
func told(text string) string { return toldUpTo(maxText, text) }

func toldUpTo(most int, text string) string {
	short := cut(most, text)
	valid := strings.ToValidUTF8(short, "\uFFFD")
	kept := cut(most, valid)
	if len(short) < len(text) || len(kept) < len(valid) {
		kept += "…"
	}
	return kept
}

// cut returns at most the first most bytes of text, and no part of a letter.
func cut(most int, text string) string {
	if len(text) <= most {
		return text
	}
	end := most
	for end > max(0, most-utf8.UTFMax) && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// toldError is an error whose text can be told.
type toldError struct{ err error }

// Error returns the text.
func (e toldError) Error() string { return toldUpTo(maxError, e.err.Error()) }

// Unwrap returns the error.
func (e toldError) Unwrap() error { return e.err }
