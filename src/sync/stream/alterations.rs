//! What was altered of tables whose changes the log still holds as they were (rule 11).
//!
//! The log speaks of tables, columns, types and labels as they were; the tap knows them as they are. Whether the two may differ
//! can be told: a row of a catalog that concerns the table was written by a transaction that is not older than the slot's
//! `catalog_xmin`. A false alarm costs look-ups, nothing else.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::positions::TransactionSnapshot;
use crate::state::Definition;
use crate::sync::visibility::wait_visible;

/// What was altered of a table since a transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Altered {
    table: u32,
    /// The selected tables that it is, or is a partition of.
    streams: Vec<u32>,
    /// Its name, quoted.
    pub name: String,
    /// The transactions that altered columns, or types of columns, by their ids.
    columns_by: Vec<u32>,
    /// Such columns.
    pub columns: Vec<String>,
    /// The transactions that gave it its name or schema, or the schema its name; not the one that made it.
    moved_by: Vec<u32>,
    /// Whether it was made since.
    created: bool,
    /// Whether its rows are in another file than they were in: it was truncated, rewritten, or unlogged for a while.
    pub other_file: bool,
    /// Whether it became a partition after it was made, so that its rows of before are in no log of its root.
    pub attached: bool,
    /// Whether the key was made, or may have got other labels.
    key: bool,
    /// What tells in later runs whether it was altered.
    pub definition: Definition,
}

/// What was altered of the selected tables and their partitions.
#[derive(Clone, Debug)]
pub(crate) struct Alterations {
    /// By oid.
    tables: HashMap<u32, Altered>,
    /// The oldest transaction that counts.
    pub since: u32,
    /// A snapshot that sees no more than what is here.
    pub seen: TransactionSnapshot,
}

impl Alterations {
    /// Reads what was altered since the place in the log that a slot needs: before anything is acknowledged, and after the tables
    /// were described.
    pub(crate) async fn since_slot(client: &Client, slot: &str, tables: &[u32]) -> Result<Alterations> {
        let seen = wait_visible(client, std::iter::empty()).await?;
        let sql = "SELECT catalog_xmin::text FROM pg_catalog.pg_replication_slots WHERE slot_name::text = $1";
        let row = client.query_opt(sql, &[&slot]).await.map_err(|e| query_error("cannot read the slot", e))?;
        let since = match row {
            Some(row) => row.field::<Option<&str>>(0)?.and_then(|xid| xid.parse().ok()),
            None => None,
        };
        Alterations::read(client, tables, since.unwrap_or_else(|| seen.oldest()), seen).await
    }

    /// Reads what was altered by now, by transactions that are not older than the one with the id `since`.
    pub(crate) async fn read(
        client: &Client,
        tables: &[u32],
        since: u32,
        seen: TransactionSnapshot,
    ) -> Result<Alterations> {
        let rows = client
            .query(include_str!("alterations.sql"), &[&tables, &since.to_string()])
            .await
            .map_err(|e| query_error("cannot read what was altered", e))?;
        let xids = |xids: Vec<i64>| xids.into_iter().map(|xid| xid as u32).collect();
        let mut altered: HashMap<u32, Altered> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (stream, table): (u32, u32) = (row.field(0)?, row.field(1)?);
            if let Some(known) = altered.get_mut(&table) {
                known.streams.push(stream);
                continue;
            }
            let facts = Altered {
                table,
                streams: vec![stream],
                name: row.field(2)?,
                columns_by: xids(row.field(3)?),
                columns: row.field(4)?,
                moved_by: xids(row.field(5)?),
                created: row.field(6)?,
                other_file: row.field(7)?,
                attached: row.field(8)?,
                key: row.field(9)?,
                definition: Definition { created: row.field(10)?, columns: row.field(11)?, key: row.field(12)? },
            };
            altered.insert(table, facts);
        }
        Ok(Alterations { tables: altered, since, seen })
    }

    /// Returns what is known of a table.
    pub(crate) fn of(&self, table: u32) -> Option<&Altered> {
        self.tables.get(&table)
    }

    /// Returns what is known of a selected table and its partitions.
    pub(crate) fn of_stream(&self, table: u32) -> impl Iterator<Item = &Altered> {
        self.tables.values().filter(move |altered| altered.streams.contains(&table))
    }

    /// Returns the columns of a table that may have been others.
    pub(crate) fn columns(&self, table: u32) -> HashSet<String> {
        self.of(table).map(|altered| altered.columns.iter().cloned().collect()).unwrap_or_default()
    }

    /// Whether a table may have had another name. One that was made since and is a stream of its own has not: what was written
    /// under its name before is older than its copy.
    pub(crate) fn moved(&self, table: u32) -> bool {
        self.of(table).is_some_and(|altered| !altered.moved_by.is_empty())
    }

    /// Whether changes of the stream may stand in the log under other names than those of its tables, or under theirs those of
    /// others.
    pub(crate) fn names_of(&self, stream: u32) -> bool {
        self.of_stream(stream)
            .any(|altered| !altered.moved_by.is_empty() || (altered.created && altered.table != stream))
    }

    /// Whether changes of any stream may stand in the log under names that its tables do not have.
    pub(crate) fn any_moved(&self) -> bool {
        self.tables.values().any(|altered| !altered.moved_by.is_empty())
    }

    /// Whether the stream's tables got names that a snapshot does not see.
    pub(crate) fn moved_after(&self, stream: u32, snapshot: &TransactionSnapshot) -> bool {
        self.of_stream(stream).any(|altered| altered.moved_by.iter().any(|&xid| !snapshot.sees(xid)))
    }

    /// Whether the table's columns are others than a snapshot sees.
    pub(crate) fn columns_after(&self, table: u32, snapshot: &TransactionSnapshot) -> bool {
        self.of(table).is_some_and(|altered| altered.columns_by.iter().any(|&xid| !snapshot.sees(xid)))
    }
}

impl Altered {
    /// Whether rows in the target may have another key than in the table. `bookmark`: the definition that a run knew, if one did.
    pub(crate) fn has_another_key(&self, bookmark: Option<Definition>) -> bool {
        match bookmark {
            Some(known) => known.is_of_the_same_making(self.definition) && known.key != self.definition.key,
            None => self.key && !self.created,
        }
    }

    /// Whether the columns were altered since a run with this definition.
    pub(crate) fn has_other_columns(&self, bookmark: Option<Definition>) -> bool {
        match bookmark {
            Some(known) => known.is_of_the_same_making(self.definition) && known.columns != self.definition.columns,
            None => !self.columns.is_empty(),
        }
    }
}
