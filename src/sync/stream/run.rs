//! The loops of the stream phase: messages in, records and STATE out, until the end is reached.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::prepare::Source;
use super::apply::Applier;
use super::live::Transaction;
use super::pace::{FIRST_ASK, IDLE, Silence};
use super::state_file::StateFile;
use crate::error::{Error, Result};
use crate::logging::Bar;
use crate::logging::figures::seconds;
use crate::pg::Lsn;
use crate::pg::error::{RESTARTED, query_error};
use crate::replication::bulk::BulkRead;
use crate::replication::stream::{Event, Feedback, WalStream};
use crate::replication::{Change, Message, OutputPlugin};
use crate::state::Copy;
use crate::sync::output::Context;
use crate::sync::plan::RecordEnd;

/// A STATE follows at the first commit after so many changes,
const STATE_CHANGES: u64 = 10_000;
/// or after so long.
const STATE_INTERVAL: Duration = Duration::from_secs(10);

/// Where a run ends.
pub(crate) struct End {
    pub lsn: Lsn,
    /// Whether it is the end of a record, so that decoding is sure to get there.
    pub of_record: bool,
}

/// What the loops share.
pub(crate) struct Phase<'a> {
    applier: Applier<'a>,
    /// To a walsender; none in a bulk read.
    feedback: Option<Feedback>,
    state_file: Option<StateFile>,
    end: End,
    transaction: Option<Transaction>,
    /// Since the last STATE.
    changes: u64,
    last_state: Instant,
    /// `None` for never.
    give_up: Option<Instant>,
    /// The time as of the last commit or pause.
    clock: Instant,
    bar: Bar,
    /// From where on the log is read.
    start: Lsn,
}

impl<'a> Phase<'a> {
    pub(crate) fn new(applier: Applier<'a>, state_file: Option<StateFile>, start: Lsn, end: End) -> Self {
        let now = Instant::now();
        let config = &applier.env.config;
        let give_up = now.checked_add(config.max_run());
        let to_read = config.break_at_end_lsn.then(|| end.lsn.0.saturating_sub(start.0));
        Phase {
            applier,
            feedback: None,
            state_file,
            end,
            transaction: None,
            changes: 0,
            last_state: now,
            give_up,
            clock: now,
            bar: Bar::of_log(to_read),
            start,
        }
    }

