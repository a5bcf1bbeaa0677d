//! What the server or the way to it reports, as the program's own errors.
//!
//! DETAIL often quotes values of a row ("Key (email)=(…) already exists"), so it is not read at all; what a message quotes
//! of a value (`invalid input syntax for type integer: "…"`) is left out of it.

use std::fmt;
use std::io;

use memchr::memchr;
use tokio_postgres::error::DbError;

use super::connect::Target;
use crate::error::{Error, ErrorKind, to_run};

/// What to do about a connection that ended under way.
pub(crate) const RESTARTED: &str = "the server is shutting down, or was told to end the connection: run again";
/// The classes of SQLSTATEs whose messages are about values.
const DATA_EXCEPTION: &str = "22";
const INTEGRITY_CONSTRAINT_VIOLATION: &str = "23";

/// An error that the server reported.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL or PANIC, untranslated where the server says it (9.6 on).
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// What happened, without values.
    pub message: String,
    /// What the server suggests.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse. Fields that are missing stay empty: half an error message
    /// is better than none.
    pub(crate) fn parse(mut body: &[u8]) -> ServerError {
        let mut error =
            ServerError { severity: String::new(), code: String::new(), message: String::new(), hint: None };
        let mut routine = String::new();
        while let [kind, rest @ ..] = body {
            let Some(end) = memchr(0, rest) else { break };
            let value = || String::from_utf8_lossy(&rest[..end]).into_owned();
            match kind {
                b'V' => error.severity = value(),
                b'S' if error.severity.is_empty() => error.severity = value(),
                b'C' => error.code = value(),
                b'M' => error.message = value(),
                b'H' => error.hint = Some(value()),
                b'R' => routine = value(),
                _ => {}
            }
            body = &rest[end + 1..];
        }
        error.without_values(&routine)
    }

    /// The error without values of rows, bookmarks and settings. Errors about values quote them, in whatever marks the
    /// server's language has; the text of a RAISE can hold anything.
    fn without_values(mut self, routine: &str) -> ServerError {
        if matches!(routine, "exec_stmt_raise" | "exec_stmt_assert") {
            self.message = "a function raised it; the server's log has its text".to_owned();
            self.hint = None;
        } else if matches!(self.code.get(..2), Some(DATA_EXCEPTION | INTEGRITY_CONSTRAINT_VIOLATION)) {
            let mark =
                |char| matches!(char, '"' | '«' | '»' | '‹' | '›' | '“' | '”' | '„' | '‘' | '’' | '‚' | '「' | '」');
            if let (Some(from), Some((to, last))) = (self.message.find(mark), self.message.rmatch_indices(mark).next())
            {
                self.message.replace_range(from..to + last.len(), "\"…\"");
            }
        }
        self
    }

    /// Whether the server ends the connection after this.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Starting up, shutting down, or no connection slot free: passes without anybody doing anything.
    fn is_transient(&self) -> bool {
        matches!(self.code.as_str(), "53300" | "57P01" | "57P02" | "57P03")
    }

    fn kind(&self) -> ErrorKind {
        if self.is_transient() { ErrorKind::Transient } else { ErrorKind::Run }
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        ServerError {
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
        }
        .without_values(error.routine().unwrap_or_default())
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerError { severity, code, message, hint } = self;
        f.debug_struct("ServerError")
            .field("severity", severity)
            .field("code", code)
            .field("message", message)
            .field("hint", hint)
            .finish()
    }
}

impl std::error::Error for ServerError {}

/// The SQLSTATE of the server error that is somewhere among the causes of `error`.
pub fn sqlstate(error: &Error) -> Option<&str> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ServerError>() {
            return Some(&error.code);
        }
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            return error.code().map(|code| code.code());
        }
        cause = error.source();
    }
    None
}

/// The error of a query through tokio-postgres; `context` says what was being done.
pub fn query_error(context: impl Into<String>, error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => server(context, ServerError::from(db)),
        None if error.is_closed() || io_cause(&error).is_some() => {
            Error::transient(context).source(error).hint(RESTARTED)
        }
        None => Error::run(context).source(error),
    }
}

