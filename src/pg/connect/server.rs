//! The server of a run, with retries of its connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::choice;
use super::client::Client;
use super::endpoint::Endpoint;
use super::params::{Params, TargetSessionAttrs};
use crate::error::{ErrorKind, Result};
use crate::pg::net::tls::{self, SslMode};
use crate::pg::wire::{CancelToken, Session};

/// Waits before each retry of a server that is unreachable, starting up, or full: a quarter of a minute in all, in
/// which most servers restart.
const RETRIES: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// A server to connect to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

impl fmt::Display for Server {
    /// Writes the address; of several hosts that of the one that the run reads from, once it is connected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known().map_or(Ok(()), |endpoint| endpoint.target().fmt(f))
    }
}

struct Inner {
    endpoints: Vec<Arc<Endpoint>>,
    wanted: TargetSessionAttrs,
    chosen: OnceCell<Arc<Endpoint>>,
}

impl Server {
    /// Reads the certificates and looks up the passwords. Does not connect.
    pub(crate) fn new(params: &Params) -> Result<Server> {
        // For sockets alone, whatever sslmode asks for has no use and need not be there.
        let tls = if params.hosts.iter().all(|(host, _)| host.starts_with('/')) {
            None
        } else {
            tls::connector(&params.tls)?
        };
        let endpoint = |(host, port): &(String, u16)| Arc::new(Endpoint::new(params, host, *port, tls.clone()));
        let endpoints = params.hosts.iter().map(endpoint).collect();
        Ok(Server(Arc::new(Inner { endpoints, wanted: params.target_session_attrs, chosen: OnceCell::new() })))
    }

    /// Returns the role to log in as.
    pub(crate) fn user(&self) -> &str {
        self.known().map_or("", |endpoint| &endpoint.target().user)
    }

    /// Returns whether connections are to be encrypted. Those to a Unix socket never are.
    pub(crate) fn sslmode(&self) -> SslMode {
        self.known().map_or(SslMode::Disable, |endpoint| endpoint.sslmode())
    }

    /// Returns the chosen endpoint, or the first before the choice.
    fn known(&self) -> Option<&Arc<Endpoint>> {
        self.0.chosen.get().or_else(|| self.0.endpoints.first())
    }

    /// Opens a connection for queries through tokio-postgres, which is driven by a task of the current runtime.
    /// Retries.
    pub(crate) async fn connect(&self) -> Result<Client> {
        patiently(|| async { self.endpoint().await?.start_client().await }).await
    }

    /// Opens a session of our own, for queries and `COPY … TO STDOUT`. Retries.
    pub(crate) async fn session(&self) -> Result<Session> {
        patiently(|| self.session_now()).await
    }

    /// As [`session`](Self::session), without retries: for a caller that can do without the session.
    pub(crate) async fn session_now(&self) -> Result<Session> {
        self.endpoint().await?.start_session(false).await
    }

    /// Opens a session with a walsender of the database. Retries.
    pub(crate) async fn replication_session(&self) -> Result<Session> {
        patiently(|| self.replication_session_now()).await
    }

    /// As [`replication_session`](Self::replication_session), without retries: for a caller that can do without it.
    pub(crate) async fn replication_session_now(&self) -> Result<Session> {
        self.endpoint().await?.start_session(true).await
    }

    /// Asks the server to cancel the query that a session is running. Only the session learns whether that happened.
    pub(crate) async fn cancel(&self, token: CancelToken) -> Result<()> {
        self.endpoint().await?.cancel(token).await
    }

    /// Returns the endpoint that the run reads from, which the first call chooses.
    async fn endpoint(&self) -> Result<&Arc<Endpoint>> {
        let Inner { endpoints, wanted, chosen } = &*self.0;
        if let ([only], TargetSessionAttrs::Any) = (endpoints.as_slice(), wanted) {
            return Ok(only);
        }
        let choose = async {
            let endpoint = choice::choose(endpoints, *wanted).await?;
            tracing::info!("reading from {}", endpoint.target());
            Ok(endpoint)
        };
        chosen.get_or_try_init(|| choose).await
    }
}

/// Calls `connect`, with retries after transient errors.
async fn patiently<T, F>(connect: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for wait in RETRIES {
        match connect().await {
            Err(error) if error.kind() == ErrorKind::Transient => {
                tracing::info!("trying again in {wait:?}: {error}");
                tokio::time::sleep(wait).await;
            }
            result => return result,
        }
    }
    connect().await
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::ChannelBinding;

    use super::*;
    use crate::pg::net::tls::TlsParams;

    /// So that callers may put them into tasks.
    #[test]
    fn futures_can_be_sent() {
        fn check(_: impl Send) {}
        let params = Params {
            hosts: vec![("/nowhere".into(), 5432)],
            target_session_attrs: TargetSessionAttrs::Primary,
            user: "tap".into(),
            password: Some("x".into()),
            dbname: "shop".into(),
            tls: TlsParams { sslmode: SslMode::Prefer, sslrootcert: None, sslcert: None, sslkey: None },
            channel_binding: ChannelBinding::Prefer,
            tunnel: None,
        };
        let server = Server::new(&params).unwrap();
        check(server.connect());
        check(server.session());
        check(server.replication_session());
    }
}
