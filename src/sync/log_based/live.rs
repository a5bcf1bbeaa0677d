//! The streams of the phase, and the transaction that is being received.

use std::collections::HashSet;

use crate::logging::RecordCounter;
use crate::pg::Lsn;
use crate::sync::context::Context;
use crate::sync::plan::{RecordEnd, StreamPlan};
use crate::sync::transaction_snapshot::CopySnapshot;

/// A stream of the phase.
pub(super) struct Live {
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
    pub records: u64,
    /// Columns of the past, which need no looking up again.
    past: HashSet<Vec<u8>>,
}

/// A transaction that is being received.
pub(super) struct Transaction {
    commit_lsn: Lsn,
    pub xid: u32,
    /// Microseconds since 1970.
    commit_time: i64,
}

/// Where a stream starts that goes into the phase.
pub(in crate::sync) enum Start {
    /// At its bookmark; `None` for "where the slot stands".
    Bookmark(Option<Lsn>),
    /// After a copy of this run.
    Snapshot(CopySnapshot),
}

impl Live {
    /// A stream, with the version that its records carry.
    pub(super) fn new(plan: StreamPlan, start: Start, version: i64) -> Self {
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
            records: 0,
            past: HashSet::new(),
            plan,
        }
    }

    /// Whether the changes of a transaction are still to be sent.
    pub(super) fn wants(&self, transaction: &Transaction) -> bool {
        transaction.commit_lsn >= self.from && self.copied.as_ref().is_none_or(|copied| !copied.holds(transaction.xid))
    }

    /// Whether a column of this name needs no looking up.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.plan.table.columns.iter().any(|column| column.name.as_bytes() == name) || self.past.contains(name)
    }

    /// Whether every insert has to have this column.
    pub(super) fn expects(&self, name: &str) -> bool {
        !self.past.contains(name.as_bytes())
    }

    /// Names that need no looking up any more.
    pub(super) fn remember<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) {
        self.past.extend(names.map(<[u8]>::to_vec));
    }

    /// Appends its SCHEMA message.
    pub(super) fn announce(&self, ctx: &mut Context, debug_lsn: bool) {
        let schema = self.plan.stream_schema(debug_lsn);
        ctx.schema(&self.plan.id, &schema, &self.plan.key_properties, &["lsn"]);
    }
}

impl Transaction {
    pub(super) fn new(commit_lsn: Lsn, commit_time: i64, xid: u32) -> Self {
        Transaction { commit_lsn, xid, commit_time }
    }

    /// Commit time as a JSON string.
    pub(super) fn deleted_at(&self) -> String {
        let time = chrono::DateTime::from_timestamp_micros(self.commit_time).unwrap_or(chrono::DateTime::UNIX_EPOCH);
        format!("\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    }
}
