//! What a run has in its hands from start to end: the way out and the state. It outlives the work, so that a run that is
//! interrupted can still write a last valid STATE.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::Result;
use crate::pg::Lsn;
use crate::pg::wire::CancelToken;
use crate::singer::{JsonBuf, MessageWriter};
use crate::state::State;

/// A STATE of this size
const LARGE_STATE: usize = 64 * 1024;
/// follows the one before only after so long.
const LARGE_STATE_INTERVAL: Duration = Duration::from_secs(10);

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
    /// Length of the buffered lines up to the last place where the run may be cut.
    mark: usize,
    /// How far the stream phase is.
    pub progress: Progress,
    /// What is to be cancelled on the server if the run is cut short.
    pub cancel: Option<CancelToken>,
}

/// How far the stream phase is: bookmarks move only when a STATE is written, or the run is cut short.
#[derive(Default)]
pub struct Progress {
    streams: Vec<String>,
    reached: Lsn,
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

    /// Every transaction that committed before this is in the buffered lines, or before them.
    pub fn reach(&mut self, position: Lsn) {
        self.reached = self.reached.max(position);
    }

    /// The last position reached.
    pub fn reached(&self) -> Lsn {
        self.reached
    }

    /// Moves the bookmarks, never back. Position 1 means "where the slot stands" and is left as soon as there is another.
    pub fn apply(&self, state: &mut State) {
        for id in &self.streams {
            let known = state.bookmark(id).lsn();
            if known.is_some_and(|known| known < self.reached.0) && !state.copy_unfinished(id) {
                state.set_lsn(id, self.reached.0);
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
            mark: 0,
            progress: Progress::default(),
            cancel: None,
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
        let out = &mut self.out.buf;
        out.raw(br#"{"type":"ACTIVATE_VERSION","stream":"#);
        out.string(stream.as_bytes());
        out.raw(br#","version":"#);
        out.raw(itoa::Buffer::new().format(version).as_bytes());
        out.raw(b"}\n");
        self.changed = true;
        self.mark();
    }

    /// To be called before a RECORD is appended: the first one has a STATE before it, which claims nothing.
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
        self.mark = 0;
        self.progress.handed_over = self.progress.reached;
        self.progress.incomplete = false;
        Ok(())
    }

    /// Says that the buffered lines are complete here: a run that is cut short keeps them.
    pub fn mark(&mut self) {
        self.mark = self.out.buf.len();
    }

    /// Says that the buffered lines are complete and lack nothing.
    pub fn complete(&mut self) {
        self.progress.incomplete = false;
        self.mark();
    }

    /// Ends a run that was cut short, wherever it was: forgets what is not complete and sets the bookmarks to what is.
    pub fn cut_short(&mut self) {
        if self.progress.incomplete {
            self.mark = 0;
            self.progress.reached = self.progress.handed_over;
        }
        self.out.buf.truncate(self.mark);
        self.progress.apply(&mut self.state);
        self.changed = true;
    }

    /// Writes the last STATE, if nothing but it was written since the one before, and waits until all is taken.
    pub async fn finish(&mut self) -> Result<()> {
        self.append_state();
        self.out.finish().await
    }

    fn append_state(&mut self) {
        let mut text = Vec::with_capacity(self.last_state.len() + 64);
        self.state.write_state_value(&mut text);
        if self.changed || text != self.last_state {
            let out = &mut self.out.buf;
            out.raw(br#"{"type":"STATE","value":"#);
            out.raw(&text);
            out.raw(b"}\n");
            self.last_state = text;
            self.written = Instant::now();
            self.changed = false;
        }
    }
}

/// Appends a JSON value.
pub(super) fn value(out: &mut JsonBuf, value: &Value) {
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
