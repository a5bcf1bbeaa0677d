//! Complete lines on their way to stdout, where they are to become fewer or larger messages: records go into files, or the changes
//! that newer ones of the same key supersede are left out.
//!
//! ```text
//! lines ─▶ window: RECORDs ─▶ compacted ─▶ queue: lines, files that are being written ─▶ MessageWriter
//!          any other message ends it ──────▶ (behind them)
//! ```
//!
//! It knows messages only, the streams by their SCHEMAs. What stands between two messages that are no RECORDs may change places where
//! it is of different streams; nothing passes such a message, so that a STATE is behind all that it covers.

#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::num::NonZero;
use std::ops::Range;
use std::thread::available_parallelism;

use super::batches::{self, BatchFile, Batches, Writing};
use super::keys::{Change, KeyReader, Streams};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::figures::{counted, grouped};
use crate::singer::MessageWriter;
use crate::singer::writer::CHUNK;

/// A window holds lines up to this size, and what is known of them; so much is in files that are being written besides.
const WINDOW: usize = 64 * 1024 * 1024;

/// Lines that are complete and have not left yet.
pub(super) struct Window {
    /// RECORD lines.
    text: Vec<u8>,
    records: Vec<Record>,
    /// The keys of records, one behind the other.
    keys: Vec<u8>,
    /// How large it may get.
    most: usize,
    streams: Streams,
    reader: KeyReader,
    /// Whether changes that are superseded are left out, from when on there are changes.
    compacts: bool,
    are_changes: bool,
    batches: Option<Batches>,
    /// What is behind the window, in its order.
    queue: VecDeque<Item>,
    /// Whether a file could not be written: nothing of what follows may leave.
    is_broken: bool,
    /// How many changes there were, and how many of them were left out.
    changes: u64,
    left_out: u64,
}

/// A RECORD of the window.
struct Record {
    /// Its line.
    line: Range<usize>,
    stream: usize,
    /// Its key; empty where it has none.
    key: Range<usize>,
    /// Whether the target knows all of the row by it, or that it is gone.
    is_whole: bool,
}

/// Something on its way to stdout.
enum Item {
    /// Lines, and how many bytes of them have left.
    Lines(Vec<u8>, usize),
    /// A file that is being written.
    Writing(Writing),
    /// A file with the line that announces it.
    File(Vec<u8>, BatchFile),
}

impl Window {
    /// Returns the window that a config asks for.
    pub(super) fn of(config: &Config) -> Option<Window> {
        let batches = config.batch_config.clone().map(Batches::new);
        (batches.is_some() || config.compact_changes).then(|| Window {
            text: Vec::new(),
            records: Vec::new(),
            keys: Vec::new(),
            most: WINDOW,
            streams: Streams::default(),
            reader: KeyReader::default(),
            compacts: config.compact_changes,
            are_changes: false,
            batches,
            queue: VecDeque::new(),
            is_broken: false,
            changes: 0,
            left_out: 0,
        })
    }

    /// Takes note that the records which follow are changes.
    pub(super) fn begin_changes(&mut self) {
        self.are_changes = true;
    }

    /// Whether lines have to pass through it.
    pub(super) fn is_needed(&self) -> bool {
        self.batches.is_some() || self.are_changes
    }

