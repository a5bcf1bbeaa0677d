//! How a stream is read.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

/// How a stream is read: Singer's replication methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ReplicationMethod {
    /// Every row, on every run.
    FullTable,
    /// Rows whose replication key is at or past the bookmark.
    Incremental,
    /// The changes, from the write-ahead log.
    LogBased,
}

impl ReplicationMethod {
    /// The names in catalog, config and state, for error messages.
    pub(crate) const NAMES: &'static str = "FULL_TABLE, INCREMENTAL or LOG_BASED";

    /// Returns the name in catalog, config and state.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ReplicationMethod::FullTable => "FULL_TABLE",
            ReplicationMethod::Incremental => "INCREMENTAL",
            ReplicationMethod::LogBased => "LOG_BASED",
        }
    }
}

impl fmt::Display for ReplicationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a text that names no replication method.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a replication method (use {names})", names = ReplicationMethod::NAMES)]
pub(crate) struct UnknownMethod(String);

impl FromStr for ReplicationMethod {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "FULL_TABLE" => Ok(ReplicationMethod::FullTable),
            "INCREMENTAL" => Ok(ReplicationMethod::Incremental),
            "LOG_BASED" => Ok(ReplicationMethod::LogBased),
            _ => Err(UnknownMethod(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_named_in_the_error() {
        for method in [ReplicationMethod::FullTable, ReplicationMethod::Incremental, ReplicationMethod::LogBased] {
            assert_eq!(method.as_str().parse(), Ok(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.as_str());
        }
        assert_eq!(
            "LOG".parse::<ReplicationMethod>().unwrap_err().to_string(),
            r#""LOG" is not a replication method (use FULL_TABLE, INCREMENTAL or LOG_BASED)"#
        );
    }
}
