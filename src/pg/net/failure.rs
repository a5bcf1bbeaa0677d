//! Failures to connect, with hints about what to do.

use std::io;

use super::target::Target;
use crate::error::{Error, to_run};
use crate::pg::error::{ServerError, server};
use crate::pg::{quote, sqlstate};

/// The reason why a connection could not be made. [`Failure::at`] makes an error of it, with a hint that depends on the
/// target.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The host name has no address.
    Resolve(io::Error),
    /// The host cannot be reached, or the connection broke.
    Io(io::Error),
    /// A step of the connection timed out.
    Timeout,
    /// The server does not speak TLS.
    NoTls,
    /// The TLS handshake failed.
    Tls(io::Error),
    /// The server refused the login.
    Server(ServerError),
    /// The server requires a password and none is known.
    PasswordMissing,
    /// An authentication method that is not supported, or one that went wrong.
    Authentication(String),
    /// A message that a PostgreSQL server does not send.
    Protocol(String),
    /// The SSH tunnel to the server could not be opened.
    Tunnel(Box<Error>),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // With TLS 1.3 the server rejects a client certificate only after the handshake.
            _ if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) => Failure::Tls(error),
            io::ErrorKind::InvalidData => Failure::Protocol(error.to_string()),
            _ => Failure::Io(error),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Failure::Server(db.into());
        }
        if error.is_closed() {
            return Failure::Io(io::ErrorKind::UnexpectedEof.into());
        }
        let text = error.to_string();
        match error.into_source() {
            Some(cause) if cause.to_string() == "password missing" => Failure::PasswordMissing,
            Some(cause) => match cause.downcast::<io::Error>() {
                Ok(cause) => Failure::from(*cause),
                Err(cause) => Failure::Authentication(format!("{text}: {cause}")),
            },
            None => Failure::Protocol(text),
        }
    }
}

impl Failure {
    /// Returns whether a connection without TLS may succeed where this one with TLS failed.
    pub(crate) fn may_pass_unencrypted(&self) -> bool {
        match self {
            Failure::Tls(_) => true,
            Failure::Server(error) => sqlstate::is_invalid_authorization(&error.code),
            _ => false,
        }
    }

    /// Returns whether the server is unreachable or not ready, so that the next of several hosts is to be tried.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Failure::Resolve(_) | Failure::Io(_) | Failure::Timeout => true,
            Failure::Server(error) => sqlstate::is_server_unavailable(&error.code),
            _ => false,
        }
    }

    /// Returns whether pg_hba.conf has no line for such a connection.
    pub(crate) fn is_not_allowed(&self) -> bool {
        matches!(self, Failure::Server(error) if error.code == sqlstate::INVALID_AUTHORIZATION_SPECIFICATION)
    }

    /// Returns the error to show for a connection to `target`; `replication` if it was to be a walsender.
    pub(crate) fn at(self, target: &Target, replication: bool) -> Error {
        let cannot = format!("cannot connect to {target}");
        match self {
            Failure::Resolve(error) => {
                Error::run(format!("{cannot}: the host name cannot be resolved")).source(error).hint("check `host`")
            }
            Failure::Io(error) => io_failure(cannot, error),
            Failure::Timeout => Error::run(format!("{cannot}: no answer in time"))
                .hint("check `host` and `port`, and whether a firewall is in between"),
            Failure::NoTls => Error::run(format!("{cannot}: the server does not support TLS"))
                .hint("turn `ssl` on in the server, or set `sslmode` to prefer or disable"),
            Failure::Tls(error) => {
                let hint = tls_hint(&error);
                Error::run(format!("{cannot}: the TLS handshake failed")).source(error).hint(hint)
            }
            Failure::Server(error) => {
                let hint = login_hint(&error, target, replication);
                let error = server(cannot, error);
                if let Some(hint) = hint { error.hint(hint) } else { error }
            }
            Failure::Tunnel(error) => Error::new(error.kind(), cannot).source(*error),
            Failure::PasswordMissing => {
                Error::run(format!("{cannot}: the server asks for a password and none is given"))
                    .hint("set `password` in the config, the environment variable PGPASSWORD, or a line in ~/.pgpass")
            }
            Failure::Authentication(message) => Error::run(format!("{cannot}: {message}")),
            Failure::Protocol(message) => {
                Error::run(format!("{cannot}: {message}")).hint("is it a PostgreSQL server that listens there?")
            }
        }
    }
}

