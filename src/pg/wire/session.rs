//! A session after login: simple queries, and the way into COPY and replication.

use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

use super::copy::{CopyOut, ReplicationReader, ReplicationWriter};
use super::frame::{Frame, Frames};
use super::message;
use super::stream::Stream;
use crate::error::{Error, Result};
use crate::pg::error::{ServerError, lost, protocol, server};

/// What a backend wants to hear from someone who asks it to cancel its query; see
/// [`Server::cancel`](crate::pg::connect::Server::cancel).
#[derive(Clone, Copy)]
pub struct CancelToken {
    pub(crate) process_id: i32,
    pub(crate) secret_key: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// A query has been sent and ReadyForQuery has not come.
    Busy,
    /// Lost, or out of step.
    Broken,
}

/// A connection to one backend, plain or a walsender.
///
/// Where a query's future or a [`CopyOut`] is dropped half-way, the next query first reads what is left over.
pub struct Session {
    stream: Stream,
    frames: Frames,
    out: BytesMut,
    parameters: HashMap<String, String>,
    token: CancelToken,
    state: State,
}

impl Session {
    pub(super) fn new(
        stream: Stream,
        frames: Frames,
        parameters: HashMap<String, String>,
        token: CancelToken,
    ) -> Session {
        Session { stream, frames, out: BytesMut::new(), parameters, token, state: State::Idle }
    }

    /// The server's version as server_version_num has it, such as 150018.
    pub fn server_version(&self) -> u32 {
        self.parameter("server_version").map_or(0, message::version_number)
    }

    /// A setting that the server reports, such as `server_encoding`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The backend's process ID.
    pub fn process_id(&self) -> i32 {
        self.token.process_id
    }

    /// For cancelling what this session is doing, from elsewhere.
    pub fn cancel_token(&self) -> CancelToken {
        self.token
    }

    /// Runs `sql` as a simple query and returns the rows of the last statement that has any, as text. The session can
    /// be used further after an error that the server reports.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        loop {
            let frame = self.receive().await?;
            match frame.tag {
                b'T' => rows.clear(),
                b'D' => rows.push(message::data_row(self.body(&frame)).map_err(lost)?),
                b'E' => return Err(self.failed(&frame).await),
                b'Z' => return Ok(rows),
                // CommandComplete, EmptyQueryResponse, and a COPY nobody asked for.
                b'C' | b'I' | b'H' | b'd' | b'c' => {}
                _ => return Err(self.unexpected(&frame)),
            }
        }
    }

    /// Runs a `COPY … TO STDOUT`.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        self.send_query(sql).await?;
        let frame = self.receive().await?;
        match frame.tag {
            b'H' => Ok(CopyOut::new(self)),
            b'E' => Err(self.failed(&frame).await),
            _ => Err(self.unexpected(&frame)),
        }
    }

    /// Runs a `START_REPLICATION` on a walsender.
    pub async fn start_replication(mut self, sql: &str) -> Result<(ReplicationReader, ReplicationWriter)> {
        self.send_query(sql).await?;
        let frame = self.receive().await?;
        match frame.tag {
            b'W' => {
                let (reader, writer) = tokio::io::split(self.stream);
                Ok((ReplicationReader::new(reader, self.frames), ReplicationWriter::new(writer)))
            }
            b'E' => Err(self.failed(&frame).await),
            _ => Err(self.unexpected(&frame)),
        }
    }

    /// Says goodbye, so that the server does not log a lost connection. There is nothing left to do about an error.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.out);
        if let Err(error) = self.flush().await {
            tracing::debug!("closing a connection: {error}");
        }
    }

    #[inline]
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.frames.body(frame)
    }

    /// The next message if it is there already, of whatever kind.
    #[inline]
    pub(super) fn buffered(&mut self) -> Result<Option<Frame>> {
        self.frames.buffered().map_err(|error| self.broken(error))
    }

    /// The next message that belongs to the query.
    pub(super) async fn receive(&mut self) -> Result<Frame> {
        loop {
            let frame = self.frames.next(&mut self.stream).await.map_err(|error| self.broken(error))?;
            if !self.is_aside(&frame)? {
                return Ok(frame);
            }
        }
    }

    /// Whether the message has nothing to do with the query; if so, it has been seen to.
    pub(super) fn is_aside(&mut self, frame: &Frame) -> Result<bool> {
        let body = self.frames.body(frame);
        match frame.tag {
            b'N' => log_notice(body),
            b'S' => self.parameters.extend([message::parameter_status(body).map_err(lost)?]),
            b'A' => {}
            b'Z' => {
                self.state = State::Idle;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The error for this ErrorResponse, once the server is ready for another query.
    pub(super) async fn failed(&mut self, frame: &Frame) -> Error {
        let error = ServerError::parse(self.body(frame));
        if error.is_fatal() {
            self.state = State::Broken;
        } else if let Err(lost) = self.drain().await {
            tracing::debug!("after an error: {lost}");
        }
        server("the server reported an error", error)
    }

    pub(super) fn unexpected(&mut self, frame: &Frame) -> Error {
        // Whatever it is of a query without COPY ends in ReadyForQuery; these wait for data from here.
        if matches!(frame.tag, b'G' | b'W') {
            self.state = State::Broken;
        }
        protocol(format_args!("unexpected message of type {:?}", char::from(frame.tag)))
    }

    async fn send_query(&mut self, sql: &str) -> Result<()> {
        match self.state {
            State::Idle => {}
            State::Busy => {
                self.flush().await?;
                self.drain().await?;
            }
            State::Broken => return Err(Error::run("the connection broke earlier")),
        }
        frontend::query(sql, &mut self.out).map_err(|error| Error::run("the query cannot be sent").source(error))?;
        self.state = State::Busy;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        let flushed = async {
            self.stream.write_all_buf(&mut self.out).await?;
            self.stream.flush().await
        };
        flushed.await.map_err(|error| self.broken(error))
    }

    /// Reads up to ReadyForQuery.
    async fn drain(&mut self) -> Result<()> {
        while self.state == State::Busy {
            self.receive().await?;
        }
        Ok(())
    }

    fn broken(&mut self, error: io::Error) -> Error {
        self.state = State::Broken;
        lost(error)
    }
}

pub(super) fn log_notice(body: &[u8]) {
    let notice = ServerError::parse(body);
    tracing::debug!("{}: {}", notice.severity, notice.message);
}
