//! The messages of a check: each stream's SCHEMA and one RECORD. No STATE: a run still has to read everything.

use super::report::Report;
use crate::cli::TestOutput;
use crate::error::{Context as _, ErrorKind, Result};
use crate::method::ReplicationMethod;
use crate::pg::wire::Session;
use crate::singer::{JsonBuf, MessageWriter, messages};
use crate::state::State;
use crate::sync::copy::rows::{RowQuery, write_rows};
use crate::sync::copy::sink::RowSink;
use crate::sync::env::{Env, version_now};
use crate::sync::form::RecordEnd;
use crate::sync::plan::StreamPlan;

/// Writes the messages of these streams to stdout.
pub(super) async fn write(
    report: &mut Report,
    env: &Env,
    state: State,
    plans: &mut [StreamPlan],
    output: TestOutput,
) -> Result<()> {
    let mut out = MessageWriter::new(std::io::stdout());
    let mut session = None;
    if output == TestOutput::Records && !plans.is_empty() {
        match env.tables().session().await {
            Ok(connected) => session = Some(connected),
            Err(error) => report.failure(&error),
        }
    }
    for plan in plans {
        let by = plan.replication_key.as_deref();
        let by = by.filter(|_| plan.method == ReplicationMethod::Incremental && !plan.is_by_xmin());
        messages::schema(
            &mut out.buf,
            &plan.id,
            &plan.schema,
            &plan.key_properties,
            &by.into_iter().collect::<Vec<_>>(),
        );
        if let Some(session) = &mut session {
            record(report, &mut out, session, &state, plan).await?;
        }
    }
    out.finish().await
}

/// Writes a record of a stream.
async fn record(
    report: &mut Report,
    out: &mut MessageWriter,
    session: &mut Session,
    state: &State,
    plan: &mut StreamPlan,
) -> Result<()> {
    let end = plan.end_of_rows(state.bookmark(&plan.id).version().unwrap_or_else(version_now));
    let query = format!("{} LIMIT 1", RowQuery::of(plan).sql());
    let mut sink = TestSink { complete: out.buf.len(), out, end, records: 0 };
    let written = write_rows(session, plan, &query, &mut sink).await;
    // Nothing of a line that was not completed.
    sink.out.buf.truncate(sink.complete);
    let id = &plan.id;
    match written.context(|| format!("{id}: cannot read a row")) {
        Ok(()) if sink.records == 0 => report.ok(format_args!("{id}: it has no row to print")),
        Ok(()) => report.ok(format_args!("{id}: a row was read")),
        Err(error) if error.kind() == ErrorKind::Output => return Err(error),
        Err(error) => report.failure(&error),
    }
    Ok(())
}

/// A sink that moves no bookmark with its lines.
struct TestSink<'a> {
    out: &'a mut MessageWriter,
    /// How much is buffered of whole lines.
    complete: usize,
    end: RecordEnd,
    records: u64,
}

impl RowSink for TestSink<'_> {
    fn begin(&mut self, plan: &StreamPlan) {
        plan.start_record(&mut self.out.buf);
    }

    fn buf(&mut self) -> &mut JsonBuf {
        &mut self.out.buf
    }

    async fn end(&mut self) -> Result<()> {
        self.end.write(&mut self.out.buf);
        self.complete = self.out.buf.len();
        self.records += 1;
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<()> {
        self.complete = 0;
        self.out.drain().await
    }
}
