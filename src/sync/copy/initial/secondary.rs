//! Copies from a standby: when it has what the log will not bring any more.

use std::time::Duration;

use tokio::time::Instant;

use super::membership::Membership;
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Server;
use crate::pg::wire::Session;
use crate::sync::transaction_snapshot::{BEGIN, TransactionSnapshot};

/// How long to wait for a secondary to have replayed what a copy needs.
const REPLAY_PATIENCE: Duration = Duration::from_secs(300);

/// The server that tables with a key are copied from.
pub(crate) struct Secondary<'a> {
    server: &'a Server,
    session: Option<Session>,
}

impl<'a> Secondary<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        Secondary { server, session: None }
    }

    /// A session in a transaction whose snapshot sees everything that committed before `position`, and everything that was
    /// written before the publications were as in `published`. `None` if the server is no standby: what it shows may not be
    /// what its log says.
    pub(crate) async fn begin(
        &mut self,
        position: Lsn,
        publications: &[String],
        published: &str,
    ) -> Result<Option<&mut Session>> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.server.session().await?),
        };
        let sql = format!("SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn() >= '{position}'");
        let give_up = Instant::now() + REPLAY_PATIENCE;
        loop {
            let rows = session.query(&sql).await?;
            let says = |at: usize| rows.first().and_then(|row| row.get(at)?.as_deref()) == Some("t");
            if !says(0) {
                return Ok(None);
            }
            if says(1) {
                session.query(BEGIN).await?;
                if publications.is_empty() {
                    return Ok(Some(session));
                }
                let snapshot = TransactionSnapshot::read(session).await?;
                let replayed = Membership::read(session, publications, &snapshot).await?;
                if replayed.settled && replayed.rows == published {
                    return Ok(Some(session));
                }
                session.query("COMMIT").await?;
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

    pub(crate) async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}
