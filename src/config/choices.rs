//! Settings that are one of a few words or numbers, and the name of a slot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LONGEST_NAME;
use super::read::{Setting, text};
use crate::json_file::shown;

/// A setting that is one of a few words.
pub(crate) trait Choice {
    /// Returns the word as it stands in the config file.
    fn word(self) -> &'static str;
}

/// Defines an enum whose variants are the words of a setting.
macro_rules! choices {
    ($(#[$meta:meta])* pub(crate) enum $name:ident { $($(#[$note:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[schemars(inline)]
        pub(crate) enum $name { $($(#[$note])* #[serde(rename = $word)] $variant,)* }

        impl Choice for $name {
            fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl Setting for $name {
            fn read(value: Value) -> Result<Self, String> {
                match text(&value)?.as_str() {
                    $($word => Ok($name::$variant),)*
                    other => Err(format!("{other:?} is not one of {}", [$($word),*].join(", "))),
                }
            }
        }
    };
}

choices! {
    /// How the connection is secured, as libpq's sslmode.
    pub(crate) enum SslMode {
        /// No TLS.
        Disable = "disable",
        /// TLS if the server has it.
        #[default]
        Prefer = "prefer",
        /// TLS, the certificate unchecked (unless there is a root certificate).
        Require = "require",
        /// TLS with a certificate that a trusted authority signed.
        VerifyCa = "verify-ca",
        /// As verify-ca, and the certificate is the host's.
        VerifyFull = "verify-full",
    }
}

choices! {
    /// Whether the login is bound to the TLS connection, as libpq's channel_binding.
    pub(crate) enum ChannelBinding {
        /// It is not.
        Disable = "disable",
        /// It is where the server can.
        #[default]
        Prefer = "prefer",
        /// It is, or the login fails.
        Require = "require",
    }
}

choices! {
    /// Which of several servers to read from, as libpq's target_session_attrs.
    pub(crate) enum TargetSessionAttrs {
        /// The first that lets us in.
        #[default]
        Any = "any",
        /// One that can be written to.
        ReadWrite = "read-write",
        /// One that can't be written to.
        ReadOnly = "read-only",
        /// One that is no standby.
        Primary = "primary",
        /// One that is a standby.
        Standby = "standby",
        /// A standby, or any where there is none.
        PreferStandby = "prefer-standby",
    }
}

choices! {
    /// An output plugin by name.
    pub(crate) enum OutputPluginName {
        /// PostgreSQL's own.
        #[default]
        Pgoutput = "pgoutput",
        /// The reference's.
        Wal2json = "wal2json",
    }
}

choices! {
    /// How the write-ahead log is read.
    pub(crate) enum WalReader {
        /// In bulk where that is safe, else as a stream.
        #[default]
        Auto = "auto",
        /// From a walsender.
        Stream = "stream",
        /// By SQL.
        Bulk = "bulk",
    }
}

choices! {
    /// What becomes of a large value that an update left alone.
    pub(crate) enum UnchangedToast {
        /// It is read from the table by key.
        #[default]
        Fetch = "fetch",
        /// The property is left out, as by the reference.
        Omit = "omit",
    }
}

choices! {
    /// What to do where the slot is lost or can no longer serve a bookmark.
    pub(crate) enum OnSlotLost {
        /// End the run.
        #[default]
        Fail = "fail",
        /// Make a lost slot anew and copy the streams concerned again.
        CopyAgain = "copy_again",
    }
}

choices! {
    /// What TRUNCATE of a LOG_BASED table does.
    pub(crate) enum OnTruncate {
        /// The target keeps the rows; a warning in the log.
        #[default]
        Warn = "warn",
        /// The stream goes on under a new version, for which a target removes the rows of others.
        ActivateVersion = "activate_version",
    }
}

choices! {
    /// The format of the files of batches.
    pub(crate) enum BatchFormat {
        /// A JSON object a line.
        #[default]
        Jsonl = "jsonl",
    }
}

choices! {
    /// How the files of batches are compressed.
    pub(crate) enum BatchCompression {
        /// By gzip.
        #[default]
        Gzip = "gzip",
        /// Not at all.
        None = "none",
    }
}

choices! {
    /// How schemas are written.
    pub(crate) enum SchemaDialect {
        /// Valid in every JSON Schema draft, in shapes that every target takes.
        #[default]
        Portable = "portable",
        /// Exactly as the reference writes them.
        Reference = "reference",
        /// As the MeltanoLabs tap writes them, and values, state and defaults as it has them: for pipelines that were made for it.
        MeltanoLabs = "meltanolabs",
    }
}

/// How many connections read a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CopyParallelism(u8);

impl CopyParallelism {
    const MOST: u8 = 64;

    /// Returns the number.
    pub(crate) fn get(self) -> usize {
        self.0.into()
    }
}

impl Default for CopyParallelism {
    fn default() -> Self {
        CopyParallelism(1)
    }
}

impl Setting for CopyParallelism {
    fn read(value: Value) -> Result<Self, String> {
        let number = text(&value).ok().and_then(|text| text.trim().parse().ok());
        let allowed = number.filter(|number| (1..=Self::MOST).contains(number));
        allowed
            .map(CopyParallelism)
            .ok_or_else(|| format!("{} is not a number of connections (1 to {})", shown(&value), Self::MOST))
    }
}

/// A name that PostgreSQL accepts for a replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotName(String);

impl SlotName {
    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for SlotName {
    fn read(value: Value) -> Result<Self, String> {
        let name = text(&value)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(SlotName(name))
        } else {
            Err(format!("{name:?} is not a slot name (1 to {LONGEST_NAME} of a-z, 0-9 and _)"))
        }
    }
}
