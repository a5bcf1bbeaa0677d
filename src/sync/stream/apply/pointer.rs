//! What the log does not have, read from the table, many rows at a time: values that an update left alone, values of columns that
//! were others when the change was made, and whole rows where a change says no more than which row it was.
//!
//! The line that lacks something waits in the buffer with everything after it. What the table holds by then may be newer than the
//! change: then the newer change follows in the stream. So does the delete of a row that is gone by then.

use std::collections::HashMap;

use super::question::{Answer, Question, Unanswered};
use crate::error::{Error, Result};
use crate::pg::connect::Client;
use crate::pg::copy::{Field, fields, unescape};
use crate::pg::error::{is_of_a_statement, sqlstate};
use crate::pg::sqlstate::UNDEFINED_COLUMN;
use crate::pg::wire::Session;
use crate::singer::JsonBuf;
use crate::sync::env::Env;
use crate::sync::output::{Filling, Hole, Key, Lead, Output, Want};
use crate::sync::plan::StreamPlan;
use crate::sync::present_columns::PresentColumns;
use crate::sync::stream::live::Live;
use crate::sync::visibility::wait_visible;

/// At most so many lines wait, and are looked up together.
const MOST: usize = 200;
/// Values of about so many bytes are in memory at a time, or one row.
const BYTES: u64 = 4 * 1024 * 1024;

/// Reads what buffered lines lack.
#[derive(Default)]
pub(crate) struct LookUps {
    session: Option<Session>,
}

/// A stream that failed, by its place, and why.
pub(crate) type Failed = (usize, Error);

/// What rows of a stream's table, led to by the same columns, were asked for, and what came.
struct Asked {
    columns: Vec<usize>,
    answers: HashMap<Key, Answer>,
}

/// The rows that were asked for, by stream and by what led to them.
type Batch = HashMap<(usize, Lead), Asked>;

impl LookUps {
    /// Whether as many lines wait as should be looked up at once.
    pub(crate) fn is_full(&self, output: &mut Output) -> bool {
        output.holes().len() >= MOST
    }

    /// Fills the holes of the buffer. Returns the streams that failed; their bookmarks must not move.
    ///
    /// # Errors
    /// The connection is lost, the reader of stdout is gone, or a table was altered during the run.
    pub(crate) async fn fill(
        &mut self,
        env: &Env,
        client: &Client,
        streams: &mut [Live],
        output: &mut Output,
    ) -> Result<Vec<Failed>> {
        let mut failed = Vec::new();
        if output.holes().is_empty() {
            return Ok(failed);
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(env.primary.session().await?),
        };
        wait_visible(client, output.holes().transactions().iter().copied()).await?;
        let mut batch = ask(session, streams, output, &mut failed).await?;
        while !output.holes().is_empty() {
            // As many of the first as fit into memory together.
            let (mut filled, mut size, mut large): (_, _, HashMap<_, Vec<Key>>) = (0, 0, HashMap::new());
            for hole in output.holes().iter() {
                let answer = batch.get(&(hole.stream, hole.lead)).and_then(|asked| asked.answers.get(&hole.key));
                size += match answer {
                    Some(Answer::Large(size)) => *size,
                    Some(Answer::Row(line)) => line.len() as u64,
                    _ => 0,
                };
                if filled > 0 && size > BYTES {
                    break;
                }
                if matches!(answer, Some(Answer::Large(_))) {
                    large.entry((hole.stream, hole.lead)).or_default().push(hole.key.clone());
                }
                filled += 1;
            }
            let mut read = Batch::new();
            for (of, keys) in large {
                let columns = batch.get(&of).map(|asked| asked.columns.clone()).unwrap_or_default();
                let plan = &streams[of.0].plan;
                let asked = answered(session, plan, of, columns, keys, true, &mut failed).await?;
                if asked.is_none() {
                    batch.remove(&of);
                }
                read.extend(asked.map(|asked| (of, asked)));
            }
            let mut fillings = Vec::new();
            for (place, hole) in output.holes().iter().take(filled).enumerate() {
                let of = (hole.stream, hole.lead);
                let found = [&read, &batch].into_iter().find_map(|batch| {
                    let asked = batch.get(&of)?;
                    let answer = asked.answers.get(&hole.key).filter(|answer| !matches!(answer, Answer::Large(_)))?;
                    Some((asked.columns.as_slice(), answer))
                });
                let Some((columns, answer)) = found else { continue };
                let live = &mut streams[hole.stream];
                let found = write(session, live, hole, columns, answer).await?;
                fillings.extend(found.into_iter().map(|(at, text)| Filling { hole: place, at, text }));
                if *answer == Answer::NoKey && !is_uncertain(hole) {
                    failed.push((hole.stream, of_another_key(&live.plan)));
                }
            }
            output.fill(filled, &fillings).await?;
        }
        Ok(failed)
    }
}

