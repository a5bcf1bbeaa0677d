//! `COPY … TO STDOUT` into RECORD messages: the loop that initial copies, FULL_TABLE and INCREMENTAL share.

use std::time::Duration;

use super::context::Context;
use super::incremental::KeyTracker;
use super::plan::{RecordEnd, StreamPlan};
use crate::error::Result;
use crate::logging::RecordCounter;
use crate::pg::copy::{Field, fields, unescape};
use crate::pg::quote;
use crate::pg::wire::Session;

/// Lines don't wait for longer than this while no row comes.
const PAUSE: Duration = Duration::from_secs(1);

/// The SELECT of the plan's columns from its table; the caller adds what follows FROM.
pub(super) fn select(plan: &StreamPlan) -> String {
    let columns: Vec<String> = plan.columns.iter().map(|c| quote::ident(&c.name)).collect();
    let query = format!("SELECT {} FROM {}", columns.join(", "), plan.own_rows());
    // As far as it holds no value.
    tracing::debug!("{}: {query}", plan.id);
    query
}

/// Sends a whole table under this version; the target drops rows of others at the end. `first_run`: it has none yet that it
/// could take for the current one.
pub(super) async fn copy_table(
    ctx: &mut Context,
    session: &mut Session,
    plan: &mut StreamPlan,
    version: i64,
    first_run: bool,
) -> Result<()> {
    ctx.schema(&plan.id, &plan.schema, &plan.key_properties, &[]);
    if first_run {
        ctx.activate_version(&plan.id, version);
    }
    let query = select(plan);
    copy_rows(ctx, session, plan, &query, version, None).await?;
    ctx.activate_version(&plan.id, version);
    Ok(())
}

/// Sends every row that `query` yields, whose columns are the plan's; keeps `tracker` informed.
pub(super) async fn copy_rows(
    ctx: &mut Context,
    session: &mut Session,
    plan: &mut StreamPlan,
    query: &str,
    version: i64,
    mut tracker: Option<&mut KeyTracker>,
) -> Result<()> {
    let end = RecordEnd::new(version);
    let mut counter = RecordCounter::new(&plan.id);
    let mut scratch = Vec::new();
    // The server may think for long before the first row.
    ctx.hand_over().await?;
    let mut rows = session.copy_out(&format!("COPY ({query}) TO STDOUT")).await?;
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        let row = tokio::select! {
            biased;
            row = rows.next() => row?,
            // A slow query: what there is goes out meanwhile.
            _ = pause.tick() => {
                ctx.hand_over().await?;
                continue;
            }
        };
        let Some(row) = row else { break };
        ctx.before_record();
        let out = &mut ctx.out.buf;
        plan.start_record(out);
        for (index, (column, field)) in plan.columns.iter_mut().zip(fields(row)).enumerate() {
            if index > 0 {
                out.byte(b',');
            }
            let text = match field {
                Field::Null => None,
                Field::Plain(text) => Some(text),
                Field::Escaped(text) => Some(unescape(text, &mut scratch)),
            };
            column.encode(text, out);
            if let (Some(tracker), Some(text)) = (&mut tracker, text) {
                tracker.see(index, &column.codec, text);
            }
        }
        end.write(out);
        ctx.mark();
        counter.add(1);
        if tracker.as_mut().is_some_and(|tracker| tracker.row(&mut ctx.state)) {
            ctx.write_state().await?;
        } else if ctx.out.is_full() {
            ctx.hand_over().await?;
        }
    }
    counter.finish();
    Ok(())
}
