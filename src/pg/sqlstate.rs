//! The SQLSTATEs that decide what to do, under PostgreSQL's own condition names (appendix A of its documentation).

/// The server cannot do this at all, or not in its current role.
pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// The role does not exist or may not log in, or pg_hba.conf has no line for the connection.
pub(crate) const INVALID_AUTHORIZATION_SPECIFICATION: &str = "28000";
/// The password is wrong.
pub(crate) const INVALID_PASSWORD: &str = "28P01";
/// The prepared statement does not exist, here at least.
pub(crate) const INVALID_SQL_STATEMENT_NAME: &str = "26000";
/// The prepared statement exists already.
pub(crate) const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
/// It is not what the grammar takes.
pub(crate) const SYNTAX_ERROR: &str = "42601";
/// The database does not exist.
pub(crate) const INVALID_CATALOG_NAME: &str = "3D000";
/// The transaction cannot go on beside others; on a standby, beside the replay of the log.
pub(crate) const SERIALIZATION_FAILURE: &str = "40001";
/// The role lacks a privilege.
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// The table does not exist.
pub(crate) const UNDEFINED_TABLE: &str = "42P01";
/// The column does not exist.
pub(crate) const UNDEFINED_COLUMN: &str = "42703";
/// An object of another kind, such as a publication or a slot, does not exist.
pub(crate) const UNDEFINED_OBJECT: &str = "42704";
/// The function or operator does not exist for these types.
pub(crate) const UNDEFINED_FUNCTION: &str = "42883";
/// No connection slot or walsender is free.
pub(crate) const TOO_MANY_CONNECTIONS: &str = "53300";
/// A limit of the configuration is reached, such as `max_replication_slots`.
pub(crate) const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
/// The object is not in the state that the command requires.
pub(crate) const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// Another session uses the object; of a replication slot, another walsender.
pub(crate) const OBJECT_IN_USE: &str = "55006";
/// A lock was not granted in time.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// An administrator, or a shutdown, ends the connection.
pub(crate) const ADMIN_SHUTDOWN: &str = "57P01";
/// Another process of the server crashed, and all connections end.
pub(crate) const CRASH_SHUTDOWN: &str = "57P02";
/// The server is starting up or shutting down.
pub(crate) const CANNOT_CONNECT_NOW: &str = "57P03";
/// A file of the server does not exist, such as an output plugin's library.
pub(crate) const UNDEFINED_FILE: &str = "58P01";

/// Returns whether the code is of class 22, `data_exception`: a value is wrong, and the message may quote it.
pub(crate) fn is_data_exception(code: &str) -> bool {
    code.starts_with("22")
}

/// Returns whether the code is of class 23, `integrity_constraint_violation`; the message may quote values.
pub(crate) fn is_integrity_constraint_violation(code: &str) -> bool {
    code.starts_with("23")
}

/// Returns whether the code is of class 28, `invalid_authorization_specification`: the server refuses the login.
pub(crate) fn is_invalid_authorization(code: &str) -> bool {
    code.starts_with("28")
}

/// Returns whether the server is starting up or shutting down.
pub(crate) fn is_server_unavailable(code: &str) -> bool {
    matches!(code, ADMIN_SHUTDOWN | CRASH_SHUTDOWN | CANNOT_CONNECT_NOW)
}
