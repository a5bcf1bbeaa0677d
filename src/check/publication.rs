//! The publication: what it sends of the streams, and whether the role may set it up where it has to be.

use super::report::Report;
use crate::error::{Error, Result, to_run};
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::table::Table;
use crate::replication::publication::Publications;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;
use crate::sync::stream::prepare::published::{Coverage, check_key, warning_of_columns};
use crate::sync::stream::prepare::slot::SlotChoice;

/// Checks what is published of these streams, and leaves out of them what is not. Returns the publications that there are.
pub(super) async fn check(
    report: &mut Report,
    env: &Env,
    client: &Client,
    choice: &SlotChoice,
    plans: &mut [StreamPlan],
) -> Result<Vec<String>> {
    let name = env.config.publication(&choice.name);
    let coverage = Coverage::read(client, name, plans).await?;
    let exists = !report.is_failure(coverage.check_exists(env, choice));
    let mut refused = Vec::new();
    if exists {
        for plan in plans.iter() {
            if let Some(error) = coverage.refused(client, env, choice, plan).await? {
                report.failure(&error);
                refused.push(&plan.id);
            }
        }
    }
    if exists && refused.is_empty() && !coverage.statements.is_empty() {
        set_up(report, client, name, &coverage).await?;
    }
    let unpublished = |plan: &StreamPlan| coverage.missing.iter().any(|missing| missing.id == plan.id);
    for plan in plans.iter().filter(|plan| !unpublished(plan) && !refused.contains(&&plan.id)) {
        of_stream(report, client, &coverage.publications, plan, plans).await?;
    }
    let publications = coverage.publications;
    for plan in plans.iter_mut() {
        plan.leave_out(publications.unpublished_columns(&plan.table));
    }
    Ok(publications.names().to_vec())
}

/// Checks what is published of a stream.
async fn of_stream(
    report: &mut Report,
    client: &Client,
    publications: &Publications,
    plan: &StreamPlan,
    plans: &[StreamPlan],
) -> Result<()> {
    let id = &plan.id;
    if report.is_failure(check_key(plan, publications)) {
        return Ok(());
    }
    let mut warnings = publications.warnings(&plan.table);
    warnings.extend(warning_of_columns(plan, publications));
    // Where a partition is a stream of its own, its changes have to come under its name.
    if !plans.iter().any(|other| other.table.ancestors.contains(&plan.table.oid)) {
        warnings.extend(detached(client, publications, &plan.table).await?);
    }
    if warnings.is_empty() {
        report.ok(format_args!("{id}: its changes are published"));
    }
    for warning in warnings {
        report.warning(format_args!("{id}: {warning}"));
    }
    Ok(())
}

/// Returns a warning of what becomes of partitions whose changes come under their own names.
async fn detached(client: &Client, publications: &Publications, table: &Table) -> Result<Option<String>> {
    let Some(name) = publications.sends_partitions(table) else { return Ok(None) };
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname::text = $1 AND (p.puballtables OR EXISTS \
               (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $2)))";
    let row = client.query_one(sql, &[&name, &table.oid]).await;
    let is_member: bool = row.map_err(|e| query_error("cannot read the publications", e))?.field(0)?;
    let publication = quote::ident(name);
    let mut sql = vec![format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = true)")];
    if !is_member {
        let table = quote::qualified(&table.schema, &table.name);
        sql.push(format!("ALTER PUBLICATION {publication} ADD TABLE {table}"));
    }
    Ok(Some(format!(
        "changes come under the names of its partitions: those of one that is detached before a run reads them are lost; {}",
        to_run(&sql)
    )))
}

/// Checks whether the role may do what a run would do to publish the streams.
async fn set_up(report: &mut Report, client: &Client, name: &str, coverage: &Coverage<'_>) -> Result<()> {
    let tables: Vec<&Table> = coverage.missing.iter().map(|plan| &plan.table).collect();
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let creates = coverage.publications.absent(name, &tables).is_some();
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), \
               pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
               (SELECT count(*) FROM pg_catalog.pg_class \
               WHERE oid = ANY ($1) AND NOT pg_catalog.pg_has_role(relowner, 'USAGE')) + \
               (SELECT count(*) FROM pg_catalog.pg_publication \
               WHERE pubname::text = ANY ($2) AND NOT pg_catalog.pg_has_role(pubowner, 'USAGE'))";
    let row = client.query_one(sql, &[&oids, &coverage.publications.names()]).await;
    let row = row.map_err(|e| query_error("cannot read the role's rights", e))?;
    let (standby, may_create, foreign): (bool, bool, i64) = (row.field(0)?, row.field(1)?, row.field(2)?);
    let (why, place) = if standby {
        ("the server is a standby", "on the primary")
    } else if creates && !may_create {
        ("it lacks CREATE on the database", "as the owner of the tables")
    } else if foreign > 0 {
        ("it is not the owner", "as the owner of the tables")
    } else {
        report.ok(format_args!("a run sets up the publication \"{name}\" for what it does not send yet"));
        return Ok(());
    };
    let error = Error::run(format!("the role can't set up the publication \"{name}\": {why}"));
    report.failure(&error.hint(format!("{place} {}", to_run(&coverage.statements))));
    Ok(())
}
