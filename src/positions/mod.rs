//! The ledger of positions: what makes a run lose nothing, as types and transitions. No I/O, no clock, no JSON.
//!
//! ```text
//!            state: Resume per stream            server: Slot { confirmed_flush, wal_end }
//!                         └──────────┬──────────────────────┘
//!                 Slot::gap (rule 3) │ Slot::stored (rule 4)
//!                                    ▼
//!   begin, commit, keepalive ──▶  Ledger  ──▶ wants (rules 2, 6), end (rule 5)
//!                                    │
//!                 Bookmarkable ◀─────┴─────▶ Stored
//!             State alone takes it           Feedback and the bulk read alone take it
//! ```
//!
//! The rules by number, and the facts about PostgreSQL that they stand on, are in `docs/internals.md`. A [`Bookmarkable`] or
//! [`Stored`] position can be made in this module only, so that no other part of the program can write a bookmark or
//! acknowledge a position that the rules do not allow.

mod copy;
mod ledger;
mod slot;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use copy::{CopyPosition, CopySnapshot, Slices};
pub(crate) use ledger::{End, HeldBack, Ledger, Track, Upto};
pub(crate) use slot::{Gap, Slot};
pub(crate) use snapshot::TransactionSnapshot;

use std::fmt;

use crate::pg::Lsn;

/// From where on a stream is to be read, as its bookmark says. `state` alone knows how a bookmark spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// With a copy of the table: the bookmark has no position, or that of a copy that did not finish.
    Copy,
    /// From wherever the slot stands.
    AtSlot,
    /// With the transactions that committed at or after this position.
    At(Lsn),
    /// With these, and with what a copy in slices has not sent yet.
    Copying(Lsn),
}

impl Resume {
    /// Returns the position that the log has to be there from; `None` where that is none, or not known.
    pub(crate) fn lsn(self) -> Option<Lsn> {
        match self {
            Resume::At(lsn) | Resume::Copying(lsn) => Some(lsn),
            Resume::Copy | Resume::AtSlot => None,
        }
    }

    /// Whether the target has every row of the table.
    pub(crate) fn is_copied(self) -> bool {
        matches!(self, Resume::At(_) | Resume::AtSlot)
    }
}

/// A position that a bookmark may hold (rule 1): each transaction that committed before it is in the lines before the STATE,
/// and none that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bookmarkable(Lsn);

impl Bookmarkable {
    /// Makes one up.
    #[cfg(test)]
    pub(crate) fn for_test(lsn: u64) -> Self {
        Bookmarkable(Lsn(lsn))
    }

    /// Returns the position.
    pub(crate) fn lsn(self) -> Lsn {
        self.0
    }
}

/// A position that may be acknowledged (rule 4): a state that came back says that everything before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stored(Lsn);

impl Stored {
    /// Returns the position.
    pub(crate) fn lsn(self) -> Lsn {
        self.0
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