/// Asks for everything that the buffer lacks; large rows come as their sizes.
async fn ask(session: &mut Session, streams: &[Live], output: &mut Output, failed: &mut Vec<Failed>) -> Result<Batch> {
    let mut wanted: HashMap<(usize, Lead), (Vec<usize>, Vec<Key>)> = HashMap::new();
    for hole in output.holes().iter() {
        let (columns, keys) = wanted.entry((hole.stream, hole.lead)).or_default();
        match &hole.want {
            Want::Values { missing, .. } => columns.extend(missing.iter().map(|(_, column)| *column)),
            Want::Row { .. } => columns.extend(0..streams[hole.stream].plan.columns.len()),
        }
        keys.push(hole.key.clone());
    }
    let mut batch = Batch::new();
    for (of, (mut columns, keys)) in wanted {
        columns.sort_unstable();
        columns.dedup();
        let live = &streams[of.0];
        if live.failed {
            continue;
        }
        let asked = answered(session, &live.plan, of, columns, keys, false, failed).await?;
        batch.extend(asked.map(|asked| (of, asked)));
    }
    Ok(batch)
}

/// Asks a question; `None` if the stream fails by it. Columns that were dropped meanwhile are left out.
async fn answered(
    session: &mut Session,
    plan: &StreamPlan,
    (stream, lead): (usize, Lead),
    mut columns: Vec<usize>,
    mut keys: Vec<Key>,
    large: bool,
    failed: &mut Vec<Failed>,
) -> Result<Option<Asked>> {
    keys.sort_unstable();
    keys.dedup();
    let borrowed: Vec<&Key> = keys.iter().collect();
    let id = &plan.id;
    let mut answers = Question { plan, lead, columns: &columns, large }.ask(session, &borrowed).await;
    if matches!(&answers, Err(Unanswered::Error(error)) if sqlstate(error) == Some(UNDEFINED_COLUMN)) {
        let present = PresentColumns::read(session, plan.table.oid).await?;
        let known = |column: usize| plan.table.column(&plan.columns[column].name);
        let name = |column: usize| known(column).and_then(|column| present.name(column));
        if let Some(renamed) = columns.iter().find(|at| name(**at).is_some_and(|name| name != plan.columns[**at].name))
        {
            let column = &plan.columns[*renamed].name;
            return Err(changed(format!(
                "{id}: the column \"{column}\" was renamed: the table changed during the run"
            )));
        }
        columns.retain(|column| name(*column).is_some());
        answers = Question { plan, lead, columns: &columns, large }.ask(session, &borrowed).await;
    }
    match answers {
        Ok(answers) => {
            let answers = keys.into_iter().zip(answers).collect();
            return Ok(Some(Asked { columns, answers }));
        }
        Err(Unanswered::NoTable) => {
            let error = Error::stream(format!("{id}: the table was dropped while its changes were read"))
                .hint("deselect the stream, or run --discover again");
            failed.push((stream, error));
        }
        Err(Unanswered::Error(error)) if is_of_a_statement(&error) => {
            let message = format!("{id}: rows that the log does not hold whole can't be read from the table: {error}");
            failed.push((stream, Error::stream(message).hint("the next run begins where this one has not gone on")));
        }
        Err(Unanswered::Error(error)) => return Err(error),
    }
    Ok(None)
}

