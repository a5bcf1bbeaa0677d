//! INCREMENTAL: the rows whose replication key is at or past the bookmark, in the order of the key.

use serde_json::Value;

use super::held::{Present, describe_held};
use super::key_tracker::KeyTracker;
use super::query::copy_rows;
use super::reading::Reading;
use super::rows::RowQuery;
use super::sessions::Sessions;
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::pg::order::{Comparison, Order};
use crate::pg::quote;
use crate::sync::env::{Env, version_now};
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;
use crate::types::Codec;

/// Sends the rows since the last run.
pub(crate) async fn sync(
    output: &mut Output,
    env: &Env,
    sessions: &mut Sessions<'_>,
    plan: &mut StreamPlan,
) -> Result<()> {
    let session = sessions.take().await?;
    env.query_in_hand.set(sessions.server(), &session);
    let mut snapshot = Snapshot::begin_with_lock(session, plan).await?;
    describe_held(Present::Session(snapshot.session()), sessions.server(), plan).await?;
    let (key, position, order) = replication_key(plan)?;
    let (key, order) = (key.to_owned(), order.clone());
    tracing::info!("{}: reading rows by {key}", plan.id);
    let bookmark = output.state.bookmark(&plan.id);
    let version = bookmark.version().unwrap_or_else(version_now);
    let from = bookmark.replication_key_value().cloned();

    let ident = quote::ident(&key);
    let mut query = RowQuery::of(plan);
    let mut at_bookmark = String::new();
    if let Some(value) = &from {
        let text = match value {
            Value::String(text) => text.clone(),
            // `bit(1)` has booleans too, and both types read a digit.
            Value::Bool(value) => u8::from(*value).to_string(),
            other => other.to_string(),
        };
        // A bytea may be its hex digits alone, which are another value to the server.
        let text = plan.columns[position].codec.as_printed(text.as_bytes());
        let literal = quote::literal(&String::from_utf8_lossy(&text));
        query.narrow(order.compare(&ident, Comparison::AtLeast, &literal));
        let equal = order.compare(&ident, Comparison::Equal, &literal);
        let conditions: Vec<&str> = plan.filter.as_deref().into_iter().chain([equal.as_str()]).collect();
        let conditions = conditions.join(" AND ");
        at_bookmark = format!(" + (SELECT pg_catalog.count(*) FROM {} WHERE {conditions})", plan.own_rows());
    }
    // By the default operator class, whatever is on the search_path.
    query.order = format!(" ORDER BY {ident}");
    if let Some(limit) = env.config.limit() {
        // The rows of the bookmark come again, and don't count: however many have its value, the run gets past them.
        query.order += &format!(" LIMIT {limit}{at_bookmark}");
    }

    let state_every = env.config.rows_between_states();
    let mut tracker = KeyTracker::new(plan.id.clone(), key.clone(), position, version, state_every);
    output.state.set_incremental(&plan.id, &key, from.clone(), version);
    output.schema(&plan.id, &plan.schema, &plan.key_properties, &[&key]);
    output.activate_version(&plan.id, version);
    copy_rows(output, snapshot.session(), plan, &mut Reading::of(query, version), Some(&mut tracker)).await?;
    sessions.give_back(snapshot.end().await?);
    tracker.store(&mut output.state);
    let reached = output.state.bookmark(&plan.id).replication_key_value();
    if reached == from.as_ref() && env.config.limit().is_some_and(|limit| tracker.rows() >= limit) {
        tracing::warn!(
            "{}: the rows within `limit` have keys that no bookmark can hold (NULL, infinity, dates before year 1), so that the \
             next run reads them again: raise `limit`",
            plan.id
        );
    }
    Ok(())
}

/// Returns the column that the stream is replicated by, its index among the selected ones, and the order of its values.
pub(crate) fn replication_key(plan: &StreamPlan) -> Result<(&str, usize, &Order)> {
    let key = plan.replication_key.as_deref().ok_or_else(|| {
        Error::usage(format!("stream \"{}\" is INCREMENTAL but has no replication key", plan.id))
            .hint("set replication-key in the table's metadata in the catalog: a column that grows, or xmin, which every table has")
    })?;
    let Some(position) = plan.position(key) else {
        return Err(Error::usage(format!("stream \"{}\" has no selected column \"{key}\" to replicate by", plan.id))
            .hint("select the replication key, or choose another"));
    };
    if !can_be_bookmarked(&plan.columns[position].codec) {
        return Err(Error::usage(format!("stream \"{}\" can't be replicated by \"{key}\"", plan.id))
            .hint("no bookmark can hold a value of its type exactly: choose another replication key"));
    }
    let order = plan.table.column(key).and_then(|column| column.ty.order()).ok_or_else(|| {
        Error::usage(format!("stream \"{}\" can't be replicated by \"{key}\"", plan.id))
            .hint("the values of its type have no order: choose another replication key")
    })?;
    Ok((key, position, order))
}

/// Whether a bookmark can hold a key: a number, a text or a boolean that reads back as what it was. A `timetz` does
/// not: its order depends on the offset, which a record leaves out.
fn can_be_bookmarked(codec: &Codec) -> bool {
    !matches!(codec, Codec::Array(_) | Codec::Json | Codec::Hstore | Codec::Timetz)
}
