//! Publications, which tell pgoutput what to send: what they cover, and the two that the tap makes for itself.

mod advice;

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result, to_run};
use crate::pg::ServerVersion;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::table::{Generated, ReplicaIdentity, Table, TableKind};
use crate::pg::tree::with_tree;

/// Publications that a slot is read with, and what they publish.
#[derive(Debug)]
pub(crate) struct Publications {
    names: Vec<String>,
    version: ServerVersion,
    /// Published relations by oid. A root that is published leaf by leaf stands here, once it was asked for, with what its
    /// leaves share.
    tables: HashMap<u32, Published>,
    /// Partitioned tables whose partitions are published under their own names.
    divided: HashMap<u32, Published>,
    /// What a table is a partition of, at any depth.
    ancestors: HashMap<u32, Vec<u32>>,
}

/// What is published of a table.
#[derive(Clone, Debug, Default)]
struct Published {
    /// By which of the publications, in order.
    by: Vec<String>,
    insert: bool,
    update: bool,
    delete: bool,
    /// Published under its root's name.
    via_root: bool,
    /// What a column list names; `None` for all columns.
    columns: Option<HashSet<String>>,
    row_filter: bool,
    generated: bool,
}

impl Publications {
    /// Reads `<name>` and, if it exists, `<name>_inserts`, as far as they concern these tables, their partitions and what they
    /// are partitions of; no name is listed that does not exist.
    pub(crate) async fn read(client: &Client, name: &str, tables: &[u32]) -> Result<Publications> {
        let version = client.server_version();
        let sql = include_str!("publication/published.sql").replace("{schema}", version.publication_has_schema());
        let wanted = [name.to_owned(), inserts_name(name)];
        let rows = client
            .query(&sql, &[&wanted.as_slice(), &tables])
            .await
            .map_err(|e| query_error("cannot read the publications", e))?;
        let mut publications = Publications {
            names: Vec::new(),
            version,
            tables: HashMap::new(),
            divided: HashMap::new(),
            ancestors: HashMap::new(),
        };
        for row in &rows {
            let name: String = row.field(0)?;
            if !publications.names.contains(&name) {
                publications.names.push(name.clone());
            }
            let Some(oid) = row.field::<Option<u32>>(1)? else { continue };
            let (via_root, has_columns): (bool, bool) = (row.field(5)?, row.field(8)?);
            let columns: Vec<String> = row.field(7)?;
            let one = Published {
                by: vec![name],
                insert: row.field(2)?,
                update: row.field(3)?,
                delete: row.field(4)?,
                via_root,
                columns: has_columns.then(|| columns.into_iter().collect()),
                row_filter: row.field(9)?,
                generated: row.field(10)?,
            };
            publications.ancestors.insert(oid, row.field(11)?);
            let tables = match row.field(6)? {
                true => &mut publications.tables,
                false if via_root => continue,
                false => &mut publications.divided,
            };
            tables.entry(oid).and_modify(|known| known.join(&one)).or_insert(one);
        }
        publications.names.sort();
        Ok(publications)
    }

    /// Returns the names to read with.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the publication that would have to be made to publish these tables under this name.
    pub(crate) fn absent(&self, name: &str, tables: &[&Table]) -> Option<String> {
        let inserts = tables.iter().any(|table| table.replica_identity == ReplicaIdentity::None);
        let wanted = [Some(name.to_owned()), inserts.then(|| inserts_name(name))];
        wanted.into_iter().flatten().find(|wanted| !self.names.contains(wanted))
    }

    /// Whether changes of this table come at all. A partitioned table's may come under the names of its leaves.
    pub(crate) async fn covers(&mut self, client: &Client, table: &Table) -> Result<bool> {
        if self.tables.contains_key(&table.oid) || self.hides_partition(table) {
            return Ok(true);
        }
        if table.kind != TableKind::Partitioned {
            return Ok(false);
        }
        let leaves = leaves(client, table.oid).await?;
        let published: Option<Vec<&Published>> = leaves.iter().map(|leaf| self.tables.get(&leaf.oid)).collect();
        let published = match leaves.as_slice() {
            // Whatever it will have is published with it.
            [] => self.divided.get(&table.oid).map(|published| vec![published]),
            _ => published,
        };
        let shared = published.unwrap_or_default().into_iter().cloned().reduce(|mut shared, leaf| {
            shared.meet(leaf);
            shared
        });
        let covered = shared.is_some();
        self.tables.extend(shared.map(|shared| (table.oid, Published { via_root: false, ..shared })));
        Ok(covered)
    }

