//! Where a slot stands when a run begins, and which bookmarks it can serve.

use super::{Bookmarkable, Resume, Stored};
use crate::pg::Lsn;

/// The positions of the slot and of the server's log at the start of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The server sends no transaction that committed before this.
    pub(crate) confirmed_flush: Lsn,
    /// How far the log goes: flushed on a primary, replayed on a standby.
    pub(crate) wal_end: Lsn,
}

/// Why a slot can't bring everything since a bookmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The bookmark is past the server's log: the server was restored from a backup, or is another one.
    PastTheLog {
        /// The bookmark's position.
        bookmark: Lsn,
        /// Where the log ends.
        wal_end: Lsn,
    },
    /// The slot is past the bookmark: something else moved it, and the changes between are gone.
    SlotMoved {
        /// The bookmark's position.
        bookmark: Lsn,
        /// Where the slot stands.
        confirmed_flush: Lsn,
    },
}

impl Slot {
    /// Returns why the slot can't serve a bookmark, if it can't (rule 3).
    pub(crate) fn gap(&self, resume: Resume) -> Option<Gap> {
        let Resume::At(bookmark) = resume else { return None };
        if bookmark > self.wal_end {
            Some(Gap::PastTheLog { bookmark, wal_end: self.wal_end })
        } else if self.confirmed_flush > bookmark {
            Some(Gap::SlotMoved { bookmark, confirmed_flush: self.confirmed_flush })
        } else {
            None
        }
    }

    /// Returns what may be acknowledged at the start of a run that was given these bookmarks (rule 4): the least of them.
    /// Nothing where one says "where the slot stands", where that is no news to the server, or is past its log.
    pub(crate) fn stored(&self, given: impl IntoIterator<Item = Resume>) -> Option<Stored> {
        let lsn = least(given)?;
        (lsn > self.confirmed_flush && lsn <= self.wal_end).then_some(Stored(lsn))
    }

    /// Returns a position that the slot can serve whatever this run acknowledges. A copy that no slot of its own stands behind
    /// has it in its bookmark until its changes have been streamed.
    pub(crate) fn floor(&self, acknowledged: Option<Stored>) -> Bookmarkable {
        Bookmarkable(acknowledged.map_or(self.confirmed_flush, |stored| stored.0.max(self.confirmed_flush)))
    }
}

/// Returns the least of these positions; `None` where one of them is no position.
pub(super) fn least(given: impl IntoIterator<Item = Resume>) -> Option<Lsn> {
    let mut least: Option<Lsn> = None;
    for resume in given {
        let Resume::At(lsn) = resume else { return None };
        least = Some(least.map_or(lsn, |known| known.min(lsn)));
    }
    least
}
