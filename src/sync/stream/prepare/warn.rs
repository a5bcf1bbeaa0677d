//! What a user should know before the log is read.

use crate::error::to_run;
use crate::logging::figures::bytes;
use crate::pg::quote;
use crate::pg::table::{Generated, ReplicaIdentity, TableKind};
use crate::replication::slot::Slot;
use crate::sync::plan::StreamPlan;

/// The WAL in bytes that a slot without a limit may keep before somebody should look at the disk.
const MUCH: u64 = 10 << 30;

/// Returns a warning of a slot that is about to be lost, or to fill the disk.
pub(crate) fn of_retention(slot: &Slot) -> Option<String> {
    let (name, kept) = (&slot.name, bytes(slot.kept));
    if slot.wal_status.as_deref() == Some("unreserved") {
        return Some(format!(
            "replication slot \"{name}\" is about to be lost: the WAL it needs may be removed at the next checkpoint; raise \
             max_slot_wal_keep_size"
        ));
    }
    match slot.safe_wal_size.map(|left| u64::try_from(left).unwrap_or(0)) {
        Some(left) => (left < slot.kept).then(|| {
            format!(
                "replication slot \"{name}\" keeps {kept} of WAL, and is lost when it is {} more; run more often, or raise \
                 max_slot_wal_keep_size",
                bytes(left)
            )
        }),
        None => (slot.kept > MUCH).then(|| {
            format!(
                "replication slot \"{name}\" keeps {kept} of WAL, and nothing bounds that: watch the server's disk, run more \
                 often, or set max_slot_wal_keep_size (PostgreSQL 13)"
            )
        }),
    }
}

/// Returns a warning of columns that no log has, and that the stream therefore lacks.
pub(crate) fn of_virtual_columns(plan: &StreamPlan) -> Option<String> {
    let columns = plan.table.columns.iter().filter(|column| column.generated == Generated::Virtual);
    let columns: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
    (!columns.is_empty())
        .then(|| format!("virtual generated columns are not in the log; left out: {}", columns.join(", ")))
}

/// Returns a warning of what the log doesn't hold of a table's old rows.
pub(crate) fn of_identity(plan: &StreamPlan) -> Option<String> {
    let alter = |identity| {
        let table = quote::qualified(&plan.table.schema, &plan.table.name);
        to_run(&[format!("ALTER TABLE {table} REPLICA IDENTITY {identity}")])
    };
    match &plan.table.replica_identity {
        ReplicaIdentity::None if plan.table.kind == TableKind::Partitioned => Some(
            "partitions without a replica identity have updates and deletes that don't come; set one on the table and on \
             each: ALTER TABLE … REPLICA IDENTITY FULL"
                .to_owned(),
        ),
        ReplicaIdentity::None => Some(format!(
            "the table has no replica identity, so its updates and deletes don't come; to set one {}",
            alter("FULL")
        )),
        ReplicaIdentity::Columns(columns) if !plan.key_properties.iter().all(|key| columns.contains(key)) => {
            Some(format!(
                "the replica identity holds not all of the key columns, so deletes can't be told apart and are left out; {}",
                alter("DEFAULT")
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Lsn;

    fn slot(status: &str, kept: u64, safe_wal_size: Option<i64>) -> Slot {
        Slot {
            name: "s".to_owned(),
            plugin: "pgoutput".to_owned(),
            confirmed_flush: Lsn(1),
            restart_lsn: Some(Lsn(1)),
            active_pid: None,
            unfinished: false,
            invalid: None,
            wal_status: Some(status.to_owned()),
            kept,
            safe_wal_size,
            failover: false,
            two_phase: false,
            synced: false,
        }
    }

    #[test]
    fn a_slot_that_keeps_much_is_told_of() {
        let warning = |status, kept, left| of_retention(&slot(status, kept, left)).unwrap_or_default();
        assert_eq!(warning("reserved", 10 << 30, None), "");
        assert!(warning("extended", 11 << 30, None).contains("\"s\" keeps 11 GB of WAL, and nothing bounds that"));
        assert_eq!(warning("reserved", 1 << 30, Some(1 << 30)), "");
        assert!(
            warning("extended", 3 << 30, Some(2 << 30))
                .contains("keeps 3.0 GB of WAL, and is lost when it is 2.0 GB more")
        );
        assert!(warning("unreserved", 3 << 30, Some(-5)).contains("about to be lost"));
    }
}
