//! A large table that several connections read at a time, each with a thread that encodes what it reads.
//!
//! ```text
//! the copy's session exports its snapshot and holds the table
//!   worker: a range of pages ─▶ whole lines ─┐
//!   worker: a range of pages ─▶ whole lines ─┼─▶ a short queue ─▶ Context
//!   worker: a range of pages ─▶ whole lines ─┘
//! ```
//!
//! The row that a snapshot sees stays in its page, and every page is in one range, so each row is read once. A range holds
//! those pages of every leaf of a partitioned table: the root is read, as by one connection, with its columns and its rights.

mod work;
mod worker;

use std::sync::Arc;
use std::sync::mpsc as finish;
use std::thread;

use tokio::sync::mpsc;

use work::{Report, Work};
use worker::Worker;

use super::ranges::{Heaps, Ranges, why_not};
use super::reading::Reading;
use super::snapshot::{BEGIN, Snapshot, lock};
use crate::error::{Error, Result};
use crate::logging::RecordCounter;
use crate::pg::connect::Server;
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::sync::cancel::CANCEL_PATIENCE;
use crate::sync::env::Env;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// The timeout of a worker's lock on the table. A session that waits to alter the table waits for the copy's session,
/// and the server does not know that the copy's session in turn waits for the worker.
const LOCK_PATIENCE: &str = "10s";

/// Whether a table can be read by several connections; logs why it can't.
pub(super) fn is_possible(env: &Env, session: &Session, plan: &StreamPlan) -> bool {
    if env.config.copy_parallelism.get() == 1 {
        return false;
    }
    let obstacle = why_not(session, plan);
    if let Some(reason) = &obstacle {
        tracing::info!("{}: copied by one connection: {reason}", plan.id);
    }
    obstacle.is_none()
}

/// Divides what is to be read among several connections, if they may read it and that is worth it.
pub(super) async fn divide(env: &Env, session: &mut Session, plan: &StreamPlan, reading: &mut Reading) -> Result<()> {
    if !may_export(session, plan).await? {
        return Ok(());
    }
    let Some(heaps) = Heaps::read(session, plan).await? else { return Ok(()) };
    reading.ranges = Ranges::for_connections(&heaps, env.config.copy_parallelism.get());
    reading.several = reading.ranges.clone().nth(1).is_some();
    Ok(())
}

/// Whether the role may have several sessions see the same.
pub(super) async fn may_export(session: &mut Session, plan: &StreamPlan) -> Result<bool> {
    let sql = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_export_snapshot()', 'EXECUTE')";
    let allowed = session.query_bool(sql).await?;
    if !allowed {
        tracing::info!("{}: copied by one connection: the role may not export a snapshot", plan.id);
    }
    Ok(allowed)
}

/// Sends what a snapshot sees, as far as `reading` says, whose query has no order; false, and nothing done, if no other connection can
/// be had.
pub(super) async fn copy(
    output: &mut Output,
    env: &Env,
    server: &Server,
    snapshot: &mut Snapshot,
    plan: &StreamPlan,
    reading: &mut Reading,
) -> Result<bool> {
    let ranges = reading.ranges.clone().count();
    let workers = env.config.copy_parallelism.get().min(ranges);
    tracing::info!("{}: copied in {ranges} ranges by up to {workers} connections", plan.id);
    let begin = format!(
        "{BEGIN}; SET TRANSACTION SNAPSHOT {}; SET LOCAL lock_timeout = '{LOCK_PATIENCE}'; {}",
        quote::literal(&snapshot.export().await?),
        lock(plan)
    );
    let work = Arc::new(Work::new(server.clone(), begin, plan.end_of_rows(reading.version), reading));
    // The first lines of the workers may take long.
    output.hand_over().await?;
    let counter = RecordCounter::of_rows(&plan.id, reading.query.expected_rows(plan), reading.before);
    let copied = Crew::start(&work, plan, workers).copy(output, plan, counter, reading).await?;
    reading.ranges = work.left();
    Ok(copied)
}

/// The workers of a copy. Dropped before they have ended, it has their queries cancelled.
struct Crew {
    work: Arc<Work>,
    reports: mpsc::Receiver<Report>,
    /// The channel that is closed when all workers have ended.
    finished: finish::Receiver<()>,
}

impl Crew {
    fn start(work: &Arc<Work>, plan: &StreamPlan, workers: usize) -> Crew {
        let (report, reports) = mpsc::channel(workers);
        let (running, finished) = finish::channel::<()>();
        for _ in 0..workers {
            let worker = Worker::new(Arc::clone(work), plan.clone(), report.clone());
            let running = running.clone();
            let spawned = thread::Builder::new().spawn(move || {
                worker.run();
                drop(running);
            });
            if let Err(error) = spawned {
                tracing::info!("{}: one thread less copies: {error}", plan.id);
            }
        }
        Crew { work: Arc::clone(work), reports, finished }
    }

    /// Passes the lines on until all ranges that were begun are read; false if no worker could begin.
    async fn copy(
        mut self,
        output: &mut Output,
        plan: &StreamPlan,
        mut counter: RecordCounter,
        reading: &mut Reading,
    ) -> Result<bool> {
        while let Some(report) = self.reports.recv().await {
            match report {
                Report::Lines { mut json, records } => {
                    counter.add(records, json.len());
                    output.append_records(&mut json);
                    self.work.give_back(json);
                    output.hand_over().await?;
                }
                Report::Done(range) => {
                    if reading.sent(&range) {
                        reading.store(&mut output.state);
                        output.write_state().await?;
                    }
                }
                Report::Refused(error) => tracing::info!("{}: one connection less copies: {error}", plan.id),
                Report::Failed(error) => return Err(error),
            }
        }
        if !self.work.has_begun() {
            return Ok(false);
        }
        // A worker that panicked reports nothing.
        if !self.work.is_done() {
            return Err(Error::run("a thread of the copy ended before its work"));
        }
        counter.finish();
        Ok(true)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.reports.close();
        // Returns when every worker has ended, which closes the channel.
        let _ = self.finished.recv_timeout(CANCEL_PATIENCE);
    }
}
