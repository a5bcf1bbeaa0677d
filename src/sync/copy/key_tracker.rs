//! The bookmark of an INCREMENTAL stream, which follows the replication key of the rows that are sent.

use serde_json::Value;

use crate::singer::JsonBuf;
use crate::state::State;
use crate::types::Codec;

/// A tracker of the replication key of the rows that are sent, which moves the bookmark now and then.
pub(crate) struct KeyTracker {
    stream: String,
    key: String,
    column: usize,
    version: i64,
    /// The last value as JSON; empty before there was one.
    last: JsonBuf,
    rows: u64,
    /// The number of rows after which a STATE follows.
    state_every: u64,
}

impl KeyTracker {
    pub(super) fn new(stream: String, key: String, column: usize, version: i64, state_every: u64) -> Self {
        KeyTracker { stream, key, column, version, last: JsonBuf::new(), rows: 0, state_every }
    }

    /// Takes note of a value, which is never NULL. One that JSON has no exact form for (infinity, a date before year 1)
    /// is skipped: the bookmark stays at the key before.
    pub(crate) fn see(&mut self, column: usize, codec: &Codec, text: &[u8]) {
        if column == self.column && !codec.is_fallback(text) {
            self.last.clear();
            codec.encode(text, &mut self.last);
        }
    }

    /// Takes note of a row that was sent. Returns whether the bookmark was moved, so that a STATE should follow.
    pub(crate) fn row(&mut self, state: &mut State) -> bool {
        self.rows += 1;
        let due = self.rows.is_multiple_of(self.state_every);
        if due {
            self.store(state);
        }
        due
    }

    /// Returns the number of rows that were sent to the run's messages.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Moves the bookmark to the last value.
    pub(crate) fn store(&mut self, state: &mut State) {
        if let Ok(value) = serde_json::from_slice::<Value>(self.last.as_bytes()) {
            state.set_incremental(&self.stream, &self.key, Some(value), self.version);
        }
    }
}
