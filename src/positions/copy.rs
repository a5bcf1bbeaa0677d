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
}

impl CopyPosition {
    /// Returns what the bookmark of the stream holds while it is copied; `floor`: see [`Slot::floor`](super::Slot::floor).
    pub(crate) fn bookmark(&self, floor: Bookmarkable) -> Bookmarkable {
        match self {
            CopyPosition::Exact(consistent_point) => Bookmarkable(*consistent_point),
            CopyPosition::Visible(_) => floor,
        }
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
