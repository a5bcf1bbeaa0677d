//! What is checked before the log is read: the slot, the publications, the bookmarks.

pub(crate) mod bookmarks;
pub(crate) mod published;
pub(crate) mod slot;
pub(crate) mod warn;

use std::collections::HashSet;

use crate::config::{Choice as _, OutputPluginName};
use crate::error::Result;
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::table::TableKind;
use crate::positions;
use crate::replication::OutputPlugin;
use crate::replication::log_end::log_end;
use crate::replication::pgoutput::Pgoutput;
use crate::replication::publication;
use crate::replication::slot::{ExportedSnapshot, Lifetime, Slot};
use crate::replication::wal2json::{self, Wal2json};
use crate::state::State;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;
use bookmarks::check_bookmarks;
use published::{publications, settle_columns};
use slot::{SlotChoice, check_right, check_server, drop_slot};

/// The slot of a run, ready to be read.
pub(crate) struct Source {
    /// Its name.
    pub slot: String,
    /// The decoder of its messages.
    pub plugin: Box<dyn OutputPlugin>,
    /// The schemas of which wal2json, which gets a list of tables to send, sends every one. Partitions come under their
    /// own names, and may be attached at any time.
    pub whole_schemas: Option<HashSet<String>>,
    /// Its position, and where the log ended then.
    pub position: positions::Slot,
    /// The position from which the server has to read to serve the slot.
    pub restart_lsn: Lsn,
    /// The publications that decide what the slot brings, if any do.
    pub publications: Vec<String>,
    /// Every LOG_BASED stream of the run.
    pub streams: Vec<String>,
    /// The snapshot of a slot that this run made.
    pub exported: Option<ExportedSnapshot>,
    /// Streams whose bookmark no longer leads anywhere: they are copied again.
    pub copy_again: HashSet<String>,
}

/// Finds or makes the slot and checks that it can serve the bookmarks of these streams. May leave columns out of the
/// plans that a publication does not send.
pub(crate) async fn prepare(env: &Env, client: &Client, plans: &mut [StreamPlan], state: &State) -> Result<Source> {
    let config = &env.config;
    let mut copy_again = HashSet::new();
    let found = Slot::find_finished(client, &config.slot_candidates()).await?;
    check_right(env, client).await?;
    if found.is_none() {
        check_server(client).await?;
    }
    let choice = SlotChoice::of(env, client, found, plans, state).await?;
    let (name, plugin_name) = (&choice.name, choice.plugin.word());
    if choice.lost {
        tracing::warn!("replication slot \"{name}\" is lost; making it anew and copying its streams again");
        drop_slot(client, name).await?;
    }

    let mut whole_schemas = None;
    let mut published = Vec::new();
    let plugin: Box<dyn OutputPlugin> = match choice.plugin {
        // The publication comes before the slot: a slot can't see a younger one.
        OutputPluginName::Pgoutput => {
            let (publications, added) = publications(env, client, &choice, plans).await?;
            copy_again.extend(added);
            settle_columns(plans, &publications, env)?;
            published = publications.names().to_vec();
            Box::new(Pgoutput::new(published.clone()))
        }
        OutputPluginName::Wal2json => {
            let (plugin, schemas) = wal2json(client, plans).await?;
            whole_schemas = Some(schemas);
            Box::new(plugin)
        }
    };

    let (confirmed_flush, restart_lsn, exported) = match &choice.slot {
        Some(slot) => {
            if let Some(warning) = warn::of_retention(slot) {
                tracing::warn!("{warning}");
            }
            (slot.confirmed_flush, slot.restart_lsn.unwrap_or(slot.confirmed_flush), None)
        }
        None => {
            let lifetime = Lifetime::Permanent { failover: choice.failover };
            let exported = ExportedSnapshot::create(&env.primary, name, plugin_name, lifetime).await?;
            tracing::info!("created the replication slot \"{name}\" ({plugin_name}) at {}", exported.consistent_point);
            // A new slot has nothing from before its start: every stream begins with a copy.
            copy_again.extend(plans.iter().map(|plan| plan.id.clone()));
            (exported.consistent_point, exported.consistent_point, Some(exported))
        }
    };
    let position = positions::Slot { confirmed_flush, wal_end: log_end(client).await? };
    check_bookmarks(env, (name, position), plans, state, &mut copy_again)?;
    for plan in plans.iter() {
        for warning in [warn::of_identity(plan), warn::of_virtual_columns(plan)].into_iter().flatten() {
            tracing::warn!("{}: {warning}", plan.id);
        }
    }
    let streams = plans.iter().map(|plan| plan.id.clone()).collect();
    Ok(Source {
        slot: choice.name,
        plugin,
        whole_schemas,
        position,
        restart_lsn,
        publications: published,
        streams,
        exported,
        copy_again,
    })
}

/// Returns the plugin wal2json, set to send these streams, and the schemas of which it sends every table.
pub(crate) async fn wal2json(client: &Client, plans: &[StreamPlan]) -> Result<(Wal2json, HashSet<String>)> {
    let encoding: String = client
        .query_one("SELECT pg_catalog.current_setting('server_encoding')", &[])
        .await
        .map_err(|e| query_error("cannot read the server's encoding", e))?
        .field(0)?;
    let mut schemas = HashSet::new();
    for plan in plans.iter().filter(|plan| plan.table.kind == TableKind::Partitioned) {
        let leaves = publication::leaves(client, plan.table.oid).await?;
        schemas.extend(leaves.into_iter().map(|leaf| leaf.schema));
        schemas.insert(plan.table.schema.clone());
    }
    let mut tables: Vec<(String, Option<String>)> = schemas.iter().map(|schema| (schema.clone(), None)).collect();
    let others = plans.iter().filter(|plan| plan.table.kind != TableKind::Partitioned);
    tables.extend(others.map(|plan| (plan.table.schema.clone(), Some(plan.table.name.clone()))));
    tables.sort();
    tables.dedup();
    Ok((Wal2json::new(&tables, wal2json::encoding_for(&encoding)?), schemas))
}
