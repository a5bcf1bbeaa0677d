//! Values that the log does not have: those that an update left alone, and those of columns that were added, renamed or
//! given another type after the change. They are read from the table by key, many at a time.
//!
//! A record that lacks a value has a hole in its line. The line waits in the buffer with everything after it; before the
//! buffer is handed over the holes are filled. What the table holds by then may be newer than the change: then the newer
//! change follows in the stream. A row that is gone by then keeps its hole: its delete follows.

use std::collections::HashMap;

use crate::config::UnchangedToast;
use crate::error::{Error, Result};
use crate::pg::connect::Client;
use crate::pg::copy::{Field, fields, unescape};
use crate::pg::error::sqlstate;
use crate::pg::quote;
use crate::pg::sqlstate::{UNDEFINED_COLUMN, UNDEFINED_FUNCTION, UNDEFINED_TABLE, is_data_exception};
use crate::pg::table::Column;
use crate::pg::wire::Session;
use crate::singer::JsonBuf;
use crate::sync::env::Env;
use crate::sync::output::{Hole, Key, Output};
use crate::sync::plan::StreamPlan;
use crate::sync::present_columns::PresentColumns;
use crate::sync::stream::live::Live;
use crate::sync::visibility::wait_visible;

/// At most so many rows wait for their values, and are read in one query.
const MOST_ROWS: usize = 200;
/// And no more rows than hold about so many bytes, by the size of those that were read last.
const BYTES: usize = 1024 * 1024;
/// How many rows wait while no size is known.
const FIRST_ROWS: usize = 8;

/// The holes in the buffered lines.
pub(crate) struct LookUps {
    mode: UnchangedToast,
    session: Option<Session>,
    /// How many rows are to wait.
    limit: usize,
    /// What the largest of the last rows took.
    largest: usize,
}

impl LookUps {
    pub(crate) fn new(mode: UnchangedToast) -> Self {
        LookUps { mode, session: None, limit: FIRST_ROWS, largest: 0 }
    }

    /// Whether what the log does not have is read from the stream's table.
    pub(crate) fn fetches(&self, live: &Live) -> bool {
        self.mode == UnchangedToast::Fetch && !live.plan.key_properties.is_empty()
    }

    /// Whether as many rows wait as should be read at once.
    pub(crate) fn is_full(&self, output: &mut Output) -> bool {
        output.holes().len() >= self.limit
    }

    /// Fills the holes of the buffer.
    pub(crate) async fn fill(
        &mut self,
        env: &Env,
        client: &Client,
        streams: &mut [Live],
        output: &mut Output,
    ) -> Result<()> {
        if output.holes().is_empty() {
            return Ok(());
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(env.primary.session().await?),
        };
        let holes = output.holes();
        wait_visible(client, holes.transactions().iter().copied()).await?;
        let rows = holes.by_stream();
        // Place in the buffer → the property as JSON.
        let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
        for of_stream in rows.chunk_by(|a, b| a.stream == b.stream) {
            fetch(session, &mut streams[of_stream[0].stream], of_stream, &mut found).await?;
        }
        found.sort_unstable_by_key(|(at, _)| *at);
        output.fill(&found);
        let largest = found.iter().map(|(_, property)| property.len()).max().unwrap_or(0);
        self.largest = largest.max(self.largest / 2);
        self.limit = (BYTES / self.largest.max(1)).clamp(1, MOST_ROWS);
        Ok(())
    }
}

/// Reads what a batch of rows lacks.
async fn fetch(
    session: &mut Session,
    live: &mut Live,
    batch: &[&Hole],
    found: &mut Vec<(usize, Vec<u8>)>,
) -> Result<()> {
    let plan = &mut live.plan;
    let mut columns: Vec<usize> = batch.iter().flat_map(|row| row.missing.iter().map(|(_, column)| *column)).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut by_key: HashMap<&Key, Vec<&Hole>> = HashMap::new();
    for &row in batch {
        by_key.entry(&row.key).or_default().push(row);
    }
    let rows: Vec<(&Key, Vec<&Hole>)> = by_key.into_iter().collect();
    let mut pieces = vec![rows.as_slice()];
    let mut told = false;
    while let Some(rows) = pieces.pop() {
        let mut looked_up = look_up(session, plan, &columns, rows, found).await;
        if looked_up.as_ref().is_err_and(|error| sqlstate(error) == Some(UNDEFINED_COLUMN)) {
            let present = PresentColumns::read(session, plan.table.oid).await?;
            columns.retain(|column| present.has_name(&plan.columns[*column].name));
            looked_up = look_up(session, plan, &columns, rows, found).await;
        }
        match looked_up {
            // The key of one of them is of another type than the table's now.
            Err(error) if is_of_the_past(&error) && rows.len() > 1 => {
                let (some, others) = rows.split_at(rows.len() / 2);
                pieces.extend([some, others]);
            }
            Err(error) if is_of_the_past(&error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        "{}: the table changed; values that the log leaves out stay absent ({error})",
                        plan.id
                    );
                }
                if !sqlstate(&error).is_some_and(is_data_exception) {
                    return Ok(());
                }
            }
            looked_up => looked_up?,
        }
    }
    Ok(())
}

