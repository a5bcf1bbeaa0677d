//! What a run has in its hands from start to end: the lines on their way to stdout, the state, and the ledger of positions. It
//! outlives the work, so that a run that is interrupted can still write a last valid STATE.
//!
//! ```text
//! records, SCHEMA … ─▶ Lines (the buffer: where it may be cut, what it lacks) ─▶ [Window: files, compaction] ─▶ MessageWriter ─▶ stdout
//! begin, commit, keepalive ─▶ Ledger ─▶ State ─▶ States (when a STATE is written) ─┘
//! ```

mod batches;
mod holes;
mod keys;
mod lines;
mod states;
mod window;

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;

pub(crate) use holes::{Filling, Hole, Holes, Key, Lead, Want};
use lines::Lines;
use states::States;
use window::Window;

use crate::config::Config;
use crate::error::Result;
use crate::pg::Lsn;
use crate::positions::{HeldBack, Ledger, Upto};
use crate::singer::{JsonBuf, MessageWriter, messages};
use crate::state::State;

/// The messages of a run, and how far it is.
pub(crate) struct Output {
    /// How far each stream is. Never ahead of the lines before it: whoever moves a bookmark has written the records first. The
    /// positions of LOG_BASED streams come from the ledger alone.
    pub(crate) state: State,
    lines: Lines,
    states: States,
    ledger: Ledger,
    /// Whether versions are activated.
    activates: bool,
}

impl Output {
    /// Begins a run with this state.
    pub(crate) fn new(writer: MessageWriter, state: State, config: &Config) -> Self {
        Output {
            state,
            lines: Lines::new(writer, Window::of(config)),
            states: States::new(),
            ledger: Ledger::default(),
            activates: config.activate_version(),
        }
    }

    /// Appends a SCHEMA message. It is complete with the line behind it: a run that is cut in between has no use for it.
    pub(crate) fn schema(&mut self, stream: &str, schema: &Value, keys: &[String], bookmark: &[&str]) {
        messages::schema(self.lines.buf(), stream, schema, keys, bookmark);
        self.states.message();
    }

    /// Appends an ACTIVATE_VERSION message, where the target wants it.
    pub(crate) fn activate_version(&mut self, stream: &str, version: i64) {
        if !self.activates {
            return;
        }
        messages::activate_version(self.lines.buf(), stream, version);
        self.lines.end_line();
        self.states.message();
    }

    /// Begins a RECORD, which the caller writes into the buffer returned. The first one has a STATE before it that claims
    /// nothing.
    #[inline]
    pub(crate) fn begin_record(&mut self) -> &mut JsonBuf {
        self.before_record();
        self.lines.buf()
    }

    /// Returns the buffer that a RECORD is being written into.
    #[inline]
    pub(crate) fn buf(&mut self) -> &mut JsonBuf {
        self.lines.buf()
    }

    /// Ends a RECORD.
    #[inline]
    pub(crate) fn end_record(&mut self) {
        self.lines.end_line();
    }

    /// Appends whole RECORD lines that were written elsewhere, leaving `lines` empty.
    pub(crate) fn append_records(&mut self, lines: &mut Vec<u8>) {
        self.before_record();
        self.lines.buf().append(lines);
        self.lines.end_line();
    }

    #[inline]
    fn before_record(&mut self) {
        if self.states.record() {
            self.append_state();
            self.states.message();
        }
    }

    /// Whether a record was written, so that there is something for a STATE to stand behind.
    pub(crate) fn has_written(&self) -> bool {
        self.states.is_open()
    }

