//! The replication slot: whether the server has room for it, the role may read it, and how it stands.

use std::time::Duration;

use tokio::time::Instant;

use super::report::Report;
use crate::config::{Choice as _, OutputPluginName, WalReader};
use crate::error::{Error, Result, to_run};
use crate::pg::connect::Client;
use crate::pg::error::{query_error, sqlstate};
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::sqlstate::{INSUFFICIENT_PRIVILEGE, TOO_MANY_CONNECTIONS};
use crate::replication::OutputPlugin;
use crate::replication::bulk::BulkRead;
use crate::replication::log_end::log_end;
use crate::replication::pgoutput::Pgoutput;
use crate::replication::slot::{Slot, allow_plugin, explain_refusal};
use crate::replication::standbys::unless_held_back;
use crate::replication::stream::IN_USE;
use crate::state::State;
use crate::sync::cancel::cancel;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;
use crate::sync::stream::prepare::slot::{SlotChoice, try_walsender};
use crate::sync::stream::prepare::{names_of, wal2json, warn};

/// How long a check waits for standbys that hold a slot back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns the slot that a run would read or make; `None` if that can't be, or not yet.
pub(super) async fn check(
    report: &mut Report,
    env: &Env,
    client: &Client,
    plans: &[StreamPlan],
    state: &State,
) -> Result<Option<SlotChoice>> {
    // Before a walsender is tried, which goes when the server gets to it.
    let used = used(client).await?;
    let may_replicate = match try_walsender(env).await {
        Ok(()) => {
            report.ok("the role may replicate");
            true
        }
        // No walsender is free to try it with; `capacity` reports that.
        Err(error) if sqlstate(&error) == Some(TOO_MANY_CONNECTIONS) => true,
        tried => !report.is_failure(tried),
    };
    let choice = match Slot::find(client, &env.config.slot_candidates()).await {
        Ok(found) => SlotChoice::of(env, client, found, plans, state).await,
        Err(error) => Err(error),
    };
    let makes_slot = choice.as_ref().is_ok_and(|choice| choice.slot.is_none() && !choice.lost);
    capacity(report, env, client, used, makes_slot);
    keep_size(report, env, client).await?;
    let choice = match choice {
        Ok(choice) => choice,
        Err(error) => {
            report.failure(&error);
            return Ok(None);
        }
    };
    let (name, plugin) = (&choice.name, choice.plugin.word());
    match &choice.slot {
        Some(Slot { unfinished: true, active_pid, .. }) => {
            let pid = active_pid.unwrap_or_default();
            report.warning(format_args!("process {pid} is making the replication slot \"{name}\"; a run waits for it"));
            return Ok(None);
        }
        Some(slot) => stands(report, client, slot).await?,
        None if choice.lost => report.warning(format_args!(
            "replication slot \"{name}\" is lost; a run makes it anew and copies its streams again"
        )),
        None => report.ok(format_args!("replication slot \"{name}\" is not there yet; a run makes it ({plugin})")),
    }
    if is_allowed(report, env, client, plugin).await? {
        if may_replicate {
            plugin_works(report, env, client, &choice, plans).await?;
        }
    } else {
        let error = Error::run(format!("output_plugin_libraries does not name {plugin}"));
        report.failure(&error.hint(allow_plugin(plugin)));
    }
    Ok(Some(choice))
}

/// Slots and walsenders: how many there may be, and how many there are.
struct Used {
    slots: (i64, i64),
    walsenders: (i64, i64),
}

async fn used(client: &Client) -> Result<Used> {
    let sql = "SELECT pg_catalog.current_setting('max_replication_slots')::int8, \
               (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
               pg_catalog.current_setting('max_wal_senders')::int8, (SELECT count(*) FROM pg_catalog.pg_stat_replication)";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot count the replication slots", e))?;
    Ok(Used { slots: (row.field(0)?, row.field(1)?), walsenders: (row.field(2)?, row.field(3)?) })
}

