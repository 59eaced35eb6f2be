// Package api serves transactions to programs in any language: the contract of assent/v1 over
// gRPC, gRPC-Web and HTTP with JSON, on one port.
//
// The package promises that every outcome is told as what it is, and can be asked for again; that
// a transaction whose caller has gone is rolled back; that everything a caller can send or ask for
// is bounded; and that a browser that was lured to another site cannot reach it. Without tokens
// it trusts whoever reaches it, so it then answers only requests that are addressed to loopback.
// It opens no port, no database and no file: its user does.
package api

//go:generate ../scripts/generate
