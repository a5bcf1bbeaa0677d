//! A stream on which nothing comes: when to ask, and what the answers say.

use std::time::Duration;

use tokio::time::Instant;

use super::run::End;
use crate::pg::Lsn;

/// On an idle stream a keepalive is asked for after this; then after twice as long, and so on
pub(crate) const FIRST_ASK: Duration = Duration::from_millis(20);
/// up to this. Also the time without a message after which buffered lines go out.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// An end that is not known to be a record's may lie inside one that is not complete. The server then stands still within
/// a page of it.
const PAGE: u64 = 8192;

/// What a run without messages knows of its server.
pub(crate) struct Silence {
    pub(crate) since: Instant,
    pub(crate) wait: Duration,
    /// When the wait is over. Keepalives, of which a server with busy neighbours sends many, don't put it off.
    pub(crate) wake: Instant,
    pub(crate) asked: Option<Instant>,
    /// How long the answer may take.
    pub(crate) patience: Duration,
    /// Answers that brought nothing new.
    standstill: u32,
    last_answer: Lsn,
}

impl Silence {
    pub(crate) fn new(patience: Duration) -> Self {
        let now = Instant::now();
        Silence {
            since: now,
            wait: FIRST_ASK,
            wake: now + FIRST_ASK,
            asked: None,
            patience,
            standstill: 0,
            last_answer: Lsn::INVALID,
        }
    }

    /// Takes an answer or another keepalive. Whether the server stands still just before an end that may lie inside a
    /// record: its answers bring nothing new. Elsewhere it is but busy.
    pub(crate) fn is_stuck(&mut self, end: &End, wal_end: Lsn) -> bool {
        if self.asked.is_none() || wal_end != self.last_answer {
            self.last_answer = wal_end;
            self.standstill = 0;
            return false;
        }
        self.standstill += 1;
        !end.of_record && end.lsn.0 - wal_end.0 < PAGE && self.standstill >= 2 && self.since.elapsed() >= IDLE
    }
}
