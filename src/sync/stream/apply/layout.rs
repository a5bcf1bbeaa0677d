//! Which streams a change belongs to, and which of its values are which columns.

use std::collections::HashMap;

use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::table::{ReplicaIdentity, TableKind};
use crate::positions::TransactionSnapshot;
use crate::replication::{Relation, RelationColumn, TableRef, Tuple};
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::visibility::wait_visible;

/// The tables of which the log has changes, by the names that it has for them.
#[derive(Default)]
pub(crate) struct Routes {
    tables: Vec<Table>,
    by_oid: HashMap<u32, Route>,
    by_name: HashMap<String, HashMap<String, Route>>,
}

/// A table among the [`Routes`]; it stays the same.
#[derive(Clone, Copy)]
pub(crate) struct Route(usize);

#[derive(Default)]
struct Table {
    /// As a Relation message describes it; none where tuples name their columns.
    columns: Vec<Column>,
    targets: Vec<Target>,
    /// What a look-up by name saw. A partition may come and go with any transaction that it did not see; `None` where no
    /// partition matters.
    seen: Option<TransactionSnapshot>,
}

/// A column of a Relation message.
struct Column {
    name: Box<str>,
    identity: bool,
    type_oid: u32,
}

/// A stream that changes of a table go to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// Its place among the streams of the phase.
    pub stream: usize,
    /// What the values of a tuple are; with wal2json, whose tuples name their columns, worked out anew for each.
    pub shape: Shape,
}

/// What the values of a tuple are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// For each value the plan's column, or `None` where it is not selected.
    pub columns: Vec<Option<usize>>,
    /// For each value whether it is part of the replica identity.
    pub identity: Vec<bool>,
    /// For each value whether the column had another type then. None where tuples name their columns: nothing tells.
    pub retyped: Vec<bool>,
}

impl Routes {
    /// A table; `None` if it is to be looked up.
    pub(crate) fn find(&self, table: TableRef<'_>, transaction: &Transaction) -> Option<Route> {
        match table {
            TableRef::Oid(oid) => self.by_oid.get(&oid).copied(),
            TableRef::Name(schema, name) => {
                let route = *self.by_name.get(schema)?.get(name)?;
                let seen = self.tables[route.0].seen.as_ref();
                seen.is_none_or(|snapshot| snapshot.sees(transaction.xid)).then_some(route)
            }
        }
    }

    /// The streams that its changes go to; none if nobody wants them.
    pub(crate) fn targets(&self, route: Route) -> &[Target] {
        &self.tables[route.0].targets
    }

    fn add(&mut self) -> Route {
        self.tables.push(Table::default());
        Route(self.tables.len() - 1)
    }

    /// Takes a Relation message: the changes of this table look like this from here on, and go to these streams.
    pub(crate) fn relation(&mut self, streams: &[Live], targets: Vec<usize>, relation: &Relation<'_>) {
        let full = relation.replica_identity == b'f';
        let column = |column: &RelationColumn<'_>| Column {
            name: column.name.into(),
            identity: full || column.key,
            type_oid: column.type_oid,
        };
        let columns: Vec<Column> = relation.columns.iter().map(column).collect();
        let target = |stream| Target { stream, shape: Shape::of_relation(&streams[stream], &columns) };
        let targets = targets.into_iter().map(target).collect();
        let route = self.by_oid.get(&relation.oid).copied().unwrap_or_else(|| self.add());
        self.tables[route.0] = Table { columns, targets, seen: None };
        self.by_oid.insert(relation.oid, route);
    }

    /// A stream has other columns: so do the tuples of every table that it is read from.
    pub(crate) fn reshape(&mut self, streams: &[Live], stream: usize) {
        for route in self.by_oid.values() {
            let Table { columns, targets, .. } = &mut self.tables[route.0];
            for target in targets.iter_mut().filter(|target| target.stream == stream) {
                target.shape = Shape::of_relation(&streams[stream], columns);
            }
        }
    }

    /// Looks a table up that wal2json names.
    pub(crate) async fn name(
        &mut self,
        client: &Client,
        streams: &[Live],
        (schema, name): (&str, &str),
        transaction: &Transaction,
    ) -> Result<Route> {
        let own = |live: &Live| live.plan.table.schema == schema && live.plan.table.name == name;
        let mut targets: Vec<usize> =
            streams.iter().enumerate().filter(|(_, live)| own(live)).map(|(i, _)| i).collect();
        let mut seen = None;
        if has_root(streams) {
            let (root, snapshot) = root_of(client, TableRef::Name(schema, name), transaction).await?;
            seen = Some(snapshot);
            targets.extend(root.and_then(|root| stream_of(streams, root)).filter(|root| !targets.contains(root)));
        }
        let targets = targets.into_iter().map(|stream| Target { stream, shape: Shape::default() }).collect();
        let known = self.by_name.get(schema).and_then(|tables| tables.get(name)).copied();
        let route = known.unwrap_or_else(|| self.add());
        self.tables[route.0] = Table { columns: Vec::new(), targets, seen };
        self.by_name.entry(schema.to_owned()).or_default().insert(name.to_owned(), route);
        Ok(route)
    }
}

/// The streams of the table with this oid: its own, and its root's.
pub(crate) async fn wanted_by(
    client: &Client,
    streams: &[Live],
    oid: u32,
    transaction: &Transaction,
) -> Result<Vec<usize>> {
    let own = stream_of(streams, oid);
    let root = match has_root(streams) {
        true => root_of(client, TableRef::Oid(oid), transaction).await?.0,
        false => None,
    };
    let root = root.and_then(|root| stream_of(streams, root));
    Ok(own.into_iter().chain(root).collect())
}

