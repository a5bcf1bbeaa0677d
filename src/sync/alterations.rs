//! What was altered of tables whose changes the log still holds as they were (rule 11).
//!
//! The log speaks of tables, columns, types and labels as they were; the tap knows them as they are. Whether the two may differ
//! can be told: a row of a catalog that concerns the table was written by a transaction that is not older than the slot's
//! `catalog_xmin`. A false alarm costs look-ups, or a warning.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::Result;
use crate::pg::ServerVersion;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote::literal;
use crate::pg::row::Fields as _;
use crate::positions::TransactionSnapshot;
use crate::state::Definition;
use crate::sync::visibility::{settled, wait_visible};

/// The most ids of writers that a bookmark lists.
const MANY_WRITERS: usize = 64;

/// What was altered of a table since a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Altered {
    table: u32,
    /// The selected tables that it is, or is a partition of.
    streams: Vec<u32>,
    /// Its name, quoted.
    pub name: String,
    /// What was altered, and by which transactions.
    facts: Vec<Fact>,
    /// The transaction that made it a partition, if it was a table of its own before.
    attached_by: Option<u32>,
    /// What tells in later runs whether it was altered.
    pub definition: Definition,
}

/// Something that a transaction altered.
#[derive(Clone, Debug)]
struct Fact {
    what: What,
    by: u32,
    /// The column that it is of.
    column: String,
    /// Whether a run knew of it that its bookmark is past. Changes from before it may come all the same, of a transaction that was open
    /// then: what renames a label of an enum, or a schema, does not wait for who writes to the table.
    told: bool,
}

/// What can be altered; see `alterations.sql`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A column.
    Column,
    /// A type of a column.
    Type,
    /// The table's name or schema.
    Name,
    /// The schema's name.
    Schema,
    /// The table was made.
    Created,
    /// The key.
    Key,
    /// Its rows are in another file than they were in: it was truncated, rewritten, or unlogged for a while.
    File,
    /// It became a partition after it was made.
    Attached,
    /// Its place in a publication, or what that publishes.
    Published,
}

impl What {
    fn parse(word: &str) -> Option<What> {
        Some(match word {
            "column" => What::Column,
            "type" => What::Type,
            "moved" => What::Name,
            "schema" => What::Schema,
            "created" => What::Created,
            "key" => What::Key,
            "file" => What::File,
            "attached" => What::Attached,
            "published" => What::Published,
            _ => return None,
        })
    }

    /// Whether it takes a lock that waits for whoever writes to the table, so that no open transaction has changes from before it.
    fn waits_for_writers(self) -> bool {
        !matches!(self, What::Type | What::Schema)
    }

    /// Whether it made the table, or a partition of it.
    fn is_of_birth(self) -> bool {
        matches!(self, What::Created | What::Attached)
    }
}

/// What was altered of the selected tables and their partitions.
#[derive(Clone, Debug)]
pub(crate) struct Alterations {
    /// By oid.
    tables: HashMap<u32, Altered>,
    /// The selected tables, each with what a run has known before.
    selected: Vec<(u32, Option<Definition>)>,
    /// The tables of each selected one, itself included.
    trees: HashMap<u32, Vec<u32>>,
    /// The publications that decide what is sent.
    publications: Vec<String>,
    /// The oldest transaction that counts.
    pub since: u32,
    /// A snapshot that sees no more than what is here.
    pub seen: TransactionSnapshot,
}

impl Alterations {
    /// Reads what was altered since the place in the log that a slot needs: before anything is acknowledged, and after the tables
    /// were described and published. Beside each table is what a run has seen of it that its bookmark is past, if that is known.
    pub(crate) async fn since_slot(
        client: &Client,
        slot: &str,
        tables: &[(u32, Option<Definition>)],
        publications: &[String],
    ) -> Result<Alterations> {
        let seen = wait_visible(client, std::iter::empty()).await?;
        let sql = "SELECT catalog_xmin::text FROM pg_catalog.pg_replication_slots WHERE slot_name::text = $1";
        let row = client.query_opt(sql, &[&slot]).await.map_err(|e| query_error("cannot read the slot", e))?;
        let since = match row {
            Some(row) => row.field::<Option<&str>>(0)?.and_then(|xid| xid.parse().ok()),
            None => None,
        };
        let since = since.unwrap_or_else(|| seen.oldest());
        Alterations::read(client, tables.to_vec(), publications, since, seen).await
    }

