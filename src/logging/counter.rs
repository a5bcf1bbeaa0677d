//! Counters of a stream's records: Singer metrics while it is read, a summary at the end, a bar on a terminal.

use std::time::{Duration, Instant};

use super::bars::Bar;
use super::figures::{bytes, counted, seconds};

/// How often a stream's count is logged.
const INTERVAL: Duration = Duration::from_secs(60);

/// The number of records after which the clock is read.
const CHECK_EVERY: u64 = 1024;

/// Logs a count of records in the format of the reference.
pub(super) fn metric(stream: &str, records: u64) {
    tracing::info!(record_count = records, stream);
}

/// Counter of a stream's records, which logs once a minute and at the end how many came since the last time.
#[derive(Debug)]
pub(crate) struct RecordCounter {
    stream: String,
    /// The records since the count was last logged.
    records: u64,
    unchecked: u64,
    logged: Instant,
    started: Instant,
    total: u64,
    bytes: u64,
    bar: Bar,
    /// Where the bar began.
    before: u64,
}

impl RecordCounter {
    /// Returns a counter at zero.
    pub(crate) fn new(stream: impl Into<String>) -> Self {
        let now = Instant::now();
        let stream = stream.into();
        RecordCounter {
            stream,
            records: 0,
            unchecked: 0,
            logged: now,
            started: now,
            total: 0,
            bytes: 0,
            bar: Bar::none(),
            before: 0,
        }
    }

    /// Returns a counter with a bar on a terminal; `expected` is the estimated number of rows, if known, of which about `before`
    /// were sent already.
    pub(crate) fn of_rows(stream: impl Into<String>, expected: Option<i64>, before: u64) -> Self {
        let counter = RecordCounter::new(stream);
        let expected = expected.and_then(|rows| u64::try_from(rows).ok());
        let bar = Bar::of_rows(&counter.stream, expected);
        bar.set(before);
        RecordCounter { bar, before, ..counter }
    }

    /// Counts records, and the bytes of their messages.
    #[inline]
    pub(crate) fn add(&mut self, records: u64, bytes: usize) {
        self.records += records;
        self.unchecked += records;
        self.bytes += bytes as u64;
        if self.unchecked >= CHECK_EVERY {
            self.check(Instant::now());
        }
    }

    fn check(&mut self, now: Instant) {
        self.unchecked = 0;
        self.bar.set(self.before + self.total + self.records);
        if now.duration_since(self.logged) >= INTERVAL {
            self.log();
            self.logged = now;
        }
    }

    fn log(&mut self) {
        metric(&self.stream, self.records);
        self.total += std::mem::take(&mut self.records);
    }

    /// Logs the count of the rest, which is 0 for a stream without records, and the summary.
    pub(crate) fn finish(mut self) {
        self.log();
        self.bar.end();
        if self.total > 0 {
            let (records, bytes) = (counted(self.total, "record"), bytes(self.bytes));
            tracing::info!("{}: {records}, {bytes}, in {}", self.stream, seconds(self.started.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_logged_once_a_minute() {
        let mut counter = RecordCounter::new("public-a");
        counter.add(CHECK_EVERY + 1, 10);
        assert_eq!((counter.records, counter.unchecked, counter.total), (CHECK_EVERY + 1, 0, 0));

        let later = counter.logged + INTERVAL;
        counter.check(later - Duration::from_millis(1));
        assert_eq!(counter.records, CHECK_EVERY + 1);
        counter.check(later);
        assert_eq!((counter.records, counter.logged, counter.total), (0, later, CHECK_EVERY + 1));
    }
}