/// An error that the server reported; `context` says what was being done.
pub(crate) fn server(context: impl Into<String>, error: ServerError) -> Error {
    let hint = match error.code.as_str() {
        "57P01" | "57P02" | "57P03" => Some(RESTARTED),
        "40001" if error.message.contains("recovery") => Some(
            "the standby removed rows that the query still needed: set hot_standby_feedback = on there, or raise \
             max_standby_streaming_delay",
        ),
        _ => None,
    };
    let error = Error::new(error.kind(), context).source(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The connection broke, or what came over it made no sense.
pub(crate) fn lost(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => protocol(error.to_string()),
        io::ErrorKind::UnexpectedEof => Error::transient("the server closed the connection unexpectedly")
            .hint("its log may say why; it, or something on the way, may have been restarted: run again"),
        _ => Error::transient("the connection to the server broke").source(error).hint(RESTARTED),
    }
}

/// The server said something that the protocol does not allow.
pub(crate) fn protocol(message: impl fmt::Display) -> Error {
    Error::run(format!("protocol error: {message}"))
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Why a connection could not be made. What it means for the user depends on where it was going: [`Failure::at`].
#[derive(Debug)]
pub(crate) enum Failure {
    /// The host name has no address.
    Resolve(io::Error),
    /// No connection to the host, or it broke.
    Io(io::Error),
    Timeout,
    /// The server does not speak TLS.
    NoTls,
    /// The TLS handshake failed.
    Tls(io::Error),
    /// The server refused the login.
    Server(ServerError),
    PasswordMissing,
    /// An authentication method that is not supported, or one that went wrong.
    Authentication(String),
    /// Something a PostgreSQL server does not say.
    Protocol(String),
    /// The way to the server does not get so far.
    Tunnel(Box<Error>),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // With TLS 1.3 the server's word on the client's certificate comes after the handshake.
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
    /// Whether a connection without TLS may succeed where this one with TLS failed.
    pub(crate) fn may_pass_unencrypted(&self) -> bool {
        match self {
            Failure::Tls(_) => true,
            Failure::Server(error) => error.code.starts_with("28"),
            _ => false,
        }
    }

    /// Whether the server is not there or not ready, so that another of several may serve.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Failure::Resolve(_) | Failure::Io(_) | Failure::Timeout => true,
            Failure::Server(error) => matches!(error.code.as_str(), "57P01" | "57P02" | "57P03"),
            _ => false,
        }
    }

    /// Whether pg_hba.conf has no place for such a connection.
    pub(crate) fn is_not_allowed(&self) -> bool {
        matches!(self, Failure::Server(error) if error.code == "28000")
    }

    /// The error to show for a connection to `target`; `replication` if it was to be a walsender.
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
        "28P01" => format!("check `user` (`{user}`) and `password`"),
        "28000" if error.message.contains("pg_hba.conf") => {
            // In the words of PostgreSQL 14 and later, and of those before.
            let plain = ["no encryption", "SSL off"].iter().any(|words| error.message.contains(words));
            let tls = if plain { ", or set `sslmode` to require" } else { "" };
            format!("allow this user and host in the server's pg_hba.conf{tls}")
        }
        "28000" if error.message.contains("client certificate") => "set `sslcert` and `sslkey`".to_owned(),
        "28000" if error.message.contains("channel binding") => {
            "something between here and the server decrypts the connection".to_owned()
        }
        "28000" => format!("check that `user` (`{user}`) exists and may log in"),
        "3D000" => "check `dbname`".to_owned(),
        "42501" if replication => {
            let role = super::quote::ident(user);
            let sql = to_run(&[format!("ALTER ROLE {role} REPLICATION")]);
            format!("on Amazon RDS: GRANT rds_replication TO {role}; elsewhere {sql}")
        }
        "53300" if replication => "raise max_wal_senders on the server, or try again later".to_owned(),
        "53300" => "raise max_connections on the server, or try again later".to_owned(),
        "57P01" | "57P02" | "57P03" => "try again in a moment".to_owned(),
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"SFEHLER\0VERROR\0C23505\0Mduplicate key\0DKey (mail)=(a@b.c) exists\0HTry another\0Fx.c\0\0";

    fn target() -> Target {
        Target { host: "db".into(), port: 5432, dbname: "shop".into(), user: "tap".into() }
    }

    #[test]
    fn a_server_error_is_shown_without_values() {
        let error = ServerError::parse(BODY);
        assert_eq!((&*error.severity, &*error.code), ("ERROR", "23505"));
        assert_eq!(error.to_string(), "duplicate key (hint: Try another)");
        assert!(!format!("{error:?}").contains("a@b.c"));

        let shown = |code: &str, message: &str, routine: &str| {
            ServerError::parse(format!("C{code}\0M{message}\0Hask them\0R{routine}\0\0").as_bytes()).to_string()
        };
        for (code, message, text) in [
            (
                "22P02",
                r#"invalid input syntax for type integer: "a "b" c""#,
                r#"invalid input syntax for type integer: "…""#,
            ),
            ("22P02", "ungültige Eingabesyntax für Typ integer: »a«", "ungültige Eingabesyntax für Typ integer: \"…\""),
            (
                "22003",
                r#"value "99999999999" is out of range for type integer"#,
                r#"value "…" is out of range for type integer"#,
            ),
            ("22012", "division by zero", "division by zero"),
            ("22000", r#"one " alone"#, r#"one "…" alone"#),
            ("42P01", r#"relation "t" does not exist"#, r#"relation "t" does not exist"#),
        ] {
            assert_eq!(shown(code, message, ""), format!("{text} (hint: ask them)"));
        }
        let raised = shown("P0001", "the row of a@b.c is bad", "exec_stmt_raise");
        assert_eq!(raised, "a function raised it; the server's log has its text");
    }

    #[test]
    fn every_truncation_of_a_server_error_is_read_as_far_as_it_goes() {
        for end in 0..BODY.len() {
            let error = ServerError::parse(&BODY[..end]);
            assert!("duplicate key".starts_with(&error.message) && "23505".starts_with(&error.code));
        }
    }

    #[test]
    fn the_sqlstate_is_found_behind_other_causes() {
        let inner = server("reading", ServerError::parse(BODY));
        assert_eq!(sqlstate(&inner), Some("23505"));
        assert_eq!(sqlstate(&Error::run("sync").source(inner)), Some("23505"));
        assert_eq!(sqlstate(&Error::run("sync")), None);
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
