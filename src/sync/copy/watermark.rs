//! Up to which page a copy in slices was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::ranges::Range;
use crate::state::{Progress, State};

/// The page below which every range was sent. Several connections end theirs in any order.
pub(super) struct Watermark {
    stream: String,
    progress: Progress,
    /// How often a STATE says so.
    interval: Duration,
    stored: Instant,
    /// How many ranges are below it.
    below: usize,
    /// Where ranges end that were sent before others that lie below them.
    ahead: BTreeMap<usize, u64>,
}

impl Watermark {
    /// Begins with the page that a copy goes on with. What is read in one snapshot is numbered from 0.
    pub(super) fn new(stream: &str, progress: Progress, interval: Duration) -> Watermark {
        let stream = stream.to_owned();
        Watermark { stream, progress, interval, stored: Instant::now(), below: 0, ahead: BTreeMap::new() }
    }

    /// Takes note that the lines of a range, and all before it in the same connection, were written. Returns whether a STATE is due.
    pub(super) fn sent(&mut self, range: &Range, now: Instant) -> bool {
        // Behind the last one there is nothing to tell.
        if let Some(end) = range.end {
            self.ahead.insert(range.index, end);
        }
        let before = self.progress.page;
        while let Some(end) = self.ahead.remove(&self.below) {
            self.progress.page = end;
            self.below += 1;
        }
        self.progress.page > before && now - self.stored >= self.interval
    }

    /// Notes the page in the stream's bookmark, for the STATE that follows.
    pub(super) fn store(&mut self, state: &mut State) {
        state.set_progress(&self.stream, &self.progress);
        self.stored = Instant::now();
    }

    /// Returns how far the copy is.
    pub(super) fn into_progress(self) -> Progress {
        self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Definition;

    #[test]
    fn it_waits_for_the_ranges_below() {
        let progress = Progress { page: 5, files: vec![7], definition: Definition::for_test() };
        let mut mark = Watermark::new("a", progress, Duration::from_secs(2));
        let (now, later) = (mark.stored, mark.stored + Duration::from_secs(2));
        let range = |index, end| Range::for_test(index, end);
        assert!(!mark.sent(&range(1, Some(30)), later), "not past the first range");
        assert!(!mark.sent(&range(0, Some(20)), now), "a STATE was written a moment ago");
        assert_eq!(mark.progress.page, 30);
        assert!(!mark.sent(&range(3, None), later));
        assert!(mark.sent(&range(2, Some(40)), later));
        assert_eq!(mark.into_progress().page, 40);
    }
}
