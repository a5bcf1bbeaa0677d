//! A walsender's stream: START_REPLICATION, what comes, and the status that goes back.
//!
//! A status goes out by time from a task of its own, also while nobody takes the changes. It says what was received
//! (`write`), so that a server that shuts down need not wait, and acknowledges (`flush`) only what
//! [`Feedback::acknowledge`] was told; everywhere else `flush` is 0, which the server ignores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::slot::explain_refusal;
use super::{OutputPlugin, on_warning};
use crate::error::{Error, Result};
use crate::pg::connect::Server;
use crate::pg::error::sqlstate;
use crate::pg::sqlstate::OBJECT_IN_USE;
use crate::pg::wire::{ReplicationReader, ReplicationWriter, Session};
use crate::pg::{Lsn, ServerVersion, quote};
use crate::positions::Stored;

/// How often a status goes out; the server's default patience is 60 s. More often where it has less.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// A server that leaves a question unanswered for so long is gone, where it sets no limit itself or may be silent for long.
const LONG_PATIENCE: Duration = Duration::from_secs(1800);
/// Elsewhere after so many times wal_sender_timeout, within which it expects an answer itself.
const PATIENCE_FACTOR: u32 = 10;
/// How long to wait for a slot that another process still reads: the last run may just be ending.
const SLOT_IN_USE: Duration = Duration::from_secs(10);
/// What to do about it.
pub(crate) const IN_USE: &str =
    "another process reads it: wait for it to end, or give each tap a slot of its own with tap_id";
/// How long the end of a stream may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Microseconds from 1970 to 2000, where PostgreSQL's clock starts.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// One message of the walsender.
#[derive(Debug, PartialEq)]
pub(crate) enum Event<'a> {
    /// An output plugin's message.
    Data {
        /// The WAL position it stands for (`XLogData` start).
        start: Lsn,
        /// For [`OutputPlugin::decode`].
        payload: &'a [u8],
    },
    /// How far the server has decoded, sent also when nothing matched.
    Keepalive {
        /// Every transaction that committed before this was sent, if none is open.
        wal_end: Lsn,
    },
}

/// The receiving side of a replication stream.
pub(crate) struct WalStream {
    reader: ReplicationReader,
    received: Arc<AtomicU64>,
    feedback: Feedback,
    status: JoinHandle<Option<ReplicationWriter>>,
    plugin: &'static str,
    answer_patience: Duration,
}

/// Tells the server things; every copy talks to the same stream.
#[derive(Clone)]
pub(crate) struct Feedback {
    commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Status { flush: Lsn, reply: bool },
    Finish,
}

impl Feedback {
    /// Lets the server forget everything before this position (rule 4). It believes whatever it is told.
    pub(crate) fn acknowledge(&self, stored: Stored) {
        self.send(Command::Status { flush: stored.lsn(), reply: false });
    }

    /// Asks for a keepalive.
    pub(crate) fn request_reply(&self) {
        self.send(Command::Status { flush: Lsn::INVALID, reply: true });
    }

    fn send(&self, command: Command) {
        // The task ends only when the connection does, which the reading side reports.
        let _ = self.commands.send(command);
    }
}

