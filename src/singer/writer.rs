//! The way to stdout: whole lines gathered into large chunks that a thread of its own writes, so that a reader that stops
//! reading stops only that thread. The run waits for room in a short queue, and meanwhile goes on answering the server.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::JsonBuf;
use crate::error::{Error, ErrorKind, Result};

/// The size from which on the buffered lines are handed to the writing thread.
pub(crate) const CHUNK: usize = 256 * 1024;
/// The number of chunks that may wait for the reader.
const QUEUE: usize = 4;
/// The size beyond which a buffer, grown for one huge value, is not kept.
pub(crate) const KEEP: usize = 4 * CHUNK;

/// A buffer of lines, and the thread that writes them.
pub(crate) struct MessageWriter {
    /// The lines that are not handed over yet; only whole ones whenever [`drain`](Self::drain) is called.
    pub buf: JsonBuf,
    chunks: Option<mpsc::Sender<Vec<u8>>>,
    empty: mpsc::UnboundedReceiver<Vec<u8>>,
    failure: Arc<Mutex<Option<io::Error>>>,
    done: Option<oneshot::Receiver<()>>,
    /// How long the reader was waited for.
    waited: Duration,
}

impl MessageWriter {
    /// Returns a writer to `sink`, on a thread of its own.
    pub(crate) fn new(sink: impl Write + Send + 'static) -> Self {
        let (chunks, mut waiting) = mpsc::channel(QUEUE);
        let (give_back, empty) = mpsc::unbounded_channel();
        let (finished, done) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let report = Arc::clone(&failure);
        std::thread::spawn(move || {
            if let Err(error) = write_chunks(sink, &mut waiting, give_back) {
                *report.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
            }
            // Not earlier: a sender that finds the channel closed looks for the failure.
            drop(waiting);
            // An error means that the run is over.
            let _ = finished.send(());
        });
        MessageWriter {
            buf: JsonBuf::new(),
            chunks: Some(chunks),
            empty,
            failure,
            done: Some(done),
            waited: Duration::ZERO,
        }
    }

    /// Returns how long the run has waited for the reader, and could do nothing else.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// Whether so much is buffered that it should be [drained](Self::drain).
    pub(crate) fn is_full(&self) -> bool {
        self.buf.len() >= CHUNK
    }

    /// Hands the buffered lines to the writing thread; waits while the reader is too slow for it.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        self.drain_front(self.buf.len()).await
    }

    /// Hands over the first `len` bytes, which end a line, as [`drain`](Self::drain) does everything.
    pub(crate) async fn drain_front(&mut self, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        // The place in the queue first: a run that is cancelled while it waits keeps its lines.
        let place = place(&self.chunks, &mut self.waited).await.ok_or_else(|| failure(&self.failure))?;
        let mut chunk = self.buf.replace(self.empty.try_recv().unwrap_or_default());
        self.buf.raw(&chunk[len..]);
        chunk.truncate(len);
        place.send(chunk);
        Ok(())
    }

    /// Hands over text that was not buffered here, as [`drain`](Self::drain) does what was. Cut short while it waits, it has handed
    /// over nothing.
    pub(crate) async fn send(&mut self, text: &[u8]) -> Result<()> {
        let place = place(&self.chunks, &mut self.waited).await.ok_or_else(|| failure(&self.failure))?;
        let mut chunk = self.empty.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.extend_from_slice(text);
        place.send(chunk);
        Ok(())
    }

    /// Hands over what is buffered and waits until the reader has taken everything.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.drain().await?;
        self.close().await
    }

    /// Waits until the reader has taken what was handed over; what is buffered is not.
    pub(crate) async fn close(&mut self) -> Result<()> {
        self.chunks = None;
        if let Some(done) = self.done.take() {
            let last = Instant::now();
            let finished = done.await;
            self.waited += last.elapsed();
            // An error means that the thread panicked; its failure is then unknown, but there is one.
            if finished.is_err() || self.failure.lock().unwrap_or_else(|e| e.into_inner()).is_some() {
                return Err(failure(&self.failure));
            }
        }
        Ok(())
    }
}

/// Waits for a place in the queue; `None` if the thread has ended.
async fn place<'a>(
    chunks: &'a Option<mpsc::Sender<Vec<u8>>>,
    waited: &mut Duration,
) -> Option<mpsc::Permit<'a, Vec<u8>>> {
    let chunks = chunks.as_ref()?;
    match chunks.try_reserve() {
        Ok(place) => Some(place),
        Err(TrySendError::Closed(())) => None,
        Err(TrySendError::Full(())) => {
            let full = Instant::now();
            let place = chunks.reserve().await;
            *waited += full.elapsed();
            place.ok()
        }
    }
}

/// Returns why the thread has ended.
fn failure(failure: &Mutex<Option<io::Error>>) -> Error {
    match failure.lock().unwrap_or_else(|e| e.into_inner()).take() {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Error::new(ErrorKind::Output, "the reader of stdout went away before everything was written")
                .hint("look at the target's own log for the reason")
        }
        Some(error) => Error::new(ErrorKind::Output, "cannot write to stdout").source(error),
        None => Error::new(ErrorKind::Output, "cannot write to stdout: it failed before"),
    }
}

fn write_chunks(
    mut sink: impl Write,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
    give_back: mpsc::UnboundedSender<Vec<u8>>,
) -> io::Result<()> {
    while let Some(chunk) = waiting.blocking_recv() {
        sink.write_all(&chunk)?;
        sink.flush()?;
        if chunk.capacity() <= KEEP {
            // The send fails only if the run has ended.
            let _ = give_back.send(chunk);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keeps what was written to it, or to a clone.
    #[derive(Clone, Default)]
    pub(crate) struct Sink(pub(crate) Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_arrives_in_order() {
        let out = Sink::default();
        let mut writer = MessageWriter::new(out.clone());
        let mut expected = Vec::new();
        for n in 0..50_000 {
            let line = format!("{{\"n\":{n}}}\n");
            writer.buf.raw(line.as_bytes());
            expected.extend_from_slice(line.as_bytes());
            if writer.is_full() {
                writer.drain().await.unwrap();
            }
        }
        writer.finish().await.unwrap();
        assert_eq!(*out.0.lock().unwrap(), expected);
    }

    struct Slow;

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(20));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_a_slow_reader_costs_is_counted() {
        let mut writer = MessageWriter::new(Slow);
        for _ in 0..QUEUE + 3 {
            writer.buf.raw(&[b' '; CHUNK]);
            writer.drain().await.unwrap();
        }
        let while_it_went_on = writer.waited();
        assert!(while_it_went_on > Duration::ZERO);
        writer.finish().await.unwrap();
        // The queue was full.
        assert!(writer.waited() >= while_it_went_on + Duration::from_millis(20 * QUEUE as u64 / 2));
    }

    #[tokio::test]
    async fn a_reader_that_left_is_an_error_that_says_so() {
        let mut writer = MessageWriter::new(Closed);
        writer.buf.raw(b"{}\n");
        let error = writer.finish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Output);
        assert!(error.to_string().contains("went away"), "{error}");
    }
}
