//! The two kinds of COPY: out of a table, and in both directions with a walsender.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::frame::{Frame, Frames};
use super::notice::{self, OnWarning};
use super::session::Session;
use crate::error::{Error, Result};
use crate::pg::error::{ServerError, lost, protocol, server};
use crate::pg::net::stream::Stream;

impl Session {
    /// Starts a `COPY … TO STDOUT`.
    pub(crate) async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        self.send_query(sql).await?;
        let frame = self.receive().await?;
        match frame.tag {
            b'H' => Ok(CopyOut::new(self)),
            b'E' => Err(self.failed(&frame).await),
            _ => Err(self.unexpected(&frame)),
        }
    }

    /// Starts replication with a `START_REPLICATION` on a walsender.
    pub(crate) async fn start_replication(mut self, sql: &str) -> Result<(ReplicationReader, ReplicationWriter)> {
        self.send_query(sql).await?;
        let frame = self.receive().await?;
        match frame.tag {
            b'W' => {
                let (stream, frames, on_warning) = self.into_parts();
                let (reader, writer) = tokio::io::split(stream);
                Ok((ReplicationReader::new(reader, frames, on_warning), ReplicationWriter::new(writer)))
            }
            b'E' => Err(self.failed(&frame).await),
            _ => Err(self.unexpected(&frame)),
        }
    }
}

/// A running `COPY … TO STDOUT`.
pub(crate) struct CopyOut<'a> {
    session: &'a mut Session,
    /// Whether CommandComplete has come.
    complete: bool,
    /// The server's error, kept until ReadyForQuery: a future that is dropped before that must not lose it.
    error: Option<ServerError>,
    done: bool,
    /// What has come and was not taken.
    held: Option<Frame>,
}

impl<'a> CopyOut<'a> {
    fn new(session: &'a mut Session) -> Self {
        CopyOut { session, complete: false, error: None, done: false, held: None }
    }

    /// Waits until a piece of data, or the end, has come. Cancel-safe.
    pub(crate) async fn arrive(&mut self) -> Result<()> {
        if self.held.is_none() {
            self.held = self.data().await?;
        }
        Ok(())
    }

    /// Reads the next piece of data, in text format one row with its newline; returns `None` once the command is
    /// complete and the session ready for another. Cancel-safe.
    #[inline]
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>> {
        let frame = match self.held.take() {
            None => self.data().await?,
            held => held,
        };
        Ok(frame.map(|frame| self.session.body(&frame)))
    }

    /// Reads the next CopyData.
    #[inline]
    async fn data(&mut self) -> Result<Option<Frame>> {
        while !self.done {
            let received = match self.session.buffered() {
                Ok(None) => self.session.receive().await,
                Ok(Some(frame)) => Ok(frame),
                Err(error) => Err(error),
            };
            let frame = match received {
                Ok(frame) => frame,
                // A fatal error ends the connection.
                Err(lost) => return Err(self.failure().unwrap_or(lost)),
            };
            match frame.tag {
                b'd' => return Ok(Some(frame)),
                b'c' => {}
                b'C' => self.complete = true,
                b'E' => self.error = Some(ServerError::parse(self.session.body(&frame))),
                _ if self.session.is_aside(&frame)? => {}
                b'Z' => self.done = true,
                _ => return Err(self.session.unexpected(&frame)),
            }
        }
        match self.failure() {
            Some(error) => Err(error),
            None if self.complete => Ok(None),
            None => Err(protocol("a COPY without its end")),
        }
    }

    fn failure(&mut self) -> Option<Error> {
        self.error.take().map(|error| server("the server reported an error", error))
    }
}

/// The receiving half of a replication stream.
pub(crate) struct ReplicationReader {
    stream: ReadHalf<Stream>,
    frames: Frames,
    done: bool,
    /// Whether the server has shut down and does not wait for CopyDone.
    gone: bool,
    on_warning: Option<OnWarning>,
}

impl ReplicationReader {
    fn new(stream: ReadHalf<Stream>, frames: Frames, on_warning: Option<OnWarning>) -> Self {
        ReplicationReader { stream, frames, done: false, gone: false, on_warning }
    }

    /// Reads the next message, the payload of one CopyData; returns `None` when the server has ended the stream,
    /// because it was asked to ([`ReplicationWriter::finish`]) or shuts down. Cancel-safe.
    #[inline]
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>> {
        while !self.done {
            let frame = self.frames.next(&mut self.stream).await.map_err(lost)?;
            match frame.tag {
                b'd' => return Ok(Some(self.frames.body(&frame))),
                b'c' => self.done = true,
                // A walsender that shuts down sends no CopyDone.
                b'C' => (self.done, self.gone) = (true, true),
                b'E' => {
                    let error = ServerError::parse(self.frames.body(&frame));
                    return Err(server("the replication stream broke off", error));
                }
                // Such as a warning about what it waits for before it sends more.
                b'N' => notice::take(self.frames.body(&frame), self.on_warning.as_ref())?,
                b'S' => {}
                tag => return Err(protocol(format_args!("unexpected message of type {:?}", char::from(tag)))),
            }
        }
        Ok(None)
    }

    /// Ends the stream and the connection, dropping messages that are still in transit; afterwards the server has
    /// released the slot. It may take as long as the server needs to finish what it is decoding.
    pub(crate) async fn close(mut self, mut writer: ReplicationWriter) -> Result<()> {
        if self.gone {
            return Ok(());
        }
        writer.finish().await?;
        loop {
            let frame = self.frames.next(&mut self.stream).await.map_err(lost)?;
            match frame.tag {
                b'Z' => break,
                b'E' => {
                    let error = ServerError::parse(self.frames.body(&frame));
                    return Err(server("the replication stream did not end well", error));
                }
                _ => {}
            }
        }
        frontend::terminate(&mut writer.out);
        writer.flush().await
    }
}

/// The sending half of a replication stream.
pub(crate) struct ReplicationWriter {
    stream: WriteHalf<Stream>,
    /// Bytes that are not written yet; where a future is dropped before its end, the next one writes the rest.
    out: BytesMut,
    finished: bool,
}

impl ReplicationWriter {
    fn new(stream: WriteHalf<Stream>) -> Self {
        ReplicationWriter { stream, out: BytesMut::new(), finished: false }
    }

    /// Sends one message as CopyData. If the future is dropped, the message is sent with the next one.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<()> {
        frontend::CopyData::new(message)
            .map_err(|error| Error::run("the message cannot be sent").source(error))?
            .write(&mut self.out);
        self.flush().await
    }

    /// Asks the server to end the stream.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        if !self.finished {
            self.finished = true;
            frontend::copy_done(&mut self.out);
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        self.stream.write_all_buf(&mut self.out).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }
}
