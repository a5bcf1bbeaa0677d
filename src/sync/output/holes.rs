//! Values that buffered lines lack: the log does not have them, and they are read from the table by key, many at a time.

use std::collections::HashSet;

/// A key as PostgreSQL prints its values, in the order of the stream's key columns.
pub(crate) type Key = Vec<Vec<u8>>;

/// A record that lacks values.
#[derive(Debug)]
pub(crate) struct Hole {
    /// The stream, by its place in the ledger.
    pub(crate) stream: usize,
    /// The row's key.
    pub(crate) key: Key,
    /// The place in the buffer where each missing property belongs, with its column in the stream's plan.
    pub(crate) missing: Vec<(usize, usize)>,
}

/// The records in the buffer that lack values.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    records: Vec<Hole>,
    /// The transactions that wrote them; what is read has to be as new as these.
    transactions: HashSet<u32>,
}

impl Holes {
    /// Takes note of a record that a transaction with this id wrote.
    pub(crate) fn add(&mut self, hole: Hole, xid: u32) {
        self.records.push(hole);
        self.transactions.insert(xid);
    }

    /// Whether no record lacks a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns how many records lack values.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns the transactions that wrote them.
    pub(crate) fn transactions(&self) -> &HashSet<u32> {
        &self.transactions
    }

    /// Returns the records, ordered by stream.
    pub(crate) fn by_stream(&self) -> Vec<&Hole> {
        let mut records: Vec<&Hole> = self.records.iter().collect();
        records.sort_by_key(|hole| hole.stream);
        records
    }
}
