//! Sessions of one server that are used again.

use crate::error::Result;
use crate::pg::connect::Server;
use crate::pg::wire::Session;

/// A server, and a session of it that is in no transaction.
pub(crate) struct Sessions<'a> {
    server: &'a Server,
    idle: Option<Session>,
}

impl<'a> Sessions<'a> {
    /// Returns a pool of `server` that has no session yet.
    pub(crate) fn new(server: &'a Server) -> Self {
        Sessions { server, idle: None }
    }

    /// Returns the server.
    pub(crate) fn server(&self) -> &'a Server {
        self.server
    }

    /// Returns a session. What failed in one is not used again: it was never given back.
    pub(crate) async fn take(&mut self) -> Result<Session> {
        match self.idle.take() {
            Some(session) => Ok(session),
            None => self.server.session().await,
        }
    }

    /// Takes a session back that is in no transaction.
    pub(crate) fn give_back(&mut self, session: Session) {
        self.idle = Some(session);
    }

    /// Closes the session.
    pub(crate) async fn close(self) {
        if let Some(session) = self.idle {
            session.close().await;
        }
    }
}
