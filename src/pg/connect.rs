//! Connections: where the server is, how to log in, and what every session sets first.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;

use super::error::{Failure, query_error};
pub use super::tls::{Pem, SslMode};
use super::wire::guard::Guarded;
use super::wire::stream::{Established, Stream};
use super::wire::{CancelToken, Session, startup};
use super::{ServerVersion, password, tls};
use crate::error::{Error, ErrorKind, Result};

/// For the socket, once more for TLS and login, and once more for the session's settings.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Waits between the tries of a server that is not there, only starting up, or full: a quarter of a minute, in which most
/// restart.
const RETRIES: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// A peer that is silent for so long is asked whether it is still there,
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// again and again,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and is gone after so many questions,
const KEEPALIVE_RETRIES: u32 = 6;
/// or when what it was sent is not acknowledged for so long (the system's own patience is a quarter of an hour).
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);
const APPLICATION_NAME: &str = "tap-postgres-rs";

/// Where the server is and how to log in.
#[derive(Clone)]
pub struct Params {
    /// A name, an address, or the directory of a Unix socket if it starts with a slash.
    pub host: String,
    /// The port; also part of a Unix socket's name.
    pub port: u16,
    /// The role to log in as.
    pub user: String,
    /// Its password; if none, PGPASSWORD or the password file is asked.
    pub password: Option<String>,
    /// The database.
    pub dbname: String,
    /// Whether to encrypt, and whom to trust.
    pub sslmode: SslMode,
    /// Root certificates, or `system`; if none, the system's.
    pub sslrootcert: Option<Pem>,
    /// The client's certificate.
    pub sslcert: Option<Pem>,
    /// Its key.
    pub sslkey: Option<Pem>,
}

/// What error messages say about where a connection was going.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) dbname: String,
    pub(crate) user: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port, dbname, .. } = self;
        if host.starts_with('/') {
            write!(f, "{host}/.s.PGSQL.{port}, database {dbname}")
        } else if host.contains(':') {
            write!(f, "[{host}]:{port}/{dbname}")
        } else {
            write!(f, "{host}:{port}/{dbname}")
        }
    }
}

/// A server that connections can be made to. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

impl fmt::Display for Server {
    /// Where it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.target.fmt(f)
    }
}

struct Inner {
    target: Target,
    /// User, password, database and application name, for tokio-postgres and for our own sessions.
    config: Config,
    sslmode: SslMode,
    tls: Option<TlsConnector>,
}

