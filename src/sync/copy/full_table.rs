//! FULL_TABLE: every row on every run, under a new version each time.

use super::sessions::Sessions;
use super::table::TableCopy;
use crate::error::Result;
use crate::state::Copy;
use crate::sync::env::{Env, next_version};
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// Sends the whole table.
pub(crate) async fn sync(
    output: &mut Output,
    env: &Env,
    sessions: &mut Sessions<'_>,
    plan: &mut StreamPlan,
) -> Result<()> {
    tracing::info!("{}: reading the whole table", plan.id);
    let session = sessions.take().await?;
    let bookmark = output.state.bookmark(&plan.id);
    let (first_run, version) = (bookmark.version().is_none(), next_version(bookmark));
    let id = plan.id.clone();
    output.state.set_full_table(&id, version, Copy::Unfinished);
    let copy = TableCopy { plan, version, first_run };
    copy.copy_now(output, env, session, sessions).await?;
    output.state.set_full_table(&id, version, Copy::Finished);
    Ok(())
}
