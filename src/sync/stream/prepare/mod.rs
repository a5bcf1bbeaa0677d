//! What is checked before the log is read: the slot, the publications, the bookmarks.

pub(crate) mod bookmarks;
pub(crate) mod definitions;
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
use crate::pg::table::{ReplicaIdentity, TableKind};
use crate::positions;
use crate::replication::OutputPlugin;
use crate::replication::log_end::log_end;
use crate::replication::pgoutput::Pgoutput;
use crate::replication::publication;
use crate::replication::slot::{ExportedSnapshot, Lifetime, Slot};
use crate::replication::wal2json::{self, Wal2json};
use crate::state::State;
use crate::sync::alterations::Alterations;
use crate::sync::env::Env;
use crate::sync::failures::Failures;
use crate::sync::plan::StreamPlan;
use bookmarks::check_bookmarks;
use definitions::check_definitions;
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
    /// What was altered of the tables since the place in the log that the slot needs.
    pub alterations: Alterations,
    /// The publications that decide what the slot brings, if any do.
    pub publications: Vec<String>,
    /// Every LOG_BASED stream of the run.
    pub streams: Vec<String>,
    /// The snapshot of a slot that this run made.
    pub exported: Option<ExportedSnapshot>,
    /// Streams whose bookmark no longer leads anywhere: they are copied again.
    pub copy_again: HashSet<String>,
    /// The streams that are copied in one piece: not all of their changes come, and a row that moves from pages that are not copied yet to
    /// such that are would be in no slice.
    pub whole: HashSet<String>,
}

/// Finds or makes the slot and checks that it can serve these streams from their bookmarks. Leaves those out that can't be
/// served; `None` where no other is left. May leave columns out of the plans that a publication does not send.
pub(crate) async fn prepare(
    env: &Env,
    client: &Client,
    plans: &mut Vec<StreamPlan>,
    state: &State,
    failures: &mut Failures,
) -> Result<Option<Source>> {
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

    let mut published = Vec::new();
    let mut whole: HashSet<String> = HashSet::new();
    if choice.plugin == OutputPluginName::Pgoutput {
        // The publication comes before the slot: a slot can't see a younger one.
        let (publications, added) = publications(env, client, &choice, plans, failures).await?;
        copy_again.extend(added);
        settle_columns(plans, &publications, failures);
        published = publications.names().to_vec();
        whole.extend(plans.iter().filter(|plan| !publications.send_all(&plan.table)).map(|plan| plan.id.clone()));
    }
    let unidentified = plans.iter().filter(|plan| plan.table.replica_identity == ReplicaIdentity::None);
    whole.extend(unidentified.map(|plan| plan.id.clone()));
    let known = |plan: &StreamPlan| (plan.table.oid, state.bookmark(&plan.id).definition());
    let tables: Vec<_> = plans.iter().map(known).collect();
    let alterations = Alterations::since_slot(client, name, &tables, &published).await?;
    let mut whole_schemas = None;
    let plugin: Box<dyn OutputPlugin> = match choice.plugin {
        OutputPluginName::Pgoutput => Box::new(Pgoutput::new(published.clone())),
        OutputPluginName::Wal2json => {
            let names = names_of(client, plans, alterations.any_moved()).await?;
            let plugin = wal2json(client, &names).await?;
            whole_schemas = names.whole_schemas;
            Box::new(plugin)
        }
    };

    if plans.is_empty() {
        return Ok(None);
    }
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
    check_bookmarks(env, (name, position), plans, state, &mut copy_again, failures);
    check_definitions(plans, state, &alterations, &whole, &mut copy_again);
    for plan in plans.iter() {
        for warning in [warn::of_identity(plan), warn::of_virtual_columns(plan)].into_iter().flatten() {
            tracing::warn!("{}: {warning}", plan.id);
        }
    }
    let streams = plans.iter().map(|plan| plan.id.clone()).collect();
    Ok(Some(Source {
        slot: choice.name,
        plugin,
        whole_schemas,
        position,
        restart_lsn,
        alterations,
        publications: published,
        streams,
        exported,
        copy_again,
        whole,
    }))
}

/// The tables whose changes wal2json is asked for.
pub(crate) struct Names {
    /// The schemas of which every table is asked for; `None` for every table of all.
    whole_schemas: Option<HashSet<String>>,
    /// Tables beside these, by schema and name.
    tables: Vec<(String, String)>,
    /// The selected tables and their partitions.
    selected: HashSet<(String, String)>,
}

/// Returns what has to be asked for to read these streams: a partition's changes come under its own name. `all`: changes may stand
/// in the log under names that the tables do not have any more.
pub(crate) async fn names_of(client: &Client, plans: &[StreamPlan], all: bool) -> Result<Names> {
    let (mut whole_schemas, mut tables, mut selected) = (HashSet::new(), Vec::new(), HashSet::new());
    for StreamPlan { table, .. } in plans {
        let name = (table.schema.clone(), table.name.clone());
        if table.kind == TableKind::Partitioned {
            whole_schemas.insert(table.schema.clone());
            for leaf in publication::leaves(client, table.oid).await? {
                whole_schemas.insert(leaf.schema.clone());
                selected.insert((leaf.schema, leaf.name));
            }
        } else {
            tables.push(name.clone());
        }
        selected.insert(name);
    }
    Ok(Names { whole_schemas: (!all).then_some(whole_schemas), tables, selected })
}

/// Returns the plugin wal2json, set to send these tables.
pub(crate) async fn wal2json(client: &Client, names: &Names) -> Result<Wal2json> {
    let encoding: String = client
        .query_one("SELECT pg_catalog.current_setting('server_encoding')", &[])
        .await
        .map_err(|e| query_error("cannot read the server's encoding", e))?
        .field(0)?;
    let encoding = wal2json::encoding_for(&encoding)?;
    let Some(schemas) = &names.whole_schemas else {
        return Ok(Wal2json::of_all(encoding).telling_of(names.selected.clone()));
    };
    let mut named: Vec<(String, Option<String>)> = schemas.iter().map(|schema| (schema.clone(), None)).collect();
    named.extend(names.tables.iter().map(|(schema, table)| (schema.clone(), Some(table.clone()))));
    named.sort();
    named.dedup();
    Ok(Wal2json::new(&named, encoding).telling_of(names.selected.clone()))
}
