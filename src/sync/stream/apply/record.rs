//! A row change becomes records.

use super::shape::{RowChange, Shape};
use crate::pg::Lsn;
use crate::replication::{Tuple, Value};
use crate::singer::JsonBuf;
use crate::sync::output::{Hole, Key, Lead, Output, Want};
use crate::sync::stream::live::{Live, Transaction};

/// Writes the records of one row change for one stream.
pub(crate) struct RecordWriter<'a> {
    pub live: &'a mut Live,
    pub transaction: &'a Transaction,
    pub lsn: Lsn,
    /// What the values of the rows are.
    pub shape: &'a Shape,
    /// Whether rows of the table can be looked up.
    pub looks_up: bool,
    /// Whether values that an update left alone are left out rather than looked up.
    pub omits_unchanged: bool,
    /// Whether the table may have been altered after it was described.
    pub may_have_changed: bool,
    /// Whether the change may be from before the table was what it is described as.
    pub is_past: bool,
    /// Records of this change.
    pub written: u64,
}

/// A value is not of its column's type, or is not there.
pub(crate) struct Unfit;

/// A change does not say which row it was of.
pub(crate) struct NoLead;

impl RecordWriter<'_> {
    /// Returns how many records the change became; it may become none if the table is not as described, or had another key.
    pub(crate) fn write(mut self, output: &mut Output, stream: usize, change: &RowChange<'_>) -> Result<u64, Unfit> {
        let identifies = change.old.is_some_and(|old| self.shape.identifies(&old));
        if change.new.is_none() && !identifies {
            self.warn_unidentified();
            return Ok(0);
        }
        let start = output.begin_record().len();
        let written = match (change.new, change.old) {
            (Some(new), old) => self.row(output, stream, &new, old, identifies),
            (None, Some(old)) => self.delete(output.buf(), &old),
            (None, None) => Ok(()),
        };
        match written {
            Ok(()) => {
                self.live.counter.add(self.written, output.buf().len() - start);
                output.end_record();
            }
            Err(_) => output.buf().truncate(start),
        }
        written.map(|()| self.written)
    }

    /// Writes a record of the new row, after one that the old row is gone where the key changed.
    fn row(
        &mut self,
        output: &mut Output,
        stream: usize,
        new: &Tuple<'_>,
        old: Option<Tuple<'_>>,
        identifies: bool,
    ) -> Result<(), Unfit> {
        let (shape, out) = (self.shape, output.buf());
        let change = RowChange { old, new: Some(*new) };
        if let Some(old) = &old
            && identifies
            && self.key_changed(new, old)
        {
            self.delete(out, old)?;
        }
        let line = out.len();
        self.live.plan.start_record(out);
        let mut missing = Vec::new();
        for (index, column) in shape.columns.iter().enumerate() {
            let Some(column) = *column else { continue };
            match new.value(index) {
                Some(Value::Unchanged) => {
                    let old = old.filter(|old| shape.has(old, index) && !self.is_lost(index, column));
                    self.unchanged(out, column, old.and_then(|old| old.value(index)), &mut missing)?;
                }
                _ if self.is_lost(index, column) => missing.push((out.len(), column)),
                Some(Value::Text(text)) => self.known(out, column, Some(text), shape.of_type(index), &mut missing)?,
                Some(Value::Null) | None => self.known(out, column, None, true, &mut missing)?,
            }
        }
        // No log has what is younger than the change.
        for &column in &shape.absent {
            // With names only, a value that the update left alone looks the same as one that no column had.
            let plan = &self.live.plan;
            let is_younger = self.is_past && self.live.was_altered(&plan.columns[column].name);
            if !self.omits_unchanged || is_younger || self.is_key(column) {
                self.absent(out, column, &mut missing)?;
            }
        }
        if self.looks_up && !missing.is_empty() {
            let (lead, key) = shape.lead(&self.live.plan, &change).ok_or(Unfit)?;
            output.punch(Hole { stream, lead, key, want: Want::Values { line, missing } }, self.transaction.xid);
        }
        let out = output.buf();
        self.live.plan.form.not_deleted(out);
        self.end(out);
        Ok(())
    }

    /// Whether only the table knows what became of a value: its column may be another one than in the log.
    fn is_lost(&self, index: usize, column: usize) -> bool {
        self.is_past && self.looks_up && self.shape.was_altered(index) && !self.is_key(column)
    }

    /// Takes a change for a pointer to rows: what the table holds of them is sent. Returns how many records that is.
    ///
    /// # Errors
    /// Nothing leads to the row.
    pub(crate) fn point(
        mut self,
        output: &mut Output,
        stream: usize,
        uncertain: bool,
        change: &RowChange<'_>,
    ) -> Result<u64, NoLead> {
        let shape = self.shape;
        let old = change.old.filter(|old| shape.identifies(old));
        let old_key = old.and_then(|old| shape.key_of(&self.live.plan, &old));
        let lead = match change.new {
            Some(_) => Some(shape.lead(&self.live.plan, change).ok_or(NoLead)?),
            None => {
                if old_key.is_none() {
                    self.warn_unidentified();
                }
                None
            }
        };
        let is_other = |key: &Key| !matches!(&lead, Some((Lead::Key, new)) if new == key);
        let old_lead = old_key.filter(is_other).map(|key| (Lead::Key, key));
        for (lead, key) in [old_lead, lead].into_iter().flatten() {
            let mut gone = JsonBuf::new();
            let of_key = lead == Lead::Key;
            if of_key && !self.gone(&mut gone, &key) {
                // A key that the column's type can't hold is of no row of this table.
                if uncertain {
                    continue;
                }
                return Err(NoLead);
            }
            let mut end = JsonBuf::new();
            self.live.plan.form.not_deleted(&mut end);
            self.end(&mut end);
            let line = output.begin_record().len();
            let (end, gone) = (end.replace(Vec::new()), gone.replace(Vec::new()));
            output.punch(
                Hole { stream, lead, key, want: Want::Row { line, end, gone, uncertain } },
                self.transaction.xid,
            );
        }
        Ok(self.written)
    }

    /// Writes a record that says that the row with this key is gone. False if the key's columns can't hold it.
    fn gone(&mut self, out: &mut JsonBuf, key: &Key) -> bool {
        self.live.plan.start_record(out);
        for (at, text) in key.iter().enumerate() {
            let column = self.live.plan.position(&self.live.plan.key_properties[at]);
            if !column.is_some_and(|column| self.property(out, column, Some(text), false)) {
                return false;
            }
        }
        self.live.plan.form.deleted_at(self.transaction.commit_time, out);
        let written = self.written;
        self.end(out);
        self.written = written;
        true
    }

    /// Logs, once, that a delete does not say which row it was of.
    fn warn_unidentified(&mut self) {
        if !std::mem::replace(&mut self.live.reported_unidentified, true) {
            tracing::warn!(
                "{}: a delete is left out, because the replica identity that the table had then does not hold the key; \
                 remove the stream's bookmark to copy it again",
                self.live.plan.id
            );
        }
    }

    /// Writes a record that says that the old row is gone.
    fn delete(&mut self, out: &mut JsonBuf, old: &Tuple<'_>) -> Result<(), Unfit> {
        let shape = self.shape;
        self.live.plan.start_record(out);
        for (index, (column, identity)) in shape.columns.iter().zip(&shape.identity).enumerate() {
            let (Some(column), true) = (*column, identity) else { continue };
            let held = match old.value(index) {
                Some(Value::Text(text)) => self.property(out, column, Some(text), shape.of_type(index)),
                Some(Value::Null) => self.property(out, column, None, true),
                Some(Value::Unchanged) | None => continue,
            };
            if !held && self.is_key(column) {
                return Err(Unfit);
            }
        }
        self.live.plan.form.deleted_at(self.transaction.commit_time, out);
        self.end(out);
        Ok(())
    }

    /// Whether a key column has another value in the new row, so that the target has to forget the old one, which is
    /// identified.
    fn key_changed(&self, new: &Tuple<'_>, old: &Tuple<'_>) -> bool {
        let keys = self.shape.keys.as_deref().unwrap_or_default();
        keys.iter().any(|&index| new.has(index) && new.value(index) != old.value(index))
    }

    /// Writes `"name":value,` — the comma is always right, because a column of the stream phase ends the record. Nothing, and
    /// false, if the column's type can't hold the value.
    fn property(&mut self, out: &mut JsonBuf, column: usize, text: Option<&[u8]>, of_type: bool) -> bool {
        let held = self.live.plan.columns[column].encode_held(text, of_type, out);
        if held {
            out.byte(b',');
        }
        held
    }

    /// Writes a value that the log has; one that the column's type can't hold is from before the column had that type.
    fn known(
        &mut self,
        out: &mut JsonBuf,
        column: usize,
        text: Option<&[u8]>,
        of_type: bool,
        missing: &mut Vec<(usize, usize)>,
    ) -> Result<(), Unfit> {
        if self.property(out, column, text, of_type) {
            return Ok(());
        }
        if self.may_have_changed {
            return Err(Unfit);
        }
        if !self.looks_up {
            self.live.plan.warn_left_out(column);
        }
        self.absent(out, column, missing)
    }

    /// Writes a value that the new row does not have.
    fn unchanged(
        &mut self,
        out: &mut JsonBuf,
        column: usize,
        old: Option<Value<'_>>,
        missing: &mut Vec<(usize, usize)>,
    ) -> Result<(), Unfit> {
        match old {
            Some(Value::Text(text)) => self.known(out, column, Some(text), false, missing),
            Some(Value::Null) => self.known(out, column, None, true, missing),
            Some(Value::Unchanged) | None if self.omits_unchanged && !self.is_key(column) => Ok(()),
            Some(Value::Unchanged) | None => self.absent(out, column, missing),
        }
    }

    /// Takes note of a value that the log does not have.
    fn absent(&mut self, out: &JsonBuf, column: usize, missing: &mut Vec<(usize, usize)>) -> Result<(), Unfit> {
        if self.is_key(column) {
            return Err(Unfit);
        }
        missing.push((out.len(), column));
        Ok(())
    }

    fn is_key(&self, column: usize) -> bool {
        self.live.plan.key_properties.contains(&self.live.plan.columns[column].name)
    }

    fn end(&mut self, out: &mut JsonBuf) {
        self.live.plan.form.lsn(self.lsn, out);
        self.live.end.write(out);
        self.written += 1;
    }
}
