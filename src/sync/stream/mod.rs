//! The stream phase of LOG_BASED: from where the streams stand to where the log ended when it began.
//!
//! ```text
//! prepare (slot, publications, bookmarks) ─▶ Source
//! ChangeSource (walsender | bulk) ─▶ Run, paced by Pace ─▶ Applier ─▶ Output
//! ```

mod apply;
mod end;
mod live;
mod pace;
pub(crate) mod prepare;
mod run;
mod source;
mod state_file;
mod wal_reader;

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use apply::Applier;
use end::{end_of_run, log_reached};
use live::Live;
use pace::Limits;
use prepare::Source;
use run::Run;
use source::{Bulk, Walsender};
use state_file::StateFile;
use wal_reader::WalReader;

use crate::error::{Error, Result};
use crate::pg::connect::Client;
use crate::pg::error::{RESTARTED, is_warning};
use crate::pg::wire::Session;
use crate::pg::{Lsn, quote};
use crate::positions::{Ledger, Stored, Track};
use crate::replication::bulk::BulkRead;
use crate::replication::standbys::unless_held_back;
use crate::replication::stream::WalStream;
use crate::sync::Streamed;
use crate::sync::env::{Env, version_now};
use crate::sync::failures::Failures;
use crate::sync::output::Output;

/// How long the server may take to say what the slot keeps.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Streams the changes of these tables; the state has their bookmarks. `copying`: for how long this run has copied. If it has, the
/// log is read at least to where it ends now: bookmarks of copies move only behind all that these hold.
pub(super) async fn stream(
    output: &mut Output,
    env: &Env,
    client: &Client,
    source: &mut Source,
    streamed: Vec<Streamed>,
    (acknowledge, copying): (Option<Stored>, Duration),
    failures: &mut Failures,
) -> Result<()> {
    let config = &env.config;
    let end = end_of_run(client).await?;
    let end_read = Instant::now();
    let (mut streams, mut tracks) = (Vec::new(), Vec::new());
    // More of a copy is to come: its bookmark, and with it the slot, moves only where the log was read past what there is of it.
    let is_cut = |streamed: &Streamed| matches!(&streamed.track, Track::Slices(slices) if !slices.is_complete());
    let is_cut = streamed.iter().any(is_cut);
    let ends = config.break_at_end_lsn || is_cut;
    for Streamed { plan, track } in streamed {
        let version = output.state.bookmark(&plan.id).version().unwrap_or_else(version_now);
        // A bookmark may be in another tap's form; that of a copy is in this tap's already.
        if !track.is_of_copy() {
            output.state.adopt(&plan.id, version, plan.table.oid);
        }
        let id = plan.id.clone();
        streams.push(Live::new(plan, version, &track, &source.alterations));
        tracks.push((id, track));
    }
    output.begin_changes();
    for live in &streams {
        live.announce(output);
    }
    let bound = ends.then_some(end);
    output.stream(Ledger::new(tracks, source.position, acknowledge, bound));
    if source.publications.is_empty() {
        output.ledger().wait_for_checks();
        *env.names_to_check.lock().unwrap_or_else(PoisonError::into_inner) = Some(source.alterations.clone());
    }
    let start = output.ledger().start();
    let from = start.max(source.position.confirmed_flush);
    let state_file = env.state_file.clone().map(|path| StateFile::new(path, source.streams.clone()));
    let reader = wal_reader::choose(env, client, source, &streams, &end).await?;
    tracing::info!(
        "reading the changes of {} streams from {from} to {} ({reader}; slot {}, {})",
        streams.len(),
        end.lsn,
        source.slot,
        source.plugin.name(),
    );
    let applier = Applier::new(env, client, source, streams, failures);
    let must_reach = if copying.is_zero() { Lsn::INVALID } else { end.lsn };
    let mut run = Run::new(applier, state_file, from, end.lsn, (must_reach, ends));
    let began = Instant::now();
    let limits = Limits {
        began,
        give_up: began.checked_add(config.max_run().saturating_sub(copying)),
        poll: Some(config.logical_poll()),
        patience: None,
        bounded: ends,
        state_changes: config.changes_between_states(),
    };
    let mut log = Log { env, client, source, acknowledge, limits };
    let read = match reader {
        WalReader::Bulk => log.read_in_bulk(&mut run, output, end.lsn).await?,
        WalReader::Stream => false,
    };
    if !read {
        log.read_as_stream(&mut run, output, start).await?;
    }
    run.finish(output).await?;
    let reached = output.ledger().reached().max(from);
    // Everything is written: a server that is gone by now does not matter.
    match timeout(LAST_WORD, log_reached(client, source, reached, (end.lsn, end_read))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("no word of where the run ended: {error}"),
        Err(_) => tracing::debug!("no word of where the run ended: the server does not answer"),
    }
    Ok(())
}

