//! The servers of a config.

use crate::config::{self, Config, PemSource, SslMode};
use crate::error::Result;
use crate::pg::connect::{ChannelBinding, Params, Pem, Server, SslMode as PgSslMode, TargetSessionAttrs};

/// The primary, and the secondary that tables are read from where there is one.
pub fn of(config: &Config) -> Result<(Server, Option<Server>)> {
    let primary = params(config);
    let secondary = config.secondary().map(|(host, port)| Params {
        hosts: vec![(host.to_owned(), port)],
        target_session_attrs: TargetSessionAttrs::Any,
        ..primary.clone()
    });
    Ok((Server::new(&primary)?, secondary.as_ref().map(Server::new).transpose()?))
}

fn params(config: &Config) -> Params {
    let pem = |source: &Option<PemSource>| {
        source.as_ref().map(|source| match source {
            PemSource::Path(path) => Pem::Path(path.clone()),
            PemSource::Text(text) => Pem::Text(text.expose().to_owned()),
        })
    };
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
        sslmode: match config.sslmode() {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        },
        sslrootcert: pem(&config.sslrootcert),
        sslcert: pem(&config.sslcert),
        sslkey: pem(&config.sslkey),
        channel_binding: match config.channel_binding {
            config::ChannelBinding::Disable => ChannelBinding::Disable,
            config::ChannelBinding::Prefer => ChannelBinding::Prefer,
            config::ChannelBinding::Require => ChannelBinding::Require,
        },
    }
}
