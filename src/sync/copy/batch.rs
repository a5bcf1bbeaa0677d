//! Rows of tables in files, which BATCH messages announce, as the Meltano SDK defines them.
//!
//! A file holds the records alone, one a line, with `_sdc_table_version` where versions are activated: a BATCH message has no
//! version, and targets of the SDK remove the rows without one on ACTIVATE_VERSION.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::key_tracker::KeyTracker;
use super::sink::{RowSink, StateSink};
use crate::config::{BatchCompression, BatchConfig};
use crate::error::{Error, Result};
use crate::logging::RecordCounter;
use crate::singer::JsonBuf;
use crate::singer::writer::CHUNK;
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;

/// A sink that gathers the rows of one query into files.
pub(crate) struct BatchSink<'a> {
    output: &'a mut Output,
    config: BatchConfig,
    stream: String,
    /// The properties that every line ends with, if any.
    last: Vec<u8>,
    buf: JsonBuf,
    /// The offset at which the line begins.
    start: usize,
    counter: RecordCounter,
    tracker: Option<&'a mut KeyTracker>,
    /// The common part of the names of this query's files.
    name: String,
    files: u64,
    /// The file that is being written.
    file: Option<BatchFile>,
    /// How many rows it has.
    rows: u64,
}

impl<'a> BatchSink<'a> {
    pub(crate) fn new(
        output: &'a mut Output,
        config: BatchConfig,
        plan: &StreamPlan,
        version: i64,
        counter: RecordCounter,
        tracker: Option<&'a mut KeyTracker>,
    ) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let stream: String = plan.id.chars().map(plain).collect();
        // Of this run alone, so that no file is written twice.
        let (now, pid) = (chrono::Utc::now().timestamp_micros(), std::process::id());
        BatchSink {
            output,
            name: format!("{}tap-postgres-rs--{stream}-{now}-{pid}", config.storage.prefix),
            config,
            stream: plan.id.clone(),
            last: plan.form.last_in_batch(plan.method, version),
            buf: JsonBuf::new(),
            start: 0,
            counter,
            tracker,
            files: 0,
            file: None,
            rows: 0,
        }
    }

    /// Ends the last file.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.close().await?;
        self.counter.finish();
        Ok(())
    }

    /// Moves the lines to the file.
    fn write(&mut self) -> Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                self.files += 1;
                none.insert(BatchFile::create(&self.config, &format!("{}-{}", self.name, self.files))?)
            }
        };
        file.write(self.buf.as_bytes())?;
        self.buf.clear();
        Ok(())
    }

    /// Ends the file and announces it.
    async fn close(&mut self) -> Result<()> {
        self.write()?;
        let Some(file) = self.file.take() else { return Ok(()) };
        let path = file.finish()?;
        self.rows = 0;
        self.output.batch(&self.stream, &self.config, &format!("file://{}", path.display()));
        if let Some(tracker) = &mut self.tracker {
            tracker.store(&mut self.output.state);
            return self.output.write_state().await;
        }
        self.output.hand_over().await
    }
}

impl RowSink for BatchSink<'_> {
    #[inline]
    fn begin(&mut self, _: &StreamPlan) {
        self.start = self.buf.len();
        self.buf.byte(b'{');
    }

    #[inline]
    fn buf(&mut self) -> &mut JsonBuf {
        &mut self.buf
    }

    #[inline]
    fn tracker(&mut self) -> Option<&mut KeyTracker> {
        self.tracker.as_deref_mut()
    }

    #[inline]
    async fn end(&mut self) -> Result<()> {
        if !self.last.is_empty() {
            if self.buf.len() > self.start + 1 {
                self.buf.byte(b',');
            }
            self.buf.raw(&self.last);
        }
        self.buf.raw(b"}\n");
        self.rows += 1;
        self.counter.add(1, self.buf.len() - self.start);
        if self.rows == self.config.batch_size.get() {
            return self.close().await;
        }
        if self.buf.len() >= CHUNK { self.write() } else { Ok(()) }
    }

    async fn hand_over(&mut self) -> Result<()> {
        self.output.hand_over().await
    }
}

impl StateSink for BatchSink<'_> {
    async fn complete(&mut self) -> Result<&mut Output> {
        self.close().await?;
        Ok(self.output)
    }
}

/// A file that is removed unless it is finished.
struct BatchFile {
    path: PathBuf,
    sink: Sink,
    finished: bool,
}

enum Sink {
    Plain(File),
    Gzip(GzEncoder<File>),
}

impl BatchFile {
    fn create(config: &BatchConfig, name: &str) -> Result<BatchFile> {
        let (extension, gzip) = match config.encoding.compression {
            BatchCompression::Gzip => ("json.gz", true),
            BatchCompression::None => ("json", false),
        };
        let path = config.storage.root.join(format!("{name}.{extension}"));
        let file = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| File::options().write(true).create_new(true).open(&path))
            .map_err(|error| failure(&path, error))?;
        let sink = if gzip { Sink::Gzip(GzEncoder::new(file, Compression::fast())) } else { Sink::Plain(file) };
        Ok(BatchFile { path, sink, finished: false })
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        match &mut self.sink {
            Sink::Plain(file) => file.write_all(lines),
            Sink::Gzip(file) => file.write_all(lines),
        }
        .map_err(|error| failure(&self.path, error))
    }

    /// Completes the file and returns its path.
    fn finish(mut self) -> Result<PathBuf> {
        match &mut self.sink {
            Sink::Plain(file) => file.flush(),
            Sink::Gzip(file) => file.try_finish(),
        }
        .map_err(|error| failure(&self.path, error))?;
        self.finished = true;
        Ok(std::mem::take(&mut self.path))
    }
}

impl Drop for BatchFile {
    fn drop(&mut self) {
        if !self.finished {
            // No message has announced it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failure(path: &Path, error: io::Error) -> Error {
    Error::run(format!("cannot write the batch {}", path.display()))
        .source(error)
        .hint("see storage in `batch_config`: the directory, its rights, the room on its disk")
}
