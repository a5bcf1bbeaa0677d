//! The stream phase: from where the streams stand to where the log ended when it began.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};

use super::apply::Applier;
use super::{Source, wal_end};
use crate::error::{Error, Result};
use crate::logging::RecordCounter;
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::replication::stream::{Event, Feedback, WalStream};
use crate::replication::{Change, OutputPlugin};
use crate::state::{Copy, State};
use crate::sync::Env;
use crate::sync::context::Context;
use crate::sync::initial_copy::TransactionSnapshot;
use crate::sync::plan::{RecordEnd, StreamPlan};

/// A STATE follows at the first commit after so many changes,
const STATE_CHANGES: u64 = 10_000;
/// or after so long.
const STATE_INTERVAL: Duration = Duration::from_secs(10);
/// On an idle stream a keepalive is asked for after this; then after twice as long, and so on
const FIRST_ASK: Duration = Duration::from_millis(20);
/// up to this. Also the time without a message after which buffered lines go out.
const IDLE: Duration = Duration::from_secs(1);
/// A server that leaves a question unanswered for so long is gone. Decoding a huge transaction takes its time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// How long a server may stand still short of the end before the run takes it for the end, where the end is known to be
/// one of a record; elsewhere two answers are enough.
const STANDSTILL: Duration = Duration::from_secs(30);
/// How often the state file is looked at.
const STATE_FILE_INTERVAL: Duration = Duration::from_secs(10);

/// A stream of the phase.
pub(super) struct Live {
    pub plan: StreamPlan,
    version: i64,
    /// Transactions that committed before this are in the target already.
    from: Lsn,
    /// A copy of this run without a position of its own: what its snapshot saw is in the target already. The copy counts
    /// as finished when the stream is past the position.
    copied: Option<(TransactionSnapshot, Lsn)>,
    /// Closes its records.
    pub end: RecordEnd,
    pub counter: RecordCounter,
    pub records: u64,
    /// Columns of the past, which need no looking up again.
    past: HashSet<Vec<u8>>,
}

/// A transaction that is being received.
pub(super) struct Transaction {
    commit_lsn: Lsn,
    pub xid: u32,
    /// Commit time as a JSON string.
    pub deleted_at: Vec<u8>,
}

/// Where a stream starts that goes into the phase.
pub(in crate::sync) enum Start {
    /// At its bookmark; `None` for "where the slot stands".
    Bookmark(Option<Lsn>),
    /// After a copy of this run: the snapshot, and a position past everything it saw.
    Snapshot(TransactionSnapshot, Lsn),
}

impl Live {
    /// A stream, with the version that its records carry.
    fn new(plan: StreamPlan, start: Start, version: i64) -> Self {
        let (from, copied) = match start {
            Start::Bookmark(lsn) => (lsn.unwrap_or(Lsn::INVALID), None),
            Start::Snapshot(snapshot, until) => (Lsn::INVALID, Some((snapshot, until))),
        };
        Live {
            version,
            from,
            copied,
            end: RecordEnd::new(version),
            counter: RecordCounter::new(&plan.id),
            records: 0,
            past: HashSet::new(),
            plan,
        }
    }

    /// Whether the changes of a transaction are still to be sent.
    pub(super) fn wants(&self, transaction: &Transaction) -> bool {
        transaction.commit_lsn >= self.from
            && self.copied.as_ref().is_none_or(|(snapshot, _)| !snapshot.sees(transaction.xid))
    }

    /// Whether a column of this name needs no looking up.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.plan.table.columns.iter().any(|column| column.name.as_bytes() == name) || self.past.contains(name)
    }

    /// Whether every insert has to have this column.
    pub(super) fn expects(&self, name: &str) -> bool {
        !self.past.contains(name.as_bytes())
    }

    /// Names that need no looking up any more.
    pub(super) fn remember<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) {
        self.past.extend(names.map(<[u8]>::to_vec));
    }

    /// Appends its SCHEMA message.
    pub(super) fn announce(&self, ctx: &mut Context, debug_lsn: bool) {
        let schema = self.plan.stream_schema(debug_lsn);
        ctx.schema(&self.plan.id, &schema, &self.plan.key_properties, &["lsn"]);
    }
}