/// Whether the table is not any more what a change was made in: it is gone, or a key is of another type, or a column is
/// missing.
fn is_of_the_past(error: &Error) -> bool {
    sqlstate(error).is_some_and(|code| {
        matches!(code, UNDEFINED_COLUMN | UNDEFINED_TABLE | UNDEFINED_FUNCTION) || is_data_exception(code)
    })
}

/// Returns the SELECT of the rows with these keys: for each the number of its key, then these columns. Keys are compared by their
/// types: the log may spell one as it was, `1.10` for what is `1.1` now.
fn select(plan: &StreamPlan, columns: &[usize], rows: &[(&Key, Vec<&Hole>)]) -> String {
    let keys: Vec<&Column> = plan.key_properties.iter().filter_map(|key| plan.table.column(key)).collect();
    let selected: String =
        columns.iter().map(|column| format!(", t.{}", quote::ident(&plan.columns[*column].name))).collect();
    let mut values = String::new();
    for (number, (key, _)) in rows.iter().enumerate() {
        values.push_str(if number == 0 { "(" } else { ", (" });
        values.push_str(&number.to_string());
        for (value, column) in key.iter().zip(&keys) {
            values.push_str(", ");
            values.push_str(&quote::literal(&String::from_utf8_lossy(value)));
            // The other rows follow the first.
            if number == 0 {
                let (ty, _) = column.ty.base(column.typmod);
                values.push_str("::");
                values.push_str(&quote::qualified(&ty.schema, &ty.name));
            }
        }
        values.push(')');
    }
    let names: String = (0..keys.len()).map(|at| format!(", k{at}")).collect();
    let same: Vec<String> =
        keys.iter().enumerate().map(|(at, key)| format!("t.{} = k.k{at}", quote::ident(&key.name))).collect();
    format!(
        "SELECT k.n{selected} FROM {} t JOIN (VALUES {values}) k(n{names}) ON {}",
        plan.own_rows(),
        same.join(" AND ")
    )
}

/// Reads these columns of the rows with these keys.
async fn look_up(
    session: &mut Session,
    plan: &mut StreamPlan,
    columns: &[usize],
    rows: &[(&Key, Vec<&Hole>)],
    found: &mut Vec<(usize, Vec<u8>)>,
) -> Result<()> {
    let query = format!("COPY ({}) TO STDOUT", select(plan, columns, rows));
    let mut property = JsonBuf::new();
    let mut copied = session.copy_out(&query).await?;
    let mut scratch = Vec::new();
    let mut unfit = Vec::new();
    while let Some(line) = copied.next().await? {
        let mut values = fields(line);
        let number = match values.next() {
            Some(Field::Plain(text)) => std::str::from_utf8(text).ok().and_then(|text| text.parse::<usize>().ok()),
            _ => None,
        };
        let Some((_, rows)) = number.and_then(|number| rows.get(number)) else {
            return Err(Error::run("the server's answer to a look-up of rows is malformed"));
        };
        for (column, field) in columns.iter().zip(values) {
            let text = match field {
                Field::Null => None,
                Field::Plain(text) => Some(text),
                Field::Escaped(text) => Some(unescape(text, &mut scratch)),
            };
            property.clear();
            if !plan.columns[*column].encode_held(text, false, &mut property) {
                plan.columns[*column].encode(text, &mut property);
                unfit.push(*column);
            }
            property.byte(b',');
            for (at, missing) in rows.iter().flat_map(|row| &row.missing) {
                if missing == column {
                    found.push((*at, property.as_bytes().to_vec()));
                }
            }
        }
    }
    if unfit.is_empty() { Ok(()) } else { check_types(session, plan, &unfit).await }
}

/// Fails if the table was altered since it was described, though the log is not there yet: the plan's columns can't hold its
/// values.
async fn check_types(session: &mut Session, plan: &StreamPlan, columns: &[usize]) -> Result<()> {
    let present = PresentColumns::read(session, plan.table.oid).await?;
    for column in columns.iter().filter_map(|column| plan.table.column(&plan.columns[*column].name)) {
        if !present.has(column) {
            return Err(Error::transient(format!(
                "{}: the type of \"{}\" changed during the run",
                plan.id, column.name
            ))
            .hint("run again: the next run begins with the table as it is then"));
        }
    }
    Ok(())
}
