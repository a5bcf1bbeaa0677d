//! The settings of an SSH tunnel.

use std::path::PathBuf;

use crate::pg::net::pem::Pem;

/// The SSH server, its host key, and how to log in.
pub(crate) struct TunnelParams {
    /// The host name or address.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// The user to log in as.
    pub(crate) username: String,
    /// The user's private key.
    pub(crate) private_key: Pem,
    /// The passphrase of the private key.
    pub(crate) passphrase: Option<String>,
    /// The server's host key, as a line of a public key file; if none, it is looked up in the known hosts.
    pub(crate) host_key: Option<String>,
    /// The file of known hosts; if none, `~/.ssh/known_hosts`.
    pub(crate) known_hosts: Option<PathBuf>,
}
