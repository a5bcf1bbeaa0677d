//! Which transactions a snapshot sees.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::wire::Session;

/// Begins a transaction that sees the same all along.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How long a transaction that is in the log may stay invisible (a synchronous standby has not confirmed it).
const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);

/// `pg_current_snapshot()`: which transactions were visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionSnapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl TransactionSnapshot {
    /// What is visible to the session's transaction, or now where it has none.
    pub(crate) async fn read(session: &mut Session) -> Result<Self> {
        let sql = format!("SELECT {}", session.server_version().current_snapshot());
        TransactionSnapshot::parsed(session.query_value(&sql).await?.as_deref())
    }

    /// A snapshot that sees these transactions, which are in the log: one can be there and not visible yet, and what is
    /// read before would be older than the log.
    pub(crate) async fn seeing(client: &Client, transactions: impl Iterator<Item = u32> + Clone) -> Result<Self> {
        let give_up = Instant::now() + VISIBLE_PATIENCE;
        let sql = format!("SELECT {}::text", client.server_version().current_snapshot());
        loop {
            let row = client.query_one(&sql, &[]).await.map_err(|e| query_error("cannot read the snapshot", e))?;
            let snapshot = TransactionSnapshot::parsed(row.field(0)?)?;
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

    fn parsed(text: Option<&str>) -> Result<Self> {
        text.and_then(TransactionSnapshot::parse).ok_or_else(|| Error::run("the server's snapshot can't be read"))
    }

    /// From `xmin:xmax:xid,xid,…`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let running =
            running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok()).collect::<Option<_>>()?;
        Some(TransactionSnapshot { xmin, xmax, running })
    }

    /// No transaction with an id before this was running; without its epoch.
    pub(crate) fn oldest(&self) -> u32 {
        self.xmin as u32
    }

    /// Whether it sees a committed transaction with this id; the log writes ids without their epoch.
    pub(crate) fn sees(&self, xid: u32) -> bool {
        // A signed distance in the circle of 2^32 ids: no two ids in use are further apart than half of it.
        let before = |limit: u64| (xid.wrapping_sub(limit as u32) as i32) < 0;
        before(self.xmin) || (before(self.xmax) && !self.running.iter().any(|&running| running as u32 == xid))
    }
}

/// A copy that holds the transactions which a snapshot sees, and no others.
pub(crate) struct CopySnapshot {
    snapshot: TransactionSnapshot,
    /// All that the snapshot sees was committed before this.
    pub until: Lsn,
    /// Transactions that it did not see although their commits may have been in the log already: whether the log still
    /// brings them is to be seen.
    held: Vec<u32>,
}

impl CopySnapshot {
    pub(crate) fn new(snapshot: TransactionSnapshot, until: Lsn, mut held: Vec<u32>) -> Self {
        held.retain(|&xid| !snapshot.sees(xid));
        CopySnapshot { snapshot, until, held }
    }

    /// Whether the copy holds a committed transaction.
    pub(crate) fn holds(&self, xid: u32) -> bool {
        self.snapshot.sees(xid)
    }

    /// A transaction came.
    pub(crate) fn came(&mut self, xid: u32) {
        self.held.retain(|&held| held != xid);
    }

    /// Whether neither the copy nor the log may have brought some transaction.
    pub(crate) fn lacks_some(&self) -> bool {
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_was_committed_before_it() {
        let snapshot = TransactionSnapshot::parse("10:15:10,12").unwrap();
        for (xid, seen) in [(9, true), (10, false), (11, true), (12, false), (14, true), (15, false), (16, false)] {
            assert_eq!(snapshot.sees(xid), seen, "{xid}");
        }
        assert_eq!(TransactionSnapshot::parse("10:10:").unwrap().running, Vec::<u64>::new());
        assert_eq!(TransactionSnapshot::parse("10:x:"), None);
    }

    #[test]
    fn ids_are_compared_across_the_wrap_of_their_epoch() {
        let epoch = 1u64 << 32;
        let snapshot = TransactionSnapshot { xmin: epoch + 3, xmax: epoch + 5, running: vec![epoch + 3] };
        for (xid, seen) in [(u32::MAX, true), (3, false), (4, true), (5, false)] {
            assert_eq!(snapshot.sees(xid), seen, "{xid}");
        }
    }
}
