//! `COPY … TO STDOUT`, as text or in binary form, into lines: the loop that initial copies, FULL_TABLE, INCREMENTAL and `--test` share.

use std::time::Duration;

use super::sink::RowSink;
use crate::error::Result;
use crate::pg::binary::{self, malformed};
use crate::pg::copy::{Field, fields, unescape};
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::sync::plan::{PlanColumn, StreamPlan};

/// The longest time that lines wait while no row comes.
const PAUSE: Duration = Duration::from_secs(1);

/// The query of a plan's columns in rows of its table.
#[derive(Clone)]
pub(crate) struct RowQuery {
    select: String,
    /// The conditions of the rows, all of which hold.
    conditions: Vec<String>,
    /// What follows the condition.
    pub order: String,
}

impl RowQuery {
    /// Returns the query of all rows that the stream has, in no order.
    pub(crate) fn of(plan: &StreamPlan) -> RowQuery {
        let columns: Vec<String> = plan.columns.iter().map(|c| quote::ident(&c.name)).collect();
        let select = format!("SELECT {} FROM {}", columns.join(", "), plan.own_rows());
        // Without what the caller adds, which may hold a value.
        tracing::debug!("{}: {select}", plan.id);
        RowQuery { select, conditions: plan.filter.iter().cloned().collect(), order: String::new() }
    }

    /// Leaves out rows for which a condition does not hold.
    pub(crate) fn narrow(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    /// Returns its SQL.
    pub(crate) fn sql(&self) -> String {
        self.within(None)
    }

    /// Returns the SQL for those of its rows that another condition holds for too.
    pub(crate) fn within(&self, other: Option<&str>) -> String {
        let conditions: Vec<&str> = self.conditions.iter().map(String::as_str).chain(other).collect();
        let joined = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("{}{joined}{}", self.select, self.order)
    }

    /// Returns how many rows it may have; only the server could count those that a condition holds for.
    pub(crate) fn expected_rows(&self, plan: &StreamPlan) -> Option<i64> {
        self.conditions.is_empty().then_some(plan.table.row_estimate)
    }
}

/// Writes a line for every row that `query` yields, whose columns are the plan's.
pub(crate) async fn write_rows(
    session: &mut Session,
    plan: &mut StreamPlan,
    query: &str,
    sink: &mut impl RowSink,
) -> Result<()> {
    let (mut scratch, mut binary) = (Vec::new(), plan.is_read_in_binary().then(binary::Rows::default));
    // The server may take long before the first row.
    sink.hand_over().await?;
    let format = if binary.is_some() { " (FORMAT binary)" } else { "" };
    let mut rows = session.copy_out(&format!("COPY ({query}) TO STDOUT{format}")).await?;
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        let row = tokio::select! {
            biased;
            row = rows.next() => row?,
            // The query is slow: the lines so far go out meanwhile.
            _ = pause.tick() => {
                sink.hand_over().await?;
                continue;
            }
        };
        let Some(row) = row else { return Ok(()) };
        match &mut binary {
            None => {
                sink.begin(plan);
                for (index, (column, field)) in plan.columns.iter_mut().zip(fields(row)).enumerate() {
                    let text = match field {
                        Field::Null => None,
                        Field::Plain(text) => Some(text),
                        Field::Escaped(text) => Some(unescape(text, &mut scratch)),
                    };
                    write_value(sink, index, column, text);
                }
            }
            Some(binary) => {
                let Some(mut row) = binary.row(row)? else { continue };
                if usize::from(row.columns()) != plan.columns.len() {
                    return Err(malformed());
                }
                sink.begin(plan);
                for (index, column) in plan.columns.iter_mut().enumerate() {
                    let text = match (row.field()?, column.binary) {
                        (None, _) => None,
                        (Some(value), Some(form)) => Some(form.text(value, &mut scratch).ok_or_else(malformed)?),
                        (Some(_), None) => return Err(malformed()),
                    };
                    write_value(sink, index, column, text);
                }
            }
        }
        sink.end().await?;
    }
}

/// Writes the property of a column.
#[inline]
fn write_value(sink: &mut impl RowSink, index: usize, column: &mut PlanColumn, text: Option<&[u8]>) {
    let out = sink.buf();
    if index > 0 {
        out.byte(b',');
    }
    column.encode(text, out);
    if let (Some(text), Some(tracker)) = (text, sink.tracker()) {
        tracker.see(index, &column.codec, text);
    }
}
