//! Singer metrics: how many records of a stream were read.

use std::time::{Duration, Instant};

/// How often a stream's count is logged.
const INTERVAL: Duration = Duration::from_secs(60);

/// After how many records the clock is looked at.
const CHECK_EVERY: u64 = 1024;

/// Logs a count of records, as the reference does.
pub fn metric(stream: &str, records: u64) {
    tracing::info!(record_count = records, stream);
}

/// Counts a stream's records and logs the count once a minute and at the end, each time what came since the last.
#[derive(Debug)]
pub struct RecordCounter {
    stream: String,
    records: u64,
    unchecked: u64,
    logged: Instant,
}

impl RecordCounter {
    /// A counter at zero.
    pub fn new(stream: impl Into<String>) -> Self {
        RecordCounter { stream: stream.into(), records: 0, unchecked: 0, logged: Instant::now() }
    }

    /// Counts records.
    #[inline]
    pub fn add(&mut self, records: u64) {
        self.records += records;
        self.unchecked += records;
        if self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            self.log_if_due(Instant::now());
        }
    }

    fn log_if_due(&mut self, now: Instant) {
        if now.duration_since(self.logged) >= INTERVAL {
            metric(&self.stream, std::mem::take(&mut self.records));
            self.logged = now;
        }
    }

    /// Logs what is left; a stream without records logs 0.
    pub fn finish(self) {
        metric(&self.stream, self.records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_logged_once_a_minute() {
        let mut counter = RecordCounter::new("public-a");
        counter.add(CHECK_EVERY + 1);
        assert_eq!((counter.records, counter.unchecked), (CHECK_EVERY + 1, 0));

        let later = counter.logged + INTERVAL;
        counter.log_if_due(later - Duration::from_millis(1));
        assert_eq!(counter.records, CHECK_EVERY + 1);
        counter.log_if_due(later);
        assert_eq!((counter.records, counter.logged), (0, later));
    }
}
