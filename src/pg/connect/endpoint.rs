//! One host with its port: from opening a socket to a session with its settings.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;

use super::client::Client;
use super::params::Params;
use super::password;
use crate::error::{Error, Result};
use crate::pg::ServerVersion;
use crate::pg::error::{POOLER, query_error, sqlstate};
use crate::pg::net::failure::Failure;
use crate::pg::net::socket::{self, CONNECT_TIMEOUT};
use crate::pg::net::ssh::Tunnel;
use crate::pg::net::stream::{Socket, Stream};
use crate::pg::net::target::Target;
use crate::pg::net::tls::SslMode;
use crate::pg::row::Fields as _;
use crate::pg::sqlstate::SYNTAX_ERROR;
use crate::pg::wire::guard::{Established, Guarded};
use crate::pg::wire::{CancelToken, Session, startup};

const APPLICATION_NAME: &str = "tap-postgres-rs";
/// The search_path of every session.
const PINNED: &str = "pg_catalog, pg_temp";
const SEARCH_PATH: &str = "SELECT pg_catalog.current_setting('search_path')";

/// The target of connections, with the credentials and TLS settings.
pub(super) struct Endpoint {
    target: Target,
    /// User, password, database and application name, for tokio-postgres and for our own sessions.
    config: Config,
    sslmode: SslMode,
    tls: Option<TlsConnector>,
    tunnel: Option<Tunnel>,
}

