//! Errors that the server reports, and broken connections, as the program's own errors.
//!
//! DETAIL often quotes values of a row ("Key (email)=(…) already exists"), so it is not read at all; what a message
//! quotes of a value (`invalid input syntax for type integer: "…"`) is left out of it.

use std::fmt;
use std::io;

use memchr::memchr;
use tokio_postgres::error::DbError;

use super::sqlstate::{
    DUPLICATE_PREPARED_STATEMENT, INVALID_SQL_STATEMENT_NAME, SERIALIZATION_FAILURE, TOO_MANY_CONNECTIONS,
    UNDEFINED_FUNCTION, UNDEFINED_OBJECT, UNDEFINED_TABLE, is_data_exception, is_integrity_constraint_violation,
    is_server_unavailable,
};
use crate::error::{Error, ErrorKind};

/// The hint for a connection that ended while it was in use.
pub(crate) const RESTARTED: &str = "the server is shutting down, or was told to end the connection: run again";

/// The hint for a pooler that gives each transaction another session.
pub(crate) const POOLER: &str =
    "connect to the server itself, or through a pool in session mode (PgBouncer: pool_mode = session)";

/// An error that the server reported.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServerError {
    /// ERROR, FATAL or PANIC, untranslated where the server sends it that way (9.6 and later).
    pub(crate) severity: String,
    /// The SQLSTATE.
    pub(crate) code: String,
    /// The message, without values.
    pub(crate) message: String,
    /// The server's hint.
    pub(crate) hint: Option<String>,
    /// The function of the server's source that reported it, which no language changes.
    pub(crate) routine: Box<str>,
    /// Whether it arose inside of a function of the database.
    in_function: bool,
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse. Fields that are missing stay empty: half an error message
    /// is better than none.
    pub(crate) fn parse(mut body: &[u8]) -> ServerError {
        let mut error = ServerError {
            severity: String::new(),
            code: String::new(),
            message: String::new(),
            hint: None,
            routine: Box::default(),
            in_function: false,
        };
        while let [kind, rest @ ..] = body {
            let Some(end) = memchr(0, rest) else { break };
            let value = || String::from_utf8_lossy(&rest[..end]).into_owned();
            match kind {
                b'V' => error.severity = value(),
                b'S' if error.severity.is_empty() => error.severity = value(),
                b'C' => error.code = value(),
                b'M' => error.message = value(),
                b'H' => error.hint = Some(value()),
                b'R' => error.routine = value().into(),
                b'W' => error.in_function = in_function(&value()),
                _ => {}
            }
            body = &rest[end + 1..];
        }
        error.without_values()
    }

    /// Removes values of rows, bookmarks and settings from the message. Errors about values quote them, in whatever
    /// quotation marks the server's language has; the text of a RAISE can hold anything.
    fn without_values(mut self) -> ServerError {
        if matches!(&*self.routine, "exec_stmt_raise" | "exec_stmt_assert") {
            self.message = "a function raised it; the server's log has its text".to_owned();
            self.hint = None;
        } else if is_data_exception(&self.code) || is_integrity_constraint_violation(&self.code) {
            let mark =
                |char| matches!(char, '"' | '«' | '»' | '‹' | '›' | '“' | '”' | '„' | '‘' | '’' | '‚' | '「' | '」');
            if let (Some(from), Some((to, last))) = (self.message.find(mark), self.message.rmatch_indices(mark).next())
            {
                self.message.replace_range(from..to + last.len(), "\"…\"");
            }
        }
        self
    }

    /// Returns whether the server ends the connection after this error.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Returns whether a retry may succeed: the server is starting up or shutting down, or no connection slot is free.
    fn is_transient(&self) -> bool {
        self.code == TOO_MANY_CONNECTIONS || is_server_unavailable(&self.code)
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
            routine: error.routine().unwrap_or_default().into(),
            in_function: error.where_().is_some_and(in_function),
        }
        .without_values()
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
        let ServerError { severity, code, message, hint, routine, in_function } = self;
        f.debug_struct("ServerError")
            .field("severity", severity)
            .field("code", code)
            .field("message", message)
            .field("hint", hint)
            .field("routine", routine)
            .field("in_function", in_function)
            .finish()
    }
}

