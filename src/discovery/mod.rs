//! What the role can read: relations, columns and types, in four queries whatever the number of tables.
//!
//! information_schema says which tables a database shows the role. The rest is from pg_catalog: information_schema has
//! no materialized views, oids, types with their elements, row estimates, replica identities or partition trees. Tables
//! that are named are looked up there alone: information_schema takes as long for one as for all.

mod entry;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::{Error, Result};
use crate::pg::ServerVersion;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::order::Order;
use crate::pg::row::Fields as _;
use crate::pg::table::{Column, Generated, PgType, ReplicaIdentity, Table, TableKind, TypeKind};

pub(crate) use entry::write_catalog;

/// `pg_type.oid` of `real`, which is the same everywhere.
const FLOAT4: u32 = 700;
/// `pg_type.oid` of `double precision`, which is the same everywhere.
const FLOAT8: u32 = 701;

/// The relations to describe.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    /// Every table and view, in these schemas or (`None`) in all except the system's.
    All(Option<&'a [String]>),
    /// These tables: schema and name.
    Tables(&'a [(String, String)]),
}

/// Returns the error for a role that can read nothing, which is never what was meant.
pub(crate) fn nothing_readable(dbname: &str) -> Error {
    Error::run(format!("the role can read no table of the database \"{dbname}\""))
        .hint("GRANT SELECT ON … TO the role, or look at filter_schemas")
}

/// Describes the relations of `scope` that exist and of which the role can select at least one column, ordered by schema
/// and name.
pub(crate) async fn discover(client: &Client, scope: Scope<'_>) -> Result<Vec<Table>> {
    let relations = relations(client, scope).await?;
    let oids: Vec<u32> = relations.iter().map(|row| row.field(0)).collect::<Result<_>>()?;
    let mut columns = columns(client, &oids).await?;
    let partitions = if relations.is_empty() { Partitions::default() } else { Partitions::read(client).await? };
    let mut tables = Vec::with_capacity(relations.len());
    for row in &relations {
        let columns = columns.remove(&row.field::<u32>(0)?).unwrap_or_default();
        if !columns.is_empty() {
            tables.push(table(row, client.server_version(), columns, &partitions)?);
        }
    }
    Ok(tables)
}

/// Returns the columns of a table that the role can't select.
pub(crate) async fn hidden_columns(client: &Client, table: u32) -> Result<Vec<String>> {
    let sql = "SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped \
               AND NOT pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT') ORDER BY attnum";
    let rows = client.query(sql, &[&table]).await.map_err(|e| query_error("cannot list the columns", e))?;
    rows.iter().map(|row| row.field(0)).collect()
}

async fn relations(client: &Client, scope: Scope<'_>) -> Result<Vec<Row>> {
    // information_schema does not list materialized views.
    const SHOWN: &str = "(c.relkind = 'm' OR (n.nspname, c.relname) IN \
                         (SELECT t.table_schema::name, t.table_name::name FROM information_schema.tables t))";
    let query = async |condition: &str, parameters: &[&(dyn ToSql + Sync)]| {
        let sql = include_str!("relations.sql").replace("{scope}", condition);
        client.query(&sql, parameters).await.map_err(|e| query_error("cannot list the tables", e))
    };
    match scope {
        Scope::All(None) => query(SHOWN, &[]).await,
        Scope::All(Some(schemas)) => query(&format!("n.nspname::text = ANY ($1) AND {SHOWN}"), &[&schemas]).await,
        Scope::Tables(tables) => {
            let (schemas, names): (Vec<_>, Vec<_>) =
                tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
            // As names, for the index of pg_class.
            let wanted = "(n.nspname, c.relname) IN (SELECT s::name, t::name FROM ROWS FROM \
                          (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) wanted(s, t))";
            query(wanted, &[&schemas, &names]).await
        }
    }
}

fn table(row: &Row, version: ServerVersion, mut columns: Vec<Column>, partitions: &Partitions) -> Result<Table> {
    let oid: u32 = row.field(0)?;
    let kind = match row.field::<i8>(3)? as u8 {
        b'r' => TableKind::Table,
        b'p' => TableKind::Partitioned,
        b'v' => TableKind::View,
        b'm' => TableKind::MaterializedView,
        other => return Err(Error::run(format!("unknown relation kind `{}`", other as char))),
    };
    let names = |numbers: &[i16], columns: &[Column]| -> Vec<String> {
        columns.iter().filter(|c| numbers.contains(&c.attnum)).map(|c| c.name.clone()).collect()
    };
    let key: Vec<i16> = row.field::<Option<Vec<i16>>>(6)?.unwrap_or_default();
    // A key with a column that the role can't select identifies no row for us.
    if names(&key, &columns).len() == key.len() {
        columns.iter_mut().for_each(|c| c.primary_key = key.contains(&c.attnum));
    }
    let own = match (row.field::<i8>(5)? as u8, row.field::<Option<Vec<i16>>>(7)?) {
        (b'f', _) => ReplicaIdentity::Full,
        (_, Some(numbers)) => ReplicaIdentity::Columns(names(&numbers, &columns)),
        (_, None) => ReplicaIdentity::None,
    };
    let replica_identity = match partitions.identities.get(&oid) {
        // Where old rows come under the root's name, the log holds of them what the root's own identity says.
        Some(_) if own == ReplicaIdentity::None && version.publishes_partitioned() => own,
        Some(leaves) => leaves.clone(),
        None => own,
    };
    let estimate: i64 = row.field(4)?;
    let row_estimate = if kind == TableKind::Partitioned && estimate <= 0 {
        partitions.rows.get(&oid).copied().unwrap_or(-1)
    } else {
        estimate
    };
    Ok(Table {
        oid,
        schema: row.field(1)?,
        name: row.field(2)?,
        kind,
        row_estimate,
        columns,
        replica_identity,
        ancestors: partitions.above(oid).collect(),
        logged: row.field(8)?,
        unlogged_leaves: partitions.unlogged.get(&oid).cloned().unwrap_or_default(),
        row_security: row.field(9)?,
    })
}

async fn columns(client: &Client, relations: &[u32]) -> Result<HashMap<u32, Vec<Column>>> {
    let sql = include_str!("columns.sql").replace("{attgenerated}", client.server_version().attgenerated());
    let failed = |e| query_error("cannot list the columns", e);
    // Row by row: there may be a hundred thousand.
    let mut rows = pin!(client.query_raw(&sql, [relations]).await.map_err(failed)?);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        found.push(FoundColumn {
            relation: row.field(0)?,
            attnum: row.field(1)?,
            name: row.field(2)?,
            type_oid: row.field(3)?,
            typmod: row.field(4)?,
            generated: match row.field::<i8>(5)? as u8 {
                b's' => Generated::Stored,
                b'v' => Generated::Virtual,
                _ => Generated::No,
            },
        });
    }
    let mut type_oids: Vec<u32> = found.iter().map(|column| column.type_oid).collect();
    type_oids.sort_unstable();
    type_oids.dedup();
    let types = types(client, &type_oids).await?;
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::with_capacity(relations.len());
    for FoundColumn { relation, attnum, name, type_oid, typmod, generated } in found {
        // The type is missing if its column was dropped between the two queries.
        let Some((ty, sql_name)) = types.get(&type_oid) else { continue };
        let (ty, data_type) = (Arc::clone(ty), Arc::clone(sql_name));
        let column = Column { name, attnum, ty, typmod, data_type, primary_key: false, generated };
        columns.entry(relation).or_default().push(column);
    }
    Ok(columns)
}

