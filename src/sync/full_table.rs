//! FULL_TABLE: every row on every run, under a new version each time.

use super::context::Context;
use super::copy::{copy_rows, select};
use super::plan::StreamPlan;
use super::version_now;
use crate::error::Result;
use crate::pg::wire::Session;
use crate::state::Copy;

/// Sends the whole table.
pub(super) async fn sync(ctx: &mut Context, session: &mut Session, plan: &mut StreamPlan) -> Result<()> {
    tracing::info!("{}: reading the whole table", plan.id);
    let first_run = ctx.state.bookmark(&plan.id).version().is_none();
    let version = version_now();
    ctx.state.set_full_table(&plan.id, version, Copy::Unfinished);
    ctx.schema(&plan.id, &plan.schema, &plan.key_properties, &[]);
    if first_run {
        // The target has nothing yet that it could take for the current version.
        ctx.activate_version(&plan.id, version);
    }
    let query = select(plan);
    copy_rows(ctx, session, plan, &query, version, None).await?;
    ctx.activate_version(&plan.id, version);
    ctx.state.set_full_table(&plan.id, version, Copy::Finished);
    Ok(())
}
