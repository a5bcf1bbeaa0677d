//! The settings of a tunnel.

use std::path::PathBuf;

use crate::pg::net::pem::Pem;

/// Where the SSH server is, how to log in, and which key it has.
pub(crate) struct TunnelParams {
    /// Its name or address.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// The user to log in as.
    pub(crate) username: String,
    /// The user's key.
    pub(crate) private_key: Pem,
    /// What the key is encrypted with.
    pub(crate) passphrase: Option<String>,
    /// The server's key, as a line of a public key file; if none, the known hosts are asked.
    pub(crate) host_key: Option<String>,
    /// The file of known hosts; if none, `~/.ssh/known_hosts`.
    pub(crate) known_hosts: Option<PathBuf>,
}
