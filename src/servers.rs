//! The servers of a config.

use std::path::Path;

use crate::config::{self, Config, PemSource, SshTunnel, SslMode};
use crate::error::Result;
use crate::pg::connect::{ChannelBinding, Params, Server, TargetSessionAttrs};
use crate::pg::net::pem::Pem;
use crate::pg::net::ssh::{Tunnel, TunnelParams};
use crate::pg::net::tls::{SslMode as PgSslMode, TlsParams};

/// Returns the primary, and the secondary that tables are read from if there is one.
pub(crate) fn of(config: &Config) -> Result<(Server, Option<Server>)> {
    let tunnel = config.ssh_tunnel().map(tunnel).transpose()?;
    let primary = Params { tunnel, ..params(config) };
    let secondary = config.secondary().map(|(host, port)| Params {
        hosts: vec![(host.to_owned(), port)],
        target_session_attrs: TargetSessionAttrs::Any,
        ..primary.clone()
    });
    Ok((Server::new(&primary)?, secondary.as_ref().map(Server::new).transpose()?))
}

fn tunnel(settings: SshTunnel<'_>) -> Result<Tunnel> {
    Tunnel::new(TunnelParams {
        host: settings.host.to_owned(),
        port: settings.port,
        username: settings.username.to_owned(),
        private_key: pem(settings.private_key),
        passphrase: settings.private_key_passphrase.map(|passphrase| passphrase.expose().to_owned()),
        host_key: settings.host_key.map(str::to_owned),
        known_hosts: settings.known_hosts.map(Path::to_owned),
    })
}

fn pem(source: &PemSource) -> Pem {
    match source {
        PemSource::Path(path) => Pem::Path(path.clone()),
        PemSource::Text(text) => Pem::Text(text.expose().to_owned()),
    }
}

fn params(config: &Config) -> Params {
    Params {
        hosts: config.hosts(),
        target_session_attrs: match config.target_session_attrs {
            config::TargetSessionAttrs::Any => TargetSessionAttrs::Any,
            config::TargetSessionAttrs::ReadWrite => TargetSessionAttrs::ReadWrite,
            config::TargetSessionAttrs::ReadOnly => TargetSessionAttrs::ReadOnly,
            config::TargetSessionAttrs::Primary => TargetSessionAttrs::Primary,
            config::TargetSessionAttrs::Standby => TargetSessionAttrs::Standby,
            config::TargetSessionAttrs::PreferStandby => TargetSessionAttrs::PreferStandby,
        },
        user: config.user.clone(),
        password: config.password.as_ref().map(|password| password.expose().to_owned()),
        dbname: config.dbname.clone(),
        tls: TlsParams {
            sslmode: match config.sslmode() {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            },
            sslrootcert: config.sslrootcert.as_ref().map(pem),
            sslcert: config.sslcert.as_ref().map(pem),
            sslkey: config.sslkey.as_ref().map(pem),
        },
        channel_binding: match config.channel_binding {
            config::ChannelBinding::Disable => ChannelBinding::Disable,
            config::ChannelBinding::Prefer => ChannelBinding::Prefer,
            config::ChannelBinding::Require => ChannelBinding::Require,
        },
        tunnel: None,
    }
}
