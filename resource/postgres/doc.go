// Package postgres makes a PostgreSQL database (14 or later; tested with 15) a resource, by its own
// PREPARE TRANSACTION and the pgx driver.
//
// The package promises what package resource asks for. Where the proof of each answer comes from:
//
//   - Yes is the command tag PREPARE TRANSACTION and nothing else. PostgreSQL answers PREPARE in
//     an aborted transaction with the tag ROLLBACK and no error.
//   - Committed and RolledBack are the success of COMMIT PREPARED or ROLLBACK PREPARED or, when the
//     server does not know the branch, pg_xact_status of its transaction number: the branch's
//     evidence, which names the cluster and its timeline too. Both commands and PREPARE flush the
//     log whatever synchronous_commit says.
//   - A crash of the server may lose the number of a transaction of which nothing was stable, and
//     give it to another. So a number is trusted after a crash only if its owner voted yes. That
//     the server has crashed shows in its statistics, which it drops then.
//   - Hazard is what is left: no evidence, a number so old that the server has dropped its status,
//     another cluster than the one that prepared, or one that was restored or failed over since
//     (its timeline differs), where the same number may be another transaction's.
//
// # Late PREPAREs
//
// A PREPARE whose client is gone may still be under way: in the network, in the server's socket,
// or waiting. It can only be executed by the session that holds the branch's open transaction. So
// each branch takes an advisory transaction lock whose key is made from its id, in the round trip of
// its first statement and behind it. The lock ends with the transaction, no statement can release it
// earlier, and a prepared transaction keeps it. Rollback by id looks the branch up in
// pg_prepared_xacts and then the lock in pg_locks. A session that holds the lock is terminated and the
// search begins again; a lock without a session is a branch that has just been prepared, and the
// search begins again; no lock means that nobody can prepare the branch any more. A first round trip
// that is itself still under way cannot lead to a PREPARE, because that is sent only after its answer.
//
// A first statement whose client is gone goes on without the lock until the server sees that the
// client is gone: within a second (client_connection_check_interval). The branch's own rollback knows
// its session, and ends it unless it is idle: it is in no transaction then, and a pooler in the path
// may have given it to somebody else.
//
// Where statements are queued (Tx.Queue), PREPARE follows them in the same request, and the branch takes no
// lock, unless the server hides from the session's role when the session began: before the server reads the
// request nothing shows there, and afterwards it is prepared or over, as soon as no statement waits any more.
// The branch's own rollback knows its session, ends it whether it is idle or not, and looks once more for what
// was prepared. A rollback by id from another process does not know it: a branch that is prepared behind its
// back is found by the next scan, which proposes abort for it. Package assent scans again and again, package
// site when it starts. Such a branch cannot be committed, for its vote has reached nobody.
//
// A branch that is neither prepared nor open, and of which no evidence is known, is taken for one
// that was never prepared. That is wrong only if somebody committed it by hand between its PREPARE
// and the loss of the answer, and before it had a transaction number that its owner knew.
//
// # Round trips
//
// BEGIN, the first statement and the lock (with the question for the transaction number) travel
// together; PREPARE and COMMIT PREPARED take one each, on the branch's own session. A branch that
// has no transaction number has written nothing: it is committed at once, votes ReadOnly and takes
// no slot of max_prepared_transactions. The first statement's parameters allow one statement, and
// a first statement without parameters takes a round trip of its own. With all statements queued, all from
// BEGIN to PREPARE is one round trip, with one Sync behind it; where the session has not prepared a statement yet,
// two. Config.Configure may say that statements are not to be prepared (pgx's DefaultQueryExecMode); then
// PREPARE travels by itself.
//
// The first round trip may be sent twice: a connection of the pool that turns out to be dead is
// replaced, once. What the server may have done in the first one is lost with it, since no COMMIT
// and no PREPARE was sent; what the statement did outside of the transaction (a sequence, dblink) may
// have happened twice. A request that ends in PREPARE is sent once.
//
// # What it does not do
//
// It creates nothing in the database. It cannot prepare what PostgreSQL cannot: temporary tables,
// LISTEN, NOTIFY, cursors WITH HOLD, exported snapshots. It does not see session state that
// functions leave behind (session advisory locks, set_config with false): that is the caller's to
// undo. It needs a session of its own for each branch, so a pooler in the path must pool sessions,
// not transactions. It takes no message of more than Config.MaxMessage bytes from the server.
package postgres
