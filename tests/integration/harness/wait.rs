//! Waiting for what comes true by itself.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long [`until`] waits.
const LIMIT: Duration = Duration::from_secs(40);

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: impl Display, is_so: impl FnMut() -> bool) {
    until_within(LIMIT, what, is_so);
}

/// Waits until something is so, for another time at most.
#[track_caller]
pub(crate) fn until_within(limit: Duration, what: impl Display, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
