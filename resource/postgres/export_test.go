package postgres

import "time"

// Interrupt is what a rollback does first, from another goroutine than the one that works.
func Interrupt(t *Tx) { t.interrupt() }

// SetPatience makes Close wait that long for statements that do not return.
func SetPatience(r *Resource, d time.Duration) { r.patience = d }

// QueueAnything is Queue of a statement that refuse does not know for what it is.
func QueueAnything(t *Tx, sql string) { t.queue = append(t.queue, &Queued{sql: sql}) }
