//! Which values of a table's rows are which columns of a stream, and what a row shows of a table that changed.

use std::collections::HashSet;

use crate::pg::table::{ReplicaIdentity, TableKind};
use crate::replication::{Tuple, Value};
use crate::sync::output::{Key, Lead};
use crate::sync::plan::StreamPlan;
use crate::sync::stream::live::Live;

/// A row change: at least one of the rows is there.
#[derive(Clone, Copy)]
pub(crate) struct RowChange<'t> {
    pub old: Option<Tuple<'t>>,
    pub new: Option<Tuple<'t>>,
}

/// A column of a relation.
pub(crate) struct Column {
    pub name: Box<str>,
    /// Whether old rows have its value.
    pub identity: bool,
    /// None where the log has names only.
    pub type_oid: Option<u32>,
}

/// What the values of a relation's rows are to a stream.
#[derive(Debug)]
pub(crate) struct Shape {
    /// For each value the plan's column, or `None` where it is not selected.
    pub columns: Vec<Option<usize>>,
    /// For each value whether it is part of the replica identity.
    pub identity: Vec<bool>,
    /// Columns of the plan that the relation has not.
    pub absent: Vec<usize>,
    /// For each column of the key its value's place; `None` where one has none.
    pub keys: Option<Vec<usize>>,
    /// The same of the unique index that is the replica identity, where that is not the key.
    index: Option<Vec<usize>>,
    /// For each value whether the log says that it is of the type that the column has now.
    of_type: Vec<bool>,
    /// For each value whether it may be of another column, or of another type, in a transaction of the past.
    altered: Vec<bool>,
    /// How a row may show that the table is another than it is described as, where the log has names only.
    signs: Option<Signs>,
}

/// What a row has, or lacks, if the table is another than it is described as.
#[derive(Debug)]
struct Signs {
    /// Values of columns that the table is not known to have.
    strangers: Vec<usize>,
    /// Whether an insert lacks a selected column; the log may leave out what the table computes.
    lacks: bool,
    /// The identity that the table is known to have; `None` where rows may have several.
    identity: Option<Identity>,
}

/// The columns of a replica identity.
#[derive(Debug)]
struct Identity {
    /// For each value whether it is one of them.
    values: Vec<bool>,
    /// Whether there is a value for each of them.
    whole: bool,
}

impl Shape {
    /// Works out what the rows of a relation with these columns are to a stream. `by_name`: the log has names only. `altered`:
    /// columns of the relation that may have been others in the past; those of the stream's own table are known.
    pub(crate) fn new(live: &Live, columns: &[Column], by_name: bool, altered: &HashSet<String>) -> Shape {
        let plan = &live.plan;
        let positions: Vec<Option<usize>> = columns.iter().map(|column| plan.position(&column.name)).collect();
        let of_type = |column: &Column| {
            let known = plan.table.column(&column.name);
            known.is_some_and(|known| column.type_oid == Some(known.ty.oid))
        };
        let key = |name: &String| {
            let column = plan.position(name);
            column.and_then(|_| positions.iter().position(|position| *position == column))
        };
        let place = |name: &String| columns.iter().position(|column| *column.name == **name);
        Shape {
            identity: columns.iter().map(|column| column.identity).collect(),
            absent: (0..plan.columns.len()).filter(|at| !positions.contains(&Some(*at))).collect(),
            keys: plan.key_properties.iter().map(key).collect(),
            index: unique_index(plan).and_then(|index| index.iter().map(place).collect()),
            of_type: columns.iter().map(of_type).collect(),
            altered: columns
                .iter()
                .map(|column| live.was_altered(&column.name) || altered.contains(&*column.name))
                .collect(),
            signs: by_name.then(|| Signs::new(live, columns)),
            columns: positions,
        }
    }

    /// Whether a row that stands under another name, or under this one, may be one of the stream's: it has columns that lead to a
    /// row, of a stream without a key all columns. An update that left a key alone that is stored out of line shows nothing of it, nor
    /// does one from before a column of the key had its name: then the row is taken for one of the stream's if it has the name, or no column that the table has not.
    pub(crate) fn may_be_of(&self, live: &Live, has_name: bool) -> bool {
        let plan = &live.plan;
        let may_lack = |name: &String| {
            let is_absent = plan.position(name).is_some_and(|column| self.absent.contains(&column));
            let is_fixed = plan.table.column(name).is_some_and(|column| column.ty.has_fixed_length());
            !is_absent || !is_fixed || live.was_altered(name)
        };
        let has_only_known = || self.signs.as_ref().is_some_and(|signs| signs.strangers.is_empty());
        match self.keys.as_deref() {
            Some([]) => self.absent.iter().all(|&column| plan.columns[column].generated),
            Some(_) => true,
            None if self.index.as_ref().is_some_and(|index| !index.is_empty()) => true,
            None => plan.key_properties.iter().all(may_lack) && (has_name || has_only_known()),
        }
    }