fn stream_of(streams: &[Live], oid: u32) -> Option<usize> {
    streams.iter().position(|live| live.plan.table.oid == oid)
}

/// Whether any stream has changes that come under the names of other tables.
pub(crate) fn has_root(streams: &[Live]) -> bool {
    streams.iter().any(|live| live.plan.table.kind == TableKind::Partitioned)
}

/// The topmost partitioned table above a table, and a snapshot that sees it there and this transaction.
async fn root_of(
    client: &Client,
    table: TableRef<'_>,
    transaction: &Transaction,
) -> Result<(Option<u32>, TransactionSnapshot)> {
    let snapshot = wait_visible(client, std::iter::once(transaction.xid)).await?;
    let (oid, schema, name) = match table {
        TableRef::Oid(oid) => (Some(oid), None, None),
        TableRef::Name(schema, name) => (None, Some(schema), Some(name)),
    };
    let sql = "WITH RECURSIVE up(oid, height) AS (\
               SELECT coalesce($1::oid, (SELECT c.oid FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $2::text::name AND c.relname = $3::text::name)), 0 UNION ALL \
               SELECT i.inhparent, height + 1 FROM up \
               JOIN pg_catalog.pg_class c ON c.oid = up.oid AND c.relispartition \
               JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid) \
               SELECT oid FROM up WHERE height > 0 ORDER BY height DESC LIMIT 1";
    let row = client
        .query_opt(sql, &[&oid, &schema, &name])
        .await
        .map_err(|e| query_error("cannot look up a table that the log names", e))?;
    Ok((row.map(|row| row.field(0)).transpose()?, snapshot))
}

impl Shape {
    fn of_relation(live: &Live, columns: &[Column]) -> Shape {
        let retyped =
            |column: &Column| live.plan.table.column(&column.name).is_some_and(|known| known.ty.oid != column.type_oid);
        Shape {
            columns: columns.iter().map(|column| live.plan.position(&column.name)).collect(),
            identity: columns.iter().map(|column| column.identity).collect(),
            retyped: columns.iter().map(retyped).collect(),
        }
    }

    /// Fills the shape from a tuple that names its columns. False if the table is not known to have one of them.
    pub(crate) fn fill_by_name(&mut self, live: &Live, tuple: &Tuple<'_>) -> bool {
        let columns = &live.plan.columns;
        self.columns.clear();
        let mut all_known = true;
        // The log has the columns in the table's order, so that the next one is nearly always the right one.
        let mut next = 0;
        for index in 0..tuple.len() {
            let name = tuple.name(index);
            let is_named = |at: &usize| columns.get(*at).is_some_and(|column| column.name.as_bytes() == name);
            let found = Some(next).filter(is_named).or_else(|| (0..columns.len()).find(|at| is_named(at)));
            if let Some(found) = found {
                next = found + 1;
            } else {
                all_known &= live.knows(name);
            }
            self.columns.push(found);
        }
        self.identity.clear();
        self.identity.resize(tuple.len(), true);
        all_known
    }

    /// Whether the value here is known to be of another type than the column is now,
    pub(crate) fn is_retyped(&self, index: usize) -> bool {
        self.retyped.get(index) == Some(&true)
    }

    /// or to be of the same.
    pub(crate) fn of_type(&self, index: usize) -> bool {
        self.retyped.get(index) == Some(&false)
    }

    /// How many of the values are selected columns.
    pub(crate) fn selected(&self) -> usize {
        self.columns.iter().flatten().count()
    }

    /// Whether every selected column is among the values, those aside that the table computes and the log may leave out.
    pub(crate) fn is_whole(&self, live: &Live) -> bool {
        let columns = &live.plan.columns;
        self.selected() == columns.len()
            || columns.iter().enumerate().all(|(at, column)| column.generated || self.columns.contains(&Some(at)))
    }

    /// Whether an old row of this shape says which row of the target is meant: it holds every key column, and something
    /// where there is no key.
    pub(crate) fn identifies(&self, live: &Live) -> bool {
        let holds = |key: &String| {
            live.plan.position(key).is_some_and(|position| {
                self.columns.iter().zip(&self.identity).any(|(column, identity)| *identity && *column == Some(position))
            })
        };
        let holds_any = self.columns.iter().zip(&self.identity).any(|(column, identity)| *identity && column.is_some());
        holds_any && live.plan.key_properties.iter().all(holds)
    }
}

/// Whether a relation is not what the plan's table is known to be: columns, their types, or the key.
pub(crate) fn differs(live: &Live, relation: &Relation<'_>) -> bool {
    let table = &live.plan.table;
    let is_key = |name: &str| live.plan.key_properties.iter().any(|key| key == name);
    // The flags mean the key where the identity is the key.
    let tells_key = relation.oid == table.oid && relation.replica_identity == b'd';
    let column_differs = |column: &RelationColumn<'_>| match table.column(column.name) {
        Some(known) => {
            known.ty.oid != column.type_oid
                || known.typmod != column.typmod
                || (tells_key && column.key != is_key(column.name))
        }
        None => !live.knows(column.name.as_bytes()),
    };
    relation.columns.iter().any(column_differs)
        || live.plan.columns.iter().any(|column| relation.columns.iter().all(|other| other.name != column.name))
}

/// Whether an old row that names its columns holds others than the replica identity is known to have.
pub(crate) fn identity_differs(live: &Live, old: &Tuple<'_>) -> bool {
    match &live.plan.table.replica_identity {
        // Each leaf has an identity of its own.
        ReplicaIdentity::Columns(columns) if live.plan.table.kind != TableKind::Partitioned => {
            columns.len() != old.len()
                || !(0..old.len()).all(|index| columns.iter().any(|column| column.as_bytes() == old.name(index)))
        }
        _ => false,
    }
}
