//! What of a table is read in one snapshot.

use tokio::time::Instant;

use super::ranges::{Range, Ranges};
use super::rows::RowQuery;
use super::watermark::Watermark;
use crate::state::State;

/// What is read, and what became of it.
pub(super) struct Reading {
    pub(super) query: RowQuery,
    /// The version of its records.
    pub(super) version: i64,
    /// What is left to be read.
    pub(super) ranges: Ranges,
    /// About how many rows of the table were sent before.
    pub(super) before: u64,
    /// Whether several connections may read it.
    pub(super) several: bool,
    /// When no range is begun any more; one is, whatever the time.
    pub(super) until: Option<Instant>,
    /// Follows what was sent, where a next run can go on from there.
    pub(super) watermark: Option<Watermark>,
}

impl Reading {
    /// Returns one of everything that a query selects, by one connection.
    pub(super) fn of(query: RowQuery, version: i64) -> Reading {
        Reading { query, version, ranges: Ranges::whole(), before: 0, several: false, until: None, watermark: None }
    }

    /// Returns the next range and its SQL; `None` when there is none left, or no time.
    pub(super) fn next(&mut self) -> Option<(Range, String)> {
        if self.ranges.has_begun() && self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let range = self.ranges.next()?;
        Some((range, self.ranges.sql(&self.query, &range)))
    }

    /// Takes note that the lines of a range were written. Returns whether a STATE is due.
    pub(super) fn sent(&mut self, range: &Range) -> bool {
        self.watermark.as_mut().is_some_and(|mark| mark.sent(range, Instant::now()))
    }

    /// Notes how far it is, for the STATE that follows.
    pub(super) fn store(&mut self, state: &mut State) {
        if let Some(mark) = &mut self.watermark {
            mark.store(state);
        }
    }
}
