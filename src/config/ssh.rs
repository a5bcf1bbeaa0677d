//! The tunnel that the settings `ssh_tunnel.…` describe.

use std::path::Path;

use super::{Config, PemSource, Secret};

/// An SSH server that connections go through.
pub(crate) struct SshTunnel<'a> {
    /// Its name or address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The user to log in as.
    pub username: &'a str,
    /// The user's key.
    pub private_key: &'a PemSource,
    /// The passphrase that the key is encrypted with.
    pub private_key_passphrase: Option<&'a Secret>,
    /// The server's public key.
    pub host_key: Option<&'a str>,
    /// The file to look up the server's public key in if `host_key` is not set.
    pub known_hosts: Option<&'a Path>,
}

impl Config {
    /// Returns the SSH server that connections go through, if any.
    pub(crate) fn ssh_tunnel(&self) -> Option<SshTunnel<'_>> {
        if self.ssh_tunnel_enable == Some(false) {
            return None;
        }
        Some(SshTunnel {
            host: self.ssh_tunnel_host.as_deref()?,
            port: self.ssh_tunnel_port,
            username: self.ssh_tunnel_username.as_deref()?,
            private_key: self.ssh_tunnel_private_key.as_ref()?,
            private_key_passphrase: self.ssh_tunnel_private_key_passphrase.as_ref(),
            host_key: self.ssh_tunnel_host_key.as_deref(),
            known_hosts: self.ssh_tunnel_known_hosts.as_deref().map(Path::new),
        })
    }
}
