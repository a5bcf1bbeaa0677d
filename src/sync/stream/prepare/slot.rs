//! Which slot a run reads, and whether the server and the role let it.

use super::bookmarks::resume;
use crate::config::{Choice as _, OnSlotLost, OutputPluginName};
use crate::error::{Error, ErrorKind, Result, to_run};
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::replication::publication::{self, Publications};
use crate::replication::slot::{Slot, create_sql};
use crate::state::State;
use crate::sync::env::Env;
use crate::sync::plan::{StreamPlan, oids};

/// The slot of a run.
pub(crate) struct SlotChoice {
    /// Its name.
    pub name: String,
    /// Its plugin.
    pub plugin: OutputPluginName,
    /// Whether the slot is to be synchronized to standbys (17+).
    pub failover: bool,
    /// The slot as the server has it; none where the run makes it.
    pub slot: Option<Slot>,
    /// Whether the slot exists and is lost, so that the run makes it anew.
    pub lost: bool,
}

impl SlotChoice {
    /// Returns the slot that was found, if it can be read; else one that the run may make.
    pub(crate) async fn of(
        env: &Env,
        client: &Client,
        found: Option<Slot>,
        plans: &[StreamPlan],
        state: &State,
    ) -> Result<SlotChoice> {
        let config = &env.config;
        let Some(slot) = found else {
            let name = config.slot_candidates().pop().unwrap_or_default();
            let plugin = config.output_plugin;
            let bookmarked = plans.iter().find(|plan| resume(plan, state).is_copied());
            return match (bookmarked, config.on_slot_lost) {
                (Some(plan), OnSlotLost::Fail) => Err(slot_gone(&name, plan)),
                (None, _) if !config.create_replication_slot => {
                    Err(missing_slot(env, client, &name, plugin, plans).await?)
                }
                _ => Ok(SlotChoice { name, plugin, failover: false, slot: None, lost: false }),
            };
        };
        let (name, failover) = (slot.name.clone(), slot.failover);
        let plugins = [OutputPluginName::Pgoutput, OutputPluginName::Wal2json];
        let Some(plugin) = plugins.into_iter().find(|plugin| plugin.word() == slot.plugin) else {
            return Err(Error::run(format!("replication slot \"{name}\" has the output plugin {}", slot.plugin))
                .hint("this tap reads pgoutput and wal2json: name another slot with replication_slot_name"));
        };
        // wal2json knows no prepared transactions: it sends them when they commit.
        if plugin == OutputPluginName::Pgoutput {
            slot.check_one_phase(client.server_version())?;
        }
        let lost = slot.invalid.is_some();
        if slot.synced || config.on_slot_lost == OnSlotLost::Fail {
            slot.check_usable()?;
        }
        Ok(SlotChoice { name, plugin, failover, slot: (!lost).then_some(slot), lost })
    }
}

/// Returns the error for a missing slot, with the SQL that makes it: the publication comes first.
async fn missing_slot(
    env: &Env,
    client: &Client,
    name: &str,
    plugin: OutputPluginName,
    plans: &[StreamPlan],
) -> Result<Error> {
    let mut sql = Vec::new();
    if plugin == OutputPluginName::Pgoutput {
        let publication = env.config.publication(name);
        let mut known = Publications::read(client, publication, &oids(plans)).await?;
        let mut missing = Vec::new();
        for plan in plans {
            if !known.covers(client, &plan.table).await? {
                missing.push(&plan.table);
            }
        }
        sql = publication::publish_sql(client, publication, &known, &missing).await?;
    }
    sql.push(create_sql(name, plugin.word(), false));
    Ok(Error::run(format!("replication slot \"{name}\" does not exist"))
        .hint(format!("set create_replication_slot to true, or {}", to_run(&sql))))
}

/// Returns the error for a slot that is gone, and with it the changes since the bookmarks.
fn slot_gone(name: &str, plan: &StreamPlan) -> Error {
    Error::run(format!("replication slot \"{name}\" does not exist, and the changes since the bookmark of \"{}\" went with it", plan.id))
        .hint(
            "if it was renamed, set replication_slot_name; else set on_slot_lost to copy_again to have it made anew and the \
             streams copied again, or start with an empty state",
        )
}

/// Drops a lost slot.
pub(crate) async fn drop_slot(client: &Client, name: &str) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_drop_replication_slot($1)";
    client.execute(sql, &[&name]).await.map_err(|e| query_error("cannot drop the lost replication slot", e))?;
    Ok(())
}

/// Fails if the server has no log to read.
pub(crate) async fn check_server(client: &Client) -> Result<()> {
    match obstacle(client).await? {
        Some((why, hint)) => Err(Error::run(format!("LOG_BASED is not possible: {why}")).hint(hint)),
        None => Ok(()),
    }
}

/// Returns why no slot can be made on this server, and what to do about it, if so.
pub(crate) async fn obstacle(client: &Client) -> Result<Option<(String, String)>> {
    let sql = "SELECT pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery()";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read wal_level", e))?;
    let (level, standby): (&str, bool) = (row.field(0)?, row.field(1)?);
    if standby && !client.server_version().decodes_on_standby() {
        return Ok(Some((
            "the server is a standby older than PostgreSQL 16".to_owned(),
            "set `host` to the primary, and use_secondary to copy tables from this standby; or choose another replication \
             method"
                .to_owned(),
        )));
    }
    Ok((level != "logical").then(|| {
        let sql = to_run(&["ALTER SYSTEM SET wal_level = logical"]);
        (
            format!("the server's wal_level is {level}"),
            format!(
                "choose another replication method, or restart the server (on Amazon RDS with rds.logical_replication = 1) \
                 after you {sql}"
            ),
        )
    }))
}

/// Fails for a role that may not replicate, before anything is copied. Managed servers know other ways to grant the
/// right than the attribute, so that only the server's own refusal counts.
pub(crate) async fn check_right(env: &Env, client: &Client) -> Result<()> {
    let sql = "SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the role's attributes", e))?;
    if !row.field::<bool>(0)? {
        match try_walsender(env).await {
            // It may be free when it is needed.
            Err(error) if error.kind() == ErrorKind::Transient => {}
            tried => tried?,
        }
    }
    Ok(())
}

/// Asks the server for a walsender, to see whether the role may replicate.
pub(crate) async fn try_walsender(env: &Env) -> Result<()> {
    env.primary.replication_session_now().await?.close().await;
    Ok(())
}