/// Returns what a line lacks, or the line, each text with its place.
async fn write(
    session: &mut Session,
    live: &mut Live,
    hole: &Hole,
    columns: &[usize],
    answer: &Answer,
) -> Result<Vec<(usize, Vec<u8>)>> {
    let (mut texts, mut unfit) = (Vec::new(), Vec::new());
    match (&hole.want, answer) {
        (Want::Values { missing, .. }, Answer::Row(row)) => {
            for (at, column) in missing {
                let mut property = JsonBuf::new();
                let place = columns.iter().position(|known| known == column);
                if let Some(field) = place.and_then(|place| fields(row).nth(place)) {
                    write_property(&mut live.plan, *column, field, &mut property, &mut unfit);
                    texts.push((*at, property.replace(Vec::new())));
                }
            }
        }
        (Want::Row { line, end, gone, .. }, Answer::Row(row)) => {
            let mut out = JsonBuf::new();
            if hole.lead == Lead::Key && !holds_key(&live.plan, columns, row, &hole.key) {
                // Another spelling of the key, by which the target knows the row.
                out.raw(gone);
            }
            live.plan.start_record(&mut out);
            for (column, field) in columns.iter().zip(fields(row)) {
                write_property(&mut live.plan, *column, field, &mut out, &mut unfit);
            }
            out.raw(end);
            live.counter.add(1, out.len());
            texts.push((*line, out.replace(Vec::new())));
        }
        (Want::Row { line, gone, .. }, Answer::None) if !gone.is_empty() => {
            live.counter.add(1, gone.len());
            texts.push((*line, gone.clone()));
        }
        _ => {}
    }
    if !unfit.is_empty() {
        check_types(session, &live.plan, &unfit).await?;
    }
    Ok(texts)
}

/// Appends `"name":value,`, and takes note of a column that can't hold it.
fn write_property(plan: &mut StreamPlan, column: usize, field: Field<'_>, out: &mut JsonBuf, unfit: &mut Vec<usize>) {
    let mut scratch = Vec::new();
    let text = match field {
        Field::Null => None,
        Field::Plain(text) => Some(text),
        Field::Escaped(text) => Some(unescape(text, &mut scratch)),
    };
    if !plan.columns[column].encode_held(text, false, out) {
        plan.columns[column].encode(text, out);
        unfit.push(column);
    }
    out.byte(b',');
}

/// Whether a row has this key, letter by letter.
fn holds_key(plan: &StreamPlan, columns: &[usize], row: &[u8], key: &Key) -> bool {
    let held = |(name, text): (&String, &Vec<u8>)| {
        let place = plan.position(name).and_then(|column| columns.iter().position(|known| *known == column));
        match place.and_then(|place| fields(row).nth(place)) {
            Some(Field::Plain(held)) => held == text,
            Some(Field::Escaped(held)) => unescape(held, &mut Vec::new()) == text,
            Some(Field::Null) | None => false,
        }
    };
    plan.key_properties.iter().zip(key).all(held)
}

fn is_uncertain(hole: &Hole) -> bool {
    matches!(hole.want, Want::Row { uncertain: true, .. })
}

/// Returns the error for a key that the table can't have.
pub(crate) fn of_another_key(plan: &StreamPlan) -> Error {
    Error::stream(format!(
        "{}: the log has a change from before the key ({}) or the replica identity was what it is now",
        plan.id,
        plan.key_properties.join(", ")
    ))
    .hint("remove the stream's bookmark to copy the table again")
}

/// Returns the error for a table that was altered since it was described, though the log is not there yet.
fn changed(message: String) -> Error {
    Error::transient(message).hint("run again: the next run begins with the table as it is then")
}

/// Fails if the table was altered since it was described: the plan's columns can't hold its values.
async fn check_types(session: &mut Session, plan: &StreamPlan, columns: &[usize]) -> Result<()> {
    let present = PresentColumns::read(session, plan.table.oid).await?;
    for column in columns.iter().filter_map(|column| plan.table.column(&plan.columns[*column].name)) {
        if !present.has(column) {
            return Err(changed(format!("{}: the type of \"{}\" changed during the run", plan.id, column.name)));
        }
    }
    Ok(())
}
