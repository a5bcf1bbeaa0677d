//! The place of a copy in the log (rule 6).

use super::{Bookmarkable, TransactionSnapshot};
use crate::pg::Lsn;

/// Which transactions the snapshot of a copy sees.
#[derive(Clone)]
pub(crate) enum CopyPosition {
    /// Those that committed before this position, and no others: a slot exported the snapshot. Its changes from here on may
    /// be streamed in any later run.
    Exact(Lsn),
    /// Those that the snapshot sees. Its changes have to be streamed in the same run.
    Visible(CopySnapshot),
    /// Those that a standby had replayed, of which all committed before this position: more than the main slot is past.
    Replayed(Lsn),
}

impl CopyPosition {
    /// Returns what the bookmark of the stream holds while it is copied; `floor`: see [`Slot::floor`](super::Slot::floor).
    pub(crate) fn bookmark(&self, floor: Bookmarkable) -> Bookmarkable {
        match self {
            CopyPosition::Exact(consistent_point) => Bookmarkable(*consistent_point),
            CopyPosition::Visible(_) | CopyPosition::Replayed(_) => floor,
        }
    }

    /// Whether the copy holds everything that committed before this position, as each slice of a copy has to.
    pub(crate) fn holds_until(&self, position: Lsn) -> bool {
        match self {
            CopyPosition::Exact(consistent_point) => *consistent_point >= position,
            CopyPosition::Visible(copy) => copy.until >= position && !copy.lacks_some(),
            CopyPosition::Replayed(until) => *until >= position,
        }
    }

    /// Returns the position that the log has to be read up to, so that nothing in it is older than the copy.
    fn until(&self) -> Lsn {
        match self {
            CopyPosition::Exact(until) | CopyPosition::Replayed(until) => *until,
            CopyPosition::Visible(copy) => copy.until,
        }
    }
}

/// A copy in slices, each read in a snapshot of its own. The log is read from the bookmark on, whatever the snapshots see: what a
/// slice does not hold commits behind its bookmark, and what comes again is older than a slice and followed by all that is between.
/// So the bookmark stays until the log was read past the last slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slices {
    /// From where on the log is read.
    from: Lsn,
    /// What the slices of this run see committed before this.
    upto: Lsn,
    /// Whether the last slice was sent.
    complete: bool,
}

impl Slices {
    /// Begins, or goes on, with a bookmark at this position.
    pub(crate) fn from(from: Lsn) -> Slices {
        Slices { from, upto: from, complete: false }
    }

    /// Returns from where on the log is read.
    pub(crate) fn start(&self) -> Lsn {
        self.from
    }

    /// Takes note of a slice.
    pub(crate) fn add(&mut self, position: &CopyPosition) {
        self.upto = self.upto.max(position.until());
    }

    /// Takes note that there is no slice left.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether the last slice was sent.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the log up to this position holds all that the slices see.
    pub(super) fn is_passed(&self, position: Lsn) -> bool {
        position >= self.upto
    }
}

/// A copy that holds the transactions which a snapshot sees, and no others.
#[derive(Clone, Debug)]
pub(crate) struct CopySnapshot {
    snapshot: TransactionSnapshot,
    /// Each transaction that the snapshot sees committed before this.
    until: Lsn,
    /// Transactions that the snapshot does not see although their commits may have been in the log before `until`: whether the
    /// log still brings them is to be seen.
    held: Vec<u32>,
}

impl CopySnapshot {
    /// Makes the snapshot of a copy. `until`: a position read after it; `held`: transactions whose commits wait for a
    /// synchronous standby.
    pub(crate) fn new(snapshot: TransactionSnapshot, until: Lsn, mut held: Vec<u32>) -> Self {
        held.retain(|&xid| !snapshot.sees(xid));
        CopySnapshot { snapshot, until, held }
    }

    /// Whether the copy holds a committed transaction.
    pub(super) fn holds(&self, xid: u32) -> bool {
        self.snapshot.sees(xid)
    }

    /// Leaves out what began after another snapshot.
    pub(crate) fn forget_younger(&mut self, other: &CopySnapshot) {
        self.held.retain(|&xid| !other.snapshot.precedes(xid));
    }

    /// Takes note of a transaction that the log brings.
    pub(super) fn came(&mut self, xid: u32) {
        self.held.retain(|&held| held != xid);
    }

    /// Whether everything that the snapshot sees lies before this position.
    pub(super) fn is_passed(&self, position: Lsn) -> bool {
        position >= self.until
    }

    /// Whether neither the copy nor the log may have brought some transaction.
    pub(super) fn lacks_some(&self) -> bool {
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_later_is_not_missed() {
        let copy = |snapshot: &str, held: &[u32]| {
            CopySnapshot::new(TransactionSnapshot::parse(snapshot).unwrap(), Lsn(100), held.to_vec())
        };
        let first = copy("10:15:10,12", &[10, 12]);
        let mut later = copy("12:30:12,15,20", &[12, 15, 20]);
        later.forget_younger(&first);
        assert_eq!(later.held, [12]);
        assert!(!CopyPosition::Visible(later).holds_until(Lsn(50)));
        let mut last = copy("15:30:15,20", &[15, 20]);
        last.forget_younger(&first);
        assert!(CopyPosition::Visible(last).holds_until(Lsn(50)));
    }
}