    /// Reads what was altered of tables by now, by transactions that are not older than the one with the id `since`. What the
    /// definition beside a table knows of is past for it: the changes from before it are not wanted any more.
    async fn read(
        client: &Client,
        selected: Vec<(u32, Option<Definition>)>,
        publications: &[String],
        since: u32,
        seen: TransactionSnapshot,
    ) -> Result<Alterations> {
        let sql = question(client.server_version(), &selected, publications, since);
        let rows = client.query_often(&sql, &[], "cannot read what was altered").await?;
        let past: HashMap<u32, &Definition> =
            selected.iter().filter_map(|(oid, known)| Some((*oid, known.as_ref()?))).collect();
        let short = seen.short();
        let mut tables: HashMap<u32, Altered> = HashMap::with_capacity(rows.len());
        let mut trees: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut known: HashMap<u32, BTreeSet<u32>> = HashMap::new();
        for row in &rows {
            let (stream, what, by): (u32, Vec<&str>, Vec<i64>) = (row.field(0)?, row.field(3)?, row.field(4)?);
            let (table, columns): (u32, Vec<String>) = (row.field(1)?, row.field(5)?);
            let known_by = |by: u32| past.get(&stream).filter(|known| known.knows_of(by));
            let is_past = |what: What, by: u32| {
                known_by(by).is_some_and(|known| what.waits_for_writers() || known.seen.is_behind(by))
            };
            // What is in the catalogs has committed, whatever the snapshot says.
            known
                .entry(stream)
                .or_default()
                .extend(by.iter().map(|by| *by as u32).filter(|by| !short.sees_writer(*by)));
            let facts = what.iter().zip(by).zip(columns).filter_map(|((what, by), column)| {
                let (what, by) = (What::parse(what)?, by as u32);
                (!is_past(what, by)).then_some(Fact { what, by, column, told: known_by(by).is_some() })
            });
            let (name, created, columns, key) = (row.field(2)?, row.field(6)?, row.field(8)?, row.field(9)?);
            let attached_by = row.field::<Option<i64>>(7)?.map(|by| by as u32);
            let altered = tables.entry(table).or_insert_with(|| Altered {
                table,
                streams: Vec::new(),
                name,
                facts: Vec::new(),
                attached_by,
                definition: Definition { created, columns, key, partitions: 0, seen: short.clone(), known: Vec::new() },
            });
            altered.streams.push(stream);
            altered.facts.extend(facts);
            trees.entry(stream).or_default().push(table);
        }
        for (stream, tree) in &trees {
            // Of many, a bookmark would get long: of those the next run is told again.
            let known = known.remove(stream).filter(|known| known.len() <= MANY_WRITERS).unwrap_or_default();
            let is_known = |by: u32| short.sees_writer(by) || known.contains(&by);
            let is_seen = |part: &&Altered| part.facts.iter().all(|fact| !fact.what.is_of_birth() || is_known(fact.by));
            let parts =
                tree.iter().filter(|table| *table != stream).filter_map(|table| tables.get(table)).filter(is_seen);
            let partitions = parts.map(|part| i64::from(part.table)).sum();
            if let Some(altered) = tables.get_mut(stream) {
                (altered.definition.partitions, altered.definition.known) = (partitions, known.into_iter().collect());
            }
        }
        let publications = publications.to_vec();
        Ok(Alterations { tables, selected, trees, publications, since, seen })
    }

    /// Reads the same by now, where a snapshot sees no more than what there is to read.
    pub(crate) async fn again(&self, client: &Client, seen: TransactionSnapshot) -> Result<Alterations> {
        Alterations::read(client, self.selected.clone(), &self.publications, self.since, seen).await
    }

    /// Reads what of the same tables was altered after a snapshot. What was past for this is past for that, too.
    pub(crate) async fn after(&self, client: &Client, snapshot: &TransactionSnapshot) -> Result<Alterations> {
        Alterations::read(client, self.selected.clone(), &self.publications, snapshot.oldest(), snapshot.clone()).await
    }