impl std::error::Error for ServerError {}

/// Whether the server reported, among the causes of `error`, what failed a statement and leaves the connection as it was.
pub(crate) fn is_of_a_statement(error: &Error) -> bool {
    let first = std::error::Error::source(error);
    let reported = std::iter::successors(first, |error| error.source()).find_map(|error| error.downcast_ref());
    reported.is_some_and(|error: &ServerError| !error.is_fatal() && !error.is_transient())
}

/// Returns whether the CONTEXT of an error names a function. COPY has one too.
fn in_function(context: &str) -> bool {
    context.contains("function ")
}

/// Returns whether an error was made of a warning of the server.
pub(crate) fn is_warning(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ServerError>() {
            return error.severity == "WARNING";
        }
        cause = error.source();
    }
    false
}

/// Returns the SQLSTATE of the first server error among the causes of `error`.
pub(crate) fn sqlstate(error: &Error) -> Option<&str> {
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

/// Returns the error for a query that failed through tokio-postgres; `context` is what was attempted.
pub(crate) fn query_error(context: impl Into<String>, error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(db) => server(context, ServerError::from(db)),
        None if error.is_closed() || io_cause(&error).is_some() => {
            Error::transient(context).source(error).hint(RESTARTED)
        }
        None => Error::run(context).source(error),
    }
}

/// Returns the error for what the server reported; `context` is what was attempted.
pub(crate) fn server(context: impl Into<String>, error: ServerError) -> Error {
    let hint = match error.code.as_str() {
        code if is_server_unavailable(code) => Some(RESTARTED),
        SERIALIZATION_FAILURE if error.message.contains("recovery") => Some(
            "the standby removed rows that the query still needed: set hot_standby_feedback = on there, or raise \
             max_standby_streaming_delay",
        ),
        // Nobody but a pooler loses or mixes them up.
        INVALID_SQL_STATEMENT_NAME | DUPLICATE_PREPARED_STATEMENT => Some(POOLER),
        UNDEFINED_TABLE | UNDEFINED_FUNCTION | UNDEFINED_OBJECT if error.in_function => Some(
            "a function of the database looks for it on the search_path, which is pg_catalog alone here, so that nobody's \
             objects are called by accident: ALTER FUNCTION … SET search_path = …",
        ),
        _ => None,
    };
    let error = Error::new(error.kind(), context).source(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Returns the error for a connection that broke, or over which malformed data came.
pub(crate) fn lost(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => protocol(error.to_string()),
        io::ErrorKind::UnexpectedEof => Error::transient("the server closed the connection unexpectedly")
            .hint("its log may say why; it, or something on the way, may have been restarted: run again"),
        _ => Error::transient("the connection to the server broke").source(error).hint(RESTARTED),
    }
}

/// Returns the error for a message of the server that the protocol does not allow.
pub(crate) fn protocol(message: impl fmt::Display) -> Error {
    Error::run(format!("protocol error: {message}"))
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"SFEHLER\0VERROR\0C23505\0Mduplicate key\0DKey (mail)=(a@b.c) exists\0HTry another\0Fx.c\0\0";

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
    fn a_pooler_is_named() {
        for code in [INVALID_SQL_STATEMENT_NAME, DUPLICATE_PREPARED_STATEMENT] {
            let body = format!("SERROR\0C{code}\0Mprepared statement \"s0\" does not exist\0\0");
            let error = server("cannot list the tables", ServerError::parse(body.as_bytes()));
            assert!(error.to_string().contains("PgBouncer: pool_mode = session"), "{error}");
        }
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
}
