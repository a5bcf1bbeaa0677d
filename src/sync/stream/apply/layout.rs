//! Which streams a change belongs to, and which of its values are which columns.

use std::collections::{HashMap, HashSet};

use super::shape::{Column, Shape};
use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::table::TableKind;
use crate::positions::TransactionSnapshot;
use crate::replication::{Relation, RelationColumn, RelationId};
use crate::sync::alterations::Alterations;
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::visibility::wait_visible;

/// The tables of which the log has changes, as it described them.
#[derive(Default)]
pub(crate) struct Routes {
    tables: Vec<Table>,
    by_id: HashMap<RelationId, Route>,
}

/// A table among the [`Routes`]; it stays the same.
#[derive(Clone, Copy)]
pub(crate) struct Route(usize);

struct Table {
    names: Names,
    columns: Vec<Column>,
    targets: Vec<Target>,
    /// Where it stands.
    place: Place,
    /// What a look-up by name saw. A partition may come and go with any transaction that it did not see; `None` where no
    /// partition matters.
    seen: Option<TransactionSnapshot>,
    /// A transaction that need not be seen for it.
    settled_for: Option<u32>,
    /// Whether its name was looked up later than what was altered was read, which does not know how the name came to lead there.
    is_younger: bool,
}

/// How the log names a table.
struct Names {
    oid: Option<u32>,
    schema: Box<str>,
    name: Box<str>,
}

/// A stream that changes of a table go to.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its place among the streams of the phase.
    pub stream: usize,
    /// Whether the table is the stream's own, and no partition of it.
    pub own: bool,
    /// Whether the change may have been made in another table, which had the name then.
    pub uncertain: bool,
    /// What the values of a tuple are.
    pub shape: Shape,
}

impl Routes {
    /// Returns a table that was described; `None` if it never was.
    pub(crate) fn find(&self, relation: RelationId) -> Option<Route> {
        self.by_id.get(&relation).copied()
    }

    /// Returns the streams that its changes go to; none if nobody wants them.
    pub(crate) fn targets(&self, route: Route) -> &[Target] {
        &self.tables[route.0].targets
    }

    /// Whether the log has the table's name only: another one may have taken it, and no relation says that a type changed.
    pub(crate) fn is_by_name(&self, route: Route) -> bool {
        self.tables[route.0].names.oid.is_none()
    }

    /// Whether the streams that this transaction's changes of the table go to are known.
    pub(crate) fn is_settled(&self, route: Route, transaction: &Transaction) -> bool {
        let table = &self.tables[route.0];
        table.settled_for == Some(transaction.xid)
            || table.seen.as_ref().is_none_or(|snapshot| snapshot.sees(transaction.xid))
    }

