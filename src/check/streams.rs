//! What every stream needs: a table that the role may read, and a replication key where there has to be one.

use super::report::Report;
use crate::discovery::hidden_columns;
use crate::error::{Result, to_run};
use crate::method::ReplicationMethod;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::table::TableKind;
use crate::pg::tree::with_tree;
use crate::sync::copy::incremental::replication_key;
use crate::sync::env::Env;
use crate::sync::plan::{StreamPlan, XMIN};
use crate::sync::select::{Selected, unread, warnings};

/// The size of a table in bytes from which it is worth an index on its replication key.
const LARGE: i64 = 16 * 1024 * 1024;

/// Reports the streams that a run would leave out or refuse.
pub(super) fn left_out(report: &mut Report, selected: &Selected) {
    for stream in &selected.left_out {
        report.failure(&stream.error);
    }
}

/// Reports the tables that a run without a catalog is asked for, and passes over.
pub(super) async fn passed_over(report: &mut Report, env: &Env, client: &Client) -> Result<()> {
    for (id, grants) in unread(client, env).await? {
        report.warning(format_args!("{id}: the role may not read it, and a run leaves it out; {}", to_run(&grants)));
    }
    Ok(())
}

/// Checks a stream that exists.
pub(super) async fn check(report: &mut Report, env: &Env, client: &Client, plan: &StreamPlan) -> Result<()> {
    let id = &plan.id;
    let mut hidden = hidden_columns(client, plan.table.oid).await?;
    hidden.retain(|column| !plan.deselects(column));
    if hidden.is_empty() {
        report.ok(format_args!("{id}: the role may read it ({})", plan.method));
    } else {
        let columns: Vec<String> = hidden.iter().map(|column| quote::ident(column)).collect();
        let table = quote::qualified(&plan.table.schema, &plan.table.name);
        let role = quote::ident(&env.config.user);
        let sql = format!("GRANT SELECT ({}) ON {table} TO {role}", columns.join(", "));
        let hidden = hidden.join(", ");
        report.warning(format_args!("{id}: the role may not read {hidden}; left out; deselect or {}", to_run(&[sql])));
    }
    for warning in warnings(plan, env) {
        report.warning(format_args!("{id}: {warning}"));
    }
    match plan.method {
        ReplicationMethod::Incremental => incremental(report, client, plan).await,
        ReplicationMethod::FullTable | ReplicationMethod::LogBased => Ok(()),
    }
}

/// Checks the replication key, and how its rows are found.
async fn incremental(report: &mut Report, client: &Client, plan: &StreamPlan) -> Result<()> {
    let id = &plan.id;
    if plan.is_by_xmin() {
        // No index is on it, so that these are all of the stream's tables.
        let (bytes, _) = unindexed(client, plan, XMIN).await?;
        report.ok(format_args!(
            "{id}: the replication key is xmin: each run has the server read all {} MB of it, and sends the rows that were written \
             since the run before; rows that are deleted stay in the target",
            bytes >> 20
        ));
        return Ok(());
    }
    let key = match replication_key(plan) {
        Ok((key, ..)) => key,
        Err(error) => {
            report.failure(&error);
            return Ok(());
        }
    };
    let (bytes, tables) = unindexed(client, plan, key).await?;
    if bytes < LARGE {
        report.ok(format_args!("{id}: the replication key is {key}"));
        return Ok(());
    }
    let column = quote::ident(key);
    let sql = if plan.table.kind == TableKind::Partitioned && client.server_version().indexes_partitioned() {
        vec![format!("CREATE INDEX ON {} ({column})", quote::qualified(&plan.table.schema, &plan.table.name))]
    } else {
        tables.iter().map(|table| format!("CREATE INDEX CONCURRENTLY ON {table} ({column})")).collect()
    };
    report.warning(format_args!(
        "{id}: no index begins with the replication key {key}, so that each run reads {} MB and sorts what is new; {}",
        bytes >> 20,
        to_run(&sql)
    ));
    Ok(())
}

/// Returns the total size and the names of those of the stream's tables that have no index to find rows by the key
/// with.
async fn unindexed(client: &Client, plan: &StreamPlan, key: &str) -> Result<(i64, Vec<String>)> {
    let sql = format!(
        "{} SELECT coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::int8, \
               coalesce(array_agg(pg_catalog.format('%I.%I', n.nspname, c.relname)), '{{}}') \
               FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND NOT EXISTS (\
               SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid \
               JOIN pg_catalog.pg_am m ON m.oid = i.relam \
               JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0] \
               WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL AND m.amname = 'btree' AND a.attname::text = $2)",
        with_tree("$1::oid")
    );
    let row = client.query_one(&sql, &[&plan.table.oid, &key]).await;
    let row = row.map_err(|e| query_error("cannot look up the indexes of a table", e))?;
    Ok((row.field(0)?, row.field(1)?))
}
