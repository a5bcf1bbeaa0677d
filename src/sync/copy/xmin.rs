//! INCREMENTAL without a column: the rows that were written since the snapshot of the run before, by the transaction ids that they
//! have in `xmin`.
//!
//! ```text
//! bookmark = xmin of the last snapshot        xmax of this one
//! ──────────────┼──────────────────────────────────┼──▶ transaction ids
//!   all ended,  │ ended or not, seen or not: what  │ none of them
//!   all seen    │ has ended is read (again)        │ is seen
//! ```
//!
//! The id in a row is that of its last writer, or of a subtransaction of it, which is the greater one. Any that the last snapshot
//! did not see is not below the `xmin` of that, the oldest id that was running; any that this one sees is below its `xmax`.

mod tables;
mod window;

use serde_json::{Value, json};

pub(crate) use tables::refusal;
use window::Window;

use super::held::{Present, describe_held};
use super::parallel;
use super::query::copy_snapshot;
use super::reading::Reading;
use super::rows::RowQuery;
use super::sessions::Sessions;
use super::snapshot::{Snapshot, lock};
use crate::error::Result;
use crate::pg::wire::Session;
use crate::positions::TransactionSnapshot;
use crate::state::State;
use crate::sync::env::{Env, next_version, version_now};
use crate::sync::output::Output;
use crate::sync::plan::{StreamPlan, XMIN};
use crate::sync::visibility::visible_to;

/// Sends the rows that were written since the last run. They have no order, so that the bookmark moves when all are sent.
pub(crate) async fn sync(
    output: &mut Output,
    env: &Env,
    sessions: &mut Sessions<'_>,
    plan: &mut StreamPlan,
) -> Result<()> {
    tracing::info!("{}: reading rows by xmin", plan.id);
    let mut snapshot = Snapshot::begin(sessions.take().await?).await?;
    let session = snapshot.session();
    // What is altered from here on, the next run finds out; what was before, since the table was described, this one does.
    let seen = visible_to(session).await?;
    env.query_in_hand.set(sessions.server(), session);
    session.query(&lock(plan)).await?;
    describe_held(Present::Client(sessions.client()), sessions.server(), plan).await?;

    let bookmark = output.state.bookmark(&plan.id);
    let is_another = bookmark.table_oid().is_some_and(|oid| oid != plan.table.oid);
    let (from, version) = if is_another {
        tracing::warn!("{}: the table was dropped and made again; reading it anew", plan.id);
        (None, next_version(bookmark))
    } else {
        (bookmark.replication_key_value().cloned(), bookmark.version().unwrap_or_else(version_now))
    };
    let condition = match &from {
        Some(bookmark) => written_since(session, plan, bookmark, &seen).await?,
        None => None,
    };
    set_bookmark(&mut output.state, plan, from, version);
    // It is no property of a record: a target may look for one.
    output.schema(&plan.id, &plan.schema, &plan.key_properties, &[]);
    output.activate_version(&plan.id, version);
    let mut query = RowQuery::of(plan);
    if let Some(condition) = condition {
        query.narrow(condition);
    }
    let mut reading = Reading::of(query, version);
    if parallel::is_possible(env, session, plan) {
        parallel::divide(env, session, plan, &mut reading).await?;
    }
    copy_snapshot(output, env, sessions.server(), &mut snapshot, plan, &mut reading).await?;
    sessions.give_back(snapshot.end().await?);
    set_bookmark(&mut output.state, plan, Some(json!(seen.xmin().to_string())), version);
    Ok(())
}

/// Returns the condition for rows that were written since the bookmark; `None` where all rows have to be read.
async fn written_since(
    session: &mut Session,
    plan: &StreamPlan,
    bookmark: &Value,
    seen: &TransactionSnapshot,
) -> Result<Option<String>> {
    let id = bookmark.as_str().map_or_else(|| bookmark.to_string(), |text| text.trim().to_owned());
    let Some(first) = id.parse().ok().filter(|first| *first <= seen.xmax()) else {
        tracing::warn!(
            "{}: the bookmark is no transaction that this server has had: it is another server, was restored from a backup, or lags \
             behind the one that was read before; reading the whole table",
            plan.id
        );
        return Ok(None);
    };
    let Some(window) = Window::new(first, seen.xmax()) else {
        tracing::info!(
            "{}: half of all transaction ids were used since the bookmark; reading the whole table",
            plan.id
        );
        return Ok(None);
    };
    let altered = tables::altered(session, plan, window).await?;
    if altered.contains(&plan.table.oid) {
        tracing::info!("{}: its columns were altered since the bookmark; reading the whole table", plan.id);
        return Ok(None);
    }
    let listed = session.server_version().hashes_lists() && window.is_worth_a_list(plan.table.row_estimate);
    let written = window.holds(XMIN, listed);
    if altered.is_empty() {
        return Ok(Some(written));
    }
    tracing::info!("{}: all rows of {} tables below it that are new or were altered are read", plan.id, altered.len());
    let oids: Vec<String> = altered.iter().map(u32::to_string).collect();
    Ok(Some(format!("({written} OR tableoid = ANY ('{{{}}}'::pg_catalog.oid[]))", oids.join(","))))
}

fn set_bookmark(state: &mut State, plan: &StreamPlan, value: Option<Value>, version: i64) {
    state.set_incremental(&plan.id, XMIN, value, version);
    state.set_table(&plan.id, plan.table.oid);
}
