//! The rows of a query, into the run's messages.

use super::key_tracker::KeyTracker;
use super::parallel;
use super::reading::Reading;
use super::rows::write_rows;
use super::run_sink::RunSink;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::logging::RecordCounter;
use crate::pg::connect::Server;
use crate::pg::wire::Session;
use crate::sync::env::Env;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// Sends what a snapshot sees, as far as `reading` says, by several connections where they may read it.
pub(super) async fn copy_snapshot(
    output: &mut Output,
    env: &Env,
    server: &Server,
    snapshot: &mut Snapshot,
    plan: &mut StreamPlan,
    reading: &mut Reading,
) -> Result<()> {
    env.query_in_hand.set(server, snapshot.session());
    if reading.several && parallel::copy(output, env, server, snapshot, plan, reading).await? {
        return Ok(());
    }
    copy_rows(output, snapshot.session(), plan, reading, None).await
}

/// Sends what `reading` says by one connection; the columns of its query are the plan's. `tracker` follows the replication key.
pub(super) async fn copy_rows(
    output: &mut Output,
    session: &mut Session,
    plan: &mut StreamPlan,
    reading: &mut Reading,
    tracker: Option<&mut KeyTracker>,
) -> Result<()> {
    let counter = RecordCounter::of_rows(&plan.id, reading.query.expected_rows(plan), reading.before);
    let mut sink = RunSink::new(output, plan.end_of_rows(reading.version), counter, tracker);
    while let Some((range, sql)) = reading.next() {
        write_rows(session, plan, &sql, &mut sink).await?;
        if reading.sent(&range) {
            reading.store(&mut sink.output.state);
            sink.output.write_state().await?;
        }
    }
    sink.counter.finish();
    Ok(())
}
