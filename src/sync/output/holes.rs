//! What buffered lines lack: the log does not have it, and it is read from the table, many rows at a time.

use std::collections::HashSet;

/// Values that lead to a row, as PostgreSQL prints them, in the order of the columns that they are of.
pub(crate) type Key = Vec<Vec<u8>>;

/// The columns whose values lead to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lead {
    /// The stream's key.
    Key,
    /// The unique index that is the replica identity.
    Identity,
}

/// Something that is to be read from a row of the table.
#[derive(Debug)]
pub(crate) struct Hole {
    /// The stream, by its place in the ledger.
    pub(crate) stream: usize,
    /// Which columns lead to the row.
    pub(crate) lead: Lead,
    /// Their values.
    pub(crate) key: Key,
    /// What is lacking.
    pub(crate) want: Want,
}

/// What was read for a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filling {
    /// The hole, by its place among the holes.
    pub(crate) hole: usize,
    /// Where it belongs in the buffer.
    pub(crate) at: usize,
    /// Properties, or a whole line.
    pub(crate) text: Vec<u8>,
}

/// What is to be read from a row.
#[derive(Debug)]
pub(crate) enum Want {
    /// Values of a record whose line begins at `line`: the place in the buffer where each property belongs, with its column in
    /// the stream's plan.
    Values { line: usize, missing: Vec<(usize, usize)> },
    /// The whole record, whose line belongs at `line`: the change is a pointer to the row.
    Row {
        line: usize,
        /// The end of its line, from behind the last property on.
        end: Vec<u8>,
        /// The line that says that the row is gone; empty where that can't be said.
        gone: Vec<u8>,
        /// Whether the change may have been made in another table.
        uncertain: bool,
    },
}

impl Hole {
    /// Returns where the line begins, or belongs.
    pub(crate) fn line(&self) -> usize {
        match self.want {
            Want::Values { line, .. } | Want::Row { line, .. } => line,
        }
    }

    fn shift(&mut self, shift: impl Fn(&mut usize)) {
        match &mut self.want {
            Want::Values { line, missing } => {
                shift(line);
                missing.iter_mut().for_each(|(at, _)| shift(at));
            }
            Want::Row { line, .. } => shift(line),
        }
    }
}

/// What the buffered lines lack, in their order.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    holes: Vec<Hole>,
    /// How many of the first belong to transactions that have ended.
    ended: usize,
    /// The transactions that wrote them; what is read has to be as new as these.
    transactions: HashSet<u32>,
}

impl Holes {
    /// Takes note of what a line of a transaction with this id lacks.
    pub(crate) fn add(&mut self, hole: Hole, xid: u32) {
        self.holes.push(hole);
        self.transactions.insert(xid);
    }

    /// Takes note that the transaction of those that there are has ended.
    pub(super) fn end(&mut self) {
        self.ended = self.holes.len();
    }

    /// Whether the transaction of the hole at this place has ended.
    pub(super) fn has_ended(&self, hole: usize) -> bool {
        hole < self.ended
    }

    /// Whether nothing is lacking.
    pub(crate) fn is_empty(&self) -> bool {
        self.holes.is_empty()
    }

    /// Returns how many there are.
    pub(crate) fn len(&self) -> usize {
        self.holes.len()
    }

    /// Returns them, in the order of their lines.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Hole> {
        self.holes.iter()
    }

    /// Returns the transactions that wrote them.
    pub(crate) fn transactions(&self) -> &HashSet<u32> {
        &self.transactions
    }

    /// Returns where the first line begins that is not complete.
    pub(crate) fn first_line(&self) -> Option<usize> {
        self.holes.first().map(Hole::line)
    }

    /// Takes note that the first of them are filled, with so many bytes.
    pub(super) fn filled(&mut self, holes: usize, inserted: usize) {
        self.holes.drain(..holes);
        self.ended = self.ended.saturating_sub(holes);
        self.moved(|at| *at += inserted);
        if self.holes.is_empty() {
            self.transactions.clear();
        }
    }

    /// Takes note that so much of the buffer has left.
    pub(super) fn left(&mut self, len: usize) {
        self.moved(|at| *at -= len);
    }

    fn moved(&mut self, shift: impl Fn(&mut usize) + Copy) {
        self.holes.iter_mut().for_each(|hole| hole.shift(shift));
    }
}
