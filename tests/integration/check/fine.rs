//! What is as it should be, and what a check leaves alone.

use serde_json::json;

use super::{ITEM, belongings, bounded, check, line, lines, tap};
use crate::harness::{Tap, TestDb};
use crate::log_based::with_both_plugins;

with_both_plugins!(everything_is_fine, nothing_is_made, a_state_is_in_reach);

const STREAMS: [(&str, &str); 3] = [("item", "LOG_BASED"), ("whole", "FULL_TABLE"), ("empty", "FULL_TABLE")];

fn database(plugin: &str) -> TestDb {
    let db = TestDb::on(&bounded(), &format!("check_{plugin}"));
    db.psql(ITEM);
    db.psql(
        "create table whole (n integer); insert into whole values (1), (2); create table empty (n integer);
         create table grown (id integer primary key, at timestamp); insert into grown values (7, '2024-02-29');",
    );
    db
}

/// Every method, every requirement met: SCHEMA and one RECORD each, no STATE, nothing to warn of, nothing moved.
fn everything_is_fine(plugin: &str) {
    let db = database(plugin);
    db.replicate(plugin);
    let catalog = STREAMS
        .iter()
        .fold(Tap::new(&db).discover(), |catalog, (table, method)| catalog.select(&format!("public-{table}"), method));
    let tap = || Tap::new(&db).catalog(&catalog.clone().select_incremental("public-grown", "at"));
    let before = belongings(&db);
    for arguments in [&["--test"][..], &["--test", "records"]] {
        let output = check(&arguments.iter().fold(tap(), |tap, argument| tap.arg(argument)));
        assert_eq!((lines(&output, "failure", &[]).len(), lines(&output, "warning", &[]).len()), (0, 0), "{output:?}");
        for texts in [
            &["connected to", db.name(), "postgres"][..],
            &["not encrypted"],
            &["PostgreSQL", "primary"],
            &["wal_level is logical"],
            &["max_replication_slots", "are left"],
            &["max_wal_senders", "are left"],
            &["the role may replicate"],
            &[&db.slot_name(), plugin, "behind", "WAL"],
            &["output plugin", plugin, "installed"],
            &["public-item", "may read", "LOG_BASED"],
            &["public-item", "replica identity is id"],
            &["public-item", "large values of note", "by key"],
            &["public-item", "begins with a copy"],
            &["public-grown", "replication key is at"],
            &["public-empty", "no row"],
        ] {
            line(&output, "ok", texts);
        }
        assert_eq!(lines(&output, "ok", &["public-item", "published"]).len(), usize::from(plugin == "pgoutput"));
        assert_eq!(output.logged("nothing failed"), 1);
        for stream in ["public-empty", "public-grown", "public-item", "public-whole"] {
            assert_eq!(output.schemas(stream).len(), 1, "{stream}");
            assert_eq!(output.records(stream).len(), usize::from(stream != "public-empty"), "{stream}");
        }
        assert_eq!(output.schemas("public-grown")[0].bookmark_properties, ["at"]);
        assert_eq!(output.messages.len(), 7, "SCHEMA and RECORD alone: {:?}", output.messages);
    }
    let output = check(&tap().arg("--test=schema"));
    assert_eq!((output.messages.len(), output.record_messages().count()), (4, 0));
    assert_eq!(belongings(&db), before);
    // Nothing was acknowledged: what comes now is a copy and its changes.
    assert_eq!(tap().run().records("public-item").len(), 1);
}

/// What a run would make is told, and not made.
fn nothing_is_made(plugin: &str) {
    let db = database(plugin);
    let before = belongings(&db);
    let tap = tap(&db, &STREAMS).config("create_replication_slot", true).config("output_plugin", plugin);
    let output = check(&tap).expect_code(0);
    line(&output, "ok", &[&db.slot_name(), "a run makes it", plugin]);
    assert_eq!(lines(&output, "ok", &["sets up the publication"]).len(), usize::from(plugin == "pgoutput"));
    assert_eq!(belongings(&db), before);
}

/// A bookmark that the slot serves; one of a stream whose method changed counts for nothing.
fn a_state_is_in_reach(plugin: &str) {
    let db = database(plugin);
    db.replicate(plugin);
    let tap = |state: &serde_json::Value| tap(&db, &STREAMS).state(state);
    let copied = Tap::new(&db).catalog(&Tap::new(&db).discover().select("public-item", "LOG_BASED")).run();
    db.psql("insert into item values (2, 'b')");
    let before = belongings(&db);
    let output = check(&tap(copied.last_state())).expect_code(0);
    line(&output, "ok", &["public-item", "everything since the bookmark"]);
    let reset = json!({"bookmarks": {"public-item": {"lsn": 1, "version": 1}}});
    line(&check(&tap(&reset)).expect_code(0), "ok", &["public-item", "where the slot stands"]);
    let other = json!({"bookmarks": {"public-item": {"last_replication_method": "FULL_TABLE", "version": 1}}});
    let output = check(&tap(&other)).expect_code(0);
    line(&output, "ok", &["public-item", "starts the stream anew"]);
    line(&output, "ok", &["public-item", "begins with a copy"]);
    assert_eq!(belongings(&db), before);
}

/// Without a LOG_BASED stream nothing is asked of slots and senders.
#[test]
fn log_based_is_checked_where_it_is_wanted() {
    let db = TestDb::new("check_plain");
    db.psql(ITEM);
    let output = check(&tap(&db, &[("item", "FULL_TABLE")])).expect_code(0);
    for text in ["wal_level", "max_", "replicate", "slot", "publi", "identity"] {
        let told = output.stderr.lines().filter_map(|line| line.split_once("message=")).map(|(_, told)| told);
        let told: Vec<&str> = told.filter(|line| line.contains(text) && !line.contains("public-")).collect();
        assert!(told.is_empty(), "{told:?}");
    }
}

/// Without a catalog, all that the role can read.
#[test]
fn without_a_catalog() {
    let db = TestDb::new("check_all");
    db.psql(ITEM);
    db.psql("create view shown as select 1 as n");
    let output = check(&Tap::new(&db).arg("--test")).expect_code(0);
    assert_eq!((output.records("public-item").len(), output.records("public-shown").len()), (1, 1));
}
