//! A session after login: simple queries, and the way into COPY and replication.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

use super::copy::{CopyOut, ReplicationReader, ReplicationWriter};
use super::frame::{Frame, Frames};
use super::message;
use super::stream::Stream;
use crate::error::{Error, Result};
use crate::pg::ServerVersion;
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

    /// The server's version.
    pub fn server_version(&self) -> ServerVersion {
        self.parameter("server_version").map(ServerVersion::parse).unwrap_or_default()
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

    /// As [`query`](Self::query), for the first value of the first row; `None` where it is NULL or not there.
    pub async fn query_value(&mut self, sql: &str) -> Result<Option<String>> {
        Ok(self.query(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()?))
    }

    /// Whether the first value of the first row is true.
    pub async fn query_bool(&mut self, sql: &str) -> Result<bool> {
        Ok(self.query_value(sql).await?.as_deref() == Some("t"))
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

/// Logs a NoticeResponse of a query, in which functions of the database may say what a row holds: only what wal2json says
/// of changes that it leaves out is known to hold none.
fn log_notice(body: &[u8]) {
    let notice = ServerError::parse(body);
    if notice.message.starts_with("no tuple identifier for ") {
        warn_once(&notice);
    } else {
        tracing::debug!("the server sent a message of severity {} ({})", notice.severity, notice.code);
    }
}

/// Logs a warning of the server's, which may come again with every change.
pub(super) fn warn_once(notice: &ServerError) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    const MANY: usize = 100;
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MANY && told.insert(notice.message.clone()) {
        tracing::warn!("the server warns: {notice}");
    }
}

#[cfg(all(test, unix))]
mod tests {
    use tokio::net::UnixStream;
    use tokio_postgres::Config;

    use super::*;
    use crate::pg::error::{Failure, sqlstate};
    use crate::pg::wire::startup::start;
    use crate::pg::wire::stream::Socket;

    const LOGIN: &[&[u8]] = &[
        b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0",
        b"R\0\0\0\x08\0\0\0\0",
        b"S\0\0\0\x19server_version\x0015.18\0",
        b"K\0\0\0\x0c\0\0\0\x07\0\0\0\x08",
        b"Z\0\0\0\x05I",
    ];
    const COPY: &[&[u8]] = &[
        b"H\0\0\0\x07\0\0\0",
        b"d\0\0\0\x08one\n",
        b"N\0\0\0\x0bMwait\0\0",
        b"S\0\0\0\x11TimeZone\0UTC\0",
        b"d\0\0\0\x08two\n",
        b"c\0\0\0\x04",
        b"C\0\0\0\x0bCOPY 2\0",
        b"Z\0\0\0\x05I",
    ];

    /// Logs in to a server that says this and hangs up.
    async fn session(script: &[u8]) -> Result<Session, Failure> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(script).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut config = Config::new();
        let session = start(Stream::Plain(Socket::Unix(ours)), config.user("tap"), false).await;
        if session.is_ok() {
            tokio::spawn(async move { tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await });
        }
        session
    }

    #[tokio::test]
    async fn every_truncation_of_a_login_is_an_error() {
        let script = LOGIN.concat();
        let whole = session(&script).await.ok().unwrap();
        assert_eq!((whole.server_version(), whole.process_id()), (ServerVersion::parse("15.18"), 7));
        for end in 0..script.len() {
            assert!(matches!(session(&script[..end]).await, Err(Failure::Io(_))), "{end}");
        }
    }

    #[tokio::test]
    async fn every_truncation_of_a_copy_is_an_error() {
        let (login, copy) = (LOGIN.concat(), COPY.concat());
        for end in 0..=copy.len() {
            let mut session = session(&[&login, &copy[..end]].concat()).await.ok().unwrap();
            let mut rows = Vec::new();
            let outcome = async {
                let mut copy = session.copy_out("COPY t TO STDOUT").await?;
                while let Some(row) = copy.next().await? {
                    rows.push(row.to_vec());
                }
                Ok::<_, Error>(())
            };
            assert_eq!(outcome.await.is_ok(), end == copy.len(), "{end}");
            let all: [&[u8]; 2] = [b"one\n", b"two\n"];
            assert!(rows.len() == 2 || end < copy.len());
            assert_eq!(rows, all[..rows.len()]);
            assert!(rows.len() < 2 || session.parameter("TimeZone") == Some("UTC"));
        }
    }

    /// The server has told of an error, and says only later that it is ready again.
    #[tokio::test]
    async fn an_error_is_not_lost_with_a_future_that_is_dropped() {
        let error: &[u8] = b"E\0\0\0\x1eVERROR\0C22P02\0Mbad value\0\0";
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[&LOGIN.concat(), COPY[0], COPY[1], error].concat()).await.unwrap();
        let mut session =
            start(Stream::Plain(Socket::Unix(ours)), Config::new().user("tap"), false).await.ok().unwrap();
        let mut copy = session.copy_out("COPY t TO STDOUT").await.unwrap();
        assert_eq!(copy.next().await.unwrap(), Some(&b"one\n"[..]));
        for _ in 0..2 {
            tokio::select! {
                biased;
                row = copy.next() => panic!("{row:?} before ReadyForQuery"),
                _ = tokio::task::yield_now() => {}
            }
        }
        theirs.write_all(b"Z\0\0\0\x05I").await.unwrap();
        assert_eq!(sqlstate(&copy.next().await.unwrap_err()), Some("22P02"));
    }

    #[tokio::test]
    async fn a_copy_without_its_end_is_an_error() {
        let script = [&LOGIN.concat(), COPY[0], COPY[1], b"Z\0\0\0\x05I"].concat();
        let mut session = session(&script).await.ok().unwrap();
        let mut copy = session.copy_out("COPY t TO STDOUT").await.unwrap();
        assert!(copy.next().await.unwrap().is_some());
        assert!(copy.next().await.unwrap_err().to_string().contains("without its end"));
    }

    #[tokio::test]
    async fn a_fatal_error_is_reported_and_ends_the_session() {
        let fatal = b"E\0\0\0\x1eVFATAL\0C57P01\0Mshut down\0\0";
        let mut session = session(&[&LOGIN.concat(), &fatal[..]].concat()).await.ok().unwrap();
        let error = session.query("SELECT 1").await.unwrap_err();
        assert_eq!(sqlstate(&error), Some("57P01"));
        assert_eq!(session.query("SELECT 1").await.unwrap_err().to_string(), "the connection broke earlier");
    }
}
