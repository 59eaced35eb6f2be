package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// finished counts an entry that is done; after some hundredths of RetainCount the oldest may have to go.
func (l *Log) finished() {
	if l.finish.Add(1)%int64(max(256, l.cfg.RetainCount/64)) == 0 {
		select {
		case l.retire <- struct{}{}:
		default:
		}
	}
}

// retireForEver drops what is not to be kept any longer, now and then. Several processes may do it at
// the same time.
func (l *Log) retireForEver() {
	for {
		// Processes that were started together shall not search together.
		pause := l.cfg.RetireInterval/2 + rand.N(l.cfg.RetireInterval/2+1)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.retire:
		case <-l.life.Done():
		}
		timer.Stop()
		if l.life.Err() != nil {
			return
		}
		if err := l.attempt(l.life, l.retireOnce); err != nil && l.life.Err() == nil {
			l.cfg.Logger.Warn("old entries of the decision log are kept for now", "schema", l.cfg.Schema, "cause", err)
		}
	}
}

// retireOnce drops the Done entries that are too old, and then those that are too many.
func (l *Log) retireOnce(ctx context.Context, conn *pgxpool.Conn, _ bool) error {
	if err := l.drop(ctx, conn, l.sql.retireOld, l.cfg.Retention.Milliseconds()); err != nil {
		return err
	}
	var border time.Time // of the oldest that stays
	err := conn.QueryRow(ctx, l.sql.border, l.cfg.RetainCount-1).Scan(&border)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.drop(ctx, conn, l.sql.retireMany, border)
}

// drop runs a statement that deletes a bounded number of rows until it finds none.
func (l *Log) drop(ctx context.Context, conn *pgxpool.Conn, sql string, border any) error {
	for {
		tag, err := conn.Exec(ctx, sql, border)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		l.stats.retired.Add(uint64(tag.RowsAffected()))
	}
}
