//! The stream phase: from where the streams stand to where the log ended when it began.

mod apply;
pub(crate) mod live;
mod pace;
pub(crate) mod prepare;
mod run;
mod source;
mod state_file;

use std::time::Duration;

use tokio::time::{Instant, timeout};

use apply::Applier;
use prepare::bookmarks::wal_end;
use live::{Live, Start};
use run::{End, Phase};
use state_file::StateFile;
use prepare::Source;
use crate::error::Result;
use crate::logging::figures::{bytes, seconds};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::replication::slot::Slot;
use crate::state::{Copy, State};
use crate::sync::env::Env;
use crate::sync::output::Context;
use crate::sync::plan::StreamPlan;

/// How long the server may take to say what the slot keeps.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Streams the changes of these tables. `ctx.state` holds their bookmarks.
pub(crate) async fn run(
    ctx: &mut Context,
    env: &Env,
    client: &Client,
    source: &mut Source,
    plans: Vec<(StreamPlan, Start)>,
    acknowledge: Option<Lsn>,
) -> Result<()> {
    let end = end_position(client).await?;
    let (end_lsn, end_read) = (end.lsn, Instant::now());
    let streams: Vec<Live> = plans
        .into_iter()
        .map(|(plan, start)| {
            let version = ctx.state.bookmark(&plan.id).version().unwrap_or_else(crate::sync::env::version_now);
            Live::new(plan, start, version)
        })
        .collect();
    let from_slot = streams.iter().any(|live| live.from == Lsn::INVALID);
    let start = if from_slot { Lsn::INVALID } else { streams.iter().map(|live| live.from).min().unwrap_or_default() };
    for live in &streams {
        live.announce(ctx, env.config.debug_lsn);
        give_version(&mut ctx.state, live, source.confirmed_flush);
    }
    ctx.progress.begin(streams.iter().map(|live| live.plan.id.clone()).collect());
    let acknowledged = acknowledge.unwrap_or_default().max(source.confirmed_flush);
    let state_file = env.state_file.clone().map(|path| StateFile::new(path, source.streams.clone(), acknowledged));
    let method = source::choose(env, client, source, &streams, &end).await?;
    let from = start.max(source.confirmed_flush);
    tracing::info!(
        "reading the changes of {} streams from {from} to {end_lsn} ({method}; slot {}, {})",
        streams.len(),
        source.slot,
        source.plugin.name(),
    );
    let mut phase = Phase::new(Applier::new(env, client, source, streams), state_file, from, end);
    let read = match method {
        source::Method::Bulk => phase.read_bulk(ctx, source, acknowledge).await?,
        source::Method::Stream => false,
    };
    if !read {
        phase.read_stream(ctx, source, start, acknowledge).await?;
    }
    phase.finish(ctx).await?;
    let reached = ctx.progress.reached().max(from);
    // Everything is written: a server that is gone by now does not matter.
    match timeout(LAST_WORD, tell_end(client, source, reached, (end_lsn, end_read))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("no word of where the run ended: {error}"),
        Err(_) => tracing::debug!("no word of where the run ended: the server does not answer"),
    }
    Ok(())
}

/// Says how far the run came of a log that ended there when it began, and what the slot keeps for the next one.
async fn tell_end(client: &Client, source: &Source, reached: Lsn, (end, began): (Lsn, Instant)) -> Result<()> {
    let lag = match reached >= end {
        true => format!("where the log ended {} ago", seconds(began.elapsed())),
        false => format!("{} before the end that the log had when the run began", bytes(end.0 - reached.0)),
    };
    let slot = Slot::find(client, std::slice::from_ref(&source.slot)).await?;
    let kept = slot.map(|slot| {
        let status = slot.wal_status.map(|status| format!(" ({status})")).unwrap_or_default();
        format!("; the slot {} keeps {} of WAL{status}", slot.name, bytes(slot.kept))
    });
    tracing::info!("read the log up to {reached}, {lag}{}", kept.unwrap_or_default());
    Ok(())
}

/// A bookmark in another tap's form gets its version and its own keys.
fn give_version(state: &mut State, live: &Live, confirmed_flush: Lsn) {
    let bookmark = state.bookmark(&live.plan.id);
    if live.copied.is_none() {
        let lsn = bookmark.lsn().unwrap_or(confirmed_flush.0);
        state.set_log_based(&live.plan.id, lsn, live.version, Copy::Finished, Some(live.plan.table.oid));
    }
}

/// Where the log ends now, with something behind it, so that decoding gets there: a logical message or, where another
/// tap may read it or the role may not write it, an empty transaction. A standby has replayed whole records.
async fn end_position(client: &Client) -> Result<End> {
    // wal2json passes messages on, and the reference up to 2.1.0 fails on them, now and in every run to come.
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), EXISTS (SELECT FROM pg_catalog.pg_replication_slots \
               WHERE plugin = 'wal2json' AND database = pg_catalog.current_database())";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the replication slots", e))?;
    let (standby, others_listen): (bool, bool) = (row.field(0)?, row.field(1)?);
    if standby {
        return Ok(End { lsn: wal_end(client).await?, of_record: true });
    }
    let by_message = if others_listen { None } else { end_by_message(client).await };
    let marked = match by_message {
        Some(lsn) => Some(lsn),
        None => end_by_transaction(client).await?,
    };
    match marked {
        Some(lsn) => Ok(End { lsn, of_record: true }),
        None => Ok(End { lsn: wal_end(client).await?, of_record: false }),
    }
}

/// The end of a logical message, flushed with its transaction: the session has `synchronous_commit` local.
async fn end_by_message(client: &Client) -> Option<Lsn> {
    let sql = "BEGIN; SELECT pg_catalog.pg_logical_emit_message(true, 'tap-postgres-rs', 'end of run')::text; COMMIT";
    marked(client, sql).await
}

/// The end of the last record before a transaction that changes nothing. No plugin sees it, and no COMMIT waits for
/// it: the server's WAL writer takes it to disk within three times `wal_writer_delay`, 0.6 s by default.
async fn end_by_transaction(client: &Client) -> Result<Option<Lsn>> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let sql = "BEGIN; SELECT pg_catalog.pg_current_wal_insert_lsn()::text FROM pg_catalog.txid_current(); COMMIT";
    let Some(lsn) = marked(client, sql).await else { return Ok(None) };
    let started = Instant::now();
    while wal_end(client).await? <= lsn {
        if started.elapsed() > PATIENCE {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Some(lsn))
}

/// The position that a transaction tells; none without the right to what it calls.
async fn marked(client: &Client, sql: &str) -> Option<Lsn> {
    match client.simple_query(sql).await {
        Ok(messages) => messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.try_get(0).ok()??.parse().ok(),
            _ => None,
        }),
        Err(error) => {
            tracing::debug!("no mark at the end of the run: {error}");
            // The failed transaction is still open.
            let _ = client.simple_query("ROLLBACK").await;
            None
        }
    }
}
