//! The settings of a server's connections.

use std::fmt;

use tokio_postgres::config::ChannelBinding;

use crate::pg::net::ssh::Tunnel;
use crate::pg::net::tls::TlsParams;

/// Where the server is and how to log in.
#[derive(Clone)]
pub(crate) struct Params {
    /// Names, addresses, or directories of a Unix socket if they start with a slash, each with a port, which is also part
    /// of a socket's name. They are tried in this order.
    pub(crate) hosts: Vec<(String, u16)>,
    /// Which of them to take.
    pub(crate) target_session_attrs: TargetSessionAttrs,
    /// The role to log in as.
    pub(crate) user: String,
    /// Its password; if none, PGPASSWORD or the password file is asked.
    pub(crate) password: Option<String>,
    /// The database.
    pub(crate) dbname: String,
    /// Whether to encrypt, and whom to trust.
    pub(crate) tls: TlsParams,
    /// Whether the login is bound to the TLS connection.
    pub(crate) channel_binding: ChannelBinding,
    /// The way to the hosts; if none, directly.
    pub(crate) tunnel: Option<Tunnel>,
}

/// What the server has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    /// Whatever it is.
    #[default]
    Any,
    /// Open to writes.
    ReadWrite,
    /// Closed to writes.
    ReadOnly,
    /// No standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or if there is none whatever it is.
    PreferStandby,
}

impl fmt::Display for TargetSessionAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TargetSessionAttrs::Any => "any server",
            TargetSessionAttrs::ReadWrite => "open to writes",
            TargetSessionAttrs::ReadOnly => "read-only",
            TargetSessionAttrs::Primary => "a primary",
            TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby => "a standby",
        })
    }
}