    /// Whether the value here may be of another column, or of another type, in a transaction of the past.
    pub(crate) fn was_altered(&self, index: usize) -> bool {
        self.altered[index]
    }

    /// Whether the log says that the value here is of the type that the column has now.
    pub(crate) fn of_type(&self, index: usize) -> bool {
        self.of_type[index]
    }

    /// Returns what leads to the row that a change left behind: the key, else the unique index that is the replica identity;
    /// from wherever it stands whole. `None` if nothing does.
    pub(crate) fn lead(&self, plan: &StreamPlan, change: &RowChange<'_>) -> Option<(Lead, Key)> {
        let value = |&index: &usize| {
            let new = change.new.as_ref().and_then(|new| new.value(index));
            let old = || change.old.filter(|old| self.has(old, index)).and_then(|old| old.value(index));
            let value = new.filter(|new| *new != Value::Unchanged).or_else(old)?;
            let Value::Text(text) = value else { return None };
            let codec = self.columns[index].map(|column| &plan.columns[column].codec);
            Some(codec.map_or_else(|| text.to_vec(), |codec| codec.as_printed(text)))
        };
        let of = |places: &Option<Vec<usize>>| {
            let places = places.as_ref().filter(|places| !places.is_empty())?;
            places.iter().map(value).collect::<Option<Key>>()
        };
        let by_key = of(&self.keys).map(|key| (Lead::Key, key));
        by_key.or_else(|| of(&self.index).map(|key| (Lead::Identity, key)))
    }

    /// Returns the key of an old row, which is [identified](Self::identifies).
    pub(crate) fn key_of(&self, plan: &StreamPlan, old: &Tuple<'_>) -> Option<Key> {
        match self.lead(plan, &RowChange { old: Some(*old), new: None })? {
            (Lead::Key, key) => Some(key),
            (Lead::Identity, _) => None,
        }
    }

    /// Whether an old row has the value here: outside of the identity pgoutput fills in NULL.
    pub(crate) fn has(&self, old: &Tuple<'_>, index: usize) -> bool {
        self.identity[index] && old.has(index)
    }

    /// Whether an old row says which row of the target is meant: it has every key column, and something where there is no
    /// key.
    pub(crate) fn identifies(&self, old: &Tuple<'_>) -> bool {
        match self.keys.as_deref() {
            Some([]) => (0..self.columns.len()).any(|index| self.columns[index].is_some() && self.has(old, index)),
            Some(keys) => keys.iter().all(|&index| self.has(old, index)),
            None => false,
        }
    }

    /// Whether a row shows that the table is another than it is described as.
    pub(crate) fn is_contradicted(&self, change: &RowChange<'_>) -> bool {
        let Some(signs) = &self.signs else { return false };
        let has_stranger =
            |tuple: &Option<Tuple<'_>>| signs.strangers.iter().any(|&at| tuple.is_some_and(|tuple| tuple.has(at)));
        (signs.lacks && change.old.is_none())
            || has_stranger(&change.new)
            || has_stranger(&change.old)
            || change.old.is_some_and(|old| signs.identity.as_ref().is_some_and(|identity| !identity.is_that_of(&old)))
    }
}

/// Returns the columns of the unique index that is the replica identity, where that leads to a row. Its columns are never NULL.
pub(crate) fn unique_index(plan: &StreamPlan) -> Option<&[String]> {
    match &plan.table.replica_identity {
        // Those of a partitioned table are what its leaves have in common.
        ReplicaIdentity::Columns(columns) if plan.table.kind != TableKind::Partitioned => Some(columns),
        _ => None,
    }
}

impl Signs {
    fn new(live: &Live, columns: &[Column]) -> Signs {
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        let is_stranger = |at: &usize| !live.knows(names[*at].as_bytes());
        let table = &live.plan.table;
        let identity = match &table.replica_identity {
            // Each leaf has an identity of its own.
            ReplicaIdentity::Columns(columns) if table.kind != TableKind::Partitioned => Some(Identity {
                values: names.iter().map(|name| columns.iter().any(|column| column == name)).collect(),
                whole: columns.iter().all(|column| names.contains(&column.as_str())),
            }),
            _ => None,
        };
        Signs {
            strangers: (0..names.len()).filter(is_stranger).collect(),
            lacks: live.plan.columns.iter().any(|column| !column.generated && !names.contains(&column.name.as_str())),
            identity,
        }
    }
}

impl Identity {
    /// Whether an old row has values of these columns and of no others.
    fn is_that_of(&self, old: &Tuple<'_>) -> bool {
        self.whole && self.values.iter().enumerate().all(|(at, expected)| old.has(at) == *expected)
    }
}
