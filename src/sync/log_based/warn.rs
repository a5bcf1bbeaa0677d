//! What a user should know before the log is read.

use crate::error::to_run;
use crate::pg::quote;
use crate::pg::table::{Generated, ReplicaIdentity, TableKind};
use crate::replication::slot::Slot;
use crate::sync::plan::StreamPlan;

/// A slot that is about to be lost.
pub(crate) fn of_retention(slot: &Slot) -> Option<String> {
    (slot.wal_status.as_deref() == Some("unreserved")).then(|| {
        format!(
            "replication slot \"{}\" is about to be lost: the WAL it needs may be removed at the next checkpoint; raise \
             max_slot_wal_keep_size",
            slot.name
        )
    })
}

/// Columns that no log has, and that the stream therefore has not.
pub(crate) fn of_virtual_columns(plan: &StreamPlan) -> Option<String> {
    let columns = plan.table.columns.iter().filter(|column| column.generated == Generated::Virtual);
    let columns: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
    (!columns.is_empty())
        .then(|| format!("virtual generated columns are not in the log; left out: {}", columns.join(", ")))
}

/// What the log can't say of a table's old rows.
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
