//! Logical replication: what the log says, in PostgreSQL's terms. Knows nothing of Singer or of JSON output.

pub(crate) mod bulk;
pub(crate) mod log_end;
pub(crate) mod pgoutput;
pub(crate) mod publication;
pub(crate) mod slot;
pub(crate) mod standbys;
pub(crate) mod stream;
pub(crate) mod wal2json;

use crate::pg::Lsn;
use crate::pg::wire::{OnWarning, warn_once};

/// One message of an output plugin. It borrows from the payload and from the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// What the table of the change looks like from here on, where that was not said before.
    pub relation: Option<Relation<'a>>,
    /// The change.
    pub change: Change<'a>,
}

/// What happened. The relation of a change was described before it, by its own message at the latest.
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
    /// A row came.
    Insert {
        /// Which table.
        relation: RelationId,
        /// Its values.
        new: Tuple<'a>,
    },
    /// A row changed.
    Update {
        /// Which table.
        relation: RelationId,
        /// The old row, where it is known.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row went.
    Delete {
        /// Which table.
        relation: RelationId,
        /// The old row.
        old: OldTuple<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Which tables.
        relations: Vec<RelationId>,
    },
    /// Anything that is no row change and closes nothing (Relation, Type, Origin, logical messages).
    Other,
}

/// A table, as changes name it. pgoutput: its oid; wal2json: a number that the decoder gives to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationId(pub u32);

/// A value of a row, as the text that PostgreSQL prints for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// Not in the log: an out-of-line value that the update did not touch, or what wal2json leaves out of an old row.
    Unchanged,
    /// The text of the type's output function, in UTF-8 (in whatever bytes a SQL_ASCII database holds).
    Text(&'a [u8]),
}

/// The values of a row, in the order of its relation's columns. Cheap to copy; borrows from the message and from the
/// decoder's scratch space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuple<'a> {
    cells: &'a [Cell],
    payload: &'a [u8],
    scratch: &'a [u8],
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell {
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
    /// Returns how many values the row has: as many as its relation has columns.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether the row has no value at all.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Returns the value at this place; `None` past the end.
    pub fn value(&self, index: usize) -> Option<Value<'a>> {
        self.cells.get(index).map(|cell| match *cell {
            Cell::Null => Value::Null,
            Cell::Unchanged => Value::Unchanged,
            Cell::Text(span) => Value::Text(self.bytes(span)),
        })
    }

    /// Whether the log has a value at this place.
    pub fn has(&self, index: usize) -> bool {
        self.cells.get(index).is_some_and(|cell| *cell != Cell::Unchanged)
    }

    fn bytes(&self, span: Span) -> &'a [u8] {
        let from = if span.scratch { self.scratch } else { self.payload };
        &from[span.start as usize..span.end as usize]
    }
}

/// The old row of an update or delete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OldTuple<'a> {
    /// Only the columns of the replica identity are known. pgoutput fills the others with null; from wal2json they are
    /// [`Value::Unchanged`].
    Key(Tuple<'a>),
    /// The whole row (REPLICA IDENTITY FULL). wal2json can't tell the two apart: it always says `Key`.
    Full(Tuple<'a>),
}

/// What a table looks like. pgoutput sends it whenever the table may have changed. wal2json names the columns of each row:
/// they are a relation when the decoder has not seen all of them together, so that it may also have columns of other
/// times, and does not say that a type changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// By which the changes name it.
    pub id: RelationId,
    /// `pg_class.oid`; `None` where the log has names only.
    pub oid: Option<u32>,
    /// Schema, unquoted (pgoutput sends an empty one for pg_catalog; here it is spelt out).
    pub schema: &'a str,
    /// Name, unquoted.
    pub name: &'a str,
    /// `pg_class.relreplident`: `d`, `n`, `f` or `i`; `None` where the log does not say.
    pub replica_identity: Option<u8>,
    /// The published columns, in the order of the tuples that follow. An insert has a value for each of them.
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a [`Relation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Name, unquoted.
    pub name: &'a str,
    /// Part of the replica identity. Always true from wal2json, whose old rows have values for just these columns.
    pub key: bool,
    /// Its type; `None` where the log has names only.
    pub ty: Option<ColumnType>,
}

/// The type of a [`RelationColumn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// `pg_type.oid`
    pub oid: u32,
    /// `pg_attribute.atttypmod`
    pub typmod: i32,
}

/// See [`OutputPlugin::heed`].
pub(crate) type Heed = Box<dyn Fn(&str, &str) -> crate::error::Result<bool> + Send + Sync>;

/// An output plugin: how to ask for its output, and how to read it.
pub trait OutputPlugin {
    /// Returns the plugin's name, as in `pg_replication_slots.plugin`.
    fn name(&self) -> &'static str;

    /// Returns its options, for START_REPLICATION and for `pg_logical_slot_peek_*_changes`; unquoted.
    fn options(&self) -> Vec<(String, String)>;

    /// Returns what to make of a warning of the server while the plugin is at work, by its message and the function that
    /// reported it: whether it is logged, or an error.
    fn heed(&self) -> Heed {
        Box::new(|_, _| Ok(true))
    }

    /// Reads one message. The error says what is wrong with the message and never quotes a value.
    fn decode<'a>(&'a mut self, payload: &'a [u8]) -> crate::error::Result<Message<'a>>;
}

/// Has a session heed warnings as the plugin does.
fn on_warning(plugin: &dyn OutputPlugin) -> OnWarning {
    let heed = plugin.heed();
    Box::new(move |warning| match heed(&warning.message, &warning.routine) {
        Ok(tell) => {
            if tell {
                warn_once(warning);
            }
            Ok(())
        }
        Err(error) => Err(error.source(warning.clone())),
    })
}
