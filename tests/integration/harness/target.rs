//! A model of a good SQL target: what a warehouse holds after a tap's messages.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::compare::canonical;
use super::database::TestDb;
use super::messages::Message;

type Row = Map<String, Value>;

/// Tables by stream.
#[derive(Default)]
pub(crate) struct Target {
    tables: BTreeMap<String, Table>,
}

#[derive(Default)]
struct Table {
    key: Vec<String>,
    /// By key, with the version that each came under; without a key by their number.
    rows: BTreeMap<String, (Option<u64>, Row)>,
    appended: u64,
}

impl Target {
    /// Takes the messages of a run: a record replaces the row of the same key or is appended where there is no key, a
    /// record that tells of a delete removes it, ACTIVATE_VERSION removes what older versions left.
    #[track_caller]
    pub(crate) fn apply(&mut self, messages: &[Message]) {
        for message in messages {
            match message {
                Message::Schema(schema) => {
                    self.tables.entry(schema.stream.clone()).or_default().key = schema.key_properties.clone();
                }
                Message::Record(record) => self.table(&record.stream).record(&record.record, record.version),
                Message::ActivateVersion { stream, version } => {
                    self.table(stream).rows.retain(|_, (of, _)| *of == Some(*version));
                }
                Message::Batch(batch) => {
                    for record in batch.records() {
                        let version = record["_sdc_table_version"].as_u64();
                        self.table(&batch.stream).record(&record, version);
                    }
                }
                Message::State(_) => {}
            }
        }
    }

    /// Takes the messages up to the last STATE, as a target does that dies with the rest in its hands. Returns that STATE.
    #[track_caller]
    pub(crate) fn apply_confirmed(&mut self, messages: &[Message]) -> Option<Value> {
        let last = messages.iter().rposition(Message::is_state)?;
        self.apply(&messages[..last]);
        messages[last].as_state().cloned()
    }

    #[track_caller]
    fn table(&mut self, stream: &str) -> &mut Table {
        self.tables.get_mut(stream).unwrap_or_else(|| panic!("no SCHEMA of {stream}"))
    }

    /// Each of these tables of the schema public has the rows of its stream here, each as often: no row is missing, none is
    /// there twice, none that the source has deleted.
    #[track_caller]
    pub(crate) fn assert_holds(&self, db: &TestDb, tables: &[&str]) {
        for table in tables {
            assert_rows(table, &self.rows(&format!("public-{table}")), &source_rows(db, table));
        }
    }

    /// The rows of a stream without the tap's own columns, in an order that depends on nothing but them.
    #[track_caller]
    pub(crate) fn rows(&self, stream: &str) -> Vec<String> {
        let table = self.tables.get(stream).unwrap_or_else(|| panic!("no SCHEMA of {stream}"));
        let mut rows: Vec<String> = table.rows.values().map(|(_, row)| row_text(row)).collect();
        rows.sort_unstable();
        rows
    }
}

impl Table {
    fn record(&mut self, record: &Row, version: Option<u64>) {
        let deleted = record.get("_sdc_deleted_at").is_some_and(|time| !time.is_null());
        let key = if self.key.is_empty() {
            self.appended += 1;
            self.appended.to_string()
        } else {
            self.key.iter().map(|column| canonical(&record[column])).collect::<Value>().to_string()
        };
        // A column that is absent becomes NULL, as in targets that load by MERGE.
        if deleted {
            self.rows.remove(&key);
        } else {
            self.rows.insert(key, (version, record.clone()));
        }
    }
}

/// The rows of a table as [`Target::rows`] has them of its stream.
#[track_caller]
pub(crate) fn source_rows(db: &TestDb, table: &str) -> Vec<String> {
    let rows = db.query(&format!("select to_jsonb(t) from {table} t"));
    let text = |row: &Vec<Option<String>>| {
        row_text(&serde_json::from_str(row[0].as_deref().expect("a row")).expect("an object"))
    };
    let mut rows: Vec<String> = rows.iter().map(text).collect();
    rows.sort_unstable();
    rows
}

/// Fails unless both hold the same rows, each as often; both are in order.
#[track_caller]
pub(crate) fn assert_rows(what: &str, found: &[String], expected: &[String]) {
    if found != expected {
        let shown = |rows: Vec<&str>| -> Vec<String> {
            rows.iter().take(5).map(|row| row.chars().take(200).collect()).collect()
        };
        let (missing, wrong) = (without(expected, found), without(found, expected));
        panic!(
            "{what}: {} rows rather than {}; {} are missing, {} are wrong: {:#?} {:#?}",
            found.len(),
            expected.len(),
            missing.len(),
            wrong.len(),
            shown(missing),
            shown(wrong)
        );
    }
}

/// What the first has and the second has not, both in order, each as often as it stands there.
fn without<'a>(of: &'a [String], others: &[String]) -> Vec<&'a str> {
    let mut others = others.iter().peekable();
    let mut rest = Vec::new();
    for row in of {
        while others.next_if(|other| *other < row).is_some() {}
        if others.next_if(|other| *other == row).is_none() {
            rest.push(row.as_str());
        }
    }
    rest
}

/// A row in one spelling, without the tap's own columns and without NULLs.
pub(crate) fn row_text(row: &Row) -> String {
    let columns = row.iter().filter(|(name, value)| !name.starts_with("_sdc_") && !value.is_null());
    let row: Row = columns.map(|(name, value)| (name.clone(), value.clone())).collect();
    canonical(&Value::Object(row)).to_string()
}
