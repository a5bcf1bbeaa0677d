//! What messages have besides the tables' columns, as the tap has it that this one stands in for.

use serde_json::{Map, Value};

use crate::config::{Config, SchemaDialect};
use crate::method::ReplicationMethod;
use crate::pg::Lsn;
use crate::singer::JsonBuf;
use crate::types::{self, Dialect};

/// When the row was deleted.
pub(crate) const DELETED_AT: &str = "_sdc_deleted_at";
/// The position of the change in the log.
const LSN: &str = "_sdc_lsn";
/// The version of the row's table, in batches.
pub(crate) const TABLE_VERSION: &str = "_sdc_table_version";

/// Whether messages have another use for a column of this name.
pub(crate) fn is_singers(column: &str) -> bool {
    [DELETED_AT, LSN, TABLE_VERSION].contains(&column)
}

/// What the messages of a run have besides the tables' columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    dialect: Dialect,
    /// Whether records say of which version of their table they are.
    versioned: bool,
    /// Whether rows in batches do, each by a property.
    versioned_rows: bool,
    /// Whether changes have their position in the log.
    lsn: bool,
}

impl Form {
    /// Returns the form that the config asks for.
    pub(crate) fn of(config: &Config) -> Form {
        let versioned = config.activate_version();
        Form {
            dialect: dialect(config),
            versioned,
            versioned_rows: versioned && config.batch_config.is_some(),
            lsn: config.debug_lsn || config.is_of_meltanolabs(),
        }
    }

    /// Adds the properties of rows that are read from a table.
    pub(crate) fn add_to_rows(self, method: ReplicationMethod, properties: &mut Map<String, Value>) {
        if self.rows_are_changes(method) {
            self.add_to_changes(properties);
        }
        if self.versioned_rows {
            properties.insert(TABLE_VERSION.to_owned(), types::integer(self.dialect));
        }
    }

    /// Adds the properties of changes.
    pub(crate) fn add_to_changes(self, properties: &mut Map<String, Value>) {
        let is_instant = self.dialect != Dialect::MeltanoLabs;
        properties.insert(DELETED_AT.to_owned(), types::string(is_instant.then_some("date-time"), self.dialect));
        if self.lsn {
            let lsn = match self.dialect {
                Dialect::MeltanoLabs => types::integer(self.dialect),
                Dialect::Portable | Dialect::Reference => types::string(None, self.dialect),
            };
            properties.insert(LSN.to_owned(), lsn);
        }
    }

    /// Returns the `bookmark_properties` of a stream of changes.
    pub(crate) fn bookmark_of_changes(self) -> &'static [&'static str] {
        if self.dialect == Dialect::MeltanoLabs { &[] } else { &["lsn"] }
    }

    /// Whether rows that are read from a table have what changes have.
    fn rows_are_changes(self, method: ReplicationMethod) -> bool {
        self.dialect == Dialect::MeltanoLabs && method == ReplicationMethod::LogBased
    }

    /// Returns what follows the columns of a row that is read from a table; nothing, or properties with commas between.
    fn last_of_row(self, method: ReplicationMethod) -> &'static str {
        if self.rows_are_changes(method) { r#""_sdc_deleted_at":null,"_sdc_lsn":null"# } else { "" }
    }

    /// Returns the end of the records of a stream's rows; `has_columns`: whether a property stands before it.
    pub(crate) fn end_of_rows(self, method: ReplicationMethod, version: i64, has_columns: bool) -> RecordEnd {
        let last = self.last_of_row(method);
        let comma = if has_columns && !last.is_empty() { "," } else { "" };
        self.end(&format!("{comma}{last}"), version)
    }

    /// Returns the end of the records of changes.
    pub(crate) fn end_of_changes(self, version: i64) -> RecordEnd {
        self.end("", version)
    }

    fn end(self, last: &str, version: i64) -> RecordEnd {
        let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ");
        let version = if self.versioned { format!(",\"version\":{version}") } else { String::new() };
        RecordEnd(format!("{last}}}{version},\"time_extracted\":\"{now}\"}}\n").into_bytes())
    }

    /// Writes that a change is no delete.
    pub(crate) fn not_deleted(self, out: &mut JsonBuf) {
        out.raw(br#""_sdc_deleted_at":null"#);
    }

    /// Writes that the row is gone since this time, in microseconds since 1970.
    pub(crate) fn deleted_at(self, commit_time: i64, out: &mut JsonBuf) {
        let time = chrono::DateTime::from_timestamp_micros(commit_time).unwrap_or(chrono::DateTime::UNIX_EPOCH);
        let form = match self.dialect {
            Dialect::MeltanoLabs => "%Y-%m-%dT%H:%M:%SZ",
            Dialect::Portable | Dialect::Reference => "%Y-%m-%dT%H:%M:%S%.6f+00:00",
        };
        out.display(format_args!("\"{DELETED_AT}\":\"{}\"", time.format(form)));
    }

    /// Writes the position of a change, where changes have it.
    pub(crate) fn lsn(self, lsn: Lsn, out: &mut JsonBuf) {
        if !self.lsn {
            return;
        }
        out.raw(br#","_sdc_lsn":"#);
        let quote: &[u8] = if self.dialect == Dialect::MeltanoLabs { b"" } else { b"\"" };
        for part in [quote, itoa::Buffer::new().format(lsn.0).as_bytes(), quote] {
            out.raw(part);
        }
    }
}

/// Returns the dialect of schemas and values that the config asks for.
pub(crate) fn dialect(config: &Config) -> Dialect {
    match config.schema_dialect {
        SchemaDialect::Portable => Dialect::Portable,
        SchemaDialect::Reference => Dialect::Reference,
        SchemaDialect::MeltanoLabs => Dialect::MeltanoLabs,
    }
}

/// The end of every RECORD of a stream: its last properties, version and time of extraction.
#[derive(Clone)]
pub(crate) struct RecordEnd(Vec<u8>);

impl RecordEnd {
    /// Closes a RECORD message.
    pub(crate) fn write(&self, out: &mut JsonBuf) {
        out.raw(&self.0);
    }
}
