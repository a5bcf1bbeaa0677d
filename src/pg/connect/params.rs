//! The settings of a server's connections.

use std::fmt;

use tokio_postgres::config::ChannelBinding;

use crate::pg::net::ssh::Tunnel;
use crate::pg::net::tls::TlsParams;

/// The servers to connect to, and how to log in.
#[derive(Clone)]
pub(crate) struct Params {
    /// Host names, addresses, or directories of a Unix socket if they start with a slash, each with a port, which is
    /// also part of a socket's name. They are tried in this order.
    pub(crate) hosts: Vec<(String, u16)>,
    /// The state that the server must be in.
    pub(crate) target_session_attrs: TargetSessionAttrs,
    /// The role to log in as.
    pub(crate) user: String,
    /// The password; if none, it is looked up in PGPASSWORD or the password file.
    pub(crate) password: Option<String>,
    /// The database.
    pub(crate) dbname: String,
    /// The settings of TLS.
    pub(crate) tls: TlsParams,
    /// Whether the login is bound to the TLS connection.
    pub(crate) channel_binding: ChannelBinding,
    /// The SSH tunnel to connect through, if any.
    pub(crate) tunnel: Option<Tunnel>,
}

/// The state that the server must be in, as libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TargetSessionAttrs {
    /// Any server.
    #[default]
    Any,
    /// A server that accepts writes.
    ReadWrite,
    /// A server that accepts no writes.
    ReadOnly,
    /// A primary.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or any server if there is no standby.
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
