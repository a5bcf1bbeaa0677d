//! The streams of the phase, and the transaction that is being received.

use std::collections::HashSet;
use std::time::Duration;

use crate::logging::RecordCounter;
use crate::positions::TransactionSnapshot;
use crate::sync::output::Output;
use crate::sync::plan::{RecordEnd, StreamPlan};

/// A stream of the phase.
pub(crate) struct Live {
    pub plan: StreamPlan,
    pub version: i64,
    /// The end of its records.
    pub end: RecordEnd,
    pub counter: RecordCounter,
    /// The snapshot of its table's description; none for the one that the run began with. Where a transaction that it
    /// saw shows the table otherwise, the transaction is older than the description.
    described: Option<TransactionSnapshot>,
    /// Columns that the role can't select, so that they are not described.
    hidden: HashSet<Vec<u8>>,
    /// Whether another table has taken the name of this one.
    pub replaced: bool,
    /// Whether it was reported that the log does not identify the row of a delete.
    pub reported_unidentified: bool,
}

/// A transaction that is being received.
pub(crate) struct Transaction {
    pub xid: u32,
    /// Microseconds since 1970.
    commit_time: i64,
}

impl Live {
    /// Returns a stream whose records carry this version.
    pub(crate) fn new(plan: StreamPlan, version: i64) -> Self {
        Live {
            version,
            end: RecordEnd::new(version),
            counter: RecordCounter::new(&plan.id),
            described: None,
            hidden: HashSet::new(),
            replaced: false,
            reported_unidentified: false,
            plan,
        }
    }

    /// Sets the time of extraction of its records to the present.
    pub(crate) fn renew_end(&mut self) {
        self.end = RecordEnd::new(self.version);
    }

    /// Sets the version of its records from here on.
    pub(crate) fn begin_version(&mut self, version: i64) {
        self.version = version;
        self.end = RecordEnd::new(version);
    }

    /// Whether the table is known to have a column of this name.
    pub(crate) fn knows(&self, name: &[u8]) -> bool {
        self.plan.table.columns.iter().any(|column| column.name.as_bytes() == name) || self.hidden.contains(name)
    }

    /// Whether the table was described after this transaction.
    pub(crate) fn is_described_after(&self, transaction: &Transaction) -> bool {
        self.described.as_ref().is_some_and(|snapshot| snapshot.sees(transaction.xid))
    }

    /// Takes note that the table was described anew, and which columns can't be.
    pub(crate) fn described(&mut self, snapshot: TransactionSnapshot, hidden: HashSet<Vec<u8>>) {
        self.described = Some(snapshot);
        self.hidden = hidden;
    }

    /// Appends its SCHEMA message.
    pub(crate) fn announce(&self, output: &mut Output, debug_lsn: bool) {
        let schema = self.plan.stream_schema(debug_lsn);
        output.schema(&self.plan.id, &schema, &self.plan.key_properties, &["lsn"]);
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

    /// Returns the commit time as a JSON string.
    pub(crate) fn deleted_at(&self) -> String {
        let time = chrono::DateTime::from_timestamp_micros(self.commit_time).unwrap_or(chrono::DateTime::UNIX_EPOCH);
        format!("\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    }
}