impl Endpoint {
    /// Looks up the password for this host where the settings have none.
    pub(super) fn new(params: &Params, host: &str, port: u16, tls: Option<TlsConnector>) -> Endpoint {
        let [host, dbname, user] = [host, &params.dbname, &params.user].map(str::to_owned);
        let target = Target { host, port, dbname, user };
        let mut config = Config::new();
        // The stream that tokio-postgres is given is encrypted already where it is to be: nothing to negotiate.
        config.ssl_mode(tokio_postgres::config::SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        config.user(&params.user).dbname(&params.dbname).application_name(APPLICATION_NAME);
        config.channel_binding(params.channel_binding);
        let given = params.password.clone().filter(|password| !password.is_empty());
        if let Some(password) = given.or_else(|| password::find(&target)) {
            config.password(password);
        }
        // A Unix socket has no TLS.
        let tls = tls.filter(|_| target.socket().is_none());
        Endpoint { target, config, sslmode: params.tls.sslmode, tls, tunnel: params.tunnel.clone() }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the mode that applies to the target: a Unix socket is never encrypted.
    pub(super) fn sslmode(&self) -> SslMode {
        if self.target.socket().is_some() { SslMode::Disable } else { self.sslmode }
    }

    /// Opens a connection for queries.
    pub(super) async fn start_client(self: &Arc<Self>) -> Result<Client> {
        let login = |stream: Stream, endpoint: Arc<Endpoint>| async move {
            let tls = stream.tls_version();
            let (client, connection) = endpoint.config.connect_raw(Guarded::new(stream), Established).await?;
            Ok((client, connection, tls))
        };
        let (client, connection, tls) =
            self.establish(login).await.map_err(|failure| failure.at(&self.target, false))?;
        let mut client = Client::new(client, connection, tls);
        let version = client.server_version();
        check_version(&self.target, version)?;
        self.in_time(client.set_up(&settings(version, "UTF8", true))).await?;
        let kept = async {
            let row =
                client.query_one(SEARCH_PATH, &[]).await.map_err(|e| query_error("cannot set up the session", e))?;
            row.field::<String>(0)
        };
        if self.in_time(kept).await? != PINNED {
            return Err(pooled());
        }
        Ok(client)
    }

    /// Opens a session of our own; with `replication`, with a walsender.
    pub(super) async fn start_session(self: &Arc<Self>, replication: bool) -> Result<Session> {
        let mut session = self.log_in(replication).await.map_err(|failure| failure.at(&self.target, replication))?;
        let version = session.server_version();
        check_version(&self.target, version)?;
        // A database in SQL_ASCII has whatever bytes: checked by the server, one that is not UTF-8 would fail the query.
        let encoding = match session.parameter("server_encoding") {
            Some("SQL_ASCII") => "SQL_ASCII",
            _ => "UTF8",
        };
        let set_up = async {
            session.query(&settings(version, encoding, false)).await?;
            if replication {
                // Who takes no notice of `replication` in the startup message gives an ordinary session, for which this is no SQL.
                return session.query("IDENTIFY_SYSTEM").await.map(|_| true).map_err(not_passed_on);
            }
            Ok(session.query_value(SEARCH_PATH).await?.as_deref() == Some(PINNED))
        };
        if !self.in_time(set_up).await? {
            return Err(pooled());
        }
        Ok(session)
    }

    /// Opens a session with the server's own settings.
    pub(super) async fn log_in(self: &Arc<Self>, replication: bool) -> Result<Session, Failure> {
        let login = |stream, endpoint: Arc<Endpoint>| async move {
            startup::start(stream, &endpoint.config, replication).await
        };
        self.establish(login).await
    }

    /// Runs the set-up of a session with the connection's timeout, after which the server counts as unreachable.
    pub(super) async fn in_time<T>(&self, set_up: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(CONNECT_TIMEOUT, set_up).await.unwrap_or_else(|_| Err(Failure::Timeout.at(&self.target, false)))
    }

    /// Asks the server to cancel what a session is doing.
    pub(super) async fn cancel(self: &Arc<Self>, token: CancelToken) -> Result<()> {
        let ask = |mut stream: Stream, _| async move {
            let mut out = BytesMut::new();
            frontend::cancel_request(token.process_id, token.secret_key, &mut out);
            stream.write_all(&out).await?;
            stream.flush().await?;
            // The server closes the connection once it has passed the request on, some without TLS's close_notify.
            let _ = stream.read(&mut [0]).await;
            Ok(())
        };
        self.establish(ask).await.map_err(|failure| failure.at(&self.target, false))
    }

    /// Opens a stream and logs in. With sslmode `prefer`, as libpq does, retries without TLS if TLS or the login over
    /// it failed: pg_hba.conf may treat the two differently.
    async fn establish<T, F>(self: &Arc<Self>, login: impl Fn(Stream, Arc<Endpoint>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let first = match self.attempt(self.tls.as_ref(), &login).await {
            Ok(value) => return Ok(value),
            Err((failure, encrypted)) => {
                let again = self.sslmode == SslMode::Prefer && encrypted && failure.may_pass_unencrypted();
                if !again {
                    return Err(failure);
                }
                failure
            }
        };
        tracing::debug!("connecting again without TLS");
        self.attempt(None, &login).await.map_err(|(second, _)| if second.is_not_allowed() { first } else { second })
    }

    /// Opens a stream and logs in once. A failure comes with whether the stream was encrypted.
    async fn attempt<T, F>(
        self: &Arc<Self>,
        tls: Option<&TlsConnector>,
        login: impl Fn(Stream, Arc<Endpoint>) -> F,
    ) -> Result<T, (Failure, bool)>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let socket = self.open_socket().await.map_err(|failure| (failure, false))?;
        let mut encrypted = false;
        let set_up = async {
            let stream = match tls {
                Some(tls) => self.encrypt(socket, tls, &mut encrypted).await?,
                None => Stream::Plain(socket),
            };
            login(stream, Arc::clone(self)).await
        };
        let outcome = timeout(CONNECT_TIMEOUT, set_up).await.unwrap_or(Err(Failure::Timeout));
        outcome.map_err(|failure| (failure, encrypted))
    }

    /// Opens the socket or the tunnel.
    async fn open_socket(&self) -> Result<Socket, Failure> {
        match (&self.tunnel, self.target.socket()) {
            (Some(tunnel), _) => {
                // The future is large: SSH keeps much state across its steps.
                let open = Box::pin(tunnel.open(&self.target));
                let tunneled = timeout(CONNECT_TIMEOUT, open).await.unwrap_or(Err(Failure::Timeout))?;
                Ok(Socket::Tunnel(Box::new(tunneled)))
            }
            #[cfg(unix)]
            (None, Some(path)) => Ok(Socket::Unix(socket::open_unix(&path).await?)),
            _ => Ok(Socket::Tcp(socket::open_tcp(&self.target.host, self.target.port).await?)),
        }
    }

    /// Asks the server for TLS, and makes the handshake if it agrees.
    async fn encrypt(&self, mut socket: Socket, tls: &TlsConnector, encrypted: &mut bool) -> Result<Stream, Failure> {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // Exactly one byte: unencrypted bytes that follow it must not be taken for the server's.
        match socket.read_u8().await? {
            b'S' => *encrypted = true,
            b'N' if self.sslmode == SslMode::Prefer => return Ok(Stream::Plain(socket)),
            b'N' => return Err(Failure::NoTls),
            other => {
                let text = format!("the answer to the request for TLS starts with {:?}", char::from(other));
                return Err(Failure::Protocol(text));
            }
        }
        let host = ServerName::try_from(self.target.host.clone())
            .map_err(|error| Failure::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = tls.connect(host, socket).await.map_err(Failure::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// Returns the error for a session whose settings did not last.
fn pooled() -> Error {
    Error::run("a pooler between this tap and the server gives each transaction another session").hint(POOLER)
}

/// Explains that a walsender was asked for and an ordinary session came.
fn not_passed_on(error: Error) -> Error {
    if sqlstate(&error) != Some(SYNTAX_ERROR) {
        return error;
    }
    Error::run("a pooler or proxy between this tap and the server does not pass on that replication is asked for")
        .source(error)
        .hint("LOG_BASED needs a connection to the server itself: set `host` and `port` to it")
}

/// Returns an error if the server is too old to be read.
fn check_version(target: &Target, version: ServerVersion) -> Result<()> {
    if version >= ServerVersion::OLDEST {
        return Ok(());
    }
    Err(Error::run(format!("cannot read from {target}: it is PostgreSQL {version}"))
        .hint("this tap reads PostgreSQL 10 and later"))
}

/// Returns the statement that sets up a session: whatever the role, the database or the server have set, values print
/// the same, no timeout ends a long read, and SQL reaches nothing that another role made. It returns the schemas that
/// were on the search_path, and is one statement because a walsender before PostgreSQL 15 takes no more. No cast or
/// operator stands in it: the search_path of its own is still that of the role. `of_catalogs`: its queries read them, and take far longer
/// to compile than to run.
fn settings(version: ServerVersion, encoding: &str, of_catalogs: bool) -> String {
    let mut settings = vec![
        // Temporary objects would come first if they did not stand last.
        ("search_path", PINNED),
        ("quote_all_identifiers", "off"),
        ("client_encoding", encoding),
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("statement_timeout", "0"),
        // What the server leaves out it may say in a warning alone.
        ("client_min_messages", "warning"),
        // What the tap commits is not worth waiting for a synchronous standby.
        ("synchronous_commit", "local"),
        ("application_name", APPLICATION_NAME),
    ];
    settings.extend(version.session_timeouts().map(|name| (name, "0")));
    if of_catalogs && version.has_jit() {
        settings.push(("jit", "off"));
    }
    let calls = settings.iter().map(|(name, value)| format!("pg_catalog.set_config('{name}', '{value}', false)"));
    let schemas = "pg_catalog.array_to_json(pg_catalog.current_schemas(false))";
    format!("SELECT {schemas}, {}", calls.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_version() {
        let of_tables = settings(ServerVersion::parse("17.0"), "UTF8", false);
        let settings = |text| settings(ServerVersion::parse(text), "UTF8", true);
        assert!(
            settings("11.0").contains("'jit'") && !settings("10.0").contains("'jit'") && !of_tables.contains("'jit'")
        );
        assert!(settings("17.0").contains("'transaction_timeout'"));
        assert!(!settings("16.9").contains("'transaction_timeout'"));
        assert!(!settings("16.9").contains(';'));
    }

    #[test]
    fn a_server_older_than_10_is_refused() {
        let [host, dbname, user] = ["db", "shop", "tap"].map(str::to_owned);
        let target = Target { host, port: 5432, dbname, user };
        let error = check_version(&target, ServerVersion::parse("9.6.24")).unwrap_err();
        let said = "cannot read from db:5432/shop: it is PostgreSQL 9.6.24 (this tap reads PostgreSQL 10 and later)";
        assert_eq!(error.to_string(), said);
        assert!(check_version(&target, ServerVersion::parse("10.0")).is_ok());
    }
}
