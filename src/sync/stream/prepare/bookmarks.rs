//! Whether the log still has what comes after the bookmarks.

use std::collections::HashSet;

use crate::config::OnSlotLost;
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::state::State;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;

/// Rule: nothing is read from a slot that can't bring everything since a bookmark.
pub(crate) async fn check_bookmarks(
    env: &Env,
    client: &Client,
    slot: &str,
    confirmed_flush: Lsn,
    plans: &[StreamPlan],
    state: &State,
    copy_again: &mut HashSet<String>,
) -> Result<()> {
    let end = wal_end(client).await?;
    for plan in plans {
        if copy_again.contains(&plan.id) {
            continue;
        }
        let Some(problem) = gap(plan, state, slot, confirmed_flush, end) else { continue };
        if env.config.on_slot_lost == OnSlotLost::Fail {
            return Err(problem);
        }
        tracing::warn!("{problem}; copying the stream again");
        copy_again.insert(plan.id.clone());
    }
    Ok(())
}

/// The error for a bookmark that the slot can't serve; `end`: where the server's log ends.
pub(crate) fn gap(plan: &StreamPlan, state: &State, slot: &str, confirmed_flush: Lsn, end: Lsn) -> Option<Error> {
    let lsn = Lsn(position(plan, state).filter(|&lsn| lsn != 1)?);
    if lsn > end {
        let text = format!("the bookmark of \"{}\" is at {lsn}, but the server's log ends at {end}", plan.id);
        Some(Error::run(text).hint(
            "the server was restored from a backup or is another one: remove the stream's bookmark to copy it again, or set \
             on_slot_lost to copy_again",
        ))
    } else if confirmed_flush > lsn {
        let text = format!(
            "replication slot \"{slot}\" stands at {confirmed_flush}, past the bookmark of \"{}\" at {lsn}: the changes \
             between are gone",
            plan.id
        );
        Some(Error::run(text).hint(
            "something else moved the slot, or made it anew: remove the stream's bookmark to copy it again, or set \
             on_slot_lost to copy_again; give each tap a slot of its own",
        ))
    } else {
        None
    }
}

/// Whether a stream's bookmark says that its copy is done and its changes are to be streamed.
pub(crate) fn is_streamed(plan: &StreamPlan, state: &State) -> bool {
    position(plan, state).is_some()
}

/// From where on its changes are to be streamed, where its copy is done; 1 for "where the slot stands".
pub(crate) fn position(plan: &StreamPlan, state: &State) -> Option<u64> {
    let bookmark = state.bookmark(&plan.id);
    let is_same_table = bookmark.table_oid().is_none_or(|oid| oid == plan.table.oid);
    bookmark.lsn().filter(|_| is_same_table && !state.copy_unfinished(&plan.id))
}

/// How far the server's log goes: flushed, or replayed on a standby.
pub(crate) async fn wal_end(client: &Client) -> Result<Lsn> {
    let sql = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
               ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the WAL position", e))?;
    row.field::<Option<&str>>(0)?
        .and_then(|lsn| lsn.parse().ok())
        .ok_or_else(|| Error::run("the server does not say where its WAL ends"))
}