impl Server {
    /// Reads the certificates and finds the password. Does not connect.
    pub fn new(params: &Params) -> Result<Server> {
        let target = Target {
            host: params.host.clone(),
            port: params.port,
            dbname: params.dbname.clone(),
            user: params.user.clone(),
        };
        let mut config = Config::new();
        // The stream that tokio-postgres is given is encrypted already where it is to be: nothing to negotiate.
        config.ssl_mode(tokio_postgres::config::SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        config.user(&params.user).dbname(&params.dbname).application_name(APPLICATION_NAME);
        let given = params.password.clone().filter(|password| !password.is_empty());
        if let Some(password) = given.or_else(|| password::find(&target)) {
            config.password(password);
        }
        Ok(Server(Arc::new(Inner { target, config, sslmode: params.sslmode, tls: tls::connector(params)? })))
    }

    /// The role to log in as.
    pub fn user(&self) -> &str {
        &self.0.target.user
    }

    /// Whether connections are to be encrypted. A Unix socket's never are.
    pub fn sslmode(&self) -> SslMode {
        if self.0.target.host.starts_with('/') { SslMode::Disable } else { self.0.sslmode }
    }

    /// A connection for queries through tokio-postgres. Its other half runs as a task of the current runtime.
    pub async fn connect(&self) -> Result<Client> {
        patiently(|| self.start_client()).await
    }

    /// A plain session of our own, for `COPY … TO STDOUT`.
    pub async fn session(&self) -> Result<Session> {
        patiently(|| self.start_session(false)).await
    }

    /// The same, for a caller that can do without and does not wait for a free one.
    pub async fn session_now(&self) -> Result<Session> {
        self.start_session(false).await
    }

    /// A walsender in the database.
    pub async fn replication_session(&self) -> Result<Session> {
        patiently(|| self.start_session(true)).await
    }

    /// The same, for a caller that can do without and does not wait for a free one.
    pub async fn replication_session_now(&self) -> Result<Session> {
        self.start_session(true).await
    }

    async fn start_client(&self) -> Result<Client> {
        let login = |stream: Stream, server: Server| async move {
            let tls = stream.tls_version();
            let (client, connection) = server.0.config.connect_raw(Guarded::new(stream), Established).await?;
            Ok((client, connection, tls))
        };
        let (client, connection, tls) =
            self.establish(login).await.map_err(|failure| failure.at(&self.0.target, false))?;
        let server_version = connection.parameter("server_version").map(ServerVersion::parse).unwrap_or_default();
        check_version(&self.0.target, server_version)?;
        let (open, alive) = watch::channel(());
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!("{}", query_error("a connection to the server ended", error));
            }
            drop(open);
        });
        let client = Client { client, connection, alive, server_version, tls };
        let set_up = async {
            let settings = settings(server_version);
            client.batch_execute(&settings).await.map_err(|error| query_error("cannot set up the session", error))
        };
        self.in_time(set_up).await?;
        Ok(client)
    }

    async fn start_session(&self, replication: bool) -> Result<Session> {
        let login = |stream, server: Server| async move { startup::start(stream, &server.0.config, replication).await };
        let mut session = self.establish(login).await.map_err(|failure| failure.at(&self.0.target, replication))?;
        let version = session.server_version();
        check_version(&self.0.target, version)?;
        self.in_time(session.query(&settings(version))).await?;
        Ok(session)
    }

    /// A server that falls silent before the session is of use has not let us in.
    async fn in_time<T>(&self, set_up: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(CONNECT_TIMEOUT, set_up).await.unwrap_or_else(|_| Err(Failure::Timeout.at(&self.0.target, false)))
    }

    /// Asks the server to cancel what the session is doing. Whether it did is for the session to find out.
    pub async fn cancel(&self, token: CancelToken) -> Result<()> {
        let ask = |mut stream: Stream, _| async move {
            let mut out = BytesMut::new();
            frontend::cancel_request(token.process_id, token.secret_key, &mut out);
            stream.write_all(&out).await?;
            stream.flush().await?;
            // The server hangs up once it has passed the request on, some without a TLS goodbye.
            let _ = stream.read(&mut [0]).await;
            Ok(())
        };
        self.establish(ask).await.map_err(|failure| failure.at(&self.0.target, false))
    }

    /// Opens a stream and logs in. As libpq does with sslmode `prefer`, a second time without TLS if it was TLS or the
    /// login over it that failed: pg_hba.conf may tell them apart.
    async fn establish<T, F>(&self, login: impl Fn(Stream, Server) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let first = match self.attempt(self.0.tls.as_ref(), &login).await {
            Ok(value) => return Ok(value),
            Err((failure, encrypted)) => {
                let again = self.0.sslmode == SslMode::Prefer && encrypted && failure.may_pass_unencrypted();
                if !again {
                    return Err(failure);
                }
                failure
            }
        };
        tracing::debug!("connecting again without TLS");
        self.attempt(None, &login).await.map_err(|(second, _)| if second.is_not_allowed() { first } else { second })
    }

    /// The failure comes with whether TLS was involved.
    async fn attempt<T, F>(
        &self,
        tls: Option<&TlsConnector>,
        login: impl Fn(Stream, Server) -> F,
    ) -> Result<T, (Failure, bool)>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let socket = self.open_socket().await.map_err(|failure| (failure, false))?;
        let mut encrypted = false;
        let set_up = async {
            let stream = match (socket, tls) {
                (Stream::Tcp(socket), Some(tls)) => self.encrypt(socket, tls, &mut encrypted).await?,
                (socket, _) => socket,
            };
            login(stream, self.clone()).await
        };
        let outcome = timeout(CONNECT_TIMEOUT, set_up).await.unwrap_or(Err(Failure::Timeout));
        outcome.map_err(|failure| (failure, encrypted))
    }

    async fn open_socket(&self) -> Result<Stream, Failure> {
        let Target { host, port, .. } = &self.0.target;
        #[cfg(unix)]
        if host.starts_with('/') {
            let path = std::path::Path::new(host).join(format!(".s.PGSQL.{port}"));
            let socket = timeout(CONNECT_TIMEOUT, tokio::net::UnixStream::connect(path)).await;
            return Ok(Stream::Unix(socket.map_err(|_| Failure::Timeout)??));
        }
        let addresses = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(Failure::Resolve)?;
        let mut failure = Failure::Resolve(io::Error::other("it has no address"));
        for address in addresses {
            failure = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return Ok(Stream::Tcp(set_options(socket)?)),
                Ok(Err(error)) => Failure::Io(error),
                Err(_) => Failure::Timeout,
            };
        }
        Err(failure)
    }

    async fn encrypt(
        &self,
        mut socket: TcpStream,
        tls: &TlsConnector,
        encrypted: &mut bool,
    ) -> Result<Stream, Failure> {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // Exactly one byte: anything that follows it unencrypted must not be taken for the server's word.
        match socket.read_u8().await? {
            b'S' => *encrypted = true,
            b'N' if self.0.sslmode == SslMode::Prefer => return Ok(Stream::Tcp(socket)),
            b'N' => return Err(Failure::NoTls),
            other => {
                let text = format!("the answer to the request for TLS starts with {:?}", char::from(other));
                return Err(Failure::Protocol(text));
            }
        }
        let host = ServerName::try_from(self.0.target.host.clone())
            .map_err(|error| Failure::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = tls.connect(host, socket).await.map_err(Failure::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn set_options(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(socket)
}

/// Tries again for a while where the server is only starting up, or has no connection free.
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

/// The error for a server that is too old to be read.
fn check_version(target: &Target, version: ServerVersion) -> Result<()> {
    if version >= ServerVersion::OLDEST {
        return Ok(());
    }
    Err(Error::run(format!("cannot read from {target}: it is PostgreSQL {version}"))
        .hint("this tap reads PostgreSQL 10 and later"))
}

/// Whatever the role, the database or the server have set, values print the same and no time limit ends a long read.
/// One statement: a walsender before PostgreSQL 15 takes no more.
fn settings(version: ServerVersion) -> String {
    let mut settings = vec![
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("statement_timeout", "0"),
        // What the tap commits is not worth waiting for a synchronous standby.
        ("synchronous_commit", "local"),
        ("application_name", APPLICATION_NAME),
    ];
    settings.extend(version.session_timeouts().map(|name| (name, "0")));
    let calls = settings.iter().map(|(name, value)| format!("pg_catalog.set_config('{name}', '{value}', false)"));
    format!("SELECT {}", calls.collect::<Vec<_>>().join(", "))
}

/// A tokio-postgres client.
pub struct Client {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
    /// Closed when the connection ends.
    alive: watch::Receiver<()>,
    server_version: ServerVersion,
    tls: Option<&'static str>,
}

impl Client {
    /// The version of TLS that was agreed on, such as `TLS 1.3`; none on a connection that is not encrypted.
    pub fn tls(&self) -> Option<&'static str> {
        self.tls
    }

    /// The server's version.
    pub fn server_version(&self) -> ServerVersion {
        self.server_version
    }

    /// Waits until the connection ends, which is the server's doing or the network's while this is here.
    pub async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    /// Says goodbye, so that the server does not log a lost connection.
    pub async fn close(self) {
        drop(self.client);
        let _ = self.connection.await;
    }
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

impl std::ops::DerefMut for Client {
    /// For transactions.
    fn deref_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_like_an_address() {
        let target = |host: &str| {
            let [host, dbname, user] = [host, "shop", "tap"].map(str::to_owned);
            Target { host, port: 5432, dbname, user }.to_string()
        };
        assert_eq!(target("db"), "db:5432/shop");
        assert_eq!(target("::1"), "[::1]:5432/shop");
        assert_eq!(target("/run/postgresql"), "/run/postgresql/.s.PGSQL.5432, database shop");
    }

    #[test]
    fn settings_follow_the_version() {
        let settings = |text| settings(ServerVersion::parse(text));
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

    #[tokio::test]
    async fn a_peer_that_is_gone_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = set_options(socket).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }

    /// So that callers may put them into tasks.
    #[test]
    fn futures_can_be_sent() {
        fn check(_: impl Send) {}
        let params = Params {
            host: "/nowhere".into(),
            port: 5432,
            user: "tap".into(),
            password: Some("x".into()),
            dbname: "shop".into(),
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
        };
        let server = Server::new(&params).unwrap();
        check(server.connect());
        check(server.session());
        check(server.replication_session());
    }
}