/// A column whose type is not known yet.
struct FoundColumn {
    relation: u32,
    attnum: i16,
    name: String,
    type_oid: u32,
    typmod: i32,
    generated: Generated,
}

/// Types by oid, each with its SQL name (`format_type`).
type Types = HashMap<u32, (Arc<PgType>, Arc<str>)>;

/// Reads the types with these oids.
async fn types(client: &Client, oids: &[u32]) -> Result<Types> {
    let rows = client
        .query(include_str!("types.sql"), &[&oids, &client.schemas()])
        .await
        .map_err(|e| query_error("cannot list the types", e))?;
    let by_oid: HashMap<u32, &Row> = rows.iter().map(|row| Ok((row.field(0)?, row))).collect::<Result<_>>()?;
    let mut known = HashMap::with_capacity(rows.len());
    for &oid in by_oid.keys() {
        build(oid, &by_oid, client.server_version(), &mut known, 0)?;
    }
    Ok(known)
}

/// Returns the type with this oid, which `depth` others are made of; `None` if it was dropped meanwhile.
fn build(
    oid: u32,
    rows: &HashMap<u32, &Row>,
    version: ServerVersion,
    known: &mut Types,
    depth: usize,
) -> Result<Option<Arc<PgType>>> {
    if let Some((ty, _)) = known.get(&oid) {
        return Ok(Some(Arc::clone(ty)));
    }
    let Some(row) = rows.get(&oid) else { return Ok(None) };
    if depth > rows.len() {
        return Err(circular("types"));
    }
    let mut made_of = |column| build(row.field(column)?, rows, version, known, depth + 1);
    let kind = match row.field::<i8>(3)? as u8 {
        b'd' => {
            let typmod = row.field(8)?;
            made_of(7)?.map(|base| TypeKind::Domain { base, typmod })
        }
        _ if row.field(4)? => {
            let delimiter = row.field::<i8>(6)? as u8;
            made_of(5)?.map(|element| TypeKind::Array { element, delimiter })
        }
        b'e' => Some(TypeKind::Enum),
        b'c' => Some(TypeKind::Composite),
        b'r' | b'm' => Some(TypeKind::Range),
        _ if matches!(oid, FLOAT4 | FLOAT8) && !version.prints_shortest_floats() => Some(TypeKind::LongFloat),
        _ => None,
    };
    let kind = kind.unwrap_or(TypeKind::Base);
    let order = match &kind {
        // Its own operators compare by those of the elements.
        TypeKind::Array { element, .. } if element.order().is_none() => None,
        _ => order(row)?,
    };
    let ty = Arc::new(PgType { oid, name: row.field(1)?, schema: row.field(2)?, kind, order });
    known.insert(oid, (Arc::clone(&ty), row.field::<&str>(9)?.into()));
    Ok(Some(ty))
}

