//! The stream phase: from where the streams stand to where the log ended when it began.

use super::apply::Applier;
use super::live::{Live, Start};
use super::phase::{End, Phase};
use super::state_file::StateFile;
use super::{Source, reader, wal_end};
use crate::error::Result;
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::state::{Copy, State};
use crate::sync::Env;
use crate::sync::context::Context;
use crate::sync::plan::StreamPlan;

/// Streams the changes of these tables. `ctx.state` holds their bookmarks.
pub(in crate::sync) async fn run(
    ctx: &mut Context,
    env: &Env,
    client: &Client,
    source: &mut Source,
    plans: Vec<(StreamPlan, Start)>,
    acknowledge: Option<Lsn>,
) -> Result<()> {
    let end = end_position(client).await?;
    let streams: Vec<Live> = plans
        .into_iter()
        .map(|(plan, start)| {
            let version = ctx.state.bookmark(&plan.id).version().unwrap_or_else(crate::sync::version_now);
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
    let method = reader::choose(env, client, source, &streams, &end).await?;
    tracing::info!(
        "reading the changes of {} streams from {} to {} ({method}; slot {}, {})",
        streams.len(),
        start.max(source.confirmed_flush),
        end.lsn,
        source.slot,
        source.plugin.name(),
    );
    let mut phase = Phase::new(Applier::new(env, client, streams), state_file, end, env.config.max_run());
    let read = match method {
        reader::Method::Bulk => phase.read_bulk(ctx, source, acknowledge).await?,
        reader::Method::Stream => false,
    };
    if !read {
        phase.read_stream(ctx, source, start, acknowledge).await?;
    }
    phase.finish(ctx).await
}

/// A bookmark in another tap's form gets its version and its own keys.
fn give_version(state: &mut State, live: &Live, confirmed_flush: Lsn) {
    let bookmark = state.bookmark(&live.plan.id);
    if live.copied.is_none() {
        let lsn = bookmark.lsn().unwrap_or(confirmed_flush.0);
        state.set_log_based(&live.plan.id, lsn, live.version, Copy::Finished, Some(live.plan.table.oid));
    }
}

/// Where the log ends now. Writes a logical message first, whose end is a record's and is flushed when this returns.
async fn end_position(client: &Client) -> Result<End> {
    let sql = "BEGIN; SET LOCAL synchronous_commit = local; \
               SELECT pg_catalog.pg_logical_emit_message(true, 'tap-postgres-rs', 'end of run')::text; COMMIT";
    match client.simple_query(sql).await {
        Ok(messages) => {
            let lsn = messages.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            });
            if let Some(lsn) = lsn {
                return Ok(End { lsn, of_record: true });
            }
        }
        Err(error) => {
            tracing::debug!("no logical message to mark the end of the run: {error}");
            // The failed transaction is still open.
            let _ = client.simple_query("ROLLBACK").await;
        }
    }
    Ok(End { lsn: wal_end(client).await?, of_record: false })
}
