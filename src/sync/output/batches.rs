//! Records in files, which BATCH messages announce, as the Meltano SDK defines them.
//!
//! A file holds the records of one stream alone, one a line, in their order, with `_sdc_table_version` where versions are activated: a
//! BATCH message has no version, and targets of the SDK remove the rows without one on ACTIVATE_VERSION. Threads of the runtime write
//! the files, while the run goes on.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::{BatchCompression, BatchConfig, Choice as _};
use crate::error::{Error, ErrorKind, Result};
use crate::singer::{JsonBuf, messages};
use crate::sync::form::TABLE_VERSION;

/// What is written to a file at a time.
const CHUNK: usize = 64 * 1024;

/// The files of a run.
pub(super) struct Batches {
    config: BatchConfig,
    /// The part of their names that no other run has.
    run: String,
    files: u64,
}

/// A file that is being written.
pub(super) struct Writing {
    stream: String,
    /// The size of its lines in memory.
    pub(super) size: usize,
    file: JoinHandle<Result<BatchFile>>,
}

/// RECORD messages of one stream, whole lines.
pub(super) struct Lines {
    /// Their stream.
    pub(super) stream: String,
    /// The lines.
    pub(super) text: Vec<u8>,
    /// Where the record begins in each.
    pub(super) record: usize,
}

impl Batches {
    pub(super) fn new(config: BatchConfig) -> Batches {
        let (now, pid) = (chrono::Utc::now().timestamp_micros(), std::process::id());
        Batches { config, run: format!("{now}-{pid}"), files: 0 }
    }

    /// Returns how many records a file has at most.
    pub(super) fn most(&self) -> u64 {
        self.config.batch_size.get()
    }

    /// Begins to write a file of these lines.
    pub(super) fn write(&mut self, lines: Lines) -> Writing {
        self.files += 1;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let stream: String = lines.stream.chars().map(plain).collect();
        let BatchConfig { encoding, storage, .. } = &self.config;
        let (extension, gzip) = match encoding.compression {
            BatchCompression::Gzip => ("json.gz", true),
            BatchCompression::None => ("json", false),
        };
        let name = format!("{}tap-postgres-rs--{stream}-{}-{}.{extension}", storage.prefix, self.run, self.files);
        let path = storage.root.join(name);
        let (stream, size) = (lines.stream.clone(), lines.text.len());
        Writing { stream, size, file: spawn_blocking(move || BatchFile::write(path, gzip, &lines)) }
    }

    /// Returns the message that announces a file.
    pub(super) fn message(&self, stream: &str, file: &BatchFile) -> Vec<u8> {
        let encoding = &self.config.encoding;
        let mut line = JsonBuf::new();
        let url = format!("file://{}", file.path.display());
        messages::batch(&mut line, stream, encoding.format.word(), encoding.compression.word(), &url);
        line.replace(Vec::new())
    }
}

impl Writing {
    /// Whether the file is complete, or could not be written.
    pub(super) fn is_over(&self) -> bool {
        self.file.is_finished()
    }

    /// Waits until it is, and returns its stream with it.
    pub(super) async fn end(&mut self) -> Result<(String, BatchFile)> {
        match (&mut self.file).await {
            Ok(file) => file.map(|file| (self.stream.clone(), file)),
            Err(error) => {
                Err(Error::new(ErrorKind::Output, "the thread that wrote a batch ended before it").source(error))
            }
        }
    }
}

/// A complete file, which is removed unless it is announced.
pub(super) struct BatchFile {
    path: PathBuf,
    announced: bool,
}

impl BatchFile {
    fn write(path: PathBuf, gzip: bool, lines: &Lines) -> Result<BatchFile> {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let made = made.and_then(|()| File::options().write(true).create_new(true).open(&path));
        let file = made.map_err(|error| failure(&path, error))?;
        // From here on it is removed where it fails.
        let batch = BatchFile { path, announced: false };
        let file = BufWriter::with_capacity(CHUNK, file);
        let written = match gzip {
            false => lines.write_records(file),
            true => lines.write_records(GzEncoder::new(file, Compression::fast())).and_then(GzEncoder::finish),
        };
        written.and_then(|mut file| file.flush()).map_err(|error| failure(&batch.path, error))?;
        Ok(batch)
    }

    /// Takes note that the message that names it has left: it is the target's now.
    pub(super) fn announced(mut self) {
        self.announced = true;
    }
}

impl Drop for BatchFile {
    fn drop(&mut self) {
        if !self.announced {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Lines {
    /// Writes the records alone.
    fn write_records<W: Write>(&self, mut out: W) -> io::Result<W> {
        let mut chunk = Vec::with_capacity(2 * CHUNK);
        for line in self.text.split_inclusive(|byte| *byte == b'\n') {
            let (record, version) = messages::record_and_version(line, self.record)?;
            chunk.extend_from_slice(record);
            if let Some(version) = version {
                // In front of the brace that closes it.
                chunk.pop();
                if record.len() > 2 {
                    chunk.push(b',');
                }
                write!(chunk, "\"{TABLE_VERSION}\":{version}}}")?;
            }
            chunk.push(b'\n');
            if chunk.len() >= CHUNK {
                out.write_all(&chunk)?;
                chunk.clear();
            }
        }
        out.write_all(&chunk)?;
        Ok(out)
    }
}

fn failure(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Output, format!("cannot write the batch {}", path.display()))
        .source(error)
        .hint("see storage in `batch_config`: the directory, its rights, the room on its disk")
}