/// Returns how the type of this row is ordered.
fn order(row: &Row) -> Result<Option<Order>> {
    let (Some(schema), names) = (row.field::<Option<&str>>(12)?, row.field::<Option<Vec<String>>>(13)?) else {
        return Ok(None);
    };
    let ty: (&str, &str) = (row.field(2)?, row.field(1)?);
    let operand = row.field::<Option<&str>>(10)?.zip(row.field(11)?).filter(|operand| *operand != ty);
    Ok(Order::new([Some(ty), operand].into_iter().flatten(), schema, &names.unwrap_or_default()))
}

/// Returns the error for an answer of the server that is circular.
fn circular(what: &str) -> Error {
    Error::run(format!("the server says of {what} that they are made of themselves"))
}

/// The partition trees of the database.
#[derive(Default)]
struct Partitions {
    parent: HashMap<u32, u32>,
    /// Row estimates summed over the analyzed leaves, by topmost table.
    rows: HashMap<u32, i64>,
    /// What the identities of the leaves below a partitioned table have in common. Theirs count: they don't follow the
    /// root's, which has no key before PostgreSQL 11.
    identities: HashMap<u32, ReplicaIdentity>,
    /// The leaves below a partitioned table whose rows are in no log.
    unlogged: HashMap<u32, Vec<String>>,
}

impl Partitions {
    async fn read(client: &Client) -> Result<Self> {
        let rows = client
            .query(include_str!("partitions.sql"), &[])
            .await
            .map_err(|e| query_error("cannot list the partitions", e))?;
        let parent = rows.iter().map(|row| Ok((row.field(0)?, row.field(1)?))).collect::<Result<_>>()?;
        let mut partitions = Partitions { parent, ..Partitions::default() };
        partitions.check()?;
        for row in &rows {
            let oid: u32 = row.field(0)?;
            if let Some(leaf) = row.field::<Option<String>>(5)? {
                for root in partitions.above(oid).collect::<Vec<_>>() {
                    partitions.unlogged.entry(root).or_default().push(leaf.clone());
                }
                continue;
            }
            if row.field::<i8>(2)? as u8 != b'r' {
                continue;
            }
            let identity = match row.field::<Option<Vec<String>>>(4)? {
                None => ReplicaIdentity::Full,
                Some(columns) if columns.is_empty() => ReplicaIdentity::None,
                Some(columns) => ReplicaIdentity::Columns(columns),
            };
            for root in partitions.above(oid).collect::<Vec<_>>() {
                let shared = partitions.identities.entry(root).or_insert(ReplicaIdentity::Full);
                *shared = shared.in_common(&identity);
            }
        }
        for row in &rows {
            let (partitioned, estimate) = (row.field::<i8>(2)? as u8 == b'p', row.field::<i64>(3)?);
            if let (false, 0.., Some(root)) = (partitioned, estimate, partitions.above(row.field(0)?).last()) {
                let sum = partitions.rows.entry(root).or_default();
                *sum = sum.saturating_add(estimate);
            }
        }
        Ok(partitions)
    }

    /// Checks that the way up from every table has an end.
    fn check(&self) -> Result<()> {
        for &oid in self.parent.keys() {
            let up = std::iter::successors(Some(oid), |oid| self.parent.get(oid).copied());
            if up.take(self.parent.len() + 2).count() > self.parent.len() + 1 {
                return Err(circular("partitions"));
            }
        }
        Ok(())
    }

    /// Returns the partitioned tables above a table, the nearest first.
    fn above(&self, oid: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(self.parent.get(&oid).copied(), |oid| self.parent.get(oid).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_go_round_in_circles_are_refused() {
        let check = |parent: &[(u32, u32)]| {
            Partitions { parent: parent.iter().copied().collect(), ..Partitions::default() }.check()
        };
        assert!(check(&[]).is_ok());
        assert!(check(&[(1, 2), (2, 3), (4, 3), (5, 4)]).is_ok());
        for circle in [&[(1, 1)][..], &[(1, 2), (2, 1)], &[(9, 8), (1, 2), (2, 3), (3, 1)]] {
            assert!(check(circle).is_err(), "{circle:?}");
        }
    }
}
