//! The buffered lines, with the place where a run may be cut.
//!
//! ```text
//! handed over ──────────────────┐┌─ buffered
//!  … complete … │ open so far   ││ its rest │ complete │ open transaction
//!               └─ torn ────────┘│          │          └─ kept back, forgotten where the run is cut
//!                                0          cut        len
//! ```
//!
//! A line that lacks a value, or belongs to a transaction that is still open, is not complete. What is complete can leave at any
//! time; a transaction too large to be kept back leaves in parts, and until its end no STATE may follow.

use std::time::Duration;

use super::holes::{Filling, Holes};
use super::window::Window;
use crate::error::Result;
use crate::singer::writer::KEEP;
use crate::singer::{JsonBuf, MessageWriter};

/// The lines of an open transaction are kept back up to this size.
const LARGE_TRANSACTION: usize = 4 * 1024 * 1024;

/// The lines that were not handed to the writing thread yet. [`end_line`](Self::end_line) and [`close`](Self::close) know whether
/// what is written so far is complete.
pub(super) struct Lines {
    writer: MessageWriter,
    /// What complete lines pass through, where they are to become other messages.
    window: Option<Window>,
    /// The buffered lines up to here are complete.
    cut: usize,
    /// Whether a transaction is open: the lines that come belong to it.
    open: bool,
    /// Whether the last line that was handed over belongs to a transaction whose rest is buffered, or still to come.
    torn: bool,
    /// The values that buffered lines lack.
    holes: Holes,
}

impl Lines {
    pub(super) fn new(writer: MessageWriter, window: Option<Window>) -> Lines {
        Lines { writer, window, cut: 0, open: false, torn: false, holes: Holes::default() }
    }

    /// Returns where lines are written.
    #[inline]
    pub(super) fn buf(&mut self) -> &mut JsonBuf {
        &mut self.writer.buf
    }

    /// Ends a line. It is complete unless a transaction is open.
    #[inline]
    pub(super) fn end_line(&mut self) {
        if !self.open {
            self.cut = self.writer.buf.len();
        }
    }