impl WalStream {
    /// Starts to read `slot` at `start`, or where it stands if that is later.
    pub(crate) async fn start(server: &Server, slot: &str, plugin: &dyn OutputPlugin, start: Lsn) -> Result<WalStream> {
        let options: Vec<String> = plugin
            .options()
            .iter()
            .map(|(name, value)| format!("{} {}", quote::ident(name), replication_literal(value)))
            .collect();
        let sql = format!("START_REPLICATION SLOT {} LOGICAL {start} ({})", quote::ident(slot), options.join(", "));
        let give_up = Instant::now() + SLOT_IN_USE;
        let (reader, writer, times) = loop {
            let mut session = server.replication_session().await?;
            let times = Times::of(&mut session, plugin.name()).await?;
            session.on_warning(on_warning(plugin));
            match session.start_replication(&sql).await {
                Ok((reader, writer)) => break (reader, writer, times),
                // The server's message names the process.
                Err(error) if sqlstate(&error) == Some(OBJECT_IN_USE) => {
                    if Instant::now() >= give_up {
                        return Err(Error::run("cannot read the replication slot").source(error).hint(IN_USE));
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(explain_refusal(error, plugin.name())),
            }
        };
        let received = Arc::new(AtomicU64::new(start.0));
        let (commands, waiting) = mpsc::unbounded_channel();
        let status = tokio::spawn(send_status(writer, waiting, Arc::clone(&received), times.status_interval));
        Ok(WalStream {
            reader,
            received,
            feedback: Feedback { commands },
            status,
            plugin: plugin.name(),
            answer_patience: times.answer_patience,
        })
    }

    /// Returns how long [`Feedback::request_reply`] may go unanswered by a server that is alive.
    pub(crate) fn answer_patience(&self) -> Duration {
        self.answer_patience
    }

    /// Returns a handle to talk back with.
    pub(crate) fn feedback(&self) -> Feedback {
        self.feedback.clone()
    }

    /// Reads the next message; `None` when the server ended the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Event<'_>>> {
        let frame = self.reader.next().await.map_err(|error| explain_refusal(error, self.plugin))?;
        let Some(frame) = frame else { return Ok(None) };
        let event = parse(frame)?;
        match &event {
            Event::Data { start, .. } => {
                self.received.fetch_max(start.0, Ordering::Relaxed);
            }
            Event::Keepalive { wal_end } => {
                self.received.fetch_max(wal_end.0, Ordering::Relaxed);
                // Any status is an answer; most keepalives do not ask for one.
                if frame.last() == Some(&1) {
                    self.feedback.send(Command::Status { flush: Lsn::INVALID, reply: false });
                }
            }
        }
        Ok(Some(event))
    }

    /// Ends the stream, so that the slot is free when this returns, if the server is not busy for too long.
    pub(crate) async fn finish(self) {
        self.feedback.send(Command::Finish);
        let goodbye = async {
            match self.status.await {
                Ok(Some(writer)) => self.reader.close(writer).await,
                Ok(None) | Err(_) => Ok(()),
            }
        };
        match timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the replication stream did not end well: {error}"),
            Err(_) => tracing::debug!("the server is busy; leaving the replication stream"),
        }
    }
}

/// How long the two sides of a stream wait for each other.
#[derive(Debug, PartialEq)]
struct Times {
    status_interval: Duration,
    answer_patience: Duration,
}

impl Times {
    async fn of(session: &mut Session, plugin: &str) -> Result<Times> {
        let sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
        let millis = session.query_value(sql).await?.and_then(|millis| millis.parse().ok()).unwrap_or(0);
        Ok(Times::new(millis, session.server_version(), plugin))
    }

    /// Returns the times for the server's wal_sender_timeout; 0 is no limit.
    fn new(timeout_millis: u64, version: ServerVersion, plugin: &str) -> Times {
        let timeout = Some(timeout_millis).filter(|millis| *millis > 0).map(Duration::from_millis);
        Times {
            // While nobody takes the changes, the server's own question is not seen.
            status_interval: timeout.map_or(STATUS_INTERVAL, |timeout| STATUS_INTERVAL.min(timeout / 3)),
            answer_patience: timeout
                .filter(|_| version.answers_while_decoding(plugin))
                .map_or(LONG_PATIENCE, |timeout| timeout.saturating_mul(PATIENCE_FACTOR).min(LONG_PATIENCE)),
        }
    }
}

/// Sends a status now and then; gives the writing side back when the stream is to end.
async fn send_status(
    mut writer: ReplicationWriter,
    mut waiting: mpsc::UnboundedReceiver<Command>,
    received: Arc<AtomicU64>,
    interval: Duration,
) -> Option<ReplicationWriter> {
    let mut tick = tokio::time::interval(interval);
    loop {
        let (flush, reply) = tokio::select! {
            command = waiting.recv() => match command {
                Some(Command::Status { flush, reply }) => (flush, reply),
                Some(Command::Finish) | None => return Some(writer),
            },
            _ = tick.tick() => (Lsn::INVALID, false),
        };
        let write = Lsn(received.load(Ordering::Relaxed));
        if let Err(error) = writer.send(&status(write, flush, reply)).await {
            tracing::debug!("cannot send a status to the server: {error}");
            return None;
        }
    }
}