/// Reports how many slots and walsenders are left. `needs_slot`: the run makes a slot.
fn capacity(report: &mut Report, env: &Env, client: &Client, Used { slots, walsenders }: Used, needs_slot: bool) {
    let streams = env.config.wal_reader == WalReader::Stream
        || !env.config.break_at_end_lsn
        || !client.server_version().has_slot_advance();
    for (setting, (most, used), needed, otherwise) in [
        (
            "max_replication_slots",
            slots,
            needs_slot,
            "a copy has none of its own, so that its table is streamed from where the tap's slot stands",
        ),
        ("max_wal_senders", walsenders, streams, "the log can only be read in bulk, and a copy has no slot of its own"),
    ] {
        if used < most {
            report.ok(format_args!("{setting}: {} of {most} are left", most - used));
            continue;
        }
        let advice =
            format!("restart the server after you {}", to_run(&[format!("ALTER SYSTEM SET {setting} = {}", most + 4)]));
        if needed {
            report.failure(&Error::run(format!("{setting}: none of {most} is left")).hint(advice));
        } else {
            report.warning(format_args!("{setting}: none of {most} is left: {otherwise}; {advice}"));
        }
    }
}

/// Checks whether a slot that nobody reads can fill the disk.
async fn keep_size(report: &mut Report, env: &Env, client: &Client) -> Result<()> {
    match setting(report, env, client, "max_slot_wal_keep_size").await?.as_deref() {
        // Before 13 nothing bounds it.
        None => {}
        Some("-1") => report.warning(format_args!(
            "max_slot_wal_keep_size is unlimited: a slot that nobody reads keeps its WAL until the disk is full; to bound that, at \
             the price of losing the slot, {}",
            to_run(&["ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'", "SELECT pg_reload_conf()"])
        )),
        Some(size) => report.ok(format_args!("max_slot_wal_keep_size is {size}")),
    }
    Ok(())
}

/// Reports how far behind the slot is, and what it keeps.
async fn stands(report: &mut Report, client: &Client, slot: &Slot) -> Result<()> {
    let (name, end) = (&slot.name, log_end(client).await?);
    let behind = end.0.saturating_sub(slot.confirmed_flush.0) >> 20;
    let kept = slot.kept >> 20;
    let found =
        format!("replication slot \"{name}\" ({}) is {behind} MB behind and keeps {kept} MB of WAL", slot.plugin);
    match (warn::of_retention(slot), slot.wal_status.as_deref()) {
        (Some(warning), _) => report.warning(warning),
        (None, Some("extended")) => {
            report.warning(format_args!("{found}, more than max_wal_size; run the tap more often"));
        }
        (None, Some(status)) => report.ok(format_args!("{found}, {status}")),
        (None, None) => report.ok(found),
    }
    let Some(pid) = slot.active_pid else { return Ok(()) };
    let sql = "SELECT coalesce(usename::text, '?'), coalesce(application_name, '?') \
               FROM pg_catalog.pg_stat_activity WHERE pid = $1";
    let row = client.query_opt(sql, &[&pid]).await.map_err(|e| query_error("cannot read pg_stat_activity", e))?;
    let by = match &row {
        Some(row) => format!(" ({}, {})", row.field::<&str>(0)?, row.field::<&str>(1)?),
        None => String::new(),
    };
    let error = Error::run(format!("replication slot \"{name}\" is active for PID {pid}{by}"));
    let end = to_run(&[format!("SELECT pg_terminate_backend({pid})")]);
    report.failure(&error.hint(format!("{IN_USE}; to end it {end}")));
    Ok(())
}

/// Whether the server's settings allow a plugin. True where there is no such setting, or the role may not see it:
/// trying the plugin shows it then.
async fn is_allowed(report: &mut Report, env: &Env, client: &Client, plugin: &str) -> Result<bool> {
    let libraries = setting(report, env, client, "output_plugin_libraries").await?;
    Ok(libraries.is_none_or(|libraries| names(&libraries).any(|name| name == plugin)))
}

