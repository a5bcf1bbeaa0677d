//! What the workers of a copy share, and what they report.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::error::Error;
use crate::pg::connect::Server;
use crate::singer::writer::KEEP;
use crate::sync::copy::ranges::{Range, Ranges};
use crate::sync::copy::reading::Reading;
use crate::sync::copy::rows::RowQuery;
use crate::sync::form::RecordEnd;

/// The data that the workers of a copy share.
pub(super) struct Work {
    pub(super) server: Server,
    /// The statements that a session begins with: the snapshot, and a lock on the table.
    pub(super) begin: String,
    query: RowQuery,
    pub(super) end: RecordEnd,
    ranges: Mutex<Ranges>,
    /// When no range is begun any more.
    until: Option<Instant>,
    /// How many ranges were taken.
    taken: AtomicUsize,
    /// The number of ranges that were read and whose lines were handed over.
    done: AtomicUsize,
    /// Buffers whose lines have gone out.
    empty: Mutex<Vec<Vec<u8>>>,
}

impl Work {
    /// Returns the work of reading what `reading` says.
    pub(super) fn new(server: Server, begin: String, end: RecordEnd, reading: &Reading) -> Work {
        let Reading { query, ranges, until, .. } = reading;
        Work {
            server,
            begin,
            query: query.clone(),
            end,
            ranges: Mutex::new(ranges.clone()),
            until: *until,
            taken: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            empty: Mutex::default(),
        }
    }

    /// Returns the next range and its query; `None` when there is none left, or no time.
    pub(super) fn take_range(&self) -> Option<(Range, String)> {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_begun() && self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let range = ranges.next()?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        Some((range, ranges.sql(&self.query, &range)))
    }

    /// Returns the ranges that nobody has taken.
    pub(super) fn left(&self) -> Ranges {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a range that was read and its lines handed over.
    pub(super) fn range_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a worker has taken a range.
    pub(super) fn has_begun(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > 0
    }

    /// Whether every range was read that was taken.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed) == self.taken.load(Ordering::Relaxed)
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
    /// A range was read, and its lines went before.
    Done(Range),
    /// The worker could not begin.
    Refused(Error),
    /// The worker could not go on.
    Failed(Error),
}
