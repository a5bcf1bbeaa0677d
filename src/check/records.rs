//! The messages of a check: each stream's SCHEMA and one RECORD. No STATE: nothing was read that a run need not read.

use super::report::Report;
use crate::cli::TestOutput;
use crate::error::{Context as _, ErrorKind, Result};
use crate::method::ReplicationMethod;
use crate::pg::wire::Session;
use crate::singer::{JsonBuf, MessageWriter};
use crate::state::State;
use crate::sync::copy::rows::{Lines, select, write_rows};
use crate::sync::plan::{RecordEnd, StreamPlan};
use crate::sync::env::{Env, version_now};
use crate::sync::output::Context;

/// Writes the messages of these streams to stdout.
pub(super) async fn write(
    report: &mut Report,
    env: &Env,
    state: State,
    plans: &mut [StreamPlan],
    output: TestOutput,
) -> Result<()> {
    let mut ctx = Context::new(MessageWriter::new(std::io::stdout()), state);
    let mut session = None;
    if output == TestOutput::Records && !plans.is_empty() {
        match env.tables().session().await {
            Ok(connected) => session = Some(connected),
            Err(error) => report.failure(&error),
        }
    }
    for plan in plans {
        let by = plan.replication_key.as_deref().filter(|_| plan.method == ReplicationMethod::Incremental);
        ctx.schema(&plan.id, &plan.schema, &plan.key_properties, &by.into_iter().collect::<Vec<_>>());
        if let Some(session) = &mut session {
            record(report, &mut ctx, session, plan).await?;
        }
    }
    ctx.out.finish().await
}

/// Writes a record of a stream.
async fn record(report: &mut Report, ctx: &mut Context, session: &mut Session, plan: &mut StreamPlan) -> Result<()> {
    let end = RecordEnd::new(ctx.state.bookmark(&plan.id).version().unwrap_or_else(version_now));
    let query = format!("{} LIMIT 1", select(plan));
    let mut lines = TestLines { out: &mut ctx.out, end, records: 0 };
    let written = write_rows(session, plan, &query, &mut lines).await;
    let id = &plan.id;
    match written.context(|| format!("{id}: cannot read a row")) {
        Ok(()) if lines.records == 0 => report.ok(format_args!("{id}: it has no row to print")),
        Ok(()) => report.ok(format_args!("{id}: a row was read")),
        Err(error) if error.kind() == ErrorKind::Output => return Err(error),
        Err(error) => report.failure(&error),
    }
    Ok(())
}

/// What takes the lines, without a bookmark that follows them.
struct TestLines<'a> {
    out: &'a mut MessageWriter,
    end: RecordEnd,
    records: u64,
}

impl Lines for TestLines<'_> {
    fn begin(&mut self, plan: &StreamPlan) {
        plan.start_record(&mut self.out.buf);
    }

    fn buf(&mut self) -> &mut JsonBuf {
        &mut self.out.buf
    }

    async fn end(&mut self) -> Result<()> {
        self.end.write(&mut self.out.buf);
        self.records += 1;
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<()> {
        self.out.drain().await
    }
}