/// Has the server read a record of the slot, or load the plugin of one that is to be made.
async fn plugin_works(
    report: &mut Report,
    env: &Env,
    client: &Client,
    choice: &SlotChoice,
    plans: &[StreamPlan],
) -> Result<()> {
    let name = choice.plugin.word();
    let tried = match &choice.slot {
        Some(slot) if slot.active_pid.is_some() => return Ok(()),
        Some(slot) => match probe(env, client, slot, choice.plugin, plans).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let name = &slot.name;
                report
                    .warning(format_args!("replication slot \"{name}\" can't be read before those standbys are there"));
                return Ok(());
            }
            Err(error) => Err(error),
        },
        None => match client.batch_execute(&format!("LOAD '{name}'")).await {
            Err(error) if error.code().is_some_and(|code| code.code() == INSUFFICIENT_PRIVILEGE) => {
                report.ok(format_args!("whether the output plugin {name} is installed is only told to a superuser"));
                return Ok(());
            }
            loaded => loaded.map_err(|e| explain_refusal(query_error("cannot load the output plugin", e), name)),
        },
    };
    if !report.is_failure(tried) {
        report.ok(format_args!("the output plugin {name} is installed"));
    }
    Ok(())
}

/// Has the server read a record of the slot. False if it waits for standbys instead.
async fn probe(
    env: &Env,
    client: &Client,
    slot: &Slot,
    plugin: OutputPluginName,
    plans: &[StreamPlan],
) -> Result<bool> {
    let plugin: Box<dyn OutputPlugin> = match plugin {
        OutputPluginName::Pgoutput => Box::new(Pgoutput::new(vec![env.config.publication(&slot.name).to_owned()])),
        OutputPluginName::Wal2json => Box::new(wal2json(client, &names_of(client, plans, false).await?).await?),
    };
    let mut session = env.primary.session().await?;
    let (process_id, token) = (session.process_id(), session.cancel_token());
    let probe = Box::pin(BulkRead::probe(&mut session, &slot.name, plugin.as_ref()));
    match unless_held_back(client, process_id, Instant::now().checked_add(PATIENCE), probe).await? {
        Some(probed) => probed.map(|()| true),
        None => {
            cancel(&env.primary, token).await;
            Ok(false)
        }
    }
}

/// Reads a setting of the server; `None` if the server does not know it, or does not show it to the role, which is
/// reported.
async fn setting(report: &mut Report, env: &Env, client: &Client, name: &str) -> Result<Option<String>> {
    match client.query_one("SELECT pg_catalog.current_setting($1, true)", &[&name]).await {
        Ok(row) => row.field(0),
        Err(error) if error.code().is_some_and(|code| code.code() == INSUFFICIENT_PRIVILEGE) => {
            let sql = format!("GRANT pg_read_all_settings TO {}", quote::ident(&env.config.user));
            report.ok(format_args!(
                "{name} is not shown to the role, which need not see it; to see it {}",
                to_run(&[sql])
            ));
            Ok(None)
        }
        Err(error) => Err(query_error(format!("cannot read {name}"), error)),
    }
}

/// Returns the names in a setting that is a list, some of them perhaps in double quotes.
fn names(list: &str) -> impl Iterator<Item = String> {
    let mut quoted = false;
    let parts = list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts.map(|part| {
        let part = part.trim();
        match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
            Some(inner) => inner.replace("\"\"", "\""),
            None => part.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_list_of_names_is_read_as_the_server_reads_it() {
        let read = |list| names(list).collect::<Vec<_>>();
        assert_eq!(read("pgoutput, test_decoding,wal2json"), ["pgoutput", "test_decoding", "wal2json"]);
        // What ALTER SYSTEM makes of 'a, b'.
        assert_eq!(read(r#""pgoutput, wal2json""#), ["pgoutput, wal2json"]);
        assert_eq!(read(r#""a""b", c"#), ["a\"b", "c"]);
        assert_eq!(read(""), [""]);
    }
}
