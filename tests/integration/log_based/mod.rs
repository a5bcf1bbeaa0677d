//! LOG_BASED, by its contract: what a target has in the end, what a record holds, where a run starts and stops, what is
//! acknowledged, and what is refused. Nearly every case runs with both plugins.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::harness::target::{Target, assert_rows, source_rows};
use crate::harness::{Catalog, Cluster, Message, Output, Running, Tap, TestDb, check_protocol};

mod acknowledge;
mod bookmarks;
mod bulk;
mod bulk_same;
mod copies;
mod copy_kills;
mod copy_races;
mod create;
mod ends;
mod enums;
mod failures;
mod generated;
mod hierarchies;
mod identities;
mod inheritance;
mod leaves_while_running;
mod looked_up;
mod model;
mod order;
mod partitions;
mod past;
mod positions;
mod publications;
mod records;
mod recreated;
mod refusals;
mod releases;
mod retyped;
mod rounds;
mod schema_changes;
mod secondary;
mod secondary_lag;
mod slices;
mod slot_lost;
mod slots;
mod snapshots;
mod sql_ascii;
mod toast;
mod toast_changes;
mod truncates;
mod two_phase;
mod two_taps;
mod upgrade;

/// Makes each of these functions two tests, one a plugin: `toast::fetched::pgoutput`.
macro_rules! with_both_plugins {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            #[test]
            fn pgoutput() {
                super::$case("pgoutput");
            }

            #[test]
            fn wal2json() {
                if crate::harness::plugins().contains(&"wal2json") {
                    super::$case("wal2json");
                }
            }
        })+
    };
}
pub(crate) use with_both_plugins;

/// A database with tables, the slot that the tap looks for, and a catalog in which some of the tables are selected.
pub(crate) struct Source {
    pub(crate) db: TestDb,
    pub(crate) slot: String,
    pub(crate) catalog: Catalog,
}

impl Source {
    /// On the shared server: no transaction of the test's may stay open.
    #[track_caller]
    pub(crate) fn new(plugin: &str, sql: &str, streams: &[&str]) -> Source {
        Source::on(&Cluster::shared(), plugin, sql, streams)
    }

    #[track_caller]
    pub(crate) fn on(cluster: &std::sync::Arc<Cluster>, plugin: &str, sql: &str, streams: &[&str]) -> Source {
        let db = TestDb::on(cluster, &format!("log_{plugin}"));
        db.psql(sql);
        let slot = db.replicate(plugin);
        Source::of(db, slot, streams)
    }

    /// Of a database that is set up already.
    #[track_caller]
    pub(crate) fn of(db: TestDb, slot: String, streams: &[&str]) -> Source {
        let catalog = select(Tap::new(&db).discover(), streams);
        Source { db, slot, catalog }
    }

    pub(crate) fn tap(&self) -> Tap {
        Tap::new(&self.db).catalog(&self.catalog)
    }

    #[track_caller]
    pub(crate) fn run(&self, state: &Value) -> Output {
        self.tap().state(state).run()
    }

    /// The state after the first run, which copies.
    #[track_caller]
    pub(crate) fn copied(&self) -> Value {
        self.tap().run().last_state().clone()
    }

    /// Runs after this SQL.
    #[track_caller]
    pub(crate) fn run_after(&self, sql: &str, state: &Value) -> Output {
        self.db.psql(sql);
        self.run(state)
    }

    pub(crate) fn confirmed_flush(&self) -> u64 {
        self.db.confirmed_flush(&self.slot)
    }

    /// Where the server's log ends.
    pub(crate) fn end(&self) -> u64 {
        self.db.lsn("pg_current_wal_insert_lsn()")
    }
}

/// Selects tables of the schema public as LOG_BASED.
#[track_caller]
pub(crate) fn select(catalog: Catalog, tables: &[&str]) -> Catalog {
    tables.iter().fold(catalog, |catalog, table| catalog.select(&format!("public-{table}"), "LOG_BASED"))
}

