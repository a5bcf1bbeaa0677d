//! Whether a table that is about to be read by its name is the one that was discovered, and still as it was.

use crate::discovery::{Scope, discover};
use crate::error::{Error, Result};
use crate::pg::connect::{Client, Server};
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::sync::plan::StreamPlan;
use crate::sync::present_columns::PresentColumns;

/// A connection that sees what is committed by now.
pub(super) enum Present<'p> {
    /// That of the transaction that holds the table, whose snapshot is no older than its lock.
    Session(&'p mut Session),
    /// The run's, which is in no transaction.
    Client(&'p Client),
}

impl Present<'_> {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        match self {
            Present::Session(session) => session.query(sql).await,
            Present::Client(client) => client.text_rows(sql).await,
        }
    }
}

/// Describes a table again, on this server, if it was altered since it was discovered: hours may lie between. Returns whether it was.
/// A transaction holds what has the table's name, so that this stays so.
///
/// # Errors
/// Another table has its name by now.
pub(super) async fn describe_held(mut present: Present<'_>, server: &Server, plan: &mut StreamPlan) -> Result<bool> {
    let (oid, name) = (plan.table.oid, quote::qualified(&plan.table.schema, &plan.table.name));
    let is_it = format!("SELECT pg_catalog.to_regclass({})::pg_catalog.oid = {oid}", quote::literal(&name));
    if present.rows(&is_it).await?.first().and_then(|row| row.first()?.as_deref()) != Some("t") {
        return Err(is_another(plan));
    }
    if PresentColumns::of(present.rows(&PresentColumns::sql(oid)).await?).are(&plan.table.columns) {
        return Ok(false);
    }
    let client = server.connect().await?;
    let wanted = [(plan.table.schema.clone(), plan.table.name.clone())];
    let found = discover(&client, Scope::Tables(&wanted)).await?;
    let table = found.into_iter().find(|table| table.oid == oid).ok_or_else(|| is_another(plan))?;
    plan.refresh(table);
    Ok(true)
}

fn is_another(plan: &StreamPlan) -> Error {
    Error::stream(format!("the table of \"{}\" was renamed or dropped during the run", plan.id))
        .hint("run again: a table made anew under its name is another table")
}