    /// Reads everything up to the end in one go. False if the server refused before anything was read.
    pub(crate) async fn read_bulk(
        &mut self,
        ctx: &mut Context,
        source: &mut Source,
        acknowledge: Option<Lsn>,
    ) -> Result<bool> {
        let env = self.applier.env;
        if let Some(lsn) = acknowledge {
            tracing::debug!("acknowledging {lsn}");
            let sql = "SELECT pg_catalog.pg_replication_slot_advance($1, $2::text::pg_lsn)";
            if let Err(error) = self.applier.client.execute(sql, &[&source.slot, &lsn.to_string()]).await {
                return Ok(refused(ctx, &query_error("cannot advance the slot", error)));
            }
        }
        let mut session = env.primary.session().await?;
        ctx.cancels(&env.primary, &session);
        let mut rows = match BulkRead::start(&mut session, &source.slot, source.plugin.as_ref(), self.end.lsn).await {
            Ok(rows) => rows,
            Err(error) => return Ok(refused(ctx, &error)),
        };
        let mut started = false;
        loop {
            let (start, payload) = match rows.next().await {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) if !started => return Ok(refused(ctx, &error)),
                Err(error) => return Err(error),
            };
            started = true;
            let message = source.plugin.decode(payload)?;
            if self.change(ctx, start, message, true).await? || self.is_out_of_time() {
                session.close().await;
                ctx.cancels_nothing();
                return Ok(true);
            }
        }
        rows.finish().await?;
        ctx.cancels_nothing();
        ctx.progress.hear(self.end.lsn);
        session.close().await;
        Ok(true)
    }

    /// Reads as a walsender sends.
    pub(crate) async fn read_stream(
        &mut self,
        ctx: &mut Context,
        source: &mut Source,
        start: Lsn,
        acknowledge: Option<Lsn>,
    ) -> Result<()> {
        let stream = WalStream::start(&self.applier.env.primary, &source.slot, source.plugin.as_ref(), start).await?;
        let feedback = self.feedback.insert(stream.feedback());
        if let Some(lsn) = acknowledge {
            tracing::debug!("acknowledging {lsn}");
            feedback.acknowledge(lsn);
        }
        feedback.request_reply();
        let client = self.applier.client;
        tokio::select! {
            read = self.stream(ctx, stream, source.plugin.as_mut()) => read,
            // A server that shuts down ends this connection at once. Its walsender stays until all that it has sent was
            // taken, and so would the server while nobody takes what the tap prints.
            () = client.ended() => Err(Error::transient("the server ended a connection of this run").hint(RESTARTED)),
        }
    }

    /// Writes the last STATE of the phase.
    pub(crate) async fn finish(mut self, ctx: &mut Context) -> Result<()> {
        self.state(ctx).await?;
        self.bar.end();
        for live in self.applier.streams {
            live.counter.finish();
        }
        Ok(())
    }

    async fn stream(&mut self, ctx: &mut Context, mut stream: WalStream, plugin: &mut dyn OutputPlugin) -> Result<()> {
        let config = &self.applier.env.config;
        let (bounded, poll) = (config.break_at_end_lsn, config.logical_poll());
        let mut silence = Silence::new(stream.answer_patience());
        silence.asked = Some(Instant::now());
        loop {
            match timeout(silence.wait, stream.next()).await {
                Ok(event) => match event? {
                    None => {
                        return Err(Error::transient("the server ended the replication stream").hint(RESTARTED));
                    }
                    Some(Event::Data { start, payload }) => {
                        let message = plugin.decode(payload)?;
                        if self.change(ctx, start, message, bounded).await? {
                            break;
                        }
                        if silence.wait != FIRST_ASK || silence.asked.is_some() {
                            silence = Silence::new(stream.answer_patience());
                        }
                    }
                    Some(Event::Keepalive { wal_end }) => {
                        if self.transaction.is_none() {
                            ctx.progress.hear(wal_end);
                            if bounded && (wal_end >= self.end.lsn || silence.is_stuck(&self.end, wal_end)) {
                                break;
                            }
                        }
                        silence.asked = None;
                        self.clock = Instant::now();
                        if self.clock >= silence.wake && self.pause(ctx, &mut silence, bounded, poll).await? {
                            break;
                        }
                    }
                },
                Err(_) => {
                    self.clock = Instant::now();
                    if self.pause(ctx, &mut silence, bounded, poll).await? {
                        break;
                    }
                }
            }
            if self.is_out_of_time() {
                break;
            }
        }
        stream.finish().await;
        Ok(())
    }

    /// Whether max_run_seconds are over. A transaction that has begun is finished first.
    fn is_out_of_time(&self) -> bool {
        let over = self.transaction.is_none() && self.give_up.is_some_and(|give_up| self.clock >= give_up);
        if over {
            tracing::info!("ending after max_run_seconds");
        }
        over
    }

    /// Takes a message; says whether the end is reached.
    async fn change(&mut self, ctx: &mut Context, start: Lsn, message: Message<'_>, bounded: bool) -> Result<bool> {
        match message.change {
            Change::Begin { commit_lsn, commit_time, xid } => {
                if bounded && commit_lsn >= self.end.lsn {
                    // Transactions come in the order of their commits: all before the end have come.
                    ctx.progress.hear(self.end.lsn);
                    return Ok(true);
                }
                for copied in self.applier.streams.iter_mut().filter_map(|live| live.copied.as_mut()) {
                    copied.came(xid);
                }
                self.transaction = Some(Transaction::new(commit_lsn, commit_time, xid));
            }
            Change::Commit { end_lsn } => {
                if let Some(transaction) = self.transaction.take() {
                    self.applier.check_partitions(&transaction).await?;
                    self.bar.tell(|| format!(", {} behind", seconds(transaction.age())));
                }
                ctx.progress.commit(end_lsn);
                ctx.mark();
                self.clock = Instant::now();
                self.bar.set(end_lsn.0.saturating_sub(self.start.0));
                if self.changes >= STATE_CHANGES || self.clock - self.last_state >= STATE_INTERVAL {
                    self.state(ctx).await?;
                }
            }
            Change::Other if message.relation.is_none() => {}
            _ => {
                let Some(transaction) = &self.transaction else {
                    return Err(Error::run("the server sent a change outside of a transaction"));
                };
                self.changes += self.applier.apply(ctx, transaction, start, message).await?;
                if self.applier.toast.is_full() {
                    self.fill_holes(ctx).await?;
                }
                if ctx.needs_room() {
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
        if self.transaction.is_none() && self.clock - silence.since >= poll {
            tracing::info!("ending after logical_poll_total_seconds without a message");
            return Ok(true);
        }
        if silence.asked.is_some_and(|asked| self.clock - asked >= silence.patience) {
            return Err(Error::transient(format!(
                "the server has not answered for {} s: the connection is dead",
                silence.patience.as_secs()
            ))
            .hint(
                "look at the network and the server, and run again; the limit follows the server's wal_sender_timeout",
            ));
        }
        silence.wait = (silence.wait * 2).min(IDLE);
        silence.wake = self.clock + silence.wait;
        if silence.asked.is_none() && (bounded || self.clock - silence.since >= STATE_INTERVAL) {
            if let Some(feedback) = &self.feedback {
                feedback.request_reply();
            }
            silence.asked = Some(self.clock);
        }
        if silence.wait == IDLE {
            if self.transaction.is_none() && self.clock - self.last_state >= STATE_INTERVAL {
                self.state(ctx).await?;
            } else {
                self.hand_over(ctx).await?;
            }
        }
        self.acknowledge_stored(ctx);
        Ok(false)
    }

    /// Moves the bookmarks and writes a STATE. No transaction is open.
    async fn state(&mut self, ctx: &mut Context) -> Result<()> {
        self.fill_holes(ctx).await?;
        ctx.mark();
        self.move_bookmarks(ctx)?;
        ctx.write_state().await?;
        self.changes = 0;
        self.last_state = Instant::now();
        self.clock = self.last_state;
        self.acknowledge_stored(ctx);
        Ok(())
    }

    /// To the end of the last transaction that is complete.
    fn move_bookmarks(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.progress.apply(&mut ctx.state);
        let reached = ctx.progress.reached();
        for live in &mut self.applier.streams {
            live.end = RecordEnd::new(live.version);
            let Some(copied) = live.copied.take_if(|copied| reached >= copied.until) else { continue };
            let (id, oid) = (&live.plan.id, live.plan.table.oid);
            if copied.lacks_some() {
                return Err(Error::transient(format!(
                    "the copy of \"{id}\" may lack a transaction whose commit waits for a synchronous standby: the slot is \
                     past it, and nobody sees it yet"
                ))
                .hint(
                    "run again when the standby answers, and the table is copied again; a role in pg_monitor tells such \
                     a transaction from one that is only open",
                ));
            }
            ctx.state.set_log_based(id, reached.0, live.version, Copy::Finished, Some(oid));
        }
        Ok(())
    }

    /// Acknowledges what a rewritten state file says is stored.
    fn acknowledge_stored(&mut self, ctx: &Context) {
        if let (Some(file), Some(feedback)) = (&mut self.state_file, &self.feedback)
            && let Some(lsn) = file.stored(self.clock, ctx.progress.reached())
        {
            tracing::debug!("the state file has moved; acknowledging {lsn}");
            feedback.acknowledge(lsn);
        }
    }

    async fn hand_over(&mut self, ctx: &mut Context) -> Result<()> {
        self.fill_holes(ctx).await?;
        if self.transaction.is_none() {
            return ctx.hand_over().await;
        }
        ctx.hand_over_inside().await
    }

    async fn fill_holes(&mut self, ctx: &mut Context) -> Result<()> {
        let applier = &mut self.applier;
        applier.toast.fill(applier.env, applier.client, &mut applier.streams, ctx).await
    }
}

/// Says why a bulk read did not begin: the log is streamed.
fn refused(ctx: &mut Context, error: &Error) -> bool {
    tracing::info!("streaming instead of reading in bulk: {error}");
    ctx.cancels_nothing();
    false
}
