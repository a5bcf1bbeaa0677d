//! What a run has in its hands from start to end: the way out and the state. It outlives the work, so that a run that is
//! interrupted can still write a last valid STATE.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::BatchConfig;
use crate::error::Result;
use crate::pg::Lsn;
use crate::pg::connect::Server;
use crate::pg::wire::{CancelToken, Session};
use crate::singer::{JsonBuf, MessageWriter};
use crate::state::State;

/// A STATE of this size
const LARGE_STATE: usize = 64 * 1024;
/// follows the one before only after so long.
const LARGE_STATE_INTERVAL: Duration = Duration::from_secs(10);

/// The lines of an open transaction are kept back up to this size.
const LARGE_TRANSACTION: usize = 4 * 1024 * 1024;

/// The way out and the state.
pub struct Context {
    /// Where messages go.
    pub out: MessageWriter,
    /// How far each stream is. Never ahead of the lines handed to `out`: whoever moves a bookmark has put the records
    /// before it into `out` first.
    pub state: State,
    /// Whether a STATE stands before the first RECORD already.
    opened: bool,
    /// The value of the last STATE, and whether anything else was written since.
    last_state: Vec<u8>,
    changed: bool,
    /// When that STATE was written.
    written: Instant,
    /// Length of the buffered lines up to the last place where the run may be cut; `None` inside a transaction of which lines
    /// were handed over.
    mark: Option<usize>,
    /// Whether the last line that was handed over belongs to a transaction of which more is to come.
    torn: bool,
    /// How far the stream phase is.
    pub progress: Progress,
    /// What is to be cancelled on the server if the run is cut short.
    cancel: Option<(Server, CancelToken)>,
    /// Where the rows of tables go instead.
    pub batches: Option<BatchConfig>,
}

/// How far the stream phase is: bookmarks move only when a STATE is written, or the run is cut short.
#[derive(Default)]
pub struct Progress {
    streams: Vec<String>,
    /// The end of the last transaction.
    committed: Lsn,
    /// The last position that the server told without a transaction.
    heard: Lsn,
    /// The position reached when lines were last handed over.
    handed_over: Lsn,
    /// Whether buffered lines lack values that are still to be read.
    pub incomplete: bool,
}

impl Progress {
    /// These streams move together from here on.
    pub fn begin(&mut self, streams: Vec<String>) {
        self.streams = streams;
    }

    /// A transaction is complete: every one that committed before this is in the buffered lines, or before them.
    pub fn commit(&mut self, position: Lsn) {
        self.committed = self.committed.max(position);
    }

    /// The server says that it has sent every transaction that committed before this.
    pub fn hear(&mut self, position: Lsn) {
        self.heard = self.heard.max(position);
    }

    /// The last position reached.
    pub fn reached(&self) -> Lsn {
        self.committed.max(self.heard)
    }

    /// Moves the bookmarks as far as transactions went: the same place whichever way the log is read.
    fn apply_commits(&self, state: &mut State) {
        self.apply_position(state, self.committed);
    }

    /// Moves the bookmarks to where the run is.
    pub fn apply(&self, state: &mut State) {
        self.apply_position(state, self.reached());
    }

    /// Never back. Position 1 means "where the slot stands" and is left as soon as there is another.
    fn apply_position(&self, state: &mut State, position: Lsn) {
        for id in &self.streams {
            let known = state.bookmark(id).lsn();
            if known.is_some_and(|known| known < position.0) && !state.copy_unfinished(id) {
                state.set_lsn(id, position.0);
            }
        }
    }
}

impl Context {
    /// The start of a run.
    pub fn new(out: MessageWriter, state: State) -> Self {
        Context {
            out,
            state,
            opened: false,
            last_state: Vec::new(),
            changed: true,
            written: Instant::now(),
            mark: Some(0),
            torn: false,
            progress: Progress::default(),
            cancel: None,
            batches: None,
        }
    }

