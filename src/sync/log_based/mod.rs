//! LOG_BASED: the slot and what it is read with, checked before anything is read; the stream phase is in [`run`].

mod apply;
pub(super) mod live;
mod phase;
mod reader;
mod record;
mod route;
pub(super) mod run;
mod silence;
mod state_file;
mod toast;
mod warn;

use std::collections::HashSet;

use super::Env;
use super::plan::StreamPlan;
use crate::config::{Config, OnSlotLost, OutputPluginName};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::table::{Table, TableKind};
use crate::pg::{Lsn, quote};
use crate::replication::OutputPlugin;
use crate::replication::pgoutput::Pgoutput;
use crate::replication::publication::{self, Publications};
use crate::replication::slot::{ExportedSnapshot, Lifetime, Slot};
use crate::replication::wal2json::{self, Wal2json};
use crate::state::State;

/// The slot of a run, ready to be read.
pub(super) struct Source {
    /// Its name.
    pub slot: String,
    /// What reads its messages.
    pub plugin: Box<dyn OutputPlugin>,
    /// With wal2json, which is told the tables to send: schemas of which it sends every one. Partitions come under their own
    /// names, and may be attached at any time.
    pub whole_schemas: Option<HashSet<String>>,
    /// Where it stands.
    pub confirmed_flush: Lsn,
    /// From here on the server has to read to serve it.
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
pub(super) async fn prepare(env: &Env, client: &Client, plans: &mut [StreamPlan], state: &State) -> Result<Source> {
    let config = &env.config;
    let candidates = config.slot_candidates();
    let mut copy_again = HashSet::new();
    let found = Slot::find_finished(client, &candidates).await?;
    let lost = found.as_ref().is_some_and(|slot| slot.invalid.is_some());
    let (name, plugin_name) = match &found {
        Some(slot) => (slot.name.clone(), slot.plugin.clone()),
        None => (candidates.last().cloned().unwrap_or_default(), config.output_plugin.as_str().to_owned()),
    };
    let failover = found.as_ref().is_some_and(|slot| slot.failover);
    check_right(env, client).await?;
    let slot = match found {
        Some(slot) if lost || slot.synced => {
            if slot.synced || config.on_slot_lost == OnSlotLost::Fail {
                slot.check_usable()?;
            }
            tracing::warn!("replication slot \"{name}\" is lost; making it anew and copying its streams again");
            drop_slot(client, &name).await?;
            None
        }
        Some(slot) => Some(slot),
        None => {
            if let Some((why, hint)) = obstacle(client).await? {
                return Err(Error::run(format!("LOG_BASED is not possible: {why}")).hint(hint));
            }
            let bookmarked = plans.iter().find(|plan| is_streamed(plan, state));
            match (bookmarked, config.on_slot_lost) {
                (Some(plan), OnSlotLost::Fail) => return Err(slot_gone(&name, plan)),
                (None, _) if !config.create_replication_slot => {
                    return Err(missing_slot(env, client, &name, &plugin_name, plans).await?);
                }
                _ => None,
            }
        }
    };

    let mut whole_schemas = None;
    let mut published = Vec::new();
    let plugin: Box<dyn OutputPlugin> = match plugin_name.as_str() {
        // The publication comes before the slot: a slot can't see a younger one.
        name_of if name_of == OutputPluginName::Pgoutput.as_str() => {
            let publication = config.publication(&name).to_owned();
            let (publications, added) = publications(env, client, &publication, plans, slot.is_none()).await?;
            copy_again.extend(added);
            settle_columns(plans, &publications, env)?;
            published = publications.names().to_vec();
            Box::new(Pgoutput::new(published.clone()))
        }
        name_of if name_of == OutputPluginName::Wal2json.as_str() => {
            let (plugin, schemas) = wal2json(client, plans).await?;
            whole_schemas = Some(schemas);
            Box::new(plugin)
        }
        other => {
            return Err(Error::run(format!("replication slot \"{name}\" has the output plugin {other}"))
                .hint("this tap reads pgoutput and wal2json: name another slot with replication_slot_name"));
        }
    };

    let (confirmed_flush, restart_lsn, exported) = match slot {
        Some(slot) => {
            warn::of_retention(&slot);
            (slot.confirmed_flush, slot.restart_lsn.unwrap_or(slot.confirmed_flush), None)
        }
        None => {
            let exported =
                ExportedSnapshot::create(&env.primary, &name, &plugin_name, Lifetime::Permanent { failover }).await?;
            tracing::info!("created the replication slot \"{name}\" ({plugin_name}) at {}", exported.consistent_point);
            // Where a new slot starts, nothing was there to be read: every stream begins with a copy.
            copy_again.extend(plans.iter().map(|plan| plan.id.clone()));
            (exported.consistent_point, exported.consistent_point, Some(exported))
        }
    };
    check_bookmarks(client, config, &name, confirmed_flush, plans, state, &mut copy_again).await?;
    warn::of_identities(plans);
    warn::of_virtual_columns(plans);
    let streams = plans.iter().map(|plan| plan.id.clone()).collect();
    Ok(Source {
        slot: name,
        plugin,
        whole_schemas,
        confirmed_flush,
        restart_lsn,
        publications: published,
        streams,
        exported,
        copy_again,
    })
}

/// The error for a slot that nobody made, with the SQL that does: the publication comes first.
async fn missing_slot(env: &Env, client: &Client, name: &str, plugin: &str, plans: &[StreamPlan]) -> Result<Error> {
    let mut sql = Vec::new();
    if plugin == OutputPluginName::Pgoutput.as_str() {
        let publication = env.config.publication(name);
        let mut known = Publications::read(client, publication).await?;
        let mut missing = Vec::new();
        for plan in plans {
            if !known.covers(client, &plan.table).await? {
                missing.push(&plan.table);
            }
        }
        sql = publication::publish_sql(client, publication, &known, &missing).await?;
    }
    sql.push(format!("SELECT pg_create_logical_replication_slot({}, '{plugin}')", quote::literal(name)));
    Ok(Error::run(format!("replication slot \"{name}\" does not exist"))
        .hint(format!("create it: {}; or set create_replication_slot to true", sql.join("; "))))
}

/// Why no slot can be made on this server, and what to do about it, if so.
pub(super) async fn obstacle(client: &Client) -> Result<Option<(String, &'static str)>> {
    let sql = "SELECT pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery()";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read wal_level", e))?;
    let (level, standby): (&str, bool) = (row.field(0)?, row.field(1)?);
    if standby && !client.server_version().decodes_on_standby() {
        return Ok(Some((
            "the server is a standby older than PostgreSQL 16".to_owned(),
            "set `host` to the primary, and use_secondary to copy tables from this standby; or choose another replication \
             method",
        )));
    }
    Ok((level != "logical").then(|| {
        (
            format!("the server's wal_level is {level}"),
            "set wal_level = logical in its configuration and restart it (on Amazon RDS: rds.logical_replication = 1), or \
             choose another replication method",
        )
    }))
}

/// Finds a role that may not replicate before anything is copied. Managed servers know other ways to grant the right than the
/// attribute, so that only the server's own refusal counts.
async fn check_right(env: &Env, client: &Client) -> Result<()> {
    let sql = "SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the role's attributes", e))?;
    if !row.field::<bool>(0)? {
        match env.primary.replication_session_now().await {
            Ok(session) => session.close().await,
            // It may be free when it is needed.
            Err(error) if error.kind() == ErrorKind::Transient => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The slot is gone, and with it the changes since the bookmarks.
fn slot_gone(name: &str, plan: &StreamPlan) -> Error {
    Error::run(format!("replication slot \"{name}\" does not exist, and the changes since the bookmark of \"{}\" went with it", plan.id))
        .hint(
            "if it was renamed, set replication_slot_name; else set on_slot_lost to copy_again to have it made anew and the \
             streams copied again, or start with an empty state",
        )
}

async fn drop_slot(client: &Client, name: &str) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_drop_replication_slot($1)";
    client.execute(sql, &[&name]).await.map_err(|e| query_error("cannot drop the lost replication slot", e))?;
    Ok(())
}

/// The publications to read with, and the streams that had to be added to them.
async fn publications(
    env: &Env,
    client: &Client,
    name: &str,
    plans: &[StreamPlan],
    slot_is_new: bool,
) -> Result<(Publications, Vec<String>)> {
    let mut publications = Publications::read(client, name).await?;
    let mut missing: Vec<&StreamPlan> = Vec::new();
    for plan in plans {
        if publications.hides_partition(&plan.table) {
            return Err(Error::usage(format!(
                "stream \"{}\" is a partition, and the publication \"{name}\" sends its changes under the name of its root",
                plan.id
            ))
            .hint("select the root instead"));
        }
        let mut covered = publications.covers(client, &plan.table).await?;
        if !covered && plan.table.kind == TableKind::Partitioned {
            // A leaf may have been made since the publications were read.
            publications = Publications::read(client, name).await?;
            covered = publications.covers(client, &plan.table).await?;
        }
        if !covered {
            missing.push(plan);
        }
    }
    let exists = publications.names().iter().any(|known| known == name);
    if exists && missing.is_empty() {
        return Ok((publications, Vec::new()));
    }
    let tables: Vec<&Table> = missing.iter().map(|plan| &plan.table).collect();
    let statements = publication::publish_sql(client, name, &publications, &tables).await?;
    if let Some(absent) = publications.absent(name, &tables).filter(|_| !slot_is_new) {
        return Err(Error::run(format!("the publication \"{absent}\" does not exist, and the slot is there already"))
            .hint(format!(
                "a slot can't see a younger publication: drop the slot and let a run with create_replication_slot make \
                 both, or run {}; and then make the slot; or name the right publication with publication_name. A table \
                 with REPLICA IDENTITY FULL needs no publication of its own",
                statements.join("; ")
            )));
    }
    if !env.config.create_replication_slot {
        return Err(publication::unpublished(name, &tables, &statements));
    }
    publication::publish(client, &statements).await?;
    let added = missing.iter().map(|plan| plan.id.clone()).collect();
    Ok((Publications::read(client, name).await?, added))
}

/// Leaves out what the publications don't send, and says so.
fn settle_columns(plans: &mut [StreamPlan], publications: &Publications, env: &Env) -> Result<()> {
    for plan in plans.iter_mut() {
        let unpublished = publications.unpublished_columns(&plan.table);
        if let Some(key) = plan.key_properties.iter().find(|key| unpublished.contains(key)) {
            return Err(Error::run(format!(
                "the publication does not publish the key column \"{key}\" of \"{}\"",
                plan.id
            ))
            .hint("add it to the publication's column list"));
        }
        leave_out(plan, unpublished, env);
        for warning in publications.warnings(&plan.table) {
            tracing::warn!("{}: {warning}", plan.id);
        }
    }
    Ok(())
}

/// Leaves columns out of a stream that its publication does not publish, and says so of those that were in it.
fn leave_out(plan: &mut StreamPlan, unpublished: Vec<String>, env: &Env) {
    let selected: Vec<&str> =
        unpublished.iter().map(String::as_str).filter(|name| plan.position(name).is_some()).collect();
    if !selected.is_empty() {
        let (id, columns) = (&plan.id, selected.join(", "));
        tracing::warn!(
            "{id}: the publication does not publish {columns}; left out of the stream until its column list does"
        );
    }
    plan.leave_out(unpublished, &env.types);
}

async fn wal2json(client: &Client, plans: &[StreamPlan]) -> Result<(Wal2json, HashSet<String>)> {
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

/// Rule: nothing is read from a slot that can't bring everything since a bookmark.
async fn check_bookmarks(
    client: &Client,
    config: &Config,
    slot: &str,
    confirmed_flush: Lsn,
    plans: &[StreamPlan],
    state: &State,
    copy_again: &mut HashSet<String>,
) -> Result<()> {
    let end = wal_end(client).await?;
    for plan in plans.iter().filter(|plan| is_streamed(plan, state)) {
        let Some(lsn) = state.bookmark(&plan.id).lsn().filter(|&lsn| lsn != 1).map(Lsn) else { continue };
        if copy_again.contains(&plan.id) {
            continue;
        }
        let problem = if lsn > end {
            Error::run(format!(
                "the bookmark of \"{}\" is at {lsn}, but the server's log ends at {end}",
                plan.id
            ))
            .hint(
                "the server was restored from a backup or is another one: remove the stream's bookmark to copy it again, or set \
                 on_slot_lost to copy_again",
            )
        } else if confirmed_flush > lsn {
            Error::run(format!(
                "replication slot \"{slot}\" stands at {confirmed_flush}, past the bookmark of \"{}\" at {lsn}: the \
                 changes between are gone",
                plan.id
            ))
            .hint(
                "something else moved the slot, or made it anew: remove the stream's bookmark to copy it again, or set \
                 on_slot_lost to copy_again; give each tap a slot of its own",
            )
        } else {
            continue;
        };
        if config.on_slot_lost == OnSlotLost::Fail {
            return Err(problem);
        }
        tracing::warn!("{problem}; copying the stream again");
        copy_again.insert(plan.id.clone());
    }
    Ok(())
}

/// Whether a stream's bookmark says that its copy is done and its changes are to be streamed.
pub(super) fn is_streamed(plan: &StreamPlan, state: &State) -> bool {
    let bookmark = state.bookmark(&plan.id);
    bookmark.lsn().is_some()
        && !state.copy_unfinished(&plan.id)
        && bookmark.table_oid().is_none_or(|oid| oid == plan.table.oid)
}

/// How far the server's log goes: flushed, or replayed on a standby.
pub(super) async fn wal_end(client: &Client) -> Result<Lsn> {
    let sql = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
               ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the WAL position", e))?;
    row.field::<Option<&str>>(0)?
        .and_then(|lsn| lsn.parse().ok())
        .ok_or_else(|| Error::run("the server does not say where its WAL ends"))
}
