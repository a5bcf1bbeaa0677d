//! The streams of the phase, and the transaction that is being received.

use std::collections::HashSet;
use std::time::Duration;

use crate::logging::RecordCounter;
use crate::positions::{Track, TransactionSnapshot};
use crate::sync::alterations::Alterations;
use crate::sync::form::RecordEnd;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// A stream of the phase.
pub(crate) struct Live {
    pub plan: StreamPlan,
    pub version: i64,
    /// The end of its records.
    pub end: RecordEnd,
    pub counter: RecordCounter,
    /// A snapshot from before its table was described anew; none for the description that the run began with. Where a
    /// transaction that it saw shows the table otherwise, the transaction is older than the description.
    described: Option<TransactionSnapshot>,
    /// A snapshot from after its table was described: what began later knew the table as it is described, or younger.
    past: TransactionSnapshot,
    /// The columns that transactions of the past may have known otherwise, or not at all.
    altered: HashSet<String>,
    /// Columns that the role can't select, so that they are not described.
    hidden: HashSet<Vec<u8>>,
    /// Whether it goes on from a bookmark; else it is being copied, or this run has copied it.
    pub resumed: bool,
    /// Whether the target may lack rows of it that the log has changes of: its copy is not known to be complete.
    pub in_slices: bool,
    /// Whether the log had a TRUNCATE of it.
    pub truncated: bool,
    /// Whether it was told that partitions are gone.
    pub lost_partitions: bool,
    /// Whether it has failed: its changes are left out from there on.
    pub failed: bool,
    /// Whether it was reported that the log does not identify the row of a delete.
    pub reported_unidentified: bool,
}

/// When and how a table was described anew.
pub(crate) struct Description {
    /// A snapshot from before.
    pub before: TransactionSnapshot,
    /// A snapshot from after.
    pub after: TransactionSnapshot,
    /// Columns that the role can't select.
    pub hidden: HashSet<Vec<u8>>,
    /// Columns that were altered since the slot's place in the log.
    pub altered: HashSet<String>,
}

/// A transaction that is being received.
pub(crate) struct Transaction {
    pub xid: u32,
    /// Microseconds since 1970.
    pub commit_time: i64,
}

impl Live {
    /// Returns a stream whose records carry this version.
    pub(crate) fn new(plan: StreamPlan, version: i64, track: &Track, alterations: &Alterations) -> Self {
        Live {
            past: alterations.seen.clone(),
            altered: alterations.columns(plan.table.oid),
            resumed: !track.is_of_copy(),
            in_slices: matches!(track, Track::Slices(_)),
            truncated: false,
            lost_partitions: false,
            version,
            end: plan.form.end_of_changes(version),
            counter: RecordCounter::new(&plan.id),
            described: None,
            hidden: HashSet::new(),
            failed: false,
            reported_unidentified: false,
            plan,
        }
    }

    /// Sets the time of extraction of its records to the present.
    pub(crate) fn renew_end(&mut self) {
        self.end = self.plan.form.end_of_changes(self.version);
    }

    /// Sets the version of its records from here on.
    pub(crate) fn begin_version(&mut self, version: i64) {
        self.version = version;
        self.end = self.plan.form.end_of_changes(version);
    }

    /// Whether the table is known to have a column of this name.
    pub(crate) fn knows(&self, name: &[u8]) -> bool {
        self.plan.table.columns.iter().any(|column| column.name.as_bytes() == name) || self.hidden.contains(name)
    }

    /// Whether the table was described after this transaction.
    pub(crate) fn is_described_after(&self, transaction: &Transaction) -> bool {
        self.described.as_ref().is_some_and(|snapshot| snapshot.sees(transaction.xid))
    }

    /// Whether this transaction may have changes from before the table was what it is described as.
    pub(crate) fn is_past(&self, transaction: &Transaction) -> bool {
        !self.past.precedes(transaction.xid)
    }

    /// Returns a snapshot that sees nothing of the table that it is not described with.
    pub(crate) fn described_by(&self) -> &TransactionSnapshot {
        &self.past
    }

    /// Whether a column may have been another one in the past.
    pub(crate) fn was_altered(&self, column: &str) -> bool {
        self.altered.contains(column)
    }

    /// Takes note that the table was described anew between two snapshots, which columns can't be, and which were altered before.
    pub(crate) fn described(&mut self, new: Description) {
        self.described = Some(new.before);
        self.past = new.after;
        self.hidden = new.hidden;
        self.altered = new.altered;
    }

    /// Appends its SCHEMA message.
    pub(crate) fn announce(&self, output: &mut Output) {
        let schema = self.plan.stream_schema();
        output.schema(&self.plan.id, &schema, &self.plan.key_properties, self.plan.form.bookmark_of_changes());
    }
}

impl Transaction {
    pub(crate) fn new(commit_time: i64, xid: u32) -> Self {
        Transaction { xid, commit_time }
    }

    /// Returns how long ago it committed, by this machine's clock.
    pub(crate) fn age(&self) -> Duration {
        let micros = chrono::Utc::now().timestamp_micros().saturating_sub(self.commit_time);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}
