//! The streams of the phase, and the transaction that is being received.

use std::collections::HashSet;
use std::time::Duration;

use crate::logging::RecordCounter;
use crate::pg::Lsn;
use crate::sync::output::Context;
use crate::sync::plan::{RecordEnd, StreamPlan};
use crate::sync::transaction_snapshot::{CopySnapshot, TransactionSnapshot};

/// A stream of the phase.
pub(crate) struct Live {
    pub plan: StreamPlan,
    pub version: i64,
    /// Transactions that committed before this are in the target already.
    pub from: Lsn,
    /// A copy of this run without a position of its own: what its snapshot saw is in the target already. The copy counts
    /// as finished when the stream is past the position.
    pub copied: Option<CopySnapshot>,
    /// Closes its records.
    pub end: RecordEnd,
    pub counter: RecordCounter,
    /// What its table's description saw; none for the one that the run began with. Where a transaction that it saw shows
    /// the table otherwise, the transaction is older than the description.
    described: Option<TransactionSnapshot>,
    /// Columns that the role can't select, so that they are not described.
    hidden: HashSet<Vec<u8>>,
    /// Whether another table has taken the name of this one.
    pub replaced: bool,
    /// Whether it was told that the log does not say which row a delete was of.
    pub told_unidentified: bool,
}

/// A transaction that is being received.
pub(crate) struct Transaction {
    commit_lsn: Lsn,
    pub xid: u32,
    /// Microseconds since 1970.
    commit_time: i64,
}

/// Where a stream starts that goes into the phase.
pub(crate) enum Start {
    /// At its bookmark; `None` for "where the slot stands".
    Bookmark(Option<Lsn>),
    /// After a copy of this run.
    Snapshot(CopySnapshot),
}

impl Live {
    /// A stream, with the version that its records carry.
    pub(crate) fn new(plan: StreamPlan, start: Start, version: i64) -> Self {
        let (from, copied) = match start {
            Start::Bookmark(lsn) => (lsn.unwrap_or(Lsn::INVALID), None),
            Start::Snapshot(copied) => (Lsn::INVALID, Some(copied)),
        };
        Live {
            version,
            from,
            copied,
            end: RecordEnd::new(version),
            counter: RecordCounter::new(&plan.id),
            described: None,
            hidden: HashSet::new(),
            replaced: false,
            told_unidentified: false,
            plan,
        }
    }

    /// Its records carry this version from here on.
    pub(crate) fn begin_version(&mut self, version: i64) {
        self.version = version;
        self.end = RecordEnd::new(version);
    }

    /// Whether the changes of a transaction are still to be sent.
    pub(crate) fn wants(&self, transaction: &Transaction) -> bool {
        transaction.commit_lsn >= self.from && self.copied.as_ref().is_none_or(|copied| !copied.holds(transaction.xid))
    }

    /// Whether the table is known to have a column of this name.
    pub(crate) fn knows(&self, name: &[u8]) -> bool {
        self.plan.table.columns.iter().any(|column| column.name.as_bytes() == name) || self.hidden.contains(name)
    }

    /// Whether the table was described after this transaction.
    pub(crate) fn is_described_after(&self, transaction: &Transaction) -> bool {
        self.described.as_ref().is_some_and(|snapshot| snapshot.sees(transaction.xid))
    }

    /// The table was described anew, and these columns can't be.
    pub(crate) fn described(&mut self, snapshot: TransactionSnapshot, hidden: HashSet<Vec<u8>>) {
        self.described = Some(snapshot);
        self.hidden = hidden;
    }

    /// Appends its SCHEMA message.
    pub(crate) fn announce(&self, ctx: &mut Context, debug_lsn: bool) {
        let schema = self.plan.stream_schema(debug_lsn);
        ctx.schema(&self.plan.id, &schema, &self.plan.key_properties, &["lsn"]);
    }
}

impl Transaction {
    pub(crate) fn new(commit_lsn: Lsn, commit_time: i64, xid: u32) -> Self {
        Transaction { commit_lsn, xid, commit_time }
    }

    /// How long ago it committed, by this machine's clock.
    pub(crate) fn age(&self) -> Duration {
        let micros = chrono::Utc::now().timestamp_micros().saturating_sub(self.commit_time);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Commit time as a JSON string.
    pub(crate) fn deleted_at(&self) -> String {
        let time = chrono::DateTime::from_timestamp_micros(self.commit_time).unwrap_or(chrono::DateTime::UNIX_EPOCH);
        format!("\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    }
}
