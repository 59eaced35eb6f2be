// Package assentv1 is the generated code of the contract in assent.proto: its messages, clients
// and handlers. Rewrite it with `make generate`. What the calls promise is said in assent.proto.
package assentv1