    /// Takes a description: the rows of this table look like this from here on. Looks its streams up.
    pub(crate) async fn describe(
        &mut self,
        catalogs: &Catalogs<'_>,
        streams: &[Live],
        relation: &Relation<'_>,
        transaction: &Transaction,
    ) -> Result<Route> {
        let full = relation.replica_identity == Some(b'f');
        let column = |column: &RelationColumn<'_>| Column {
            name: column.name.into(),
            identity: full || column.key,
            type_oid: column.ty.map(|ty| ty.oid),
        };
        let columns = relation.columns.iter().map(column).collect();
        let names = Names { oid: relation.oid, schema: relation.schema.into(), name: relation.name.into() };
        let table = Table {
            names,
            columns,
            targets: Vec::new(),
            place: Place::default(),
            seen: None,
            settled_for: None,
            is_younger: false,
        };
        let known = self.find(relation.id);
        let route = known.unwrap_or(Route(self.tables.len()));
        if known.is_some() && self.is_by_name(route) && self.is_settled(route, transaction) {
            let known = &mut self.tables[route.0];
            known.columns = table.columns;
            known.aim(catalogs.alterations, streams);
            return Ok(route);
        }
        match known {
            Some(_) => self.tables[route.0] = table,
            None => self.tables.push(table),
        }
        self.by_id.insert(relation.id, route);
        self.look_up(catalogs, streams, route, transaction).await?;
        Ok(route)
    }

    /// Looks up which streams a table's changes go to as of this transaction.
    pub(crate) async fn look_up(
        &mut self,
        catalogs: &Catalogs<'_>,
        streams: &[Live],
        route: Route,
        transaction: &Transaction,
    ) -> Result<()> {
        let table = &mut self.tables[route.0];
        let by_name = table.names.oid.is_none();
        table.place = if by_name || has_root(streams) {
            let (place, snapshot) = Place::read(catalogs, &table.names, transaction).await?;
            table.is_younger = by_name && !place.is_known_to(&catalogs.alterations.seen);
            // A relation with an oid comes again when the table was attached or detached.
            table.seen = by_name.then_some(snapshot);
            table.settled_for = Some(transaction.xid);
            place
        } else {
            Place { oid: table.names.oid, ..Place::default() }
        };
        table.aim(catalogs.alterations, streams);
        Ok(())
    }

    /// Whether what was altered was read before the table of this name was looked up, so that it may not tell why the name leads there, or
    /// nowhere.
    pub(crate) fn is_younger(&self, route: Route) -> bool {
        self.tables[route.0].is_younger
    }

    /// Works out again which streams a table's changes go to, by what was altered until after its name was looked up.
    pub(crate) fn aim(&mut self, alterations: &Alterations, streams: &[Live], route: Route) {
        let table = &mut self.tables[route.0];
        table.is_younger = false;
        table.aim(alterations, streams);
    }

    /// Takes note that a stream has other columns: the tuples of every table that it is read from are something else to it.
    pub(crate) fn reshape(&mut self, alterations: &Alterations, streams: &[Live], stream: usize) {
        for table in &mut self.tables {
            if table.targets.iter().any(|target| target.stream == stream) {
                table.aim(alterations, streams);
            }
        }
    }
}

impl Table {
    /// Works out which streams its changes go to.
    fn aim(&mut self, alterations: &Alterations, streams: &[Live]) {
        let by_name = self.names.oid.is_none();
        let uncertain = by_name
            && match self.place.oid {
                None => true,
                Some(oid) => alterations.name(oid).unwrap_or(self.place.is_young),
            };
        self.targets.clear();
        for (stream, live) in streams.iter().enumerate() {
            let oid = live.plan.table.oid;
            let own = self.place.oid == Some(oid);
            let wanted = if uncertain { alterations.names_of(oid) } else { own || self.place.ancestors.contains(&oid) };
            if wanted {
                let shape = Shape::new(live, &self.columns, by_name, &self.altered(alterations));
                let has_name = own || self.place.ancestors.contains(&oid);
                if !uncertain || self.columns.is_empty() || shape.may_be_of(live, has_name) {
                    self.targets.push(Target { stream, own, uncertain, shape });
                }
            }
        }
    }

    /// Returns the columns that may have been others.
    fn altered(&self, alterations: &Alterations) -> HashSet<String> {
        self.place.oid.map(|oid| alterations.columns(oid)).unwrap_or_default()
    }
}

/// Whether any stream has changes that come under the names of other tables.
fn has_root(streams: &[Live]) -> bool {
    streams.iter().any(|live| live.plan.table.kind == TableKind::Partitioned)
}

/// What tables are looked up with.
pub(crate) struct Catalogs<'a> {
    pub client: &'a Client,
    /// What was altered of the selected tables.
    pub alterations: &'a Alterations,
    /// The transaction since which a table may have had another name than now.
    pub since: u32,
}

/// Where a table stands.
#[derive(Default)]
struct Place {
    /// Its oid; `None` if no table has this name.
    oid: Option<u32>,
    /// The partitioned tables above it.
    ancestors: Vec<u32>,
    /// Whether it was made, or got its name, since the transaction that counts.
    is_young: bool,
    /// The transactions that named it, and its schema.
    named_by: Vec<u32>,
}

