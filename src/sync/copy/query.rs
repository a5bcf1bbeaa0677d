//! The rows of one query, into the run's messages or into batches.

use super::batch::BatchSink;
use super::key_tracker::KeyTracker;
use super::rows::write_rows;
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
    query: &str,
    version: i64,
    tracker: Option<&mut KeyTracker>,
) -> Result<()> {
    // How many rows are past a key, only the server could count.
    let expected = tracker.is_none().then_some(plan.table.row_estimate);
    let counter = RecordCounter::of_rows(&plan.id, expected);
    if let Some(config) = &env.config.batch_config {
        let mut sink = BatchSink::new(output, config.clone(), plan, version, counter, tracker);
        write_rows(session, plan, query, &mut sink).await?;
        return sink.finish().await;
    }
    let mut sink = RunSink::new(output, version, counter, tracker);
    write_rows(session, plan, query, &mut sink).await?;
    sink.counter.finish();
    Ok(())
}