    /// Begins a transaction.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// Ends the transaction: its lines are complete. Where all of them have left, nothing is torn any more.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.cut = self.writer.buf.len();
        self.holes.end();
        self.torn &= self.cut > 0;
    }

    /// Returns the values that buffered lines lack.
    pub(super) fn holes(&mut self) -> &mut Holes {
        &mut self.holes
    }

    /// Whether so much is buffered that lines should leave.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Whether lines should leave while a transaction is open: complete ones, or its own where it is large.
    #[inline]
    pub(super) fn needs_room(&self) -> bool {
        self.is_full() && (self.cut > 0 || self.is_large())
    }

    fn is_large(&self) -> bool {
        self.writer.buf.len() >= LARGE_TRANSACTION
    }

    /// Whether the next [`hand_over`](Self::hand_over) passes on lines of the open transaction.
    pub(super) fn will_tear(&self) -> bool {
        self.open && self.cut == 0 && self.is_large() && self.holes.is_empty()
    }

    /// Whether what was handed over ends inside a transaction.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Hands complete lines to the writing thread, and those of an open transaction where it is large; waits while the reader is
    /// too slow. A line that lacks a value never leaves, nor what follows it. Returns whether anything that was buffered may
    /// have left.
    ///
    /// # Errors
    /// The reader of stdout is gone, or a file of a batch can't be written.
    pub(super) async fn hand_over(&mut self) -> Result<bool> {
        if !self.holes.is_empty() {
            return Ok(false);
        }
        let (len, torn) = match self.open {
            false => (self.writer.buf.len(), false),
            true if self.cut > 0 => (self.cut, false),
            true if self.will_tear() => (self.writer.buf.len(), true),
            true => return Ok(false),
        };
        self.leave(len, torn).await?;
        Ok(true)
    }

    /// Fills the first holes with these, which are in the order of their places. A hole without one stays absent.
    pub(super) fn fill(&mut self, holes: usize, fillings: &[Filling]) {
        let inserted = self.insert(fillings);
        self.holes.filled(holes, inserted);
    }

    /// Hands over the lines before the first that is not complete, if they are large: they may be lines of a transaction that is
    /// torn by it.
    ///
    /// # Errors
    /// See [`hand_over`](Self::hand_over).
    pub(super) async fn make_room(&mut self) -> Result<()> {
        let Some(len) = self.holes.first_line().filter(|len| *len >= LARGE_TRANSACTION) else { return Ok(()) };
        self.leave(len, true).await
    }

    /// Lets the first `len` bytes go; `torn`: the rest of their last transaction is still to come.
    async fn leave(&mut self, len: usize, torn: bool) -> Result<()> {
        match self.window.as_mut().filter(|window| window.is_needed()) {
            None => {
                self.writer.drain_front(len).await?;
                self.have_left(len, torn);
            }
            Some(window) => {
                // All of it before anything is waited for: a run that is cut short meanwhile finds each line in one place.
                window.take(&self.writer.buf.as_bytes()[..len]);
                self.writer.buf.remove_front(len, KEEP);
                self.have_left(len, torn);
                self.send().await?;
            }
        }
        Ok(())
    }

    fn have_left(&mut self, len: usize, torn: bool) {
        self.torn = torn;
        self.cut = self.cut.saturating_sub(len);
        self.holes.left(len);
    }

    async fn send(&mut self) -> Result<()> {
        match &mut self.window {
            Some(window) => window.send(&mut self.writer).await,
            None => Ok(()),
        }
    }

    /// Takes note that the lines which follow are of the log.
    pub(super) fn begin_changes(&mut self) {
        self.window.iter_mut().for_each(Window::begin_changes);
    }

    /// Inserts what fills holes and returns how long it is. What fills one of a transaction that has ended is complete: a whole line
    /// may be the last before the cut.
    fn insert(&mut self, fillings: &[Filling]) -> usize {
        let Some(Filling { at: first, .. }) = fillings.first() else { return 0 };
        // What lies before stays where it is.
        let rest = self.writer.buf.as_bytes()[*first..].to_vec();
        self.writer.buf.truncate(*first);
        let (mut done, mut inserted, mut cut) = (*first, 0, self.cut);
        for Filling { hole, at, text } in fillings {
            self.writer.buf.raw(&rest[done - first..at - first]);
            self.writer.buf.raw(text);
            done = *at;
            inserted += text.len();
            if self.holes.has_ended(*hole) {
                cut += text.len();
            }
        }
        self.writer.buf.raw(&rest[done - first..]);
        self.cut = cut;
        inserted
    }

    /// Inserts a line in front of the lines of an open transaction, which are all that is buffered.
    pub(super) fn prepend(&mut self, line: &[u8]) {
        let rest = self.writer.buf.as_bytes().to_vec();
        self.writer.buf.truncate(0);
        self.writer.buf.raw(line);
        self.writer.buf.raw(&rest);
    }

    /// Forgets what is not complete. Returns whether that includes transactions that had ended: a line before them lacked a
    /// value.
    pub(super) fn cut_short(&mut self) -> bool {
        let lacking = !self.holes.is_empty();
        if lacking {
            self.holes = Holes::default();
            self.cut = 0;
        }
        self.writer.buf.truncate(self.cut);
        self.torn &= self.cut == 0;
        self.open = false;
        lacking
    }

    /// Hands over what is buffered and waits until the reader has taken everything.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let sent = self.send_all().await;
        sent.and(self.close_writer().await)
    }

    async fn send_all(&mut self) -> Result<()> {
        self.leave(self.writer.buf.len(), self.torn).await?;
        match &mut self.window {
            Some(window) => window.finish(&mut self.writer).await,
            None => Ok(()),
        }
    }

    /// Waits until the reader has taken what was handed over. Nothing else is.
    pub(super) async fn close_writer(&mut self) -> Result<()> {
        self.writer.close().await
    }

    /// See [`MessageWriter::waited`].
    pub(super) fn waited(&self) -> Duration {
        self.writer.waited()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::singer::writer::tests::Sink;
    use crate::sync::output::holes::{Hole, Lead, Want};

    fn lines() -> (Lines, Sink) {
        let sink = Sink::default();
        (Lines::new(MessageWriter::new(sink.clone()), None), sink)
    }

    fn write(lines: &mut Lines, text: &str) {
        lines.buf().raw(text.as_bytes());
        lines.end_line();
    }

    fn filling(hole: usize, at: usize, text: &str) -> Filling {
        Filling { hole, at, text: text.as_bytes().to_vec() }
    }

    fn hole(line: usize, missing: Vec<(usize, usize)>) -> Hole {
        Hole { stream: 0, lead: Lead::Key, key: vec![b"1".to_vec()], want: Want::Values { line, missing } }
    }

    async fn written(mut lines: Lines, sink: Sink) -> String {
        lines.finish().await.unwrap();
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    /// What went before it does, and whole; nothing comes behind it.
    #[tokio::test]
    async fn a_file_that_can_not_be_written_ends_behind_a_whole_line() {
        #[derive(Clone, Default)]
        struct Slow(Sink);

        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                std::thread::sleep(Duration::from_millis(1));
                self.0.write(&bytes[..bytes.len().min(50_000)])
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let root = format!("file://{}", folder.path().join("file").display());
        let config = format!(
            r#"{{"host": "h", "user": "u", "dbname": "d", "batch_config": {{"storage": {{"root": "{root}"}}}}}}"#
        );
        let config = crate::config::Config::parse(&[("config.json".to_owned(), config)]).unwrap();
        let sink = Slow::default();
        let mut lines = Lines::new(MessageWriter::new(sink.clone()), Window::of(&config));
        let state = format!("{{\"type\":\"STATE\",\"value\":\"{}\"}}\n", "x".repeat(700_000));
        let schema =
            r#"{"type":"SCHEMA","stream":"a","schema":{"properties":{"b":{"type":"string"}}},"key_properties":[]}"#;
        write(&mut lines, &state);
        write(&mut lines, &format!("{schema}\n"));
        write(&mut lines, "{\"type\":\"RECORD\",\"stream\":\"a\",\"record\":{\"b\":\"c\"}}\n");
        write(&mut lines, &state);
        assert!(lines.finish().await.unwrap_err().to_string().contains("cannot write the batch"));
        let written = String::from_utf8(sink.0.0.lock().unwrap().clone()).unwrap();
        assert!(written == format!("{state}{schema}\n"), "{} bytes", written.len());
    }

    #[tokio::test]
    async fn an_open_transaction_is_kept_back_and_forgotten() {
        let (mut lines, sink) = lines();
        write(&mut lines, "a\n");
        lines.open();
        write(&mut lines, "b\n");
        assert!(lines.hand_over().await.unwrap());
        assert_eq!(lines.buf().as_bytes(), b"b\n");
        assert!(!lines.hand_over().await.unwrap() && !lines.is_torn());
        assert!(!lines.cut_short());
        assert_eq!(written(lines, sink).await, "a\n");
    }

    #[tokio::test]
    async fn a_large_transaction_is_torn_until_its_end_is_buffered_or_handed_over() {
        let (mut lines, sink) = lines();
        let large = format!("{}\n", "x".repeat(LARGE_TRANSACTION));
        lines.open();
        write(&mut lines, &large);
        assert!(lines.will_tear());
        assert!(lines.hand_over().await.unwrap() && lines.is_torn());
        write(&mut lines, "rest\n");
        assert!(!lines.hand_over().await.unwrap() && lines.is_torn());
        lines.close();
        // Its end is buffered only: that is where a run may be cut.
        assert!(lines.is_torn());
        assert!(!lines.cut_short() && !lines.is_torn());
        assert_eq!(written(lines, sink).await, large + "rest\n");
    }

    #[tokio::test]
    async fn a_large_transaction_that_has_left_whole_is_not_torn() {
        let (mut lines, _) = lines();
        for _ in 0..2 {
            lines.open();
            write(&mut lines, &format!("{}\n", "x".repeat(LARGE_TRANSACTION)));
            assert!(lines.will_tear() && !lines.is_torn());
            assert!(lines.hand_over().await.unwrap() && lines.is_torn());
            lines.close();
            assert!(!lines.is_torn());
        }
    }

    #[tokio::test]
    async fn a_run_cut_inside_of_a_torn_transaction_stays_torn() {
        let (mut lines, _) = lines();
        lines.open();
        write(&mut lines, &format!("{}\n", "x".repeat(LARGE_TRANSACTION)));
        lines.hand_over().await.unwrap();
        write(&mut lines, "rest\n");
        assert!(!lines.cut_short());
        assert!(lines.is_torn() && lines.buf().is_empty());
    }

    #[tokio::test]
    async fn a_line_that_lacks_a_value_does_not_leave() {
        let (mut lines, sink) = lines();
        write(&mut lines, "a\n");
        lines.open();
        let at = lines.buf().len() + 1;
        write(&mut lines, "[]\n");
        lines.holes().add(hole(at - 1, vec![(at, 0)]), 5);
        lines.close();
        assert!(!lines.hand_over().await.unwrap());
        lines.fill(1, &[filling(0, at, "value")]);
        assert!(lines.hand_over().await.unwrap());
        assert_eq!(written(lines, sink).await, "a\n[value]\n");
    }

    #[tokio::test]
    async fn cutting_forgets_complete_lines_behind_one_that_lacks_a_value() {
        let (mut lines, sink) = lines();
        write(&mut lines, "a\n");
        lines.holes().add(hole(0, vec![(0, 0)]), 5);
        assert!(lines.cut_short());
        assert_eq!(written(lines, sink).await, "");
    }

    #[tokio::test]
    async fn large_lines_leave_before_one_that_lacks_a_value() {
        let (mut lines, sink) = lines();
        let large = "x".repeat(LARGE_TRANSACTION);
        write(&mut lines, "[]\n");
        write(&mut lines, "[]\n");
        lines.holes().add(hole(0, vec![(1, 0)]), 5);
        lines.holes().add(hole(3, vec![(4, 0)]), 5);
        lines.make_room().await.unwrap();
        assert!(!lines.is_torn());
        lines.fill(1, &[filling(0, 1, &large)]);
        lines.make_room().await.unwrap();
        assert!(lines.is_torn());
        assert_eq!(lines.buf().as_bytes(), b"[]\n");
        lines.fill(1, &[filling(0, 1, "2")]);
        assert!(lines.hand_over().await.unwrap() && !lines.is_torn());
        assert_eq!(written(lines, sink).await, format!("[{large}]\n[2]\n"));
    }

    /// What a transaction writes, and what is done with the buffer.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin,
        Line,
        LineWithHole,
        /// A line that is to be read whole; whether there is a row.
        Row(bool),
        End,
        /// Of so many holes.
        Fill(usize),
        HandOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            1 => Just(Step::Line),
            2 => Just(Step::LineWithHole),
            3 => any::<bool>().prop_map(Step::Row),
            3 => Just(Step::End),
            3 => (1..4usize).prop_map(Step::Fill),
            1 => Just(Step::HandOver),
        ]
    }

    /// Does these steps, as far as one may follow the other, and cuts the run: what was written, and what should have been.
    async fn cut_after(steps: &[Step]) -> (String, String) {
        let (mut lines, sink) = lines();
        let (mut open, mut count) = (false, 0);
        // Of what has ended, of the open transaction, and what has left.
        let (mut ended, mut begun, mut left) = (String::new(), String::new(), String::new());
        let mut texts: Vec<Option<String>> = Vec::new();
        for step in steps {
            count += 1;
            let at = lines.buf().len();
            match step {
                Step::Begin if !open => {
                    open = true;
                    lines.open();
                }
                Step::Line if open => {
                    write(&mut lines, &format!("{count}\n"));
                    begun += &format!("{count}\n");
                }
                Step::LineWithHole if open => {
                    lines.holes().add(hole(at, vec![(at + 1, 0)]), 5);
                    write(&mut lines, "[]\n");
                    begun += &format!("[{count}]\n");
                    texts.push(Some(count.to_string()));
                }
                Step::Row(found) if open => {
                    let want = Want::Row { line: at, end: Vec::new(), gone: Vec::new(), uncertain: false };
                    lines.holes().add(Hole { stream: 0, lead: Lead::Key, key: Vec::new(), want }, 5);
                    let text = found.then(|| format!("row {count}\n"));
                    begun += text.as_deref().unwrap_or_default();
                    texts.push(text);
                }
                Step::End if open => {
                    open = false;
                    lines.close();
                    ended += &std::mem::take(&mut begun);
                }
                Step::Fill(most) => {
                    let holes = texts.len().min(*most);
                    let places: Vec<usize> = lines
                        .holes()
                        .iter()
                        .take(holes)
                        .map(|hole| match &hole.want {
                            Want::Values { missing, .. } => missing[0].0,
                            Want::Row { line, .. } => *line,
                        })
                        .collect();
                    let found = texts.drain(..holes).zip(places).enumerate();
                    let fillings: Vec<Filling> =
                        found.filter_map(|(hole, (text, at))| Some(filling(hole, at, &text?))).collect();
                    lines.fill(holes, &fillings);
                }
                Step::HandOver => {
                    let handed = lines.hand_over().await.unwrap();
                    assert!(!handed || texts.is_empty());
                    if handed {
                        left.clone_from(&ended);
                    }
                }
                _ => {}
            }
        }
        assert_eq!(lines.cut_short(), !texts.is_empty());
        (written(lines, sink).await, if texts.is_empty() { ended } else { left })
    }

    proptest! {
        /// Wherever a run is cut, what leaves is whole transactions: all of them, or those of before what was forgotten.
        #[test]
        fn a_cut_run_has_written_whole_transactions(steps in proptest::collection::vec(step(), 1..30)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (written, expected) = runtime.block_on(cut_after(&steps));
            prop_assert_eq!(written, expected);
        }
    }
}
