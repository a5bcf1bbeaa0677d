//! Verification of an SSH server's host key.

use std::env;
use std::fs::File;
use std::path::PathBuf;

use russh::Preferred;
use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::params::TunnelParams;
use crate::error::{Error, Result};

/// The host keys that the server may have.
pub(super) struct KnownKeys {
    keys: Vec<PublicKey>,
    /// The server's name in the known hosts.
    host: String,
    known_hosts: PathBuf,
}

impl KnownKeys {
    /// Takes the host key of the settings, or looks it up in the known hosts.
    pub(super) fn find(params: &TunnelParams) -> Result<KnownKeys> {
        let TunnelParams { host, port, .. } = params;
        let known_hosts = match &params.known_hosts {
            Some(path) => path.clone(),
            None => env::home_dir().unwrap_or_default().join(".ssh/known_hosts"),
        };
        let keys = match &params.host_key {
            Some(line) => vec![parse(line)?],
            None => {
                let cannot = || Error::usage(format!("cannot read the known hosts in {}", known_hosts.display()));
                if params.known_hosts.is_some() {
                    File::open(&known_hosts).map_err(|error| cannot().source(error))?;
                }
                let keys = known_host_keys_path(host, *port, &known_hosts).map_err(|error| cannot().source(error))?;
                keys.into_iter().map(|(_, key)| key).filter(|key| !key.algorithm().is_rsa()).collect()
            }
        };
        let host = if *port == 22 { host.clone() } else { format!("[{host}]:{port}") };
        Ok(KnownKeys { keys, host, known_hosts })
    }

    /// Returns the algorithms to negotiate: those of known keys come first. RSA is left out, as it is not verified
    /// here.
    pub(super) fn preferred(&self) -> Preferred {
        let all = Preferred::DEFAULT.key.iter().cloned();
        let mut key: Vec<Algorithm> = all.filter(|algorithm| !matches!(algorithm, Algorithm::Rsa { .. })).collect();
        key.sort_by_key(|algorithm| !self.keys.iter().any(|known| known.algorithm() == *algorithm));
        Preferred { key: key.into(), ..Preferred::DEFAULT }
    }

    /// Returns an error unless this is one of the known keys.
    pub(super) fn check(&self, key: &PublicKey) -> Result<()> {
        if self.keys.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(());
        }
        let shown = format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        if !self.keys.is_empty() {
            let hint = "somebody may be in between; if the server has a new key, replace the old one in \
                        `ssh_tunnel.host_key` or the known hosts";
            return Err(Error::run(format!("its host key {shown} is not the one that is known")).hint(hint));
        }
        let line = key.to_openssh().unwrap_or_default();
        let hint = format!(
            "compare it with what `ssh-keygen -l` says on the server, then set `ssh_tunnel.host_key` to `{line}`, or add \
             `{} {line}` to {}",
            self.host,
            self.known_hosts.display()
        );
        Err(Error::run(format!("its host key {shown} is not known")).hint(hint))
    }
}

/// Parses a line of a public key file, or of ssh-keyscan, which has a host before the key.
fn parse(line: &str) -> Result<PublicKey> {
    let line = line.trim();
    let without_host = || PublicKey::from_openssh(line.split_once(' ').map_or("", |(_, key)| key.trim()));
    let key = PublicKey::from_openssh(line).or_else(|_| without_host());
    let key = key.map_err(|error| {
        Error::usage("`ssh_tunnel.host_key` is no public key").source(error).hint("for example `ssh-ed25519 AAAA…`")
    })?;
    if key.algorithm().is_rsa() {
        return Err(Error::usage("`ssh_tunnel.host_key` is an RSA key, which can't be verified")
            .hint("take the server's key in /etc/ssh/ssh_host_ed25519_key.pub or ssh_host_ecdsa_key.pub"));
    }
    Ok(key)
}
