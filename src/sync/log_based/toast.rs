//! Values that an update left alone and the log therefore leaves out: read from the table by key, many at a time.
//!
//! A record that lacks a value has a hole in its line. The line waits in the buffer with everything after it; before the
//! buffer is handed over the holes are filled. What the table holds by then may be newer than the change: then the newer
//! change follows in the stream. A row that is gone by then keeps its hole: its delete follows.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::live::Live;
use crate::config::UnchangedToast;
use crate::error::{Error, Result};
use crate::pg::connect::Server;
use crate::pg::copy::{Field, fields, unescape};
use crate::pg::error::sqlstate;
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::singer::JsonBuf;
use crate::sync::context::Context;
use crate::sync::plan::StreamPlan;
use crate::sync::transaction_snapshot::TransactionSnapshot;

/// At most so many rows wait for their values, and are read in one query,
const MOST_ROWS: usize = 200;
/// and not more than hold about so many bytes: only when they are read is known how large they are.
const BYTES: usize = 1024 * 1024;
/// While nothing is known.
const FIRST_ROWS: usize = 8;
/// How long a transaction that is in the log may stay invisible (a synchronous standby has not confirmed it).
const VISIBLE_PATIENCE: Duration = Duration::from_secs(60);

/// undefined_column
const UNDEFINED_COLUMN: &str = "42703";

type Key = Vec<Vec<u8>>;

/// The holes in the buffered lines.
pub(super) struct Toast {
    mode: UnchangedToast,
    rows: Vec<IncompleteRow>,
    transactions: HashSet<u32>,
    session: Option<Session>,
    /// How many rows are to wait.
    limit: usize,
    /// What the largest of the last rows took.
    largest: usize,
}

/// The columns that a record lacks, with the places in the buffer where their properties belong.
#[derive(Default)]
pub(super) struct Missing(Vec<(usize, usize)>);

struct IncompleteRow {
    stream: usize,
    key: Key,
    missing: Missing,
}

impl Missing {
    /// The property of this column of the plan belongs at this place of the buffer.
    pub(super) fn push(&mut self, at: usize, column: usize) {
        self.0.push((at, column));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Toast {
    pub(super) fn new(mode: UnchangedToast) -> Self {
        Toast { mode, rows: Vec::new(), transactions: HashSet::new(), session: None, limit: FIRST_ROWS, largest: 0 }
    }

    /// Remembers what a record lacks. Without a whole key there is nothing to look it up by.
    pub(super) fn add(&mut self, stream: usize, key: Option<Key>, xid: u32, missing: Missing) {
        match key {
            Some(key) if !key.is_empty() && self.mode == UnchangedToast::Fetch => {
                self.rows.push(IncompleteRow { stream, key, missing });
                self.transactions.insert(xid);
            }
            _ => {}
        }
    }

    /// Whether the buffer has holes.
    pub(super) fn is_pending(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Whether as many rows wait as should be read at once.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.limit
    }

    /// Fills the holes of the buffer.
    pub(super) async fn fill(&mut self, server: &Server, streams: &mut [Live], ctx: &mut Context) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(server.session().await?),
        };
        wait_until_visible(session, &self.transactions).await?;
        self.transactions.clear();
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| row.stream);
        // Place in the buffer → the property as JSON.
        let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
        for of_stream in rows.chunk_by(|a, b| a.stream == b.stream) {
            fetch(session, &mut streams[of_stream[0].stream], of_stream, &mut found).await?;
        }
        found.sort_unstable_by_key(|(at, _)| *at);
        ctx.insert(&found);
        let largest = found.iter().map(|(_, property)| property.len()).max().unwrap_or(0);
        self.largest = largest.max(self.largest / 2);
        self.limit = (BYTES / self.largest.max(1)).clamp(1, MOST_ROWS);
        ctx.progress.incomplete = false;
        Ok(())
    }
}

