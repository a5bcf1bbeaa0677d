//! One of the connections that copy a table.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::work::{Report, Work};
use crate::error::{Error, Result};
use crate::pg::wire::Session;
use crate::singer::JsonBuf;
use crate::singer::writer::CHUNK;
use crate::sync::cancel::cancel;
use crate::sync::copy::rows::write_rows;
use crate::sync::copy::sink::RowSink;
use crate::sync::plan::StreamPlan;

/// A worker, which reads range after range on a thread of its own.
pub(crate) struct Worker {
    work: Arc<Work>,
    plan: StreamPlan,
    reports: mpsc::Sender<Report>,
}

impl Worker {
    pub(crate) fn new(work: Arc<Work>, plan: StreamPlan, reports: mpsc::Sender<Report>) -> Self {
        Worker { work, plan, reports }
    }

    /// Reads ranges until there is none left, or nobody to take the lines.
    pub(crate) fn run(self) {
        let reports = self.reports.clone();
        let refused = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => return runtime.block_on(self.work()),
            Err(error) => Error::run("cannot start the runtime of a thread").source(error),
        };
        // The send fails only if the copy has ended.
        let _ = reports.blocking_send(Report::Refused(refused));
    }

    async fn work(mut self) {
        let reports = self.reports.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = reports.closed() => return,
        };
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => {
                let _ = reports.send(Report::Refused(error)).await;
                return;
            }
        };
        let token = session.cancel_token();
        let read = tokio::select! {
            biased;
            // Cut short.
            () = reports.closed() => {
                cancel(&self.work.server, token).await;
                return;
            }
            read = self.read(&mut session) => read,
        };
        match read {
            Ok(()) => session.close().await,
            Err(error) => {
                let _ = reports.send(Report::Failed(error)).await;
            }
        }
    }

    /// Opens a session that sees what the copy's session sees, and locks the table.
    async fn open(&self) -> Result<Session> {
        let mut session = self.work.server.session_now().await?;
        session.query(&self.work.begin).await?;
        Ok(session)
    }

    async fn read(&mut self, session: &mut Session) -> Result<()> {
        let mut sink = WorkerSink { work: &self.work, reports: &self.reports, buf: JsonBuf::new(), records: 0 };
        while let Some((range, query)) = self.work.take_range() {
            write_rows(session, &mut self.plan, &query, &mut sink).await?;
            sink.hand_over().await?;
            self.work.range_done();
            sink.report(Report::Done(range)).await?;
        }
        Ok(())
    }
}

/// A sink that gathers lines for the run.
struct WorkerSink<'a> {
    work: &'a Work,
    reports: &'a mpsc::Sender<Report>,
    buf: JsonBuf,
    records: u64,
}

impl RowSink for WorkerSink<'_> {
    #[inline]
    fn begin(&mut self, plan: &StreamPlan) {
        self.records += 1;
        plan.start_record(&mut self.buf);
    }

    #[inline]
    fn buf(&mut self) -> &mut JsonBuf {
        &mut self.buf
    }

    #[inline]
    async fn end(&mut self) -> Result<()> {
        self.work.end.write(&mut self.buf);
        if self.buf.len() >= CHUNK { self.hand_over().await } else { Ok(()) }
    }

    async fn hand_over(&mut self) -> Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let json = self.buf.replace(self.work.take_empty());
        let records = std::mem::take(&mut self.records);
        self.report(Report::Lines { json, records }).await
    }
}

impl WorkerSink<'_> {
    async fn report(&self, report: Report) -> Result<()> {
        self.reports.send(report).await.map_err(|_| Error::run("the copy was cut short"))
    }
}
