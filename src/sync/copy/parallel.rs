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

mod ranges;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as finish;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use ranges::{Ranges, why_not};
use worker::Worker;

use crate::sync::output::Context;
use super::rows::TableSource;
use super::initial::sees_rows;
use crate::sync::plan::{RecordEnd, StreamPlan};
use crate::sync::transaction_snapshot::BEGIN;
use crate::error::{Error, Result};
use crate::logging::RecordCounter;
use crate::pg::connect::Server;
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::singer::writer::KEEP;

/// How long a worker may wait for the table. Who waits to alter it waits for the copy's session, which the server does not
/// know to be waiting for this one.
const LOCK_PATIENCE: &str = "10s";
/// How long a copy that is cut short waits for the server to take cancel requests.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// Sends the rows of a whole table, which `query` selects; false if that is left to one connection.
pub(crate) async fn copy(
    ctx: &mut Context,
    source: &mut TableSource<'_>,
    plan: &StreamPlan,
    query: &str,
    version: i64,
) -> Result<bool> {
    if source.parallelism == 1 {
        return Ok(false);
    }
    if ctx.batches.is_some() {
        tracing::info!("{}: copied by one connection: its rows go into batches", plan.id);
        return Ok(false);
    }
    if let Some(reason) = why_not(source.session, plan) {
        tracing::info!("{}: copied by one connection: {reason}", plan.id);
        return Ok(false);
    }
    if source.in_transaction {
        return copy_snapshot(ctx, source, plan, query, version).await;
    }
    source.session.query(BEGIN).await?;
    let copied = sees_rows(source.session, plan).await? && copy_snapshot(ctx, source, plan, query, version).await?;
    source.session.query("COMMIT").await?;
    Ok(copied)
}

/// The same, what the transaction of the copy's session sees.
async fn copy_snapshot(
    ctx: &mut Context,
    source: &mut TableSource<'_>,
    plan: &StreamPlan,
    query: &str,
    version: i64,
) -> Result<bool> {
    let Some(ranges) = Ranges::of(source.session, plan, source.parallelism).await? else { return Ok(false) };
    let workers = source.parallelism.min(ranges.len());
    tracing::info!("{}: copied in {} ranges by up to {workers} connections", plan.id, ranges.len());
    let begin = format!(
        "{BEGIN}; SET TRANSACTION SNAPSHOT {}; SET LOCAL lock_timeout = '{LOCK_PATIENCE}'; SELECT FROM {} LIMIT 0",
        quote::literal(&export_snapshot(source.session).await?),
        plan.own_rows()
    );
    let work = Arc::new(Work {
        server: source.server.clone(),
        begin,
        query: query.to_owned(),
        end: RecordEnd::new(version),
        ranges,
        next: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        empty: Mutex::default(),
    });
    // Nothing may come for long.
    ctx.hand_over().await?;
    Crew::start(&work, plan, workers).copy(ctx, plan).await
}

async fn export_snapshot(session: &mut Session) -> Result<String> {
    let name = session.query_value("SELECT pg_catalog.pg_export_snapshot()").await?;
    name.ok_or_else(|| Error::run("the server does not name the snapshot that it exported"))
}

/// What the workers of a copy share.
struct Work {
    server: Server,
    /// What a session begins with: the snapshot, and a lock on the table.
    begin: String,
    query: String,
    end: RecordEnd,
    ranges: Ranges,
    /// The first range that nobody has taken.
    next: AtomicUsize,
    /// How many ranges were read and their lines handed over.
    done: AtomicUsize,
    /// Memory of lines that have gone out.
    empty: Mutex<Vec<Vec<u8>>>,
}

impl Work {
    fn take_range(&self) -> Option<String> {
        self.ranges.query(&self.query, self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn take_empty(&self) -> Vec<u8> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, memory: Vec<u8>) {
        if memory.capacity() <= KEEP {
            self.empty.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        }
    }
}

/// What a worker tells.
enum Report {
    /// Whole lines.
    Lines { json: Vec<u8>, records: u64 },
    /// It could not begin.
    Refused(Error),
    /// It could not go on.
    Failed(Error),
}

/// The workers of a copy. Dropped before they are through, it has their queries cancelled.
struct Crew {
    work: Arc<Work>,
    reports: mpsc::Receiver<Report>,
    /// Closed when all have ended.
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

    /// Passes the lines on until all ranges are read; false if no worker could begin.
    async fn copy(mut self, ctx: &mut Context, plan: &StreamPlan) -> Result<bool> {
        let mut counter = RecordCounter::of_rows(&plan.id, Some(plan.table.row_estimate));
        while let Some(report) = self.reports.recv().await {
            match report {
                Report::Lines { mut json, records } => {
                    ctx.before_record();
                    counter.add(records, json.len());
                    ctx.out.buf.append(&mut json);
                    ctx.mark();
                    self.work.give_back(json);
                    ctx.hand_over().await?;
                }
                Report::Refused(error) => tracing::info!("{}: one connection less copies: {error}", plan.id),
                Report::Failed(error) => return Err(error),
            }
        }
        if self.work.next.load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        // A worker that panicked reports nothing.
        if self.work.done.load(Ordering::Relaxed) != self.work.ranges.len() {
            return Err(Error::run("a thread of the copy ended before its work"));
        }
        counter.finish();
        Ok(true)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.reports.close();
        // An error that it is closed is what is waited for.
        let _ = self.finished.recv_timeout(CANCEL_PATIENCE);
    }
}