    /// Whether so much is buffered that it should be handed over.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.lines.is_full()
    }

    /// Whether lines should be handed over while a transaction is open.
    #[inline]
    pub(crate) fn needs_room(&self) -> bool {
        self.lines.needs_room()
    }

    /// Hands over what is complete. The lines of an open transaction stay, so that a run that is cut short can forget them;
    /// unless it is too large for that. A STATE then goes before them: after them it would stand inside the transaction, and
    /// what is cut there comes again.
    ///
    /// # Errors
    /// The reader of stdout is gone, or a file of a batch can't be written.
    pub(crate) async fn hand_over(&mut self) -> Result<()> {
        if self.lines.will_tear() && !self.lines.is_torn() {
            self.move_bookmarks(Upto::LastCommit);
            if let Some(line) = self.states.line_before(&self.state) {
                self.lines.prepend(&line);
            }
        }
        if self.lines.hand_over().await? {
            self.ledger.handed_over();
        }
        Ok(())
    }

    /// Appends a STATE message and hands everything over; does nothing before the first RECORD.
    pub(crate) async fn write_state(&mut self) -> Result<()> {
        if self.states.is_open() {
            self.append_state();
            self.hand_over().await?;
        }
        Ok(())
    }

    /// As [`write_state`](Self::write_state), where a STATE may be left out.
    pub(crate) async fn write_state_between_streams(&mut self) -> Result<()> {
        if self.states.can_wait() { Ok(()) } else { self.write_state().await }
    }

    fn append_state(&mut self) {
        if let Some(line) = self.states.line(&self.state) {
            self.lines.buf().raw(&line);
            self.lines.end_line();
        }
    }

    /// Takes note that the SCHEMAs and records which follow are of the log.
    pub(crate) fn begin_changes(&mut self) {
        self.lines.begin_changes();
    }

    /// Begins to stream changes.
    pub(crate) fn stream(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    /// Returns the positions of the streams.
    #[inline]
    pub(crate) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Begins a transaction; breaks where the run ends before it. See [`Ledger::begin`].
    pub(crate) fn begin(&mut self, commit_lsn: Lsn, xid: u32) -> ControlFlow<()> {
        self.ledger.begin(commit_lsn, xid)?;
        self.lines.open();
        ControlFlow::Continue(())
    }

    /// Ends the transaction. See [`Ledger::commit`].
    pub(crate) fn commit(&mut self, end_lsn: Lsn) {
        self.ledger.commit(end_lsn);
        self.lines.close();
    }

    /// Takes note of values that the record which is being written lacks; `xid`: its transaction.
    pub(crate) fn punch(&mut self, hole: Hole, xid: u32) {
        self.lines.holes().add(hole, xid);
    }

    /// Returns the values that buffered records lack.
    pub(crate) fn holes(&mut self) -> &Holes {
        self.lines.holes()
    }

    /// Fills the first holes with what was found, in the order of its places. What was not found stays absent. Where much is
    /// filled, it leaves at once.
    ///
    /// # Errors
    /// The reader of stdout is gone.
    pub(crate) async fn fill(&mut self, holes: usize, found: &[Filling]) -> Result<()> {
        self.lines.fill(holes, found);
        self.lines.make_room().await
    }

    /// Moves the bookmarks to the position reached, those of copies that are complete by it too.
    ///
    /// # Errors
    /// A copy may lack a transaction. The bookmarks of the others are moved.
    pub(crate) fn settle(&mut self) -> std::result::Result<(), HeldBack> {
        self.move_bookmarks(Upto::Reached);
        let (finished, held_back) = self.ledger.finished_copies();
        for (id, position) in finished {
            self.state.finish_copy(&id, position);
        }
        held_back.map_or(Ok(()), Err)
    }

    fn move_bookmarks(&mut self, upto: Upto) {
        for (id, position) in self.ledger.bookmarks(upto) {
            self.state.set_lsn(id, position);
        }
    }

    /// Ends a run that was cut short, wherever it was: forgets what is not complete and sets the bookmarks to what is.
    pub(crate) fn cut_short(&mut self) {
        if self.lines.cut_short() {
            self.ledger.forget();
        }
        self.move_bookmarks(Upto::Reached);
        self.states.message();
    }

    /// Writes the last STATE, unless it would repeat the one before or stand inside a transaction, and waits until all is
    /// taken.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        if !self.lines.is_torn() {
            self.append_state();
        }
        self.lines.finish().await
    }

    /// Ends a run that can write no more: what was handed over goes out whole, and nothing behind it, no STATE either.
    pub(crate) async fn abandon(&mut self) -> Result<()> {
        self.lines.close_writer().await
    }

    /// Returns how long the run has waited for the reader of stdout.
    pub(crate) fn waited(&self) -> Duration {
        self.lines.waited()
    }
}