    /// Whether the tables have still the names and columns that they had.
    pub(crate) async fn still_hold(&self, client: &Client) -> Result<bool> {
        if settled(client, &self.tables()).await?.is_none() {
            return Ok(false);
        }
        let now = self.after(client, &self.seen).await?;
        let is_other =
            |(table, _): &(u32, _)| now.moved_after(*table, &self.seen) || now.columns_after(*table, &self.seen);
        Ok(!self.selected.iter().any(is_other))
    }

    /// Returns what is known of a table.
    pub(crate) fn of(&self, table: u32) -> Option<&Altered> {
        self.tables.get(&table)
    }

    /// Returns the definition of a table for a bookmark that lies where the slot does: no more than what the slot is past counts as
    /// known.
    pub(crate) fn definition_at_slot(&self, table: u32) -> Option<Definition> {
        let seen = self.seen.before(self.since);
        let partitions = self.partitions(table, |by| seen.sees_writer(by));
        Some(Definition { partitions, seen: seen.clone(), known: Vec::new(), ..self.of(table)?.definition.clone() })
    }

    /// Returns why rows that a copy has sent, or will not see, may be others than the log tells, if that is so: what of a table was
    /// altered since the copy began, with this definition.
    pub(crate) fn why_copy_anew(&self, table: u32, began: &Definition) -> Option<&'static str> {
        let came = |what: What| {
            let mut facts = self.of_stream(table).flat_map(|part| &part.facts);
            facts.any(|fact| fact.what == what && !began.knows_of(fact.by))
        };
        if self.of(table)?.has_other_columns(Some(began)) {
            return Some("columns were added or altered");
        }
        if came(What::Attached) {
            return Some("a partition was attached");
        }
        came(What::Published).then_some("its place in the publication, or what that publishes, was altered")
    }

    /// Returns the tables, partitions included.
    pub(crate) fn tables(&self) -> Vec<u32> {
        self.tables.keys().copied().collect()
    }

    /// Returns what is known of a selected table and its partitions.
    pub(crate) fn of_stream(&self, table: u32) -> impl Iterator<Item = &Altered> {
        self.trees.get(&table).into_iter().flatten().filter_map(|table| self.tables.get(table))
    }

    /// Whether a table is a selected one, or was below it.
    pub(crate) fn has_part(&self, stream: u32, table: u32) -> bool {
        self.trees.get(&stream).is_some_and(|tree| tree.contains(&table))
    }

    /// Whether partitions are missing that a selected table had when a run knew this definition of it.
    pub(crate) fn lacks_partitions(&self, table: u32, known: &Definition) -> bool {
        let Some(now) = self.of(table).filter(|now| known.is_of_the_same_making(&now.definition)) else { return false };
        // What the run can't have seen came since; an id from before the last wrap of ids may look younger than it can be.
        let came = |by: u32| self.seen.sees(by) && !known.knows_of(by);
        self.partitions(now.table, |by| !came(by)) != known.partitions
    }

    /// Returns the sum of the oids of a table's partitions that came by transactions of which this is so.
    fn partitions(&self, table: u32, counts: impl Fn(u32) -> bool) -> i64 {
        let parts = self.of_stream(table).filter(|part| part.table != table && part.came_by().all(&counts));
        parts.map(|part| i64::from(part.table)).sum()
    }

    /// Returns the columns of a table that may have been others.
    pub(crate) fn columns(&self, table: u32) -> HashSet<String> {
        self.of(table).into_iter().flat_map(Altered::columns).map(str::to_owned).collect()
    }

    /// Whether a table may have had another name, or its name have been another table's; `None` if it is not among these. A
    /// selected table that was made since may not: what was written under its name before is older than its copy.
    pub(crate) fn name(&self, table: u32) -> Option<bool> {
        self.of(table).map(Altered::has_another_name)
    }

    /// Whether changes of the stream may stand in the log under other names than those of its tables, or under theirs those of
    /// others.
    pub(crate) fn names_of(&self, stream: u32) -> bool {
        self.of_stream(stream).any(Altered::has_another_name)
    }

    /// Whether changes of any stream may stand in the log under names that its tables do not have.
    pub(crate) fn any_moved(&self) -> bool {
        self.tables.values().any(Altered::is_moved)
    }

    /// Whether the stream's tables got names that a snapshot does not see.
    pub(crate) fn moved_after(&self, stream: u32, snapshot: &TransactionSnapshot) -> bool {
        let is_new = |fact: &Fact| !fact.told && !snapshot.sees_writer(fact.by);
        self.of_stream(stream).any(|altered| altered.facts_of_name().any(is_new))
    }

    /// Whether the table's columns are others than a snapshot sees.
    pub(crate) fn columns_after(&self, table: u32, snapshot: &TransactionSnapshot) -> bool {
        let is_new = |fact: &Fact| !fact.told && !snapshot.sees_writer(fact.by);
        self.of(table).is_some_and(|altered| altered.facts_of_columns().any(is_new))
    }
}

