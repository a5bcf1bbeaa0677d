//! Values that are stored out of line, which the log leaves out of an update that did not touch them.

use super::report::Report;
use crate::config::UnchangedToast;
use crate::error::{Result, to_run};
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::table::{ReplicaIdentity, TableKind};
use crate::pg::tree::with_tree;
use crate::replication::publication::leaves;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;

/// Reports what becomes of unchanged large values of a LOG_BASED stream.
pub(super) async fn check(report: &mut Report, env: &Env, client: &Client, plan: &StreamPlan) -> Result<()> {
    let columns = columns(client, plan).await?;
    if columns.is_empty() {
        return Ok(());
    }
    let values = format!("{}: large values of {} that an update leaves alone", plan.id, columns.join(", "));
    let is_keyed = !plan.key_properties.is_empty();
    match (&plan.table.replica_identity, env.config.unchanged_toast) {
        // No updates come.
        (ReplicaIdentity::None, _) => {}
        (ReplicaIdentity::Full, _) => report.ok(format_args!("{values} come with the old row")),
        (_, UnchangedToast::Fetch) if is_keyed => report.ok(format_args!("{values} are read from the table by key")),
        (_, UnchangedToast::Fetch) => report.warning(format_args!(
            "{values} are left out, as there is no key to read them by; for the log to have them {}",
            full_identity(client, plan).await?
        )),
        (_, UnchangedToast::Omit) => report.warning(format_args!(
            "{values} are left out, which SQL targets store as NULL; set unchanged_toast to fetch, or for the log to have them {}",
            full_identity(client, plan).await?
        )),
    }
    Ok(())
}

/// Returns the advice to have whole old rows in the log, of every partition where there are any.
pub(super) async fn full_identity(client: &Client, plan: &StreamPlan) -> Result<String> {
    let mut tables = vec![quote::qualified(&plan.table.schema, &plan.table.name)];
    if plan.table.kind == TableKind::Partitioned {
        tables.extend(leaves(client, plan.table.oid).await?.iter().map(|leaf| leaf.qualified()));
    }
    let sql: Vec<String> = tables.iter().map(|table| format!("ALTER TABLE {table} REPLICA IDENTITY FULL")).collect();
    Ok(to_run(&sql))
}

/// Returns the stream's columns that may be stored out of line.
async fn columns(client: &Client, plan: &StreamPlan) -> Result<Vec<String>> {
    let sql = format!(
        "{} SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped \
               AND attstorage IN ('x', 'e') AND EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid \
               WHERE c.reltoastrelid <> 0) ORDER BY attnum",
        with_tree("$1::oid")
    );
    let rows = client.query(&sql, &[&plan.table.oid]).await;
    let rows = rows.map_err(|e| query_error("cannot look up how columns are stored", e))?;
    let mut columns: Vec<String> = rows.iter().map(|row| row.field(0)).collect::<Result<_>>()?;
    columns.retain(|name| plan.position(name).is_some() && !plan.key_properties.contains(name));
    Ok(columns)
}