    /// What the session does from here on is to be cancelled if the run is cut short: a server that has nothing to send does
    /// not notice that nobody waits for it any more.
    pub fn cancels(&mut self, server: &Server, session: &Session) {
        self.cancel = Some((server.clone(), session.cancel_token()));
    }

    /// Nothing is to be cancelled any more.
    pub fn cancels_nothing(&mut self) {
        self.cancel = None;
    }

    /// Asks the server to cancel what it is doing, if that is something.
    pub async fn cancel(&mut self) -> Result<()> {
        match self.cancel.take() {
            Some((server, token)) => server.cancel(token).await,
            None => Ok(()),
        }
    }

    /// Appends a SCHEMA message.
    pub fn schema(&mut self, stream: &str, schema: &Value, keys: &[String], bookmark: &[&str]) {
        let out = &mut self.out.buf;
        out.raw(br#"{"type":"SCHEMA","stream":"#);
        out.string(stream.as_bytes());
        out.raw(br#","schema":"#);
        value(out, schema);
        out.raw(br#","key_properties":"#);
        strings(out, keys);
        out.raw(br#","bookmark_properties":"#);
        strings(out, bookmark);
        out.raw(b"}\n");
        self.changed = true;
    }

    /// Appends an ACTIVATE_VERSION message.
    pub fn activate_version(&mut self, stream: &str, version: i64) {
        self.activate_version_inside(stream, version);
        self.mark();
    }

    /// The same while a transaction is open.
    pub fn activate_version_inside(&mut self, stream: &str, version: i64) {
        let out = &mut self.out.buf;
        out.raw(br#"{"type":"ACTIVATE_VERSION","stream":"#);
        out.string(stream.as_bytes());
        out.raw(br#","version":"#);
        out.raw(itoa::Buffer::new().format(version).as_bytes());
        out.raw(b"}\n");
        self.changed = true;
    }

    /// Appends a BATCH message: a file with rows of a stream.
    pub fn batch(&mut self, stream: &str, config: &BatchConfig, url: &str) {
        self.before_record();
        let out = &mut self.out.buf;
        out.raw(br#"{"type":"BATCH","stream":"#);
        out.string(stream.as_bytes());
        out.raw(br#","encoding":{"format":"#);
        out.string(config.encoding.format.as_str().as_bytes());
        out.raw(br#","compression":"#);
        out.string(config.encoding.compression.as_str().as_bytes());
        out.raw(br#"},"manifest":["#);
        out.string(url.as_bytes());
        out.raw(b"]}\n");
        self.mark();
    }

    /// To be called before a RECORD or BATCH is appended: the first one has a STATE before it, which claims nothing.
    pub fn before_record(&mut self) {
        if !self.opened {
            self.opened = true;
            self.append_state();
        }
        self.changed = true;
    }

    /// Appends a STATE message and hands everything over; does nothing before the first RECORD.
    pub async fn write_state(&mut self) -> Result<()> {
        if self.opened {
            self.append_state();
            self.hand_over().await?;
        }
        Ok(())
    }

    /// As [`write_state`](Self::write_state); but a STATE that has grown large with thousands of streams is not repeated
    /// after each of them.
    pub async fn write_state_between_streams(&mut self) -> Result<()> {
        if self.last_state.len() > LARGE_STATE && self.written.elapsed() < LARGE_STATE_INTERVAL {
            return Ok(());
        }
        self.write_state().await
    }

    /// Whether a record was written, so that there is something for a STATE to stand behind.
    pub fn has_written(&self) -> bool {
        self.opened
    }

    /// Hands the buffered lines over.
    pub async fn hand_over(&mut self) -> Result<()> {
        self.out.drain().await?;
        self.handed_over(false);
        Ok(())
    }

    /// Whether lines should be handed over while a transaction is open: those before it, or its own where it is large.
    pub fn needs_room(&self) -> bool {
        self.out.is_full() && (self.mark > Some(0) || self.out.buf.len() >= LARGE_TRANSACTION)
    }

    /// Hands lines over while a transaction is open. Its own stay, so that a run that is cut short forgets them; unless it
    /// is too large for that. A STATE then goes before them: after them it would stand inside the transaction, and what is
    /// cut there comes again.
    pub async fn hand_over_inside(&mut self) -> Result<()> {
        match self.mark {
            Some(mark) if mark > 0 => {
                self.out.drain_front(mark).await?;
                self.handed_over(false);
            }
            _ if self.out.buf.len() < LARGE_TRANSACTION => {}
            start => {
                self.changed = false;
                if start.is_some() {
                    self.progress.apply_commits(&mut self.state);
                    if let Some(line) = self.state_line() {
                        self.insert(&[(0, line)]);
                    }
                }
                self.changed = true;
                self.out.drain().await?;
                self.handed_over(true);
            }
        }
        Ok(())
    }

    /// Lines were handed over; `torn`: up to the middle of a transaction.
    fn handed_over(&mut self, torn: bool) {
        self.mark = (!torn).then_some(0);
        self.torn = torn;
        self.progress.handed_over = self.progress.reached();
    }

    /// Puts texts into the buffered lines, each at its place; the places are in order.
    pub fn insert(&mut self, texts: &[(usize, Vec<u8>)]) {
        let Some((first, _)) = texts.first() else { return };
        // What lies before stays where it is.
        let rest = self.out.buf.as_bytes()[*first..].to_vec();
        self.out.buf.truncate(*first);
        let mut done = *first;
        let mut mark = self.mark;
        for (at, text) in texts {
            self.out.buf.raw(&rest[done - first..at - first]);
            self.out.buf.raw(text);
            done = *at;
            if self.mark.is_some_and(|before| *at < before) {
                mark = mark.map(|mark| mark + text.len());
            }
        }
        self.out.buf.raw(&rest[done - first..]);
        self.mark = mark;
    }

    /// Says that the buffered lines are complete here: a run that is cut short keeps them.
    pub fn mark(&mut self) {
        self.mark = Some(self.out.buf.len());
    }

    /// Ends a run that was cut short, wherever it was: forgets what is not complete and sets the bookmarks to what is.
    pub fn cut_short(&mut self) {
        if self.progress.incomplete {
            self.mark = None;
            (self.progress.committed, self.progress.heard) = (self.progress.handed_over, Lsn::INVALID);
        }
        self.out.buf.truncate(self.mark.unwrap_or(0));
        self.torn &= self.mark.is_none();
        self.progress.apply(&mut self.state);
        self.changed = true;
    }

    /// Writes the last STATE, unless it would repeat the one before or stand inside a transaction, and waits until all is
    /// taken.
    pub async fn finish(&mut self) -> Result<()> {
        if !self.torn {
            self.append_state();
        }
        self.out.finish().await
    }

    fn append_state(&mut self) {
        if let Some(line) = self.state_line() {
            self.out.buf.raw(&line);
        }
    }

    /// A STATE message that is to be written, if it would not repeat the one before.
    fn state_line(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(self.last_state.len() + 64);
        self.state.write_state_value(&mut text);
        if !self.changed && text == self.last_state {
            return None;
        }
        let line = [br#"{"type":"STATE","value":"#, text.as_slice(), b"}\n"].concat();
        self.last_state = text;
        self.written = Instant::now();
        self.changed = false;
        Some(line)
    }
}

/// Appends a JSON value.
pub(crate) fn value(out: &mut JsonBuf, value: &Value) {
    // A Value always has text: its keys are strings.
    out.raw(value.to_string().as_bytes());
}

fn strings(out: &mut JsonBuf, items: &[impl AsRef<str>]) {
    out.byte(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.byte(b',');
        }
        out.string(item.as_ref().as_bytes());
    }
    out.byte(b']');
}