impl Transaction {
    fn new(commit_lsn: Lsn, commit_time: i64, xid: u32) -> Self {
        let time = chrono::DateTime::from_timestamp_micros(commit_time).unwrap_or(chrono::DateTime::UNIX_EPOCH);
        let deleted_at = format!("\"{}\"", time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00")).into_bytes();
        Transaction { commit_lsn, xid, deleted_at }
    }
}

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
    tracing::info!(
        "streaming the changes of {} streams from {} to {} (slot {}, {})",
        streams.len(),
        start.max(source.confirmed_flush),
        end.lsn,
        source.slot,
        source.plugin.name(),
    );
    for live in &streams {
        live.announce(ctx, env.config.debug_lsn);
        give_version(&mut ctx.state, live, source.confirmed_flush);
    }
    ctx.progress.begin(streams.iter().map(|live| live.plan.id.clone()).collect());
    let stream = WalStream::start(&env.primary, &source.slot, source.plugin.as_ref(), start).await?;
    let feedback = stream.feedback();
    if let Some(lsn) = acknowledge {
        tracing::debug!("acknowledging {lsn}");
        feedback.acknowledge(lsn);
    }
    let mut phase = Phase {
        applier: Applier::new(env, client, streams),
        feedback,
        state_file: env.state_file.clone().map(|path| StateFile::new(path, acknowledge.unwrap_or_default())),
        end,
        transaction: None,
        changes: 0,
        last_state: Instant::now(),
        give_up: Instant::now() + env.config.max_run(),
        clock: Instant::now(),
    };
    phase.stream(ctx, stream, source.plugin.as_mut()).await?;
    phase.state(ctx).await?;
    for live in phase.applier.streams {
        live.counter.finish();
    }
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

/// Where a run ends.
struct End {
    lsn: Lsn,
    /// Whether it is the end of a record, so that decoding is sure to get there.
    of_record: bool,
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

struct Phase<'a> {
    applier: Applier<'a>,
    feedback: Feedback,
    state_file: Option<StateFile>,
    end: End,
    transaction: Option<Transaction>,
    /// Since the last STATE.
    changes: u64,
    last_state: Instant,
    give_up: Instant,
    /// The time as of the last commit or pause.
    clock: Instant,
}

/// What a run without messages knows of its server.
struct Silence {
    since: Instant,
    wait: Duration,
    asked: Option<Instant>,
    /// Answers that brought nothing new.
    standstill: u32,
    last_answer: Lsn,
}

impl Silence {
    fn new() -> Self {
        Silence { since: Instant::now(), wait: FIRST_ASK, asked: None, standstill: 0, last_answer: Lsn::INVALID }
    }
}

impl Phase<'_> {
    async fn stream(&mut self, ctx: &mut Context, mut stream: WalStream, plugin: &mut dyn OutputPlugin) -> Result<()> {
        let config = &self.applier.env.config;
        let (bounded, poll) = (config.break_at_end_lsn, config.logical_poll());
        let mut silence = Silence::new();
        self.feedback.request_reply();
        silence.asked = Some(Instant::now());
        loop {
            match timeout(silence.wait, stream.next()).await {
                Ok(event) => match event? {
                    None => {
                        return Err(Error::transient("the server ended the replication stream")
                            .hint("it is shutting down or was told to end the connection; run again"));
                    }
                    Some(Event::Data { start, payload }) => {
                        let change = plugin.decode(payload)?;
                        if self.change(ctx, start, change, bounded).await? {
                            break;
                        }
                        if silence.wait != FIRST_ASK || silence.asked.is_some() {
                            silence = Silence::new();
                        }
                    }
                    Some(Event::Keepalive { wal_end }) => {
                        if self.transaction.is_none() {
                            ctx.progress.reach(wal_end);
                        }
                        if bounded && (wal_end >= self.end.lsn || self.is_stuck(&mut silence, wal_end)) {
                            break;
                        }
                        silence.asked = None;
                    }
                },
                Err(_) => {
                    self.clock = Instant::now();
                    if self.pause(ctx, &mut silence, bounded, poll).await? {
                        break;
                    }
                }
            }
            if self.transaction.is_none() && self.clock >= self.give_up {
                tracing::info!("ending after max_run_seconds");
                break;
            }
        }
        stream.finish().await;
        Ok(())
    }

    /// Takes a change; says whether the end is reached.
    async fn change(&mut self, ctx: &mut Context, start: Lsn, change: Change<'_>, bounded: bool) -> Result<bool> {
        match change {
            Change::Begin { commit_lsn, commit_time, xid } => {
                if bounded && commit_lsn >= self.end.lsn {
                    // Transactions come in the order of their commits: all before the end have come.
                    ctx.progress.reach(self.end.lsn);
                    return Ok(true);
                }
                self.transaction = Some(Transaction::new(commit_lsn, commit_time, xid));
            }
            Change::Commit { end_lsn } => {
                self.transaction = None;
                ctx.progress.reach(end_lsn);
                ctx.mark();
                self.clock = Instant::now();
                if self.changes >= STATE_CHANGES || self.clock - self.last_state >= STATE_INTERVAL {
                    self.state(ctx).await?;
                }
            }
            Change::Other => {}
            change => {
                let Some(transaction) = &self.transaction else {
                    return Err(Error::run("the server sent a change outside of a transaction"));
                };
                self.changes += self.applier.apply(ctx, transaction, start, change).await?;
                if ctx.out.is_full() {
                    self.hand_over(ctx).await?;
                }
            }
        }
        Ok(false)
    }

