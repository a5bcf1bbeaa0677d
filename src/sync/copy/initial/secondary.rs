//! Copies from a standby: when it has what the log will not bring any more.

use std::time::Duration;

use tokio::time::Instant;

use super::membership::Membership;
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::{Client, Server};
use crate::sync::copy::sessions::Sessions;
use crate::sync::copy::snapshot::Snapshot;
use crate::sync::visibility::visible_to;

/// The timeout for a secondary to replay what a copy needs.
const REPLAY_PATIENCE: Duration = Duration::from_secs(300);

/// The server that tables with a key are copied from.
pub(crate) struct Secondary<'a> {
    sessions: Sessions<'a>,
}

impl<'a> Secondary<'a> {
    pub(crate) fn new(server: &'a Server, client: &'a Client) -> Self {
        Secondary { sessions: Sessions::new(server, client) }
    }

    /// Returns a snapshot that sees everything that committed before `position`, and everything that was written before
    /// the publications were as in `published`; `None` if the server is no standby: what it shows may not be what its
    /// log says.
    pub(crate) async fn begin(
        &mut self,
        position: Lsn,
        publications: &[String],
        published: &str,
    ) -> Result<Option<Snapshot>> {
        let mut session = self.sessions.take().await?;
        let sql = format!("SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn() >= '{position}'");
        let give_up = Instant::now() + REPLAY_PATIENCE;
        loop {
            let rows = session.query(&sql).await?;
            let says = |at: usize| rows.first().and_then(|row| row.get(at)?.as_deref()) == Some("t");
            if !says(0) {
                self.sessions.give_back(session);
                return Ok(None);
            }
            if says(1) {
                let mut snapshot = Snapshot::begin(session).await?;
                if publications.is_empty() {
                    return Ok(Some(snapshot));
                }
                let visible = visible_to(snapshot.session()).await?;
                let replayed = Membership::read(snapshot.session(), publications, &visible).await?;
                if replayed.settled && replayed.rows == published {
                    return Ok(Some(snapshot));
                }
                session = snapshot.end().await?;
            }
            if Instant::now() >= give_up {
                return Err(Error::run(format!(
                    "the secondary has not replayed {position}, and the publications, after {} s",
                    REPLAY_PATIENCE.as_secs()
                ))
                .hint("look at its replication lag, or copy from the primary: set use_secondary to false"));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Returns the run's connection to it.
    pub(crate) fn client(&self) -> &'a Client {
        self.sessions.client()
    }

    /// Ends a snapshot of [`begin`](Self::begin).
    pub(crate) async fn end(&mut self, snapshot: Snapshot) -> Result<()> {
        self.sessions.give_back(snapshot.end().await?);
        Ok(())
    }

    pub(crate) async fn close(self) {
        self.sessions.close().await;
    }
}