/// Returns the query. A run asks the same again and again, and planning it takes ten times what it takes: what it asks of is
/// written into it, since a query with parameters is planned for those of each time.
fn question(
    version: ServerVersion,
    selected: &[(u32, Option<Definition>)],
    publications: &[String],
    since: u32,
) -> String {
    let tables: Vec<String> = selected.iter().map(|(oid, _)| oid.to_string()).collect();
    let publications: Vec<String> = publications.iter().map(|name| literal(name)).collect();
    include_str!("alterations.sql")
        .replace("{of_schema}", version.publication_of_schema())
        .replace("{tables}", &format!("'{{{}}}'::oid[]", tables.join(",")))
        .replace("{since}", &format!("'{since}'::xid"))
        .replace("{publications}", &format!("ARRAY[{}]::text[]", publications.join(",")))
}

impl Altered {
    /// Whether there is a fact that no run has known of.
    fn has(&self, what: What) -> bool {
        self.facts.iter().any(|fact| fact.what == what && !fact.told)
    }

    /// Returns the transactions that made it, and that made it a partition.
    fn came_by(&self) -> impl Iterator<Item = u32> {
        [Some(self.definition.created as u32), self.attached_by].into_iter().flatten()
    }

    fn facts_of_columns(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| matches!(fact.what, What::Column | What::Type))
    }

    fn facts_of_name(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| matches!(fact.what, What::Name | What::Schema))
    }

    fn columns(&self) -> impl Iterator<Item = &str> {
        self.facts_of_columns().map(|fact| fact.column.as_str())
    }

    fn is_moved(&self) -> bool {
        self.facts_of_name().next().is_some()
    }

    fn has_another_name(&self) -> bool {
        self.is_moved() || (self.has(What::Created) && self.streams.iter().any(|stream| *stream != self.table))
    }

    /// Returns the columns that were altered, each once.
    pub(crate) fn altered_columns(&self) -> Vec<&str> {
        let new = self.facts_of_columns().filter(|fact| !fact.told);
        let mut columns: Vec<&str> = new.map(|fact| fact.column.as_str()).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Whether its rows are in another file than they were in.
    pub(crate) fn has_other_file(&self) -> bool {
        self.has(What::File)
    }

    /// Whether it became a partition after it was made, so that its rows of before are in no log of its root.
    pub(crate) fn was_attached(&self) -> bool {
        self.has(What::Attached)
    }

    /// Whether changes of it may not have been published for a while.
    pub(crate) fn was_published_anew(&self) -> bool {
        self.has(What::Published)
    }

    /// Whether rows in the target may have another key than in the table. `bookmark`: the definition that a run knew, if one did.
    pub(crate) fn has_another_key(&self, bookmark: Option<&Definition>) -> bool {
        match bookmark {
            Some(known) => known.is_of_the_same_making(&self.definition) && known.key != self.definition.key,
            None => self.has(What::Key) && !self.has(What::Created),
        }
    }

    /// Whether the columns were altered since a run with this definition.
    pub(crate) fn has_other_columns(&self, bookmark: Option<&Definition>) -> bool {
        match bookmark {
            Some(known) => known.is_of_the_same_making(&self.definition) && known.columns != self.definition.columns,
            None => self.columns().next().is_some(),
        }
    }
}
