//! A stream's table is described anew when the log shows that it changed.

use super::pointer::LookUps;
use crate::discovery::{Scope, discover, hidden_columns};
use crate::error::Result;
use crate::pg::connect::Client;
use crate::replication::publication::Publications;
use crate::sync::env::Env;
use crate::sync::output::Output;
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::stream::prepare::published::leave_out;
use crate::sync::visibility::wait_visible;

/// What tables are described with.
pub(crate) struct Describer<'a> {
    pub env: &'a Env,
    pub client: &'a Client,
    /// The publication that decides which columns are sent, if any does.
    pub publication: Option<String>,
}

impl Describer<'_> {
    /// Describes a stream's table again, after this transaction, and announces it if it changed.
    pub(crate) async fn refresh(
        &self,
        output: &mut Output,
        streams: &mut [Live],
        look_ups: &mut LookUps,
        stream: usize,
        transaction: &Transaction,
    ) -> Result<()> {
        let live = &mut streams[stream];
        let snapshot = wait_visible(self.client, std::iter::once(transaction.xid)).await?;
        let wanted = [(live.plan.table.schema.clone(), live.plan.table.name.clone())];
        let found = discover(self.client, Scope::Tables(&wanted)).await?.into_iter().next();
        let hidden = hidden_columns(self.client, live.plan.table.oid).await?;
        live.described(snapshot, hidden.into_iter().map(String::into_bytes).collect());
        let table = match found {
            Some(table) if table.oid == live.plan.table.oid => table,
            found => {
                let again = if found.is_some() { " and made again: the next run copies it" } else { "" };
                live.replaced = found.is_some();
                tracing::warn!("{}: the table was renamed or dropped{again}", live.plan.id);
                return Ok(());
            }
        };
        let publications = match &self.publication {
            Some(name) => Some(Publications::read(self.client, name).await?),
            None => None,
        };
        // The holes name columns of the plan as it was.
        look_ups.fill(self.env, self.client, streams, output).await?;
        let live = &mut streams[stream];
        let before = (live.plan.schema.clone(), live.plan.key_properties.clone());
        live.plan.refresh(table, &self.env.types);
        if let Some(publications) = &publications {
            leave_out(&mut live.plan, publications, self.env);
        }
        if (&live.plan.schema, &live.plan.key_properties) != (&before.0, &before.1) {
            tracing::info!("{}: the table changed; sending its schema again", live.plan.id);
            live.announce(output, self.env.config.debug_lsn);
        }
        Ok(())
    }
}
