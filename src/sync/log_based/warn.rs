//! What a user should know before the log is read.

use crate::pg::quote;
use crate::pg::table::{Generated, ReplicaIdentity, TableKind};
use crate::replication::slot::Slot;
use crate::sync::plan::StreamPlan;

/// A slot that is about to be lost.
pub(super) fn of_retention(slot: &Slot) {
    if slot.wal_status.as_deref() == Some("unreserved") {
        tracing::warn!(
            "replication slot \"{}\" is about to be lost: the WAL it needs may be removed at the next checkpoint; raise \
             max_slot_wal_keep_size",
            slot.name
        );
    }
}

/// Columns that no log has, and that the streams therefore have not.
pub(super) fn of_virtual_columns(plans: &[StreamPlan]) {
    for plan in plans {
        let columns: Vec<&str> = plan
            .table
            .columns
            .iter()
            .filter(|column| column.generated == Generated::Virtual)
            .map(|column| column.name.as_str())
            .collect();
        if !columns.is_empty() {
            tracing::warn!(
                "{}: virtual generated columns are not in the log; left out: {}",
                plan.id,
                columns.join(", ")
            );
        }
    }
}

/// What the log can't say of a table's old rows.
pub(super) fn of_identities(plans: &[StreamPlan]) {
    for plan in plans {
        let table = quote::qualified(&plan.table.schema, &plan.table.name);
        match &plan.table.replica_identity {
            ReplicaIdentity::None if plan.table.kind == TableKind::Partitioned => tracing::warn!(
                "{}: partitions without a replica identity have updates and deletes that don't come; set one on the table and \
                 on each: ALTER TABLE … REPLICA IDENTITY FULL",
                plan.id
            ),
            ReplicaIdentity::None => tracing::warn!(
                "{}: the table has no replica identity, so its updates and deletes don't come; set one: ALTER TABLE \
                 {table} REPLICA IDENTITY FULL",
                plan.id
            ),
            ReplicaIdentity::Columns(columns) if !plan.key_properties.iter().all(|key| columns.contains(key)) => {
                tracing::warn!(
                    "{}: the replica identity holds not all of the key columns, so deletes can't be told apart and are \
                     left out; ALTER TABLE {table} REPLICA IDENTITY DEFAULT",
                    plan.id
                );
            }
            _ => {}
        }
    }
}
