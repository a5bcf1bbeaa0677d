//! A stream's table is described anew when the log shows that it changed.

use crate::discovery::{Scope, discover, hidden_columns};
use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::replication::publication::Publications;
use crate::sync::alterations::Alterations;
use crate::sync::output::Output;
use crate::sync::stream::live::{Description, Live, Transaction};
use crate::sync::stream::prepare::published::leave_out;
use crate::sync::visibility::wait_visible;

/// What tables are described with.
pub(crate) struct Describer<'a> {
    pub client: &'a Client,
    /// The publication that decides which columns are sent, if any does.
    pub publication: Option<String>,
}

impl Describer<'_> {
    /// Describes a stream's table again, after this transaction, and announces it if it changed. `known`: what was altered before
    /// the run. No line may lack a value: it would be one of the plan as it was.
    pub(crate) async fn refresh(
        &self,
        output: &mut Output,
        streams: &mut [Live],
        stream: usize,
        transaction: &Transaction,
        known: &Alterations,
    ) -> Result<()> {
        let live = &mut streams[stream];
        let oid = live.plan.table.oid;
        let before = wait_visible(self.client, std::iter::once(transaction.xid)).await?;
        let name = self.present_name(oid).await?;
        let wanted = [name.clone().unwrap_or_else(|| (live.plan.table.schema.clone(), live.plan.table.name.clone()))];
        let found = discover(self.client, Scope::Tables(&wanted)).await?.into_iter().next();
        let hidden = hidden_columns(self.client, oid).await?.into_iter().map(String::into_bytes).collect();
        let publications = match &self.publication {
            Some(name) => Some(Publications::read(self.client, name, &[oid]).await?),
            None => None,
        };
        let after = wait_visible(self.client, std::iter::empty()).await?;
        let now = known.again(self.client, after.clone()).await?;
        live.described(Description { before, after, hidden, altered: now.columns(oid) });
        let key = |alterations: &Alterations| alterations.of(oid).map(|altered| altered.definition.key);
        if name.is_some() && key(&now) != key(known) {
            tracing::warn!("{}: the key was made anew; the next run copies the table again", live.plan.id);
        }
        let table = match found {
            Some(table) if table.oid == oid => table,
            found => {
                let again = if found.is_some() { " and made again: the next run copies it" } else { "" };
                tracing::warn!("{}: the table was dropped{again}", live.plan.id);
                return Ok(());
            }
        };
        let is_renamed = |schema: &str, name: &str| (schema, name) != (&*table.schema, &*table.name);
        if is_renamed(&live.plan.table.schema, &live.plan.table.name) {
            tracing::warn!(
                "{}: the table was renamed to {}.{}; the next run looks for it under its name in the catalog",
                live.plan.id,
                table.schema,
                table.name
            );
        }
        let before = (live.plan.schema.clone(), live.plan.key_properties.clone());
        live.plan.refresh(table);
        if let Some(publications) = &publications {
            leave_out(&mut live.plan, publications);
        }
        if (&live.plan.schema, &live.plan.key_properties) != (&before.0, &before.1) {
            tracing::info!("{}: the table changed; sending its schema again", live.plan.id);
            live.announce(output);
        }
        Ok(())
    }

    /// Returns the schema and name that a table has now; `None` if it was dropped.
    async fn present_name(&self, oid: u32) -> Result<Option<(String, String)>> {
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
        let row = self.client.query_opt(sql, &[&oid]).await.map_err(|e| query_error("cannot look up a table", e))?;
        row.map(|row| Ok((row.field(0)?, row.field(1)?))).transpose()
    }
}
