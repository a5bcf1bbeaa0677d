//! FULL_TABLE: every row on every run, under a new version each time.

use crate::sync::output::Context;
use super::rows::{TableSource, copy_table};
use crate::sync::plan::StreamPlan;
use crate::sync::env::{Env, next_version};
use crate::error::Result;
use crate::pg::wire::Session;
use crate::state::Copy;

/// Sends the whole table.
pub(crate) async fn sync(ctx: &mut Context, env: &Env, session: &mut Session, plan: &mut StreamPlan) -> Result<()> {
    tracing::info!("{}: reading the whole table", plan.id);
    let bookmark = ctx.state.bookmark(&plan.id);
    let (first_run, version) = (bookmark.version().is_none(), next_version(bookmark));
    ctx.state.set_full_table(&plan.id, version, Copy::Unfinished);
    let mut source = TableSource::new(env, env.tables(), session);
    copy_table(ctx, &mut source, plan, version, first_run).await?;
    ctx.state.set_full_table(&plan.id, version, Copy::Finished);
    Ok(())
}
