//! A session after login: simple queries, and the messages that COPY and replication are built on.

use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

use super::cancel::CancelToken;
use super::frame::{Frame, Frames};
use super::message;
use super::notice::{self, OnWarning};
use crate::error::{Error, Result};
use crate::pg::ServerVersion;
use crate::pg::error::{ServerError, lost, protocol, server};
use crate::pg::net::stream::Stream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// A query has been sent and ReadyForQuery has not come yet.
    Busy,
    /// The connection is lost, or out of sync with the protocol.
    Broken,
}

/// A connection to one backend, plain or a walsender.
///
/// Where a query's future or a [`CopyOut`](super::CopyOut) is dropped before its end, the next query first reads and
/// drops the rest of its messages.
pub(crate) struct Session {
    stream: Stream,
    frames: Frames,
    out: BytesMut,
    parameters: HashMap<String, String>,
    token: CancelToken,
    state: State,
    on_warning: Option<OnWarning>,
}

impl Session {
    pub(super) fn new(
        stream: Stream,
        frames: Frames,
        parameters: HashMap<String, String>,
        token: CancelToken,
    ) -> Session {
        Session { stream, frames, out: BytesMut::new(), parameters, token, state: State::Idle, on_warning: None }
    }

    /// Returns the server's version.
    pub(crate) fn server_version(&self) -> ServerVersion {
        self.parameter("server_version").map(ServerVersion::parse).unwrap_or_default()
    }

    /// Returns a setting that the server reports, such as `server_encoding`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Takes the server's warnings like this from here on.
    pub(crate) fn on_warning(&mut self, heed: OnWarning) {
        self.on_warning = Some(heed);
    }

    /// Returns the backend's process ID.
    pub(crate) fn process_id(&self) -> i32 {
        self.token.process_id
    }

    /// Returns the key for cancelling this session's query from another connection.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.token
    }

    /// Runs `sql` as a simple query and returns the rows of the last statement that has any, as text. After an error
    /// that the server reports, the session remains usable.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
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

    /// Runs a [`query`](Self::query) and returns the first value of the first row; `None` where it is NULL or there is
    /// no row.
    pub(crate) async fn query_value(&mut self, sql: &str) -> Result<Option<String>> {
        Ok(self.query(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()?))
    }

    /// Runs a [`query`](Self::query) and returns whether the first value of the first row is true.
    pub(crate) async fn query_bool(&mut self, sql: &str) -> Result<bool> {
        Ok(self.query_value(sql).await?.as_deref() == Some("t"))
    }

    /// Sends Terminate, so that the server does not log a lost connection. An error is only logged.
    pub(crate) async fn close(mut self) {
        frontend::terminate(&mut self.out);
        if let Err(error) = self.flush().await {
            tracing::debug!("closing a connection: {error}");
        }
    }

    /// Returns the stream, the buffer of what has been read from it, and what becomes of warnings.
    pub(super) fn into_parts(self) -> (Stream, Frames, Option<OnWarning>) {
        (self.stream, self.frames, self.on_warning)
    }

    /// Returns the body of the last message.
    #[inline]
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.frames.body(frame)
    }

    /// Returns the next message of any kind, if all of it has arrived.
    #[inline]
    pub(super) fn buffered(&mut self) -> Result<Option<Frame>> {
        self.frames.buffered().map_err(|error| self.broken(error))
    }

    /// Reads the next message that belongs to the query.
    pub(super) async fn receive(&mut self) -> Result<Frame> {
        loop {
            let frame = self.frames.next(&mut self.stream).await.map_err(|error| self.broken(error))?;
            if !self.is_aside(&frame)? {
                return Ok(frame);
            }
        }
    }

    /// Handles a message that is independent of the query (a notice, a changed setting, a notification); returns
    /// whether it was one. ReadyForQuery sets the state and is returned to the caller.
    pub(super) fn is_aside(&mut self, frame: &Frame) -> Result<bool> {
        let body = self.frames.body(frame);
        match frame.tag {
            b'N' => notice::take(body, self.on_warning.as_ref())?,
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

    /// Reads up to ReadyForQuery and returns the error for this ErrorResponse.
    pub(super) async fn failed(&mut self, frame: &Frame) -> Error {
        let error = ServerError::parse(self.body(frame));
        if error.is_fatal() {
            self.state = State::Broken;
        } else if let Err(lost) = self.drain().await {
            tracing::debug!("after an error: {lost}");
        }
        server("the server reported an error", error)
    }

    /// Returns the error for a message that does not fit the query.
    pub(super) fn unexpected(&mut self, frame: &Frame) -> Error {
        // Every query without COPY ends in ReadyForQuery; after these the server waits for data from here.
        if matches!(frame.tag, b'G' | b'W') {
            self.state = State::Broken;
        }
        protocol(format_args!("unexpected message of type {:?}", char::from(frame.tag)))
    }

    /// Sends a simple query, after reading the rest of the one before.
    pub(super) async fn send_query(&mut self, sql: &str) -> Result<()> {
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

    /// Marks the connection as broken and returns the error for it.
    fn broken(&mut self, error: io::Error) -> Error {
        self.state = State::Broken;
        lost(error)
    }
}
