//! In which order streams are read, and what is held open meanwhile.

use serde_json::{Value, json};

use super::{select, with_both_plugins};
use crate::harness::{Catalog, Message, Output, Tap, TestDb};

with_both_plugins!(copies_come_first, no_transaction_stays_open);

const TABLES: &str = "create table a_full (id integer primary key, filler text);
    create table b_incremental (id integer primary key); insert into b_incremental values (1);
    create table c_log (id integer primary key); insert into c_log values (1);
    create table d_log (id integer primary key); insert into d_log values (1);";

fn catalog(db: &TestDb) -> Catalog {
    let catalog = Tap::new(db).discover().select("public-a_full", "FULL_TABLE");
    select(catalog.select_incremental("public-b_incremental", "id"), &["c_log", "d_log"])
}

/// The streams in the order of their first SCHEMA.
fn order(output: &Output) -> Vec<&str> {
    let mut streams = Vec::new();
    for message in &output.messages {
        if let Message::Schema(schema) = message
            && !streams.contains(&schema.stream.as_str())
        {
            streams.push(schema.stream.as_str());
        }
    }
    streams
}

fn copies_come_first(plugin: &str) {
    let db = TestDb::new("log_order");
    db.psql(TABLES);
    db.replicate(plugin);
    let tap = |state: &Value| Tap::new(&db).catalog(&catalog(&db)).state(state);
    let expected = ["public-c_log", "public-d_log", "public-a_full", "public-b_incremental"];
    let first = tap(&json!({})).run();
    assert_eq!(order(&first), expected);
    assert_eq!(first.last_state()["currently_syncing"], Value::Null);
    for (interrupted, expected) in [
        ("public-b_incremental", ["public-b_incremental", "public-c_log", "public-d_log", "public-a_full"]),
        ("public-d_log", ["public-d_log", "public-c_log", "public-a_full", "public-b_incremental"]),
        ("public-gone", expected),
    ] {
        let output = tap(&json!({"bookmarks": {}, "currently_syncing": interrupted})).run();
        assert_eq!(order(&output), expected, "{interrupted} goes first");
    }
    // Streams whose changes are read come after the tables.
    db.psql("insert into c_log values (2); insert into d_log values (2); insert into b_incremental values (2)");
    let output = tap(first.last_state()).run();
    let streams: Vec<&str> = output.record_messages().map(|record| record.stream.as_str()).collect();
    assert_eq!(streams[streams.len() - 2..], ["public-c_log", "public-d_log"]);
}

/// A snapshot that is held holds back vacuum, and the slot.
fn no_transaction_stays_open(plugin: &str) {
    for made_by_the_run in [false, true] {
        let db = TestDb::new("log_open");
        db.psql(TABLES);
        db.psql("insert into a_full select i, repeat('x', 500) from generate_series(1, 20000) i");
        if made_by_the_run {
            if plugin == "pgoutput" {
                db.publication("for all tables");
            }
        } else {
            db.replicate(plugin);
        }
        let tap = Tap::new(&db).catalog(&catalog(&db));
        let stalled = tap.config("create_replication_slot", true).config("output_plugin", plugin).stall();
        db.wait_until(
            "exists (select from pg_stat_activity where datname = current_database() and query like 'COPY%a_full%'
                and wait_event = 'ClientWrite')",
        );
        // The one that reads the table is the only one.
        db.wait_until(
            "not exists (select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and (xact_start is not null or backend_xmin is not null or backend_type = 'walsender')
                and query not like 'COPY%a_full%')",
        );
        db.wait_until(
            "not exists (select from pg_replication_slots where database = current_database() and temporary)",
        );
        let output = stalled.finish().expect_code(0);
        assert_eq!(output.records("public-a_full").len(), 20_000);
        assert_eq!(output.records("public-c_log").len(), 1);
    }
}
