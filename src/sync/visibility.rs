//! Which transactions are visible now, asked of the server.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::pg::connect::Client;
use crate::pg::row::Fields as _;
use crate::pg::wire::Session;
use crate::positions::TransactionSnapshot;

/// How long a transaction that is in the log may stay invisible (a synchronous standby has not confirmed it).
const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);

/// Reads what is visible to the session's transaction, or now where it has none.
pub(crate) async fn visible_to(session: &mut Session) -> Result<TransactionSnapshot> {
    let sql = format!("SELECT {}", session.server_version().current_snapshot());
    parsed(session.query_value(&sql).await?.as_deref())
}

/// Waits until these transactions, which are in the log, are visible, and returns a snapshot that sees them: one can be in the
/// log and not visible yet, and what is read before would be older than the log.
pub(crate) async fn wait_visible(
    client: &Client,
    transactions: impl Iterator<Item = u32> + Clone,
) -> Result<TransactionSnapshot> {
    let give_up = Instant::now() + VISIBLE_PATIENCE;
    let sql = format!("SELECT {}::text", client.server_version().current_snapshot());
    loop {
        let rows = client.query_often(&sql, &[], "cannot read the snapshot").await?;
        let text = rows.first().map(|row| row.field(0)).transpose()?;
        let snapshot = parsed(text)?;
        if transactions.clone().all(|xid| snapshot.sees(xid)) {
            return Ok(snapshot);
        }
        if Instant::now() >= give_up {
            return Err(Error::transient("a transaction in the log has not become visible for a minute")
                .hint("a synchronous standby may not be answering"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the catalogs show these tables as a transaction has left them that is in the log, visible or not: it holds no lock on
/// one of them that it would need to alter it. Returns a snapshot from before that was looked at.
pub(crate) async fn settled(client: &Client, tables: &[u32]) -> Result<Option<TransactionSnapshot>> {
    let snapshot = wait_visible(client, std::iter::empty()).await?;
    let sql = "SELECT FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND relation = ANY ($1) \
               AND mode = 'AccessExclusiveLock' AND granted";
    let rows = client.query_often(sql, &[&tables], "cannot read the locks").await?;
    Ok(rows.is_empty().then_some(snapshot))
}

fn parsed(text: Option<&str>) -> Result<TransactionSnapshot> {
    text.and_then(TransactionSnapshot::parse).ok_or_else(|| Error::run("the server's snapshot can't be read"))
}