impl Place {
    /// Looks a table up, with a snapshot that sees it there and, unless it is one that was known before, this transaction.
    async fn read(
        catalogs: &Catalogs<'_>,
        table: &Names,
        transaction: &Transaction,
    ) -> Result<(Place, TransactionSnapshot)> {
        if table.oid.is_none() {
            let place = Place::now(catalogs, table).await?;
            if place.oid.is_some_and(|oid| catalogs.alterations.of(oid).is_some()) {
                return Ok((place, catalogs.alterations.seen.clone()));
            }
        }
        let snapshot = wait_visible(catalogs.client, std::iter::once(transaction.xid)).await?;
        Ok((Place::now(catalogs, table).await?, snapshot))
    }

    /// Whether a snapshot sees how the name came to lead here. Of a name that leads nowhere none is known to.
    fn is_known_to(&self, seen: &TransactionSnapshot) -> bool {
        self.oid.is_some() && self.named_by.iter().all(|by| seen.sees_writer(*by))
    }

    async fn now(catalogs: &Catalogs<'_>, table: &Names) -> Result<Place> {
        // The type of a table's rows follows its name and its schema: see `alterations.sql`.
        let sql = "WITH RECURSIVE up(oid, height) AS (\
                   SELECT coalesce($1::oid, (SELECT c.oid FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $2::text::name AND c.relname = $3::text::name)), 0 UNION ALL \
                   SELECT i.inhparent, height + 1 FROM up \
                   JOIN pg_catalog.pg_class c ON c.oid = up.oid AND c.relispartition \
                   JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid) \
                   SELECT c.oid, ARRAY(SELECT oid FROM up WHERE height > 0), \
                   pg_catalog.age(t.xmin) BETWEEN 0 AND pg_catalog.age($4::text::xid) \
                   OR pg_catalog.age(n.xmin) BETWEEN 0 AND pg_catalog.age($4::text::xid), \
                   ARRAY[t.xmin::text::int8, n.xmin::text::int8] \
                   FROM up JOIN pg_catalog.pg_class c ON c.oid = up.oid \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   JOIN pg_catalog.pg_type t ON t.oid = c.reltype WHERE up.height = 0";
        let since = catalogs.since.to_string();
        let row = catalogs
            .client
            .query_opt(sql, &[&table.oid, &&*table.schema, &&*table.name, &since])
            .await
            .map_err(|e| query_error("cannot look up a table that the log names", e))?;
        Ok(match row {
            Some(row) => {
                let named_by = row.field::<Vec<i64>>(3)?.into_iter().map(|by| by as u32).collect();
                Place { oid: row.field(0)?, ancestors: row.field(1)?, is_young: row.field(2)?, named_by }
            }
            None => Place::default(),
        })
    }
}

/// Whether a relation is not what the plan's table is known to be: columns, their types, or the key. One without types may
/// have columns of other times, so that it is for its rows to show (see [`Shape::is_contradicted`]).
pub(crate) fn differs(live: &Live, relation: &Relation<'_>) -> bool {
    let Some(oid) = relation.oid else { return false };
    let table = &live.plan.table;
    let is_key = |name: &str| live.plan.key_properties.iter().any(|key| key == name);
    // The flags mean the key where the identity is the key.
    let tells_key = oid == table.oid && relation.replica_identity == Some(b'd');
    let column_differs = |column: &RelationColumn<'_>| match table.column(column.name) {
        Some(known) => {
            column.ty.is_some_and(|ty| (ty.oid, ty.typmod) != (known.ty.oid, known.typmod))
                || (tells_key && column.key != is_key(column.name))
        }
        None => !live.knows(column.name.as_bytes()),
    };
    relation.columns.iter().any(column_differs)
        || live.plan.columns.iter().any(|column| relation.columns.iter().all(|other| other.name != column.name))
}