/// Reads what a batch of rows lacks.
async fn fetch(
    session: &mut Session,
    live: &mut Live,
    batch: &[IncompleteRow],
    found: &mut Vec<(usize, Vec<u8>)>,
) -> Result<()> {
    let plan = &mut live.plan;
    let mut columns: Vec<usize> =
        batch.iter().flat_map(|row| row.missing.0.iter().map(|(_, column)| *column)).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut by_key: HashMap<&Key, Vec<&IncompleteRow>> = HashMap::new();
    for row in batch {
        by_key.entry(&row.key).or_default().push(row);
    }
    let mut looked_up = look_up(session, plan, &columns, &by_key, found).await;
    if looked_up.as_ref().is_err_and(|error| sqlstate(error) == Some(UNDEFINED_COLUMN)) {
        columns = still_there(session, plan, columns).await?;
        looked_up = look_up(session, plan, &columns, &by_key, found).await;
    }
    match looked_up {
        Err(error) if is_of_the_past(&error) => {
            tracing::info!("{}: the table changed; unchanged values of it stay absent ({error})", plan.id);
            Ok(())
        }
        looked_up => looked_up,
    }
}

/// Whether the table is not any more what a change was made in: it is gone, or a key is of another type, or a column is
/// missing.
fn is_of_the_past(error: &Error) -> bool {
    sqlstate(error).is_some_and(|code| matches!(code, UNDEFINED_COLUMN | "42P01") || code.starts_with("22"))
}

/// Those of the columns that the table has still.
async fn still_there(session: &mut Session, plan: &StreamPlan, columns: Vec<usize>) -> Result<Vec<usize>> {
    let sql = format!(
        "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = {} AND attnum > 0 AND NOT attisdropped",
        plan.table.oid
    );
    let names: HashSet<String> = session.query(&sql).await?.into_iter().flatten().flatten().collect();
    Ok(columns.into_iter().filter(|column| names.contains(&plan.columns[*column].name)).collect())
}

/// Reads these columns of the rows with these keys.
async fn look_up(
    session: &mut Session,
    plan: &mut StreamPlan,
    columns: &[usize],
    by_key: &HashMap<&Key, Vec<&IncompleteRow>>,
    found: &mut Vec<(usize, Vec<u8>)>,
) -> Result<()> {
    let keys: Vec<String> = plan.key_properties.iter().map(|key| quote::ident(key)).collect();
    let literals = |key: &&Key| {
        let values: Vec<String> = key.iter().map(|value| quote::literal(&String::from_utf8_lossy(value))).collect();
        format!("({})", values.join(", "))
    };
    let values: Vec<String> = by_key.keys().map(literals).collect();
    let selected: Vec<String> =
        keys.iter().cloned().chain(columns.iter().map(|column| quote::ident(&plan.columns[*column].name))).collect();
    let query = format!(
        "COPY (SELECT {} FROM {} WHERE ({}) IN ({})) TO STDOUT",
        selected.join(", "),
        plan.own_rows(),
        keys.join(", "),
        values.join(", "),
    );
    let mut property = JsonBuf::new();
    let mut copied = session.copy_out(&query).await?;
    let mut scratch = Vec::new();
    while let Some(line) = copied.next().await? {
        let mut values = fields(line);
        let key: Key = values
            .by_ref()
            .take(keys.len())
            .map(|field| match field {
                Field::Plain(text) => text.to_vec(),
                Field::Escaped(text) => unescape(text, &mut scratch).to_vec(),
                Field::Null => Vec::new(),
            })
            .collect();
        let Some(rows) = by_key.get(&key) else { continue };
        for (column, field) in columns.iter().zip(values) {
            let text = match field {
                Field::Null => None,
                Field::Plain(text) => Some(text),
                Field::Escaped(text) => Some(unescape(text, &mut scratch)),
            };
            property.clear();
            plan.columns[*column].encode(text, &mut property);
            property.byte(b',');
            for (at, missing) in rows.iter().flat_map(|row| &row.missing.0) {
                if missing == column {
                    found.push((*at, property.as_bytes().to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// Waits until the transactions whose changes have holes are visible: one can be in the log and not visible yet, and a
/// value read before it would be older than the change.
async fn wait_until_visible(session: &mut Session, transactions: &HashSet<u32>) -> Result<()> {
    let give_up = tokio::time::Instant::now() + VISIBLE_PATIENCE;
    loop {
        let snapshot = TransactionSnapshot::read(session).await?;
        if transactions.iter().all(|xid| snapshot.sees(*xid)) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= give_up {
            return Err(Error::transient("a transaction in the log has not become visible for a minute")
                .hint("a synchronous standby may not be answering; or set unchanged_toast to omit"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