/// The position of a stream in a state.
#[track_caller]
pub(crate) fn lsn(state: &Value, table: &str) -> u64 {
    let lsn = &state["bookmarks"][format!("public-{table}")]["lsn"];
    lsn.as_u64().unwrap_or_else(|| panic!("lsn {lsn} of {table} in {state}"))
}

/// The bookmark of a table, to be changed.
fn bookmark<'a>(state: &'a mut Value, table: &str) -> &'a mut Map<String, Value> {
    state["bookmarks"][format!("public-{table}")].as_object_mut().expect("a bookmark")
}

/// A column of all records of a table, in order.
#[track_caller]
pub(crate) fn column(output: &Output, table: &str, column: &str) -> Vec<Value> {
    let records = output.records(&format!("public-{table}"));
    let value = |record: &&Map<String, Value>| {
        record.get(column).cloned().unwrap_or_else(|| panic!("{column} is absent in {record:?}"))
    };
    records.iter().map(value).collect()
}

/// The same as integers.
#[track_caller]
pub(crate) fn numbers(output: &Output, table: &str, name: &str) -> Vec<i64> {
    column(output, table, name).iter().map(|value| value.as_i64().expect("an integer")).collect()
}

/// A record of a table, whose only one it has to be.
#[track_caller]
fn only<'a>(output: &'a Output, table: &str) -> &'a Map<String, Value> {
    let records = output.records(&format!("public-{table}"));
    assert_eq!(records.len(), 1, "records of {table}: {records:?}");
    records[0]
}

/// Every record fits the SCHEMA that was last announced for its stream.
#[track_caller]
pub(crate) fn assert_fits(messages: &[Message]) {
    let mut schemas = std::collections::HashMap::new();
    for message in messages {
        match message {
            Message::Schema(schema) => {
                let validator = jsonschema::validator_for(&schema.schema).expect("a valid schema");
                schemas.insert(schema.stream.as_str(), (validator, &schema.schema));
            }
            Message::Record(record) => {
                let (validator, schema) = &schemas[record.stream.as_str()];
                let value = Value::Object(record.record.clone());
                assert!(validator.is_valid(&value), "{value} does not fit {schema}");
            }
            _ => {}
        }
    }
}

/// A target of these runs holds what the table does.
#[track_caller]
fn assert_holds(db: &TestDb, table: &str, runs: &[&Vec<Message>]) {
    let mut target = Target::default();
    runs.iter().for_each(|messages| target.apply(messages));
    // Timestamps without a time zone have none in to_jsonb.
    let row = |text: &str| text.replace("00Z\"", "00\"");
    let mut expected: Vec<String> = source_rows(db, table).iter().map(|text| row(text)).collect();
    let mut found: Vec<String> = target.rows(&format!("public-{table}")).iter().map(|text| row(text)).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_rows(table, &found, &expected);
}

/// A run that follows the log while the source changes.
struct Following<'a> {
    running: Running,
    db: &'a TestDb,
    stream: String,
}

impl Following<'_> {
    /// Runs SQL and waits until the record with this id has come.
    #[track_caller]
    fn after(&mut self, sql: &str, id: i64) {
        self.db.psql(sql);
        let stream = self.stream.clone();
        self.running.wait_for(Duration::from_secs(50), |message| {
            message
                .as_record()
                .is_some_and(|record| record.stream == stream && record.record.get("id") == Some(&id.into()))
        });
    }
}

/// Follows the log; what it printed up to a signal.
#[track_caller]
fn follow(source: &Source, table: &str, state: &Value, changes: impl FnOnce(&mut Following<'_>)) -> Output {
    let tap = source.tap().state(state).config("break_at_end_lsn", false);
    let mut following = Following { running: tap.spawn(), db: &source.db, stream: format!("public-{table}") };
    changes(&mut following);
    following.running.signal(rustix::process::Signal::TERM);
    let output = following.running.finish().expect_code(143);
    check_protocol(&output.messages);
    output
}

/// Everything that a record says but for the time at which it was read.
fn content(output: &Output) -> Vec<(String, Map<String, Value>, Option<u64>)> {
    output.record_messages().map(|record| (record.stream.clone(), record.record.clone(), record.version)).collect()
}
