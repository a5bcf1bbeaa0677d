//! Logical replication: what the log says, in PostgreSQL's terms. Knows nothing of Singer or of JSON output.

use crate::pg::Lsn;

/// One message of an output plugin. Values borrow from the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<'a> {
    /// A transaction starts.
    Begin {
        /// Start of its commit record ("final LSN"): transactions arrive in the order of this.
        commit_lsn: Lsn,
        /// Microseconds since 1970-01-01 UTC.
        commit_time: i64,
        /// Transaction id, without epoch.
        xid: u32,
    },
    /// A transaction is complete.
    Commit {
        /// End of its commit record: from here on the transaction is not sent again.
        end_lsn: Lsn,
    },
    /// What a table looks like from here on (pgoutput only).
    Relation(Relation<'a>),
    /// A row came.
    Insert {
        /// Which table.
        table: TableRef<'a>,
        /// Its values.
        new: Tuple<'a>,
    },
    /// A row changed.
    Update {
        /// Which table.
        table: TableRef<'a>,
        /// The old row, where it is known.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row went.
    Delete {
        /// Which table.
        table: TableRef<'a>,
        /// The old row.
        old: OldTuple<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Which tables.
        tables: Vec<TableRef<'a>>,
    },
    /// Anything that is no row change and closes nothing (Type, Origin, logical messages).
    Other,
}

/// How a change names its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableRef<'a> {
    /// pgoutput: the oid of a Relation message sent before.
    Oid(u32),
    /// wal2json: schema and table, unquoted.
    Name(&'a str, &'a str),
}
