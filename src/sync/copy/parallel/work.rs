//! What the workers of a copy share, and what they report.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::ranges::Ranges;
use crate::error::Error;
use crate::pg::connect::Server;
use crate::singer::writer::KEEP;
use crate::sync::copy::rows::RowQuery;
use crate::sync::plan::RecordEnd;

/// The data that the workers of a copy share.
pub(super) struct Work {
    pub(super) server: Server,
    /// The statements that a session begins with: the snapshot, and a lock on the table.
    pub(super) begin: String,
    query: RowQuery,
    pub(super) end: RecordEnd,
    ranges: Ranges,
    /// The first range that nobody has taken.
    next: AtomicUsize,
    /// The number of ranges that were read and whose lines were handed over.
    done: AtomicUsize,
    /// Buffers whose lines have gone out.
    empty: Mutex<Vec<Vec<u8>>>,
}

impl Work {
    pub(super) fn new(server: Server, begin: String, query: RowQuery, end: RecordEnd, ranges: Ranges) -> Work {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Work { server, begin, query, end, ranges, next, done, empty: Mutex::default() }
    }

    /// Returns the query of the next range; `None` when there is none left.
    pub(super) fn take_range(&self) -> Option<String> {
        self.ranges.query(&self.query, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts a range that was read and its lines handed over.
    pub(super) fn range_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a worker has taken a range.
    pub(super) fn has_begun(&self) -> bool {
        self.next.load(Ordering::Relaxed) > 0
    }

    /// Whether every range was read.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed) == self.ranges.len()
    }

    /// Returns a buffer for lines.
    pub(super) fn take_empty(&self) -> Vec<u8> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes back a buffer whose lines have gone out.
    pub(super) fn give_back(&self, memory: Vec<u8>) {
        if memory.capacity() <= KEEP {
            self.empty.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        }
    }
}

/// A worker's report.
pub(super) enum Report {
    /// Whole lines.
    Lines { json: Vec<u8>, records: u64 },
    /// The worker could not begin.
    Refused(Error),
    /// The worker could not go on.
    Failed(Error),
}