    /// Nothing came for a while; says whether the run ends.
    async fn pause(&mut self, ctx: &mut Context, silence: &mut Silence, bounded: bool, poll: Duration) -> Result<bool> {
        if silence.wait == FIRST_ASK {
            silence.since = self.clock;
        }
        if self.clock - silence.since >= poll {
            tracing::info!("ending after logical_poll_total_seconds without a message");
            return Ok(true);
        }
        if silence.asked.is_some_and(|asked| self.clock - asked >= ANSWER_PATIENCE) {
            return Err(Error::transient(format!(
                "the server has not answered for {} s; the connection is dead",
                ANSWER_PATIENCE.as_secs()
            )));
        }
        silence.wait = (silence.wait * 2).min(IDLE);
        if silence.asked.is_none() && (bounded || self.clock - silence.since >= STATE_INTERVAL) {
            self.feedback.request_reply();
            silence.asked = Some(self.clock);
        }
        if silence.wait == IDLE {
            if self.transaction.is_none() && self.clock - self.last_state >= STATE_INTERVAL {
                self.state(ctx).await?;
            } else {
                self.hand_over(ctx).await?;
            }
        }
        if let Some(file) = &mut self.state_file {
            file.acknowledge_newer(self.clock, &self.applier.streams, &self.feedback);
        }
        Ok(false)
    }

    /// Whether the server stands still before the end: its answers bring nothing new.
    fn is_stuck(&self, silence: &mut Silence, wal_end: Lsn) -> bool {
        if silence.asked.is_none() || wal_end != silence.last_answer {
            silence.last_answer = wal_end;
            silence.standstill = 0;
            return false;
        }
        silence.standstill += 1;
        let stuck = if self.end.of_record {
            silence.since.elapsed() >= STANDSTILL
        } else {
            silence.standstill >= 2 && silence.since.elapsed() >= IDLE
        };
        stuck && self.transaction.is_none()
    }

    /// Moves the bookmarks and writes a STATE. No transaction is open.
    async fn state(&mut self, ctx: &mut Context) -> Result<()> {
        self.fill_holes(ctx).await?;
        ctx.complete();
        ctx.progress.apply(&mut ctx.state);
        let reached = ctx.progress.reached();
        for live in &mut self.applier.streams {
            live.end = RecordEnd::new(live.version);
            if live.copied.take_if(|(_, until)| reached >= *until).is_some() {
                let (id, oid) = (&live.plan.id, live.plan.table.oid);
                ctx.state.set_log_based(id, reached.0, live.version, Copy::Finished, Some(oid));
            }
        }
        ctx.write_state().await?;
        self.changes = 0;
        self.last_state = Instant::now();
        if let Some(file) = &mut self.state_file {
            file.acknowledge_newer(self.last_state, &self.applier.streams, &self.feedback);
        }
        Ok(())
    }

    async fn hand_over(&mut self, ctx: &mut Context) -> Result<()> {
        self.fill_holes(ctx).await?;
        ctx.hand_over().await
    }

    async fn fill_holes(&mut self, ctx: &mut Context) -> Result<()> {
        let applier = &mut self.applier;
        if applier.toast.is_pending() {
            applier.toast.fill(&applier.env.primary, &mut applier.streams, &mut ctx.out.buf).await?;
        }
        Ok(())
    }
}

/// The state file of a run, which PipelineWise rewrites as the target confirms.
struct StateFile {
    path: PathBuf,
    looked: Instant,
    modified: Option<SystemTime>,
    acknowledged: Lsn,
}

impl StateFile {
    fn new(path: PathBuf, acknowledged: Lsn) -> Self {
        let modified = modified(&path);
        StateFile { path, looked: Instant::now(), modified, acknowledged }
    }

    /// Acknowledges what a rewritten state file says is stored.
    fn acknowledge_newer(&mut self, now: Instant, streams: &[Live], feedback: &Feedback) {
        if now - self.looked < STATE_FILE_INTERVAL {
            return;
        }
        self.looked = now;
        let modified = modified(&self.path);
        if modified == self.modified {
            return;
        }
        // A file that is being written right now is looked at again.
        let Some(state) = State::reread_lsns(&self.path) else { return };
        self.modified = modified;
        let stored = streams
            .iter()
            .filter(|live| live.copied.is_none())
            .map(|live| state.bookmark(&live.plan.id).lsn().map(Lsn))
            .min()
            .flatten();
        if let Some(stored) = stored.filter(|stored| *stored > self.acknowledged && stored.0 != 1) {
            tracing::debug!("the state file has moved; acknowledging {stored}");
            feedback.acknowledge(stored);
            self.acknowledged = stored;
        }
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}