    /// Takes whole lines.
    pub(super) fn take(&mut self, lines: &[u8]) {
        let mut rest = lines;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, others) = rest.split_at(end + 1);
            rest = others;
            match self.streams.of_record(line) {
                Some(stream) => self.record(stream, line),
                None => {
                    self.close();
                    self.streams.learn(line);
                    self.queue_line(line);
                }
            }
        }
    }

    fn record(&mut self, stream: usize, line: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(line);
        let mut record = Record { line: start..self.text.len(), stream, key: 0..0, is_whole: false };
        if self.compacts && self.are_changes {
            self.changes += 1;
            let stream = self.streams.get(stream);
            if let Some(Change { key, is_whole }) = self.reader.read(stream, line, &mut self.keys) {
                (record.key, record.is_whole) = (key, is_whole);
            }
        }
        self.records.push(record);
        let rows = self.streams.count(stream);
        match &self.batches {
            Some(batches) if !self.compacts && rows >= batches.most() => self.close(),
            _ if self.size() >= self.most => {
                self.compact();
                // More of the same keys may come.
                if self.size() >= self.most / 2 {
                    self.pass_on();
                }
            }
            _ => {}
        }
    }

    fn size(&self) -> usize {
        self.text.len() + self.keys.len() + self.records.len() * size_of::<Record>()
    }

    /// Leaves out changes that are superseded: of each key only the last stays that says all of its row, and what follows it.
    fn compact(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut superseded = vec![false; self.records.len()];
        let mut known = HashSet::new();
        for (record, superseded) in self.records.iter().zip(&mut superseded).rev() {
            let key = (record.stream, &self.keys[record.key.clone()]);
            if key.1.is_empty() {
                continue;
            }
            *superseded = known.contains(&key);
            if record.is_whole {
                known.insert(key);
            }
        }
        drop(known);
        let (mut lines, mut keys, mut superseded) = (0, 0, superseded.into_iter());
        self.records.retain_mut(|record| {
            if superseded.next() == Some(true) {
                self.left_out += 1;
                return false;
            }
            move_to(&mut self.text, &mut record.line, &mut lines);
            move_to(&mut self.keys, &mut record.key, &mut keys);
            true
        });
        self.text.truncate(lines);
        self.keys.truncate(keys);
    }

    /// Ends the window.
    fn close(&mut self) {
        self.compact();
        self.pass_on();
    }

    /// Has the records of the window on their way.
    fn pass_on(&mut self) {
        if self.records.is_empty() {
            return;
        }
        match &mut self.batches {
            None => self.queue.push_back(Item::Lines(std::mem::take(&mut self.text), 0)),
            Some(batches) => {
                for lines in divide(&self.records, &mut self.text, &self.streams, batches.most()) {
                    self.queue.push_back(Item::Writing(batches.write(lines)));
                }
            }
        }
        self.text.clear();
        // One grown for a huge row is not kept.
        self.text.shrink_to(WINDOW);
        self.keys.clear();
        self.records.drain(..).for_each(|record| self.streams.forget_count(record.stream));
    }

    fn queue_line(&mut self, line: &[u8]) {
        match self.queue.back_mut() {
            Some(Item::Lines(lines, _)) => lines.extend_from_slice(line),
            _ => self.queue.push_back(Item::Lines(line.to_vec(), 0)),
        }
    }

    /// Ends the window, and sends what there is.
    ///
    /// # Errors
    /// See [`send`](Self::send).
    pub(super) async fn finish(&mut self, writer: &mut MessageWriter) -> Result<()> {
        self.close();
        self.send_until(writer, |_| false).await?;
        if self.changes > 0 {
            let (left_out, all) = (grouped(self.left_out), counted(self.changes, "change"));
            tracing::info!("compact_changes: {left_out} of {all} were left out");
        }
        Ok(())
    }

    /// Sends what is behind the window: all of it where a message is, which nobody would wake us for when the files before it are
    /// complete; files alone as far as they are, or are too much to be in memory. Cut short while it waits, it goes on with the next call.
    ///
    /// # Errors
    /// The reader of stdout is gone, or a file could not be written.
    pub(super) async fn send(&mut self, writer: &mut MessageWriter) -> Result<()> {
        let threads = available_parallelism().map_or(1, NonZero::get);
        self.send_until(writer, |queue| {
            let sizes = queue.iter().map(|item| if let Item::Writing(file) = item { Some(file.size) } else { None });
            queue.len() <= threads && sizes.sum::<Option<usize>>().is_some_and(|size| size <= WINDOW)
        })
        .await
    }

    /// Sends until a file is not complete, and `may_wait`.
    async fn send_until(
        &mut self,
        writer: &mut MessageWriter,
        may_wait: impl Fn(&VecDeque<Item>) -> bool,
    ) -> Result<()> {
        if self.is_broken {
            return Err(Error::new(ErrorKind::Output, "a batch before could not be written"));
        }
        while let Some(first) = self.queue.front() {
            if let Item::Writing(file) = first
                && !file.is_over()
                && may_wait(&self.queue)
            {
                break;
            }
            let Some(first) = self.queue.front_mut() else { break };
            match first {
                Item::Lines(lines, left) => {
                    while *left < lines.len() {
                        let piece = CHUNK.min(lines.len() - *left);
                        writer.send(&lines[*left..*left + piece]).await?;
                        *left += piece;
                    }
                    self.queue.pop_front();
                }
                Item::Writing(file) => match (file.end().await, &self.batches) {
                    (Ok((stream, file)), Some(batches)) => *first = Item::File(batches.message(&stream, &file), file),
                    (Ok(_), None) => {}
                    (Err(error), _) => {
                        self.is_broken = true;
                        self.queue.clear();
                        return Err(error);
                    }
                },
                Item::File(line, _) => {
                    writer.send(line).await?;
                    if let Some(Item::File(_, file)) = self.queue.pop_front() {
                        file.announced();
                    }
                }
            }
        }
        Ok(())
    }
}

/// Moves a part of a text to the front of what was moved before, and takes note of its place.
fn move_to(text: &mut [u8], part: &mut Range<usize>, end: &mut usize) {
    let len = part.len();
    text.copy_within(part.clone(), *end);
    *part = *end..*end + len;
    *end += len;
}

/// Divides records among files of one stream each, with at most so many.
fn divide(records: &[Record], text: &mut Vec<u8>, streams: &Streams, most: u64) -> Vec<batches::Lines> {
    let lines = |stream: usize, text| {
        let stream = streams.get(stream);
        batches::Lines { stream: stream.name.clone(), text, record: stream.record }
    };
    let is_one_file = records.len() as u64 <= most && records.iter().all(|record| record.stream == records[0].stream);
    if is_one_file && let Some(first) = records.first() {
        return vec![lines(first.stream, std::mem::take(text))];
    }
    let mut order: Vec<&Record> = records.iter().collect();
    order.sort_by_key(|record| record.stream);
    let mut files = Vec::new();
    for of_stream in order.chunk_by(|one, other| one.stream == other.stream) {
        for of_file in of_stream.chunks(usize::try_from(most).unwrap_or(usize::MAX)) {
            let mut own = Vec::with_capacity(of_file.iter().map(|record| record.line.len()).sum());
            of_file.iter().for_each(|record| own.extend_from_slice(&text[record.line.clone()]));
            files.push(lines(of_file[0].stream, own));
        }
    }
    files
}
