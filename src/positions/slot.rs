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
        let bookmark = resume.lsn()?;
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
        let lsn = resume.lsn()?;
        least = Some(least.map_or(lsn, |known| known.min(lsn)));
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot { confirmed_flush: Lsn(100), wal_end: Lsn(200) };

    #[test]
    fn a_bookmark_that_the_slot_can_not_serve_is_a_gap() {
        let at = |lsn| SLOT.gap(Resume::At(Lsn(lsn)));
        assert_eq!(at(99), Some(Gap::SlotMoved { bookmark: Lsn(99), confirmed_flush: Lsn(100) }));
        assert_eq!((at(100), at(200)), (None, None));
        assert_eq!(at(201), Some(Gap::PastTheLog { bookmark: Lsn(201), wal_end: Lsn(200) }));
        assert_eq!((SLOT.gap(Resume::Copy), SLOT.gap(Resume::AtSlot)), (None, None));
        assert_eq!(SLOT.gap(Resume::Copying(Lsn(99))), at(99));
    }

    #[test]
    fn the_least_bookmark_is_acknowledged_if_it_is_news_and_in_the_log() {
        let stored = |given: &[Resume]| SLOT.stored(given.iter().copied()).map(|stored| stored.lsn().0);
        let at = |lsn| Resume::At(Lsn(lsn));
        assert_eq!(stored(&[at(180), at(150)]), Some(150));
        assert_eq!(stored(&[at(180), Resume::Copying(Lsn(150))]), Some(150));
        assert_eq!(stored(&[at(150), Resume::AtSlot]), None);
        assert_eq!((stored(&[at(100)]), stored(&[at(90), at(150)])), (None, None));
        assert_eq!((stored(&[at(201)]), stored(&[])), (None, None));
    }
}
