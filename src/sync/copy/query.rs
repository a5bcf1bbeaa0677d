//! The rows of one query, into the run's messages or into batches.

use super::batch::BatchSink;
use super::key_tracker::KeyTracker;
use super::rows::{RowQuery, write_rows};
use super::run_sink::RunSink;
use crate::error::Result;
use crate::logging::RecordCounter;
use crate::pg::wire::Session;
use crate::sync::env::Env;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// Sends every row that `query` yields, whose columns are the plan's; `tracker` follows the replication key.
pub(super) async fn copy_rows(
    output: &mut Output,
    env: &Env,
    session: &mut Session,
    plan: &mut StreamPlan,
    query: &RowQuery,
    version: i64,
    tracker: Option<&mut KeyTracker>,
) -> Result<()> {
    let counter = RecordCounter::of_rows(&plan.id, query.expected_rows(plan));
    if let Some(config) = &env.config.batch_config {
        let mut sink = BatchSink::new(output, config.clone(), plan, version, counter, tracker);
        write_rows(session, plan, &query.sql(), &mut sink).await?;
        return sink.finish().await;
    }
    let mut sink = RunSink::new(output, version, counter, tracker);
    write_rows(session, plan, &query.sql(), &mut sink).await?;
    sink.counter.finish();
    Ok(())
}
