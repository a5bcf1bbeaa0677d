//! When a STATE is written, and what of it is left out.

use std::time::{Duration, Instant};

use crate::singer::messages;
use crate::state::State;

/// A STATE of this size follows the one before only after [`LARGE_STATE_INTERVAL`], where nothing else calls for it.
const LARGE_STATE: usize = 64 * 1024;
/// See [`LARGE_STATE`].
const LARGE_STATE_INTERVAL: Duration = Duration::from_secs(10);

/// The STATE messages of a run.
pub(super) struct States {
    /// Whether a STATE stands before the first RECORD already.
    opened: bool,
    /// The value of the last STATE.
    last: Vec<u8>,
    /// Whether anything else was written since.
    changed: bool,
    /// When that STATE was written.
    written: Instant,
}

impl States {
    pub(super) fn new() -> States {
        States { opened: false, last: Vec::new(), changed: true, written: Instant::now() }
    }

    /// Takes note of another message.
    #[inline]
    pub(super) fn message(&mut self) {
        self.changed = true;
    }

    /// Takes note of a RECORD or BATCH. Returns whether it is the first of the run: a STATE that claims nothing goes before it.
    #[inline]
    pub(super) fn record(&mut self) -> bool {
        self.changed = true;
        !std::mem::replace(&mut self.opened, true)
    }

    /// Whether there is a RECORD for a STATE to stand behind.
    pub(super) fn is_open(&self) -> bool {
        self.opened
    }

    /// Whether a STATE that may be left out should be: it is large, as with thousands of streams, and the last one is young.
    pub(super) fn can_wait(&self) -> bool {
        self.last.len() > LARGE_STATE && self.written.elapsed() < LARGE_STATE_INTERVAL
    }

    /// Returns a STATE message; `None` if it would only repeat the one before.
    pub(super) fn line(&mut self, state: &State) -> Option<Vec<u8>> {
        let changed = self.changed;
        self.line_if(state, changed)
    }

    /// Returns a STATE message to be put before the lines that were written since the last one; `None` if it would repeat that.
    pub(super) fn line_before(&mut self, state: &State) -> Option<Vec<u8>> {
        let line = self.line_if(state, false);
        self.changed = true;
        line
    }

    fn line_if(&mut self, state: &State, changed: bool) -> Option<Vec<u8>> {
        let mut value = Vec::with_capacity(self.last.len() + 64);
        state.write_state_value(&mut value);
        if !changed && value == self.last {
            return None;
        }
        let line = messages::state(&value);
        self.last = value;
        self.written = Instant::now();
        self.changed = false;
        Some(line)
    }
}
