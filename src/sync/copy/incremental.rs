//! INCREMENTAL: the rows whose replication key is at or past the bookmark, in the order of the key.

use serde_json::Value;

use crate::sync::output::Context;
use super::rows::{copy_rows, select};
use crate::sync::plan::StreamPlan;
use crate::sync::env::version_now;
use crate::error::{Error, Result};
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::singer::JsonBuf;
use crate::state::State;
use crate::types::Codec;

/// A STATE follows every so many rows.
const STATE_EVERY: u64 = 10_000;

/// Sends the rows since the last run.
pub(crate) async fn sync(
    ctx: &mut Context,
    session: &mut Session,
    plan: &mut StreamPlan,
    limit: Option<u64>,
) -> Result<()> {
    let (key, position) = replication_key(plan)?;
    let key = key.to_owned();
    tracing::info!("{}: reading rows by {key}", plan.id);
    let bookmark = ctx.state.bookmark(&plan.id);
    let version = bookmark.version().unwrap_or_else(version_now);
    let from = bookmark.replication_key_value().cloned();

    let ident = quote::ident(&key);
    let mut query = select(plan);
    if let Some(value) = &from {
        let text = match value {
            Value::String(text) => text.clone(),
            // `bit(1)` has booleans too, and both types read a digit.
            Value::Bool(value) => u8::from(*value).to_string(),
            other => other.to_string(),
        };
        // Without a cast the literal takes the column's type and no length: `::character` would cut it to one.
        query += &format!(" WHERE {ident} >= {}", quote::literal(&text));
    }
    query += &format!(" ORDER BY {ident}");
    if let Some(limit) = limit {
        query += &format!(" LIMIT {limit}");
    }

    let mut tracker = KeyTracker::new(plan.id.clone(), key.clone(), position, version);
    ctx.state.set_incremental(&plan.id, &key, from, version);
    ctx.schema(&plan.id, &plan.schema, &plan.key_properties, &[&key]);
    ctx.activate_version(&plan.id, version);
    copy_rows(ctx, session, plan, &query, version, Some(&mut tracker)).await?;
    tracker.store(&mut ctx.state);
    Ok(())
}

/// The column that the stream is replicated by, and its place among the selected ones.
pub(crate) fn replication_key(plan: &StreamPlan) -> Result<(&str, usize)> {
    let key = plan.replication_key.as_deref().ok_or_else(|| {
        Error::usage(format!("stream \"{}\" is INCREMENTAL but has no replication key", plan.id))
            .hint("set replication-key in the table's metadata in the catalog")
    })?;
    let Some(position) = plan.position(key) else {
        return Err(Error::usage(format!("stream \"{}\" has no selected column \"{key}\" to replicate by", plan.id))
            .hint("select the replication key, or choose another"));
    };
    if !can_be_bookmarked(&plan.columns[position].codec) {
        return Err(Error::usage(format!("stream \"{}\" can't be replicated by \"{key}\"", plan.id))
            .hint("no bookmark can hold a value of its type exactly: choose another replication key"));
    }
    Ok((key, position))
}

/// Whether a bookmark can hold a key: a number, a text or a boolean that reads back as what it was. A `timetz` does not,
/// whose order is that of the offset that a record leaves out.
fn can_be_bookmarked(codec: &Codec) -> bool {
    !matches!(codec, Codec::Array(_) | Codec::Json | Codec::Hstore | Codec::Timetz)
}

/// Follows the replication key of the rows that are sent, and moves the bookmark now and then.
pub(crate) struct KeyTracker {
    stream: String,
    key: String,
    column: usize,
    version: i64,
    /// The last value as JSON; empty before there was one.
    last: JsonBuf,
    rows: u64,
}

impl KeyTracker {
    fn new(stream: String, key: String, column: usize, version: i64) -> Self {
        KeyTracker { stream, key, column, version, last: JsonBuf::new(), rows: 0 }
    }

    /// Looks at a value. A NULL is not shown to it, and a value that JSON has no exact form for (infinity, a date before
    /// year 1) is passed over: the bookmark stays at the key before.
    pub(crate) fn see(&mut self, column: usize, codec: &Codec, text: &[u8]) {
        if column == self.column && !codec.is_fallback(text) {
            self.last.clear();
            codec.encode(text, &mut self.last);
        }
    }

    /// A row was sent. Returns whether the bookmark was moved, so that a STATE should follow.
    pub(crate) fn row(&mut self, state: &mut State) -> bool {
        self.rows += 1;
        let due = self.rows.is_multiple_of(STATE_EVERY);
        if due {
            self.store(state);
        }
        due
    }

    /// Moves the bookmark to the last value.
    pub(crate) fn store(&mut self, state: &mut State) {
        if let Ok(value) = serde_json::from_slice::<Value>(self.last.as_bytes()) {
            state.set_incremental(&self.stream, &self.key, Some(value), self.version);
        }
    }
}
