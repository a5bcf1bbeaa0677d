//! What the columns of each table were called in the messages so far.
//!
//! wal2json names the columns of every row. Nearly always they are those of the row before, or some of them: an update
//! leaves out unchanged out-of-line values, an old row has but the columns of the identity. Only what is new becomes a
//! [`Relation`].

use std::collections::HashMap;

use crate::replication::{Relation, RelationColumn, RelationId};

/// The tables that were named.
#[derive(Debug, Default)]
pub(super) struct KnownTables {
    tables: Vec<KnownTable>,
    /// Places, by schema and by name.
    by_name: HashMap<Box<[u8]>, Places>,
    /// The one that was asked for last: the next row is mostly of the same.
    last: usize,
}

type Places = HashMap<Box<[u8]>, usize>;

/// A table, with all columns that it may have.
#[derive(Debug)]
pub(super) struct KnownTable {
    id: RelationId,
    schema: String,
    name: String,
    columns: Vec<KnownColumn>,
    /// Whether a message had this relation.
    announced: bool,
}

/// A column's name, and how its values begin.
#[derive(Clone, Debug)]
pub(super) struct KnownColumn {
    /// Unescaped; what is not UTF-8, which a SQL_ASCII database may hold, is replaced.
    pub(super) name: String,
    /// `{"name":"id","value":` as it stood in the message, so that a value's column is found without reading its name.
    /// Empty if something else stood there too.
    pub(super) head: Vec<u8>,
}

impl KnownTables {
    /// Returns the place of a table that was named before.
    pub(super) fn find(&mut self, schema: &[u8], name: &[u8]) -> Option<usize> {
        let is_last = |table: &KnownTable| table.name.as_bytes() == name && table.schema.as_bytes() == schema;
        if !self.tables.get(self.last).is_some_and(is_last) {
            self.last = *self.by_name.get(schema)?.get(name)?;
        }
        Some(self.last)
    }

    /// Returns the place of a table, which may be new.
    pub(super) fn find_or_add(&mut self, schema: &str, name: &str) -> usize {
        if let Some(place) = self.find(schema.as_bytes(), name.as_bytes()) {
            return place;
        }
        let place = self.tables.len();
        self.tables.push(KnownTable {
            // A message has less than 4 GiB, and there are fewer tables than bytes of messages that are kept here.
            id: RelationId(place as u32),
            schema: schema.to_owned(),
            name: name.to_owned(),
            columns: Vec::new(),
            announced: false,
        });
        self.by_name.entry(schema.as_bytes().into()).or_default().insert(name.as_bytes().into(), place);
        self.last = place;
        place
    }

    /// Returns the table at this place.
    pub(super) fn get(&mut self, place: usize) -> &mut KnownTable {
        &mut self.tables[place]
    }
}

impl KnownTable {
    /// Returns the columns, in the order of the table as far as that shows.
    pub(super) fn columns(&self) -> &[KnownColumn] {
        &self.columns
    }

    /// Returns the number that changes name the table by.
    pub(super) fn id(&self) -> RelationId {
        self.id
    }

    /// Describes the table, if it is not as it was described last.
    pub(super) fn announce(&mut self) -> Option<Relation<'_>> {
        if std::mem::replace(&mut self.announced, true) {
            return None;
        }
        Some(Relation {
            id: self.id,
            oid: None,
            schema: &self.schema,
            name: &self.name,
            replica_identity: None,
            columns: self
                .columns
                .iter()
                .map(|column| RelationColumn { name: &column.name, key: true, ty: None })
                .collect(),
        })
    }

    /// Takes the columns that a row names. `whole`: the table has no others. Else those that it does not name stay, since
    /// two rows may leave out different ones in turn.
    pub(super) fn learn(&mut self, named: &[KnownColumn], whole: bool) {
        let absent = lacking(&self.columns, named);
        if !whole && !absent.is_empty() && lacking(named, &self.columns).is_empty() {
            return;
        }
        let mut columns = named.to_vec();
        for at in absent.into_iter().filter(|_| !whole) {
            // Behind the one that it stood behind.
            let before = at.checked_sub(1).map(|before| &self.columns[before].name);
            let place = before.and_then(|before| columns.iter().position(|column| column.name == *before));
            columns.insert(place.map_or(0, |place| place + 1), self.columns[at].clone());
        }
        let names = |columns: &[KnownColumn]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        self.announced &= names(&columns) == names(&self.columns);
        self.columns = columns;
    }
}

/// Returns the places of the columns that are not among others.
fn lacking(columns: &[KnownColumn], others: &[KnownColumn]) -> Vec<usize> {
    let mut others: Vec<&str> = others.iter().map(|column| column.name.as_str()).collect();
    let is_lacking = |place: &usize| match others.iter().position(|other| *other == columns[*place].name) {
        // One that stands there twice is two.
        Some(found) => {
            others.swap_remove(found);
            false
        }
        None => true,
    };
    (0..columns.len()).filter(is_lacking).collect()
}
