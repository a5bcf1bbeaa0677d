//! Logical replication: what the log says, in PostgreSQL's terms. Knows nothing of Singer or of JSON output.

pub mod bulk;
pub(crate) mod log_end;
pub mod pgoutput;
pub mod publication;
pub mod slot;
pub mod stream;
pub mod wal2json;

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

/// A value of a row, as the text that PostgreSQL prints for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// Not in the log: an out-of-line value that the update did not touch.
    Unchanged,
    /// The text of the type's output function, in UTF-8 (in whatever bytes a SQL_ASCII database holds).
    Text(&'a [u8]),
}

/// The values of a row. Cheap to copy; borrows from the message and from the decoder's scratch space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<'a> {
    cells: &'a [Cell],
    payload: &'a [u8],
    scratch: &'a [u8],
}

/// Where a value (and, with wal2json, its column's name) lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    name: Span,
    value: CellValue,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CellValue {
    Null,
    Unchanged,
    Text(Span),
}

/// A piece of the payload, or of the scratch space where something had to be unescaped first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    scratch: bool,
    start: u32,
    end: u32,
}

impl<'a> Tuple<'a> {
    /// How many values the row has here. pgoutput: as many as the Relation has columns; wal2json: those it names.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether the row has no value at all.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The value at this place; `None` past the end.
    pub fn value(&self, index: usize) -> Option<Value<'a>> {
        self.cells.get(index).map(|cell| match cell.value {
            CellValue::Null => Value::Null,
            CellValue::Unchanged => Value::Unchanged,
            CellValue::Text(span) => Value::Text(self.bytes(span)),
        })
    }

    /// The column's name at this place, unescaped; empty with pgoutput, which names columns in the Relation only.
    pub fn name(&self, index: usize) -> &'a [u8] {
        self.cells.get(index).map_or(&[], |cell| self.bytes(cell.name))
    }

    fn bytes(&self, span: Span) -> &'a [u8] {
        let from = if span.scratch { self.scratch } else { self.payload };
        &from[span.start as usize..span.end as usize]
    }
}

/// The old row of an update or delete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OldTuple<'a> {
    /// Only the columns of the replica identity are known. pgoutput fills the others with null; wal2json leaves them out.
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL). wal2json can't tell the two apart: it always says `Key`.
    Full(Tuple<'a>),
}

/// A pgoutput Relation message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// `pg_class.oid`
    pub oid: u32,
    /// Schema, unquoted (pgoutput sends an empty one for pg_catalog; here it is spelt out).
    pub schema: &'a str,
    /// Name, unquoted.
    pub name: &'a str,
    /// `pg_class.relreplident`: `d`, `n`, `f` or `i`.
    pub replica_identity: u8,
    /// The published columns, in the order of the tuples that follow.
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Name, unquoted.
    pub name: &'a str,
    /// Part of the replica identity.
    pub key: bool,
    /// `pg_type.oid`
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`
    pub typmod: i32,
}

/// An output plugin: how to ask for its output, and how to read it.
pub trait OutputPlugin {
    /// The plugin's name, as in `pg_replication_slots.plugin`.
    fn name(&self) -> &'static str;

    /// Its options, for START_REPLICATION and for `pg_logical_slot_peek_*_changes`; unquoted.
    fn options(&self) -> Vec<(String, String)>;

    /// Reads one message. The error says what is wrong with the message and never quotes a value.
    fn decode<'a>(&'a mut self, payload: &'a [u8]) -> crate::error::Result<Change<'a>>;
}
