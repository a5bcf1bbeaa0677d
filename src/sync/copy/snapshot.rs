//! A session in a transaction that a table is read in.

use crate::error::{Error, Result};
use crate::pg::quote;
use crate::pg::tree::with_tree;
use crate::pg::wire::Session;
use crate::sync::plan::StreamPlan;

/// The statement that begins a transaction that sees the same all along.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A session in a transaction. It gives the session back when it [ends](Self::end); dropped before that, it closes the
/// session, so that no other work finds itself in a transaction that somebody began.
pub(super) struct Snapshot(Session);

impl Snapshot {
    /// Begins a transaction that sees what is committed at its first query, and nothing younger.
    pub(super) async fn begin(mut session: Session) -> Result<Snapshot> {
        session.query(BEGIN).await?;
        Ok(Snapshot(session))
    }

    /// Begins a transaction that sees what the one sees that exported this snapshot.
    pub(super) async fn begin_with(session: Session, exported: &str) -> Result<Snapshot> {
        let mut snapshot = Snapshot::begin(session).await?;
        snapshot.0.query(&format!("SET TRANSACTION SNAPSHOT {}", quote::literal(exported))).await?;
        Ok(snapshot)
    }

    /// Begins a transaction that holds the table and sees what was committed before it got the lock: the snapshot of a
    /// lone COPY is older than its lock, and what is rewritten while it waits looks empty to it.
    pub(super) async fn begin_with_lock(mut session: Session, plan: &StreamPlan) -> Result<Snapshot> {
        session.query(&format!("BEGIN ISOLATION LEVEL READ COMMITTED; {}", lock(plan))).await?;
        Ok(Snapshot(session))
    }

    /// Returns the session. Its transaction is this snapshot's to end.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.0
    }

    /// Takes a lock that keeps the table as it is, and returns whether the transaction sees its rows: what was
    /// rewritten or truncated since the snapshot looks empty to it, and the log does not show it.
    pub(super) async fn lock_and_see(&mut self, plan: &StreamPlan) -> Result<bool> {
        self.0.query(&lock(plan)).await?;
        let oid = plan.table.oid;
        // Compares the files of the table in the snapshot with the current ones.
        let sql = format!(
            "{tree} SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = {oid}) AND NOT EXISTS \
             (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r' \
             AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid))",
            tree = with_tree(&format!("{oid}::oid")),
        );
        self.0.query_bool(&sql).await
    }

    /// Exports the snapshot, for other sessions to begin with while this transaction lasts.
    pub(super) async fn export(&mut self) -> Result<String> {
        let name = self.0.query_value("SELECT pg_catalog.pg_export_snapshot()").await?;
        name.ok_or_else(|| Error::run("the server does not name the snapshot that it exported"))
    }

    /// Ends the transaction and gives the session back.
    pub(super) async fn end(mut self) -> Result<Session> {
        self.0.query("COMMIT").await?;
        Ok(self.0)
    }

    /// Ends the transaction and the session.
    pub(super) async fn close(self) {
        self.0.close().await;
    }
}

/// Returns the statement that locks a table against being altered. It is not LOCK TABLE, which is refused to a role
/// that may read only some of the columns.
pub(super) fn lock(plan: &StreamPlan) -> String {
    format!("SELECT FROM {} LIMIT 0", plan.own_rows())
}
