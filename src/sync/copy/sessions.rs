//! Sessions of one server that are used again.

use crate::error::Result;
use crate::pg::connect::{Client, Server};
use crate::pg::wire::Session;

/// A server, and its sessions that are in no transaction.
pub(crate) struct Sessions<'a> {
    server: &'a Server,
    client: &'a Client,
    idle: Vec<Session>,
}

impl<'a> Sessions<'a> {
    /// Returns a pool of `server` that has no session yet. `client`: the run's connection to it, which is in no transaction either.
    pub(crate) fn new(server: &'a Server, client: &'a Client) -> Self {
        Sessions { server, client, idle: Vec::new() }
    }

    /// Returns the run's connection to the server.
    pub(crate) fn client(&self) -> &'a Client {
        self.client
    }

    /// Returns the server.
    pub(crate) fn server(&self) -> &'a Server {
        self.server
    }

    /// Returns a session. What failed in one is not used again: it was never given back.
    pub(crate) async fn take(&mut self) -> Result<Session> {
        match self.idle.pop() {
            Some(session) => Ok(session),
            None => self.server.session().await,
        }
    }

    /// Takes a session back that is in no transaction.
    pub(crate) fn give_back(&mut self, session: Session) {
        self.idle.push(session);
    }

    /// Closes the sessions.
    pub(crate) async fn close(self) {
        for session in self.idle {
            session.close().await;
        }
    }
}
