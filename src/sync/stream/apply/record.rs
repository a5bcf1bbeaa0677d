//! A row change becomes records.

use super::shape::{RowChange, Shape};
use crate::pg::Lsn;
use crate::replication::{Tuple, Value};
use crate::singer::JsonBuf;
use crate::sync::output::{Hole, Output};
use crate::sync::stream::live::{Live, Transaction};

/// Writes the records of one row change for one stream.
pub(crate) struct RecordWriter<'a> {
    pub live: &'a mut Live,
    pub transaction: &'a Transaction,
    pub lsn: Lsn,
    /// What the values of the rows are.
    pub shape: &'a Shape,
    pub debug_lsn: bool,
    /// Whether values that the log does not have are read from the table.
    pub fetches: bool,
    /// Whether the table may be another than it is described as.
    pub may_have_changed: bool,
    /// Records of this change.
    pub written: u64,
}

/// A value of this column of the plan is not of its type, or is not there.
pub(crate) struct Unfit(pub usize);

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
        if let Some(old) = &old
            && identifies
            && self.key_changed(new, old)
        {
            self.delete(out, old)?;
        }
        self.live.plan.start_record(out);
        let mut missing = Vec::new();
        for (index, column) in shape.columns.iter().enumerate() {
            let Some(column) = *column else { continue };
            match new.value(index) {
                Some(Value::Unchanged) => {
                    let old = old.filter(|old| shape.has(old, index) && !shape.is_retyped(index));
                    self.unchanged(out, column, old.and_then(|old| old.value(index)), &mut missing)?;
                }
                // What became of the value when the column got its type is known to the table alone.
                _ if shape.is_retyped(index) && self.fetches && !self.is_key(column) => {
                    missing.push((out.len(), column))
                }
                Some(Value::Text(text)) => self.known(out, column, Some(text), shape.of_type(index), &mut missing)?,
                Some(Value::Null) | None => self.known(out, column, None, true, &mut missing)?,
            }
        }
        // No log has what is younger than the change.
        for &column in &shape.absent {
            self.absent(out, column, &mut missing)?;
        }
        if !missing.is_empty() {
            let value = |&index: &usize| match new.value(index)? {
                Value::Text(text) => Some(self.live.plan.columns[shape.columns[index]?].codec.as_printed(text)),
                Value::Null | Value::Unchanged => None,
            };
            let key = shape.keys.as_ref().and_then(|keys| keys.iter().map(value).collect());
            // Without a whole key there is nothing to look it up by.
            if self.fetches
                && let Some(key) = key
            {
                output.punch(Hole { stream, key, missing }, self.transaction.xid);
            }
        }
        let out = output.buf();
        out.raw(br#""_sdc_deleted_at":null"#);
        self.end(out);
        Ok(())
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
                return Err(Unfit(column));
            }
        }
        out.raw(br#""_sdc_deleted_at":"#);
        out.raw(self.transaction.deleted_at().as_bytes());
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
            return Err(Unfit(column));
        }
        if !self.fetches {
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
            Some(Value::Unchanged) | None => self.absent(out, column, missing),
        }
    }

    /// Takes note of a value that the log does not have.
    fn absent(&mut self, out: &JsonBuf, column: usize, missing: &mut Vec<(usize, usize)>) -> Result<(), Unfit> {
        if self.is_key(column) {
            return Err(Unfit(column));
        }
        missing.push((out.len(), column));
        Ok(())
    }

    fn is_key(&self, column: usize) -> bool {
        self.live.plan.key_properties.contains(&self.live.plan.columns[column].name)
    }

    fn end(&mut self, out: &mut JsonBuf) {
        if self.debug_lsn {
            out.raw(br#","_sdc_lsn":""#);
            out.raw(itoa::Buffer::new().format(self.lsn.0).as_bytes());
            out.byte(b'"');
        }
        self.live.end.write(out);
        self.written += 1;
    }
}
