//! The loop of the stream phase: changes in, records and STATE out, until the end is reached.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::apply::Applier;
use super::live::Transaction;
use super::pace::{Limits, Pace, Step, Why};
use super::source::{ChangeSource, Input};
use super::state_file::StateFile;
use crate::error::{Error, Result};
use crate::logging::Bar;
use crate::logging::figures::seconds;
use crate::pg::Lsn;
use crate::positions::HeldBack;
use crate::replication::{Change, Message};
use crate::sync::output::Output;

/// What the loop works with, whichever source the changes come from.
pub(super) struct Run<'a> {
    applier: Applier<'a>,
    state_file: Option<StateFile>,
    transaction: Option<Transaction>,
    bar: Bar,
    /// From where on the log is read.
    start: Lsn,
    /// Where the log ended when the run began, until everything up to there has come.
    end: Option<Lsn>,
    /// Up to where the log is read even if the time is over.
    must_reach: Lsn,
}

impl<'a> Run<'a> {
    /// Makes the loop. `end`: where the log ended when the run began; `ends`: whether the run does there; `must_reach`: up to where it
    /// goes even if its time is over.
    pub(super) fn new(
        applier: Applier<'a>,
        state_file: Option<StateFile>,
        start: Lsn,
        end: Lsn,
        (must_reach, ends): (Lsn, bool),
    ) -> Self {
        let bar = Bar::of_log(ends.then(|| end.0.saturating_sub(start.0)));
        Run { applier, state_file, transaction: None, bar, start, end: Some(end), must_reach }
    }

    /// Reads a source until the run ends.
    pub(super) async fn read(
        &mut self,
        output: &mut Output,
        source: &mut impl ChangeSource,
        limits: Limits,
    ) -> Result<()> {
        let mut pace = Pace::new(limits);
        loop {
            loop {
                match pace.step(self.transaction.is_some(), output.ledger().reached() >= self.must_reach) {
                    Step::Continue => break,
                    Step::Ask => {
                        if let Some(feedback) = source.feedback() {
                            feedback.request_reply();
                        }
                        pace.asked(Instant::now());
                    }
                    Step::HandOver => self.hand_over(output).await?,
                    Step::WriteState => {
                        self.write_state(output).await?;
                        pace.wrote_state(Instant::now());
                    }
                    Step::End(why) => return ended(why),
                }
                self.acknowledge_stored(output, source);
            }
            match source.next(pace.wait()).await? {
                Input::Message { lsn, message } => {
                    if self.change(output, &mut pace, lsn, message).await?.is_break() {
                        return ended(Why::Reached);
                    }
                    pace.message(Instant::now);
                }
                Input::Keepalive { wal_end } => {
                    let now = Instant::now();
                    if self.transaction.is_none() {
                        let ledger = output.ledger();
                        let reached = ledger.keepalive(wal_end).is_break();
                        if reached || pace.keepalive(now, wal_end, ledger.may_stop_short(wal_end)) {
                            return ended(Why::Reached);
                        }
                    }
                    pace.answered(now, self.transaction.is_some());
                }
                Input::Quiet => pace.quiet(Instant::now(), self.transaction.is_some()),
                Input::End => {
                    output.ledger().read_all();
                    return ended(Why::Reached);
                }
            }
        }
    }

    /// Writes the last STATE of the phase.
    pub(super) async fn finish(mut self, output: &mut Output) -> Result<()> {
        self.write_state(output).await?;
        self.bar.end();
        for live in self.applier.streams {
            live.counter.finish();
        }
        Ok(())
    }

    /// Takes a message; breaks where the run ends before it.
    async fn change(
        &mut self,
        output: &mut Output,
        pace: &mut Pace,
        lsn: Lsn,
        message: Message<'_>,
    ) -> Result<ControlFlow<()>> {
        match message.change {
            Change::Begin { commit_lsn, commit_time, xid } => {
                if output.begin(commit_lsn, xid).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                self.transaction = Some(Transaction::new(commit_time, xid));
            }
            Change::Commit { end_lsn } => {
                if let Some(transaction) = self.transaction.take() {
                    self.applier.check_partitions(&transaction).await?;
                    self.bar.tell(|| format!(", {} behind", seconds(transaction.age())));
                }
                output.commit(end_lsn);
                pace.commit(Instant::now());
                self.bar.set(end_lsn.0.saturating_sub(self.start.0));
            }
            Change::Other if message.relation.is_none() => {}
            _ => {
                let Some(transaction) = &self.transaction else {
                    return Err(Error::run("the server sent a change outside of a transaction"));
                };
                pace.changed(self.applier.apply(output, transaction, lsn, message).await?);
                if self.applier.is_full(output) {
                    self.fill_holes(output).await?;
                }
                if output.needs_room() {
                    self.hand_over(output).await?;
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Moves the bookmarks and writes a STATE. No transaction is open.
    async fn write_state(&mut self, output: &mut Output) -> Result<()> {
        self.fill_holes(output).await?;
        self.applier.check_names(output).await?;
        self.applier.check_leaves(output).await?;
        output.settle().map_err(held_back)?;
        // What the run has seen of the tables goes into bookmarks that are past it.
        if self.end.is_some_and(|end| output.ledger().settled() >= end) {
            self.end = None;
            self.applier.caught_up(output);
        }
        for live in &mut self.applier.streams {
            live.renew_end();
        }
        output.write_state().await
    }

    /// Acknowledges what a rewritten state file says is stored.
    fn acknowledge_stored(&mut self, output: &mut Output, source: &impl ChangeSource) {
        let (Some(file), Some(feedback)) = (&mut self.state_file, source.feedback()) else { return };
        let Some(bookmarks) = file.bookmarks(Instant::now()) else { return };
        if let Some(stored) = output.ledger().stored(bookmarks) {
            tracing::debug!("the state file has moved; acknowledging {stored}");
            feedback.acknowledge(stored);
        }
    }

    async fn hand_over(&mut self, output: &mut Output) -> Result<()> {
        self.fill_holes(output).await?;
        output.hand_over().await
    }

    async fn fill_holes(&mut self, output: &mut Output) -> Result<()> {
        self.applier.fill_holes(output).await
    }
}

/// Says why the loop ended, where that is worth a word.
fn ended(why: Why) -> Result<()> {
    match why {
        Why::Reached => {}
        Why::OutOfTime => tracing::info!("ending after max_run_seconds"),
        Why::Quiet => tracing::info!("ending after logical_poll_total_seconds without a message"),
        Why::Unanswered(patience) => {
            return Err(Error::transient(format!(
                "the server has not answered for {} s: the connection is dead",
                patience.as_secs()
            ))
            .hint(
                "look at the network and the server, and run again; the limit follows the server's wal_sender_timeout",
            ));
        }
    }
    Ok(())
}

fn held_back(HeldBack { stream }: HeldBack) -> Error {
    Error::transient(format!(
        "the copy of \"{stream}\" may lack a transaction whose commit waits for a synchronous standby: the slot is past it, and \
         nobody sees it yet"
    ))
    .hint(
        "run again when the standby answers, and the table is copied again; a role in pg_monitor tells such a transaction from \
         one that is only open",
    )
}
