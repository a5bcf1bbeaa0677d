//! Queries that are cancelled on the server where a run is cut short.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::pg::connect::Server;
use crate::pg::wire::{CancelToken, Session};

/// How long a run that ends waits for the server to take cancel requests.
pub(crate) const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// The query in hand. A server that has nothing to send does not notice that nobody waits for it any more.
#[derive(Default)]
pub(crate) struct QueryInHand(Mutex<Option<(Server, CancelToken)>>);

impl QueryInHand {
    /// Takes note that this session has a query from here on.
    pub(crate) fn set(&self, server: &Server, session: &Session) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((server.clone(), session.cancel_token()));
    }

    /// Takes note that there is none any more.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Asks the server to cancel it, if there is one.
    pub(crate) async fn cancel(&self) {
        let query = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((server, token)) = query {
            cancel(&server, token).await;
        }
    }
}

/// Asks the server to cancel what a session is doing.
pub(crate) async fn cancel(server: &Server, token: CancelToken) {
    if let Ok(Err(error)) = timeout(CANCEL_PATIENCE, server.cancel(token)).await {
        tracing::debug!("cannot cancel the query: {error}");
    }
}
