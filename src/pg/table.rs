//! Descriptions of tables, columns and types, as discovery reads them from the server.

use std::sync::Arc;

use super::order::Order;

/// A table, partitioned table, view or materialized view that the role can read.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// `pg_class.oid`: a table dropped and made again has another.
    pub(crate) oid: u32,
    /// The schema, unquoted.
    pub(crate) schema: String,
    /// The name, unquoted.
    pub(crate) name: String,
    /// The kind of relation.
    pub(crate) kind: TableKind,
    /// `pg_class.reltuples`, summed over the leaves of a partitioned table that was never analyzed; -1 when unknown.
    pub(crate) row_estimate: i64,
    /// The columns that the role can select, by position.
    pub(crate) columns: Vec<Column>,
    /// Which part of the old row the log holds for updates and deletes.
    pub(crate) replica_identity: ReplicaIdentity,
    /// Oids of the partitioned tables that it is a partition of, the nearest first.
    pub(crate) ancestors: Vec<u32>,
    /// Whether its changes are in the log; those of an unlogged table are not.
    pub(crate) logged: bool,
    /// Its partitions, as SQL names them, whose rows are in no log: unlogged ones, and those on foreign servers.
    pub(crate) unlogged_leaves: Vec<String>,
    /// Whether row-level security may hide rows from the role.
    pub(crate) row_security: bool,
}

/// The kind of relation that a [`Table`] is (`pg_class.relkind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// `r`
    Table,
    /// `p`
    Partitioned,
    /// `v`
    View,
    /// `m`
    MaterializedView,
}

impl TableKind {
    /// Returns whether it is a view, which has no changes in the log and no replica identity.
    pub(crate) fn is_view(self) -> bool {
        matches!(self, TableKind::View | TableKind::MaterializedView)
    }
}

/// `pg_class.relreplident`, resolved to columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaIdentity {
    /// The old row is not identified: `NOTHING`, or `DEFAULT` without a primary key, or an index that is gone.
    None,
    /// These columns (names, in column order): the primary key or the chosen index.
    Columns(Vec<String>),
    /// The whole old row.
    Full,
}

impl ReplicaIdentity {
    /// Returns what an old row holds at least if it may be of either of two tables. Two identities of different columns
    /// have no column in common.
    pub(crate) fn in_common(&self, other: &ReplicaIdentity) -> ReplicaIdentity {
        match (self, other) {
            (ReplicaIdentity::None, _) | (_, ReplicaIdentity::None) => ReplicaIdentity::None,
            (ReplicaIdentity::Full, identity) | (identity, ReplicaIdentity::Full) => identity.clone(),
            (ReplicaIdentity::Columns(mine), ReplicaIdentity::Columns(theirs)) => {
                ReplicaIdentity::Columns(mine.iter().filter(|name| theirs.contains(name)).cloned().collect())
            }
        }
    }
}

/// A column of a [`Table`].
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The name, unquoted.
    pub(crate) name: String,
    /// `pg_attribute.attnum`
    pub(crate) attnum: i16,
    /// The type.
    pub(crate) ty: Arc<PgType>,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub(crate) typmod: i32,
    /// `format_type(type, NULL)`: `character varying`, `integer[]`, `mood`.
    pub(crate) data_type: Arc<str>,
    /// Whether it is part of the primary key.
    pub(crate) primary_key: bool,
    /// How the column gets its value.
    pub(crate) generated: Generated,
}

/// `pg_attribute.attgenerated`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generated {
    /// An ordinary column.
    No,
    /// `GENERATED ALWAYS AS (…) STORED`
    Stored,
    /// `GENERATED ALWAYS AS (…) VIRTUAL` (18+): never in the log.
    Virtual,
}

/// A type and its structure.
#[derive(Clone, Debug)]
pub(crate) struct PgType {
    /// `pg_type.oid`
    pub(crate) oid: u32,
    /// `pg_type.typname`: `int4`, `_int4`, `mood`.
    pub(crate) name: String,
    /// Schema of the type; `pg_catalog` for the built-in ones.
    pub(crate) schema: String,
    /// The structure of the type.
    pub(crate) kind: TypeKind,
    /// How an index compares its values; `None` if none by default does. Of a domain its base has it: see
    /// [`order`](Self::order).
    pub(crate) order: Option<Order>,
}

/// The structure of a type.
#[derive(Clone, Debug)]
pub(crate) enum TypeKind {
    /// A base type, or any other without a structure of interest (pseudo-types).
    Base,
    /// `real` or `double precision` of a server that prints more digits than the number needs; see
    /// [`prints_shortest_floats`](crate::pg::ServerVersion::prints_shortest_floats).
    LongFloat,
    /// An enum.
    Enum,
    /// A composite (row) type.
    Composite,
    /// A range or multirange.
    Range,
    /// An array of the element type, whose values are separated by `delimiter` in the text form (`,`; `;` for box).
    Array {
        /// `pg_type.typelem`
        element: Arc<PgType>,
        /// `typdelim` of the element
        delimiter: u8,
    },
    /// A domain over a type, with the typmod that the domain gives it (-1 for none).
    Domain {
        /// `pg_type.typbasetype`
        base: Arc<PgType>,
        /// `pg_type.typtypmod`
        typmod: i32,
    },
}

impl PgType {
    /// Returns the type below all domains, and the typmod that applies to it: a domain's own, else the column's.
    pub(crate) fn base(self: &Arc<PgType>, typmod: i32) -> (&Arc<PgType>, i32) {
        match &self.kind {
            TypeKind::Domain { base, typmod: own } => base.base(if *own == -1 { typmod } else { *own }),
            _ => (self, typmod),
        }
    }

    /// Returns how an index compares its values, those of a domain as its base; `None` if none by default does.
    pub(crate) fn order(self: &Arc<PgType>) -> Option<&Order> {
        self.base(-1).0.order.as_ref()
    }

    /// Returns whether its values are of one length, as far as is known: none of them is ever stored out of line.
    pub(crate) fn has_fixed_length(self: &Arc<PgType>) -> bool {
        const FIXED: [&str; 20] = [
            "bool",
            "char",
            "int2",
            "int4",
            "int8",
            "oid",
            "float4",
            "float8",
            "money",
            "date",
            "time",
            "timetz",
            "timestamp",
            "timestamptz",
            "interval",
            "uuid",
            "macaddr",
            "macaddr8",
            "pg_lsn",
            "name",
        ];
        let (base, _) = self.base(-1);
        matches!(base.kind, TypeKind::Enum) || FIXED.iter().any(|name| base.is_builtin(name))
    }

    /// Returns whether it is the type of `pg_catalog` with this name.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.schema == "pg_catalog" && self.name == name
    }
}

impl Table {
    /// Returns `schema-table`, the stream's id in catalog, state and messages.
    pub(crate) fn stream_id(&self) -> String {
        format!("{}-{}", self.schema, self.name)
    }

    /// Returns the names of the primary key's columns, in column order.
    pub(crate) fn primary_key(&self) -> Vec<String> {
        self.columns.iter().filter(|c| c.primary_key).map(|c| c.name.clone()).collect()
    }

    /// Returns the column of this name.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}
