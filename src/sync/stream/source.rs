//! Where changes come from: a walsender's stream, or one bulk read.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::error::RESTARTED;
use crate::replication::bulk::BulkRead;
use crate::replication::stream::{Event, Feedback, WalStream};
use crate::replication::{Message, OutputPlugin};

/// What a source says.
pub(super) enum Input<'a> {
    /// A message of the output plugin, with its own position in the log.
    Message { lsn: Lsn, message: Message<'a> },
    /// The server has sent everything that committed before this, if no transaction is open.
    Keepalive { wal_end: Lsn },
    /// Nothing came for as long as was waited.
    Quiet,
    /// Everything up to the end of the run has come.
    End,
}

/// A source of changes.
pub(super) trait ChangeSource {
    /// Waits for the next message, for so long at the most.
    async fn next(&mut self, wait: Duration) -> Result<Input<'_>>;

    /// Returns the way to ask the server how far it is, and to acknowledge; `None` where there is none.
    fn feedback(&self) -> Option<&Feedback>;
}

/// A walsender.
pub(super) struct Walsender<'a> {
    stream: WalStream,
    feedback: Feedback,
    plugin: &'a mut dyn OutputPlugin,
}

impl<'a> Walsender<'a> {
    pub(super) fn new(stream: WalStream, plugin: &'a mut dyn OutputPlugin) -> Self {
        Walsender { feedback: stream.feedback(), stream, plugin }
    }

    /// Returns how long the server may take to answer a question while it is alive.
    pub(super) fn patience(&self) -> Duration {
        self.stream.answer_patience()
    }

    /// Ends the stream, so that the slot is free.
    pub(super) async fn finish(self) {
        self.stream.finish().await;
    }
}

impl ChangeSource for Walsender<'_> {
    async fn next(&mut self, wait: Duration) -> Result<Input<'_>> {
        match within(wait, self.stream.next()).await {
            None => Ok(Input::Quiet),
            Some(event) => match event? {
                None => Err(Error::transient("the server ended the replication stream").hint(RESTARTED)),
                Some(Event::Data { start, payload }) => {
                    Ok(Input::Message { lsn: start, message: self.plugin.decode(payload)? })
                }
                Some(Event::Keepalive { wal_end }) => Ok(Input::Keepalive { wal_end }),
            },
        }
    }

    fn feedback(&self) -> Option<&Feedback> {
        Some(&self.feedback)
    }
}

/// A bulk read.
pub(super) struct Bulk<'a> {
    rows: BulkRead<'a>,
    plugin: &'a mut dyn OutputPlugin,
    ended: bool,
}

impl<'a> Bulk<'a> {
    pub(super) fn new(rows: BulkRead<'a>, plugin: &'a mut dyn OutputPlugin) -> Self {
        Bulk { rows, plugin, ended: false }
    }

    /// Whether the server has nothing more to send.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl ChangeSource for Bulk<'_> {
    async fn next(&mut self, wait: Duration) -> Result<Input<'_>> {
        match within(wait, self.rows.next()).await {
            None => Ok(Input::Quiet),
            Some(row) => match row? {
                Some((lsn, payload)) => Ok(Input::Message { lsn, message: self.plugin.decode(payload)? }),
                None => {
                    self.ended = true;
                    Ok(Input::End)
                }
            },
        }
    }

    /// Nobody can ask: the server has gathered everything before the first row leaves. What is stored was acknowledged before.
    fn feedback(&self) -> Option<&Feedback> {
        None
    }
}

/// Waits for a future, for so long at the most. Where it is ready at once, as nearly always, the clock is not asked.
async fn within<T>(wait: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(value) => Some(value),
        Poll::Pending => timeout(wait, future).await.ok(),
    }
}