/// The log of a slot, and within which limits it is read.
struct Log<'a> {
    env: &'a Env,
    client: &'a Client,
    source: &'a mut Source,
    /// What is acknowledged before anything is read.
    acknowledge: Option<Stored>,
    limits: Limits,
}

impl Log<'_> {
    /// Reads everything up to the end in one go. False if the server refused before anything was read.
    async fn read_in_bulk(&mut self, run: &mut Run<'_>, output: &mut Output, end: Lsn) -> Result<bool> {
        let Log { env, client, source, acknowledge, limits } = self;
        let mut session = env.primary.session().await?;
        env.query_in_hand.set(&env.primary, &session);
        let process_id = session.process_id();
        // Boxed, as it is large and at the bottom of the run.
        let begin = Box::pin(begin_bulk(&mut session, source, *acknowledge, end));
        let rows = match unless_held_back(client, process_id, limits.give_up, begin).await? {
            Some(Ok(rows)) => rows,
            // What the server warned of it says to a stream too.
            Some(Err(error)) if is_warning(&error) => {
                env.query_in_hand.cancel().await;
                return Err(error);
            }
            Some(Err(error)) => return Ok(refused(env, &error)),
            None => {
                tracing::info!("ending after max_run_seconds: nothing of the log has come");
                env.query_in_hand.cancel().await;
                return Ok(true);
            }
        };
        let mut bulk = Bulk::new(rows, source.plugin.as_mut());
        run.read(output, &mut bulk, Limits { began: Instant::now(), poll: None, ..*limits }).await?;
        if bulk.has_ended() {
            env.query_in_hand.clear();
        } else {
            // Nobody waits for the rest.
            env.query_in_hand.cancel().await;
        }
        session.close().await;
        Ok(true)
    }

    /// Reads as a walsender sends.
    async fn read_as_stream(&mut self, run: &mut Run<'_>, output: &mut Output, start: Lsn) -> Result<()> {
        let Log { env, client, source, acknowledge, limits } = self;
        let stream = WalStream::start(&env.primary, &source.slot, source.plugin.as_ref(), start).await?;
        if let Some(stored) = acknowledge {
            tracing::debug!("acknowledging {stored}");
            stream.feedback().acknowledge(*stored);
        }
        let mut walsender = Walsender::new(stream, source.plugin.as_mut());
        let limits = Limits { patience: Some(walsender.patience()), ..*limits };
        tokio::select! {
            read = run.read(output, &mut walsender, limits) => read?,
            // A server that shuts down ends this connection at once. Its walsender stays until all that it has sent was taken,
            // and so would the server while nobody takes what the tap prints.
            () = client.ended() => {
                return Err(Error::transient("the server ended a connection of this run").hint(RESTARTED));
            }
        }
        walsender.finish().await;
        Ok(())
    }
}

/// Acknowledges what is stored, and waits until the server sends what follows.
async fn begin_bulk<'s>(
    session: &'s mut Session,
    source: &Source,
    acknowledge: Option<Stored>,
    end: Lsn,
) -> Result<BulkRead<'s>> {
    if let Some(stored) = acknowledge {
        tracing::debug!("acknowledging {stored}");
        let slot = quote::literal(&source.slot);
        session.query(&format!("SELECT pg_catalog.pg_replication_slot_advance({slot}, '{stored}')")).await?;
    }
    let mut rows = BulkRead::start(session, &source.slot, source.plugin.as_ref(), end).await?;
    rows.arrive().await?;
    Ok(rows)
}

/// Logs why a bulk read did not begin: the log is streamed.
fn refused(env: &Env, error: &Error) -> bool {
    tracing::info!("streaming instead of reading in bulk: {error}");
    env.query_in_hand.clear();
    false
}
