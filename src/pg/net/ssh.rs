//! Connections to a database through an SSH server.
//!
//! Each connection to the database has an SSH connection of its own. On a shared one, the slowest reader would block
//! the others: russh 0.63 extends a channel's window as data comes, not as it is read, so that it has no backpressure
//! by channel. A channel that is not read for a while, as that of a walsender while a row is looked up, would hold up
//! the others for good.

mod gate;
mod host_key;
mod params;
mod user_key;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelId, ChannelOpenFailure, Limits};

pub(crate) use self::gate::Tunneled;
use self::gate::{Backlog, Gate, MOST_UNREAD};
use self::host_key::KnownKeys;
pub(crate) use self::params::TunnelParams;
use self::user_key::UserKey;
use super::failure::Failure;
use super::socket::open_tcp;
use super::target::Target;
use crate::error::{Context as _, Error, ErrorKind, Result};

/// The interval of keepalives: an SSH server may disconnect an idle client, and a client that copies sends nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// A tunnel through an SSH server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Inner>);

struct Inner {
    host: String,
    port: u16,
    username: String,
    private_key: UserKey,
    known: KnownKeys,
}

impl Tunnel {
    /// Reads the keys. Does not connect.
    pub(crate) fn new(params: TunnelParams) -> Result<Tunnel> {
        let known = KnownKeys::find(&params)?;
        let private_key = UserKey::read(&params)?;
        let TunnelParams { host, port, username, .. } = params;
        Ok(Tunnel(Arc::new(Inner { host, port, username, private_key, known })))
    }

    /// Connects to the SSH server, and from there to the target.
    pub(crate) async fn open(&self, target: &Target) -> Result<Tunneled, Failure> {
        let Inner { host, port, .. } = &*self.0;
        let in_tunnel = |error: Error| Failure::Tunnel(Box::new(error));
        let backlog = Arc::new(Backlog::default());
        let ssh = self.log_in(&backlog).await;
        let ssh = ssh.context(|| format!("cannot connect to the SSH server {host}:{port}")).map_err(in_tunnel)?;
        let opened = match target.socket() {
            Some(path) => ssh.channel_open_direct_streamlocal(path).await,
            None => ssh.channel_open_direct_tcpip(&target.host, target.port.into(), "127.0.0.1", 0).await,
        };
        match opened {
            Ok(channel) => Ok(Tunneled::new(channel.into_stream(), backlog)),
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed)) => {
                let text = format!("the SSH server {host}:{port} cannot connect to it");
                Err(Failure::Io(io::Error::new(io::ErrorKind::ConnectionRefused, text)))
            }
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited)) => {
                let error = Error::run(format!("the SSH server {host}:{port} does not allow it"));
                Err(in_tunnel(error.hint("AllowTcpForwarding, PermitOpen and the like in its sshd_config")))
            }
            Err(error) => Err(in_tunnel(error.into())),
        }
    }

    /// Opens a connection to the SSH server and logs in.
    async fn log_in(&self, backlog: &Arc<Backlog>) -> Result<Handle<Client>> {
        let Inner { host, port, username, private_key, known } = &*self.0;
        let socket = open_tcp(host, *port).await.map_err(no_socket)?;
        let config = client::Config {
            preferred: known.preferred(),
            keepalive_interval: Some(KEEPALIVE_INTERVAL),
            // TCP notices a lost server. A keepalive's answer would wait behind data that is not read.
            keepalive_max: 0,
            // No rekeying by time, as with OpenSSH: sending waits for new keys, and they wait behind data that is not
            // read.
            limits: Limits { rekey_time_limit: Duration::MAX, ..Limits::default() },
            // So many messages are at least so many bytes, so that the gate's limit is reached before the channel's.
            channel_buffer_size: MOST_UNREAD,
            ..client::Config::default()
        };
        let client = Client { tunnel: self.clone(), backlog: Arc::clone(backlog) };
        let gate = Gate::new(socket, Arc::clone(backlog));
        let mut ssh = client::connect_stream(Arc::new(config), gate, client).await?;
        if !private_key.log_in(&mut ssh, username).await? {
            return Err(Error::run(format!("it refuses the key of the user `{username}`"))
                .hint("`ssh_tunnel.username`, and ~/.ssh/authorized_keys on that server, which must list the key"));
        }
        Ok(ssh)
    }
}

/// Handler of russh's events of a connection.
struct Client {
    tunnel: Tunnel,
    backlog: Arc<Backlog>,
}

impl client::Handler for Client {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool> {
        self.tunnel.0.known.check(&key.public_key()).map(|()| true)
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut client::Session) -> Result<()> {
        self.backlog.came(data.len());
        Ok(())
    }
}

impl From<russh::SendError> for Error {
    fn from(_: russh::SendError) -> Error {
        russh::Error::SendError.into()
    }
}

impl From<russh::Error> for Error {
    fn from(error: russh::Error) -> Error {
        use russh::Error::{ConnectionTimeout, Disconnect, HUP, IO, SendError};
        let lost = matches!(error, Disconnect | HUP | IO(_) | SendError | ConnectionTimeout);
        let kind = if lost { ErrorKind::Transient } else { ErrorKind::Run };
        Error::new(kind, "the SSH connection failed").source(error)
    }
}

/// Returns the error for an SSH server that cannot be reached.
fn no_socket(failure: Failure) -> Error {
    match failure {
        Failure::Io(error) => Error::transient("it can't be reached")
            .source(error)
            .hint("is it running, and are `ssh_tunnel.host` and `ssh_tunnel.port` right?"),
        Failure::Resolve(error) => {
            Error::run("its name cannot be resolved").source(error).hint("check `ssh_tunnel.host`")
        }
        _ => Error::run("no answer in time").hint("check `ssh_tunnel.host` and `ssh_tunnel.port`"),
    }
}