    /// Whether a partition's changes come under the name of what it is a partition of, so that they can't be told from its
    /// siblings'.
    pub(crate) fn hides_partition(&self, table: &Table) -> bool {
        let via_root = |oid| self.tables.get(oid).is_some_and(|published| published.via_root);
        self.ancestors.get(&table.oid).is_some_and(|ancestors| ancestors.iter().any(via_root))
    }

    /// Returns the columns of the table that are not sent: left out by the publication's column list, or generated.
    pub(crate) fn unpublished_columns(&self, table: &Table) -> Vec<String> {
        let published = self.tables.get(&table.oid);
        let sends = |name: &str, generated: Generated| {
            let listed = published.and_then(|p| p.columns.as_ref());
            match generated {
                Generated::No => listed.is_none_or(|columns| columns.contains(name)),
                // 18+: generated columns are sent when a list names them, or publish_generated_columns says so.
                Generated::Stored => {
                    published.is_some_and(|p| p.generated) || listed.is_some_and(|columns| columns.contains(name))
                }
                Generated::Virtual => false,
            }
        };
        table.columns.iter().filter(|c| !sends(&c.name, c.generated)).map(|c| c.name.clone()).collect()
    }

    /// Whether all changes of all rows of a table are sent.
    pub(crate) fn send_all(&self, table: &Table) -> bool {
        let all =
            |published: &Published| published.insert && published.update && published.delete && !published.row_filter;
        self.tables.get(&table.oid).is_some_and(all)
    }

    /// Whether a publication of this release can send the column: it sends stored generated ones from 18 on.
    pub(crate) fn can_send(&self, table: &Table, column: &str) -> bool {
        match table.column(column).map(|column| column.generated) {
            Some(Generated::Stored) => self.version.publishes_generated(),
            Some(Generated::Virtual) => false,
            Some(Generated::No) | None => true,
        }
    }
}

/// Returns a table as a member of a publication; one that inherits is a stream of its own.
fn member(table: &Table) -> String {
    let only = if table.kind == TableKind::Table { "ONLY " } else { "" };
    format!("{only}{}", quote::qualified(&table.schema, &table.name))
}

impl Published {
    /// Adds another publication of the table: what either sends is sent.
    fn join(&mut self, other: &Published) {
        self.add_names(&other.by);
        self.insert |= other.insert;
        self.update |= other.update;
        self.delete |= other.delete;
        self.via_root |= other.via_root;
        self.generated |= other.generated;
        self.row_filter &= other.row_filter;
        self.columns = match (self.columns.take(), &other.columns) {
            (Some(mine), Some(theirs)) => Some(mine.union(theirs).cloned().collect()),
            _ => None,
        };
    }

    fn add_names(&mut self, names: &[String]) {
        self.by.extend_from_slice(names);
        self.by.sort();
        self.by.dedup();
    }

    /// Keeps what is sent of both of two leaves.
    fn meet(&mut self, other: Published) {
        self.add_names(&other.by);
        self.insert &= other.insert;
        self.update &= other.update;
        self.delete &= other.delete;
        self.generated &= other.generated;
        self.row_filter |= other.row_filter;
        self.columns = match (self.columns.take(), other.columns) {
            (Some(mine), Some(theirs)) => Some(mine.intersection(&theirs).cloned().collect()),
            (mine, theirs) => mine.or(theirs),
        };
    }
}

/// Returns which of the two publications a table goes into.
pub(crate) fn publication_of(name: &str, table: &Table) -> String {
    if table.replica_identity == ReplicaIdentity::None { inserts_name(name) } else { name.to_owned() }
}

/// Returns the publication for tables without a replica identity: publishing their updates would make them fail in the
/// application.
fn inserts_name(name: &str) -> String {
    const SUFFIX: &str = "_inserts";
    if name.len() + SUFFIX.len() <= LONGEST_NAME {
        return format!("{name}{SUFFIX}");
    }
    // The server would cut it. Of what is cut here a hash (FNV-1a) stays, which is the same in every run and release.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let tail = format!("_{hash:08x}{SUFFIX}");
    let kept = (0..=LONGEST_NAME - tail.len()).rev().find(|&end| name.is_char_boundary(end)).unwrap_or_default();
    format!("{}{tail}", &name[..kept])
}

