//! The settings of a tunnel.

use std::path::PathBuf;

use crate::pg::net::pem::Pem;

/// Where the SSH server is, how to log in, and which key it has.
pub struct TunnelParams {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user to log in as.
    pub username: String,
    /// The user's key.
    pub private_key: Pem,
    /// What the key is encrypted with.
    pub passphrase: Option<String>,
    /// The server's key, as a line of a public key file; if none, the known hosts are asked.
    pub host_key: Option<String>,
    /// The file of known hosts; if none, `~/.ssh/known_hosts`.
    pub known_hosts: Option<PathBuf>,
}