fn io_failure(cannot: String, error: io::Error) -> Error {
    use io::ErrorKind::*;
    // A server that is being restarted does not listen, or hangs up.
    let (failed, hint): (fn(String) -> Error, _) = match error.kind() {
        ConnectionRefused => (Error::transient, "is the server running, and are `host` and `port` right?"),
        NotFound => {
            (Error::transient, "there is no such socket; is the server running, and are `host` and `port` right?")
        }
        PermissionDenied => (Error::run, "this user may not open the server's socket"),
        HostUnreachable | NetworkUnreachable => (Error::run, "there is no route to the host"),
        UnexpectedEof | ConnectionReset | BrokenPipe => (Error::transient, "the server hung up; its log may say why"),
        _ => return Error::run(cannot).source(error),
    };
    failed(cannot).source(error).hint(hint)
}

fn tls_hint(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription, CertificateError as C, Error as E};
    match error.get_ref().and_then(|cause| cause.downcast_ref::<E>()) {
        Some(E::InvalidCertificate(C::UnknownIssuer)) => {
            "set `sslrootcert` to the certificate of the authority that signed the server's"
        }
        Some(E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. })) => {
            "the server's certificate must list `host` as a subjectAltName; `sslmode` verify-ca does not check the name"
        }
        Some(E::InvalidCertificate(C::Expired | C::ExpiredContext { .. })) => {
            "the server's certificate has run out: have it renewed, or check this machine's clock"
        }
        Some(E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. })) => {
            "the server's certificate does not hold yet: check this machine's clock"
        }
        Some(E::AlertReceived(AlertDescription::CertificateExpired)) => {
            "the client's certificate in `sslcert` has run out: have it renewed"
        }
        Some(E::AlertReceived(AlertDescription::UnknownCA)) => {
            "the server does not trust who signed `sslcert`: its ssl_ca_file must hold that authority"
        }
        Some(E::AlertReceived(_)) => "the server may want a client certificate: `sslcert` and `sslkey`",
        _ => "check `sslmode` and `sslrootcert`",
    }
}

fn login_hint(error: &ServerError, target: &Target, replication: bool) -> Option<String> {
    let user = &target.user;
    let hint = match error.code.as_str() {
        sqlstate::INVALID_PASSWORD => format!("check `user` (`{user}`) and `password`"),
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if error.message.contains("pg_hba.conf") => {
            // The wording of PostgreSQL 14 and later, and of older releases.
            let plain = ["no encryption", "SSL off"].iter().any(|words| error.message.contains(words));
            let tls = if plain { ", or set `sslmode` to require" } else { "" };
            format!("allow this user and host in the server's pg_hba.conf{tls}")
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if error.message.contains("client certificate") => {
            "set `sslcert` and `sslkey`".to_owned()
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION if error.message.contains("channel binding") => {
            "something between here and the server decrypts the connection".to_owned()
        }
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION => format!("check that `user` (`{user}`) exists and may log in"),
        sqlstate::INVALID_CATALOG_NAME => "check `dbname`".to_owned(),
        sqlstate::INSUFFICIENT_PRIVILEGE if replication => {
            let role = quote::ident(user);
            let sql = to_run(&[format!("ALTER ROLE {role} REPLICATION")]);
            format!("on Amazon RDS: GRANT rds_replication TO {role}; elsewhere {sql}")
        }
        sqlstate::TOO_MANY_CONNECTIONS if replication => {
            "raise max_wal_senders on the server, or try again later".to_owned()
        }
        sqlstate::TOO_MANY_CONNECTIONS => "raise max_connections on the server, or try again later".to_owned(),
        // PgBouncer's words.
        _ if replication && error.message.contains("unsupported startup parameter") => {
            "a pooler listens there: LOG_BASED needs a connection to the server itself: set `host` and `port` to it"
                .to_owned()
        }
        code if sqlstate::is_server_unavailable(code) => "try again in a moment".to_owned(),
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn target() -> Target {
        Target { host: "db".into(), port: 5432, dbname: "shop".into(), user: "tap".into() }
    }

    #[test]
    fn what_passes_by_itself_is_transient() {
        for (code, kind) in
            [("57P03", ErrorKind::Transient), ("53300", ErrorKind::Transient), ("28P01", ErrorKind::Run)]
        {
            let body = format!("SFATAL\0C{code}\0Mno\0\0");
            assert_eq!(
                Failure::Server(ServerError::parse(body.as_bytes())).at(&target(), false).kind(),
                kind,
                "{code}"
            );
        }
    }

    #[test]
    fn a_failed_connection_says_where_and_what_to_do() {
        let refused = Failure::from(io::Error::from(io::ErrorKind::ConnectionRefused)).at(&target(), false);
        assert_eq!(
            refused.to_string(),
            "cannot connect to db:5432/shop: connection refused (is the server running, and are `host` and `port` right?)"
        );
        let body = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for host \"::1\", no encryption\0\0";
        let text = Failure::Server(ServerError::parse(body)).at(&target(), false).to_string();
        assert!(
            text.ends_with("(allow this user and host in the server's pg_hba.conf, or set `sslmode` to require)"),
            "{text}"
        );
    }
}