/// The longest name in bytes that the server does not cut.
const LONGEST_NAME: usize = 63;

/// Returns the SQL that publishes these tables: creates the publications that `existing` lacks and adds to the others.
///
/// Tables without a replica identity go into `<name>_inserts`. Before PostgreSQL 13, which publishes no partitioned table,
/// its leaves are named instead.
pub(crate) async fn publish_sql(
    client: &Client,
    name: &str,
    existing: &Publications,
    tables: &[&Table],
) -> Result<Vec<String>> {
    let version = client.server_version();
    let mut statements = Vec::new();
    for (publication, identified) in [(name.to_owned(), true), (inserts_name(name), false)] {
        let mut targets = Vec::new();
        for table in tables.iter().filter(|t| (t.replica_identity != ReplicaIdentity::None) == identified) {
            if table.kind == TableKind::Partitioned && !version.publishes_partitioned() {
                let leaves = leaves(client, table.oid).await?;
                let missing = leaves.iter().filter(|leaf| !existing.tables.contains_key(&leaf.oid));
                targets.extend(missing.map(Leaf::qualified));
            } else {
                targets.push(member(table));
            }
        }
        let exists = existing.names.contains(&publication);
        let mut settings = Vec::new();
        if !identified {
            settings.push(format!("publish = '{}'", version.insert_operations()));
        }
        if version.publishes_partitioned() {
            settings.push("publish_via_partition_root = true".to_owned());
        }
        let ident = quote::ident(&publication);
        let with = if settings.is_empty() { String::new() } else { format!(" WITH ({})", settings.join(", ")) };
        match (exists, targets.is_empty()) {
            (true, true) => {}
            (true, false) => statements.push(format!("ALTER PUBLICATION {ident} ADD TABLE {}", targets.join(", "))),
            (false, false) => {
                statements.push(format!("CREATE PUBLICATION {ident} FOR TABLE {}{with}", targets.join(", ")))
            }
            // Both are made at once, though one be empty: a slot can't see a publication that is younger than what it
            // has still to decode, so that a table added later would find no place.
            (false, true) if !existing.names.iter().any(|known| known == name) => {
                statements.push(format!("CREATE PUBLICATION {ident}{with}"));
            }
            (false, true) => {}
        }
    }
    Ok(statements)
}

/// Runs the statements of [`publish_sql`].
pub(crate) async fn publish(client: &Client, statements: &[String]) -> Result<()> {
    for sql in statements {
        client.batch_execute(sql).await.map_err(|e| {
            query_error("cannot set up the publication", e)
                .hint(format!("as the owner of the tables {}", to_run(&[sql])))
        })?;
        tracing::info!("{sql}");
    }
    Ok(())
}

/// Returns the error for tables that nothing publishes, with the SQL that does.
pub(crate) fn unpublished(name: &str, tables: &[&Table], statements: &[String]) -> Error {
    let names: Vec<String> = tables.iter().map(|t| t.stream_id()).collect();
    Error::run(format!("the publication \"{name}\" does not publish the selected streams {}", names.join(", "))).hint(
        format!(
            "earlier changes were not published, so that the streams' bookmarks, if they have any, have to be removed for them \
             to be copied again; set create_replication_slot to true, which does it all, or as the owner of the tables {}",
            to_run(statements)
        ),
    )
}

/// A partition that holds rows.
pub(crate) struct Leaf {
    oid: u32,
    /// Its schema, which may be another than its root's.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl Leaf {
    /// Returns its name with its schema, quoted.
    pub(crate) fn qualified(&self) -> String {
        quote::qualified(&self.schema, &self.name)
    }
}

/// Returns the leaves of a partitioned table.
pub(crate) async fn leaves(client: &Client, root: u32) -> Result<Vec<Leaf>> {
    let sql = format!(
        "{} SELECT c.oid, n.nspname::text, c.relname::text FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'",
        with_tree("$1::oid")
    );
    let rows = client.query(&sql, &[&root]).await.map_err(|e| query_error("cannot list the partitions", e))?;
    rows.iter().map(|row| Ok(Leaf { oid: row.field(0)?, schema: row.field(1)?, name: row.field(2)? })).collect()
}