/// Returns a standby status update.
fn status(write: Lsn, flush: Lsn, reply: bool) -> [u8; 34] {
    let mut message = [0; 34];
    message[0] = b'r';
    message[1..9].copy_from_slice(&write.0.to_be_bytes());
    message[9..17].copy_from_slice(&flush.0.to_be_bytes());
    message[17..25].copy_from_slice(&flush.0.to_be_bytes());
    let clock = chrono::Utc::now().timestamp_micros() - POSTGRES_EPOCH_MICROS;
    message[25..33].copy_from_slice(&clock.to_be_bytes());
    message[33] = reply.into();
    message
}

pub(crate) fn parse(frame: &[u8]) -> Result<Event<'_>> {
    let position = |at: usize| {
        let bytes = frame.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes
            .map(|b| Lsn(u64::from_be_bytes(b)))
            .ok_or_else(|| Error::run("the server sent a replication message that is too short"))
    };
    match frame.first() {
        // start, end, clock
        Some(b'w') if frame.len() >= 25 => Ok(Event::Data { start: position(1)?, payload: &frame[25..] }),
        // end, clock, whether a reply is asked for
        Some(b'k') if frame.len() == 18 => Ok(Event::Keepalive { wal_end: position(1)? }),
        Some(b'w' | b'k') => Err(Error::run("the server sent a replication message of a wrong length")),
        _ => Err(Error::run("the server sent a replication message of an unknown kind")),
    }
}

/// Returns a string literal of the replication grammar, which knows no `E'…'`: backslashes stand for themselves.
fn replication_literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_truncations_refused() {
        let mut data = vec![b'w'];
        data.extend_from_slice(&7u64.to_be_bytes());
        data.extend_from_slice(&[0; 16]);
        data.extend_from_slice(b"body");
        assert_eq!(parse(&data).unwrap(), Event::Data { start: Lsn(7), payload: b"body" });
        for len in 0..25 {
            assert!(parse(&data[..len]).is_err(), "{len}");
        }
        let mut keepalive = vec![b'k'];
        keepalive.extend_from_slice(&9u64.to_be_bytes());
        keepalive.extend_from_slice(&[0; 9]);
        assert_eq!(parse(&keepalive).unwrap(), Event::Keepalive { wal_end: Lsn(9) });
        for len in 0..keepalive.len() {
            assert!(parse(&keepalive[..len]).is_err(), "{len}");
        }
        assert!(parse(b"x").is_err());
    }

    #[test]
    fn a_status_acknowledges_only_what_it_is_told() {
        let message = status(Lsn(5), Lsn::INVALID, true);
        assert_eq!(message[0], b'r');
        assert_eq!(message[1..9], 5u64.to_be_bytes());
        assert_eq!(message[9..25], [0; 16]);
        assert_eq!(message[33], 1);
    }

    #[test]
    fn the_server_says_how_long_to_wait() {
        let (secs, at) = (Duration::from_secs, ServerVersion::parse);
        let times = |status_interval, answer_patience| Times { status_interval, answer_patience };
        assert_eq!(Times::new(60_000, at("15.18"), "pgoutput"), times(secs(10), secs(600)));
        assert_eq!(Times::new(3_000, at("16.0"), "wal2json"), times(secs(1), secs(30)));
        assert_eq!(Times::new(3_000, at("15.18"), "wal2json"), times(secs(1), LONG_PATIENCE));
        assert_eq!(Times::new(3_000, at("14.0"), "pgoutput"), times(secs(1), LONG_PATIENCE));
        assert_eq!(Times::new(0, at("18.0"), "pgoutput"), times(secs(10), LONG_PATIENCE));
        assert_eq!(Times::new(u64::MAX, at("18.0"), "pgoutput"), times(secs(10), LONG_PATIENCE));
    }

    #[test]
    fn replication_literals_keep_backslashes() {
        assert_eq!(replication_literal(r"public.Foo\ b'r"), r"'public.Foo\ b''r'");
    }
}
