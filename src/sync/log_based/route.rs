//! Which streams a change belongs to, and which of its values are which columns.

use std::collections::HashMap;

use super::live::Live;
use crate::discovery::partition_root;
use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::table::ReplicaIdentity;
use crate::replication::{Relation, TableRef, Tuple};

/// The streams by the names that the log has for their tables.
#[derive(Default)]
pub(super) struct Routes {
    by_oid: HashMap<u32, Vec<Target>>,
    by_name: HashMap<String, HashMap<String, Vec<Target>>>,
}

/// A stream that changes of a table go to.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// Its place among the streams of the phase.
    pub stream: usize,
    /// What the values of a tuple are; with wal2json, whose tuples name their columns, worked out anew for each.
    pub shape: Shape,
}

/// What the values of a tuple are.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    /// For each value the plan's column, or `None` where it is not selected.
    pub columns: Vec<Option<usize>>,
    /// For each value whether it is part of the replica identity.
    pub identity: Vec<bool>,
}

impl Routes {
    /// The streams of a table: `None` if it was not looked up yet, none at all if nobody wants its changes.
    pub(super) fn get(&self, table: TableRef<'_>) -> Option<&[Target]> {
        match table {
            TableRef::Oid(oid) => self.by_oid.get(&oid).map(Vec::as_slice),
            TableRef::Name(schema, name) => self.by_name.get(schema)?.get(name).map(Vec::as_slice),
        }
    }

    /// Takes a Relation message: the changes of this table look like this from here on, and go to these streams.
    pub(super) fn relation(&mut self, streams: &[Live], targets: Vec<usize>, relation: &Relation<'_>) {
        let targets = targets
            .into_iter()
            .map(|stream| Target { stream, shape: Shape::of_relation(&streams[stream], relation) })
            .collect();
        self.by_oid.insert(relation.oid, targets);
    }

    /// Looks a table up that wal2json names for the first time.
    pub(super) async fn name(&mut self, client: &Client, streams: &[Live], schema: &str, name: &str) -> Result<()> {
        let own = |live: &Live| live.plan.table.schema == schema && live.plan.table.name == name;
        let mut targets: Vec<usize> =
            streams.iter().enumerate().filter(|(_, live)| own(live)).map(|(i, _)| i).collect();
        // Only a schema with partitions is read as a whole, so that other tables can turn up at all.
        let sql = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname::text = $1 AND c.relname::text = $2 AND c.relispartition";
        let row = client
            .query_opt(sql, &[&schema, &name])
            .await
            .map_err(|e| query_error("cannot look up a table that the log names", e))?;
        if let Some(row) = row {
            for stream in wanted_by(client, streams, row.field(0)?).await? {
                if !targets.contains(&stream) {
                    targets.push(stream);
                }
            }
        }
        let targets = targets.into_iter().map(|stream| Target { stream, shape: Shape::default() }).collect();
        self.by_name.entry(schema.to_owned()).or_default().insert(name.to_owned(), targets);
        Ok(())
    }
}

/// The streams of the table with this oid: its own, and its root's.
pub(super) async fn wanted_by(client: &Client, streams: &[Live], oid: u32) -> Result<Vec<usize>> {
    let own = streams.iter().position(|live| live.plan.table.oid == oid);
    let root = match own {
        Some(own) => streams[own].plan.table.partition_root,
        None => partition_root(client, oid).await?,
    };
    let root = root.and_then(|root| streams.iter().position(|live| live.plan.table.oid == root));
    Ok(own.into_iter().chain(root).collect())
}

impl Shape {
    fn of_relation(live: &Live, relation: &Relation<'_>) -> Shape {
        let full = relation.replica_identity == b'f';
        Shape {
            columns: relation.columns.iter().map(|column| live.plan.position(column.name)).collect(),
            identity: relation.columns.iter().map(|column| full || column.key).collect(),
        }
    }

    /// Fills the shape from a tuple that names its columns. Returns the first name that the table is not known to have.
    pub(super) fn fill_by_name<'t>(&mut self, live: &Live, tuple: &Tuple<'t>) -> Option<&'t [u8]> {
        let columns = &live.plan.columns;
        self.columns.clear();
        let mut unknown = None;
        // The log has the columns in the table's order, so that the next one is nearly always the right one.
        let mut next = 0;
        for index in 0..tuple.len() {
            let name = tuple.name(index);
            let is_named = |at: &usize| columns.get(*at).is_some_and(|column| column.name.as_bytes() == name);
            let found = Some(next).filter(is_named).or_else(|| (0..columns.len()).find(|at| is_named(at)));
            if let Some(found) = found {
                next = found + 1;
            } else if !live.knows(name) {
                unknown = unknown.or(Some(name));
            }
            self.columns.push(found);
        }
        self.identity.clear();
        self.identity.resize(tuple.len(), true);
        unknown
    }

    /// How many of the values are selected columns.
    pub(super) fn selected(&self) -> usize {
        self.columns.iter().flatten().count()
    }

    /// Whether an old row of this shape says which row of the target is meant: it holds every key column.
    pub(super) fn identifies(&self, live: &Live) -> bool {
        let holds = |key: &String| {
            live.plan.position(key).is_some_and(|position| {
                self.columns.iter().zip(&self.identity).any(|(column, identity)| *identity && *column == Some(position))
            })
        };
        live.plan.key_properties.iter().all(holds)
    }
}

/// Whether a relation shows columns that the plan does not know, or as another type.
pub(super) fn differs(live: &Live, relation: &Relation<'_>) -> bool {
    let identity_changed = match (&live.plan.table.replica_identity, relation.replica_identity) {
        (ReplicaIdentity::Full, identity) => identity != b'f',
        (_, identity) => identity == b'f',
    };
    identity_changed
        || relation.columns.iter().any(|column| {
            !live.knows(column.name.as_bytes())
                || live
                    .plan
                    .table
                    .column(column.name)
                    .is_some_and(|known| known.ty.oid != column.type_oid || known.typmod != column.typmod)
        })
}
