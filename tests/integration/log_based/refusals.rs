//! What is refused before a change is read: in one line that says what to do, with exit code 1, nothing acknowledged.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Source, bookmark, lsn, numbers, select, with_both_plugins};
use crate::harness::{Cluster, Output, Tap, TestDb, needs};

with_both_plugins!(
    the_slot_has_moved_past_the_bookmark,
    the_bookmark_is_beyond_the_log,
    the_slot_is_in_use,
    the_slot_is_gone,
    the_slot_is_gone_and_a_position_was_reset,
    the_slot_lost_its_log,
);

const TABLES: &str = "create table item (id integer primary key); create table other (id integer primary key);
    insert into item values (1), (2);";

/// A failed run said so in one line of the log with all these texts, and told the target nothing.
#[track_caller]
fn refused(tap: &Tap, texts: &[&str]) -> Output {
    let output = tap.run_failing(1);
    let errors: Vec<&str> =
        output.stderr.lines().filter(|line| line.contains("level=CRITICAL") || line.contains("level=ERROR")).collect();
    assert_eq!(errors.len(), 1, "one line tells of the failure:\n{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
    for text in texts {
        assert!(errors[0].contains(text), "{text:?} is not in: {}", errors[0]);
    }
    assert_eq!(output.record_messages().count(), 0);
    output
}

/// As Postgres writes a position.
fn pg_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

fn the_slot_has_moved_past_the_bookmark(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (3)");
    source.db.advance(&source.slot);
    let slot = source.confirmed_flush();
    let tap = source.tap().state(&state);
    refused(&tap, &[&source.slot, &pg_lsn(slot), &pg_lsn(lsn(&state, "item")), "on_slot_lost"]);
    assert_eq!(source.confirmed_flush(), slot);

    // The slot is healthy: it stays, the stream is copied again.
    let output = tap.config("on_slot_lost", "copy_again").run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2, 3]);
    assert!(source.confirmed_flush() >= slot);
    assert!(output.bookmark("public-item")["version"].as_u64() > state["bookmarks"]["public-item"]["version"].as_u64());
    let output = source.run_after("insert into item values (4)", output.last_state());
    assert_eq!(numbers(&output, "item", "id"), [4]);
}

fn the_bookmark_is_beyond_the_log(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let mut state = source.copied();
    let slot = source.confirmed_flush();
    let beyond = source.end() + (4 << 30);
    bookmark(&mut state, "item")["lsn"] = json!(beyond);
    refused(&source.tap().state(&state), &["public-item", &pg_lsn(beyond)]);
    assert_eq!(source.confirmed_flush(), slot);
    let output = source.tap().state(&state).config("on_slot_lost", "copy_again").run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2]);
    assert!(lsn(output.last_state(), "item") <= source.end());
}

fn the_slot_is_gone(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    source.db.psql(&format!("select pg_drop_replication_slot('{}')", source.slot));
    // What the bookmark needs is gone, so that making the slot anew is not the whole of the advice.
    refused(&source.tap().state(&state), &[&source.slot, "public-item", "on_slot_lost"]);
    // A run that has yet to copy finds out before it has copied.
    refused(&source.tap(), &["pg_create_logical_replication_slot('", &source.slot, "create_replication_slot"]);
    assert_eq!(
        source.db.query_one("select count(*) from pg_replication_slots where database = current_database()"),
        "0"
    );

    // A slot of today has nothing of yesterday.
    let made = source.tap().state(&state).config("create_replication_slot", true).config("output_plugin", plugin);
    refused(&made, &["on_slot_lost"]);
    let output = made.config("on_slot_lost", "copy_again").run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2]);
    let output = source.run_after("insert into item values (3)", output.last_state());
    assert_eq!(numbers(&output, "item", "id"), [3]);
}

/// `lsn` 1 says "where the slot stands": a slot made anew stands past what was written in between.
fn the_slot_is_gone_and_a_position_was_reset(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let mut state = source.copied();
    bookmark(&mut state, "item")["lsn"] = json!(1);
    source.db.psql(&format!("select pg_drop_replication_slot('{}'); insert into item values (3);", source.slot));
    let tap = source.tap().state(&state).config("on_slot_lost", "copy_again").config("output_plugin", plugin);
    let output = tap.run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2, 3]);
    assert!(lsn(output.last_state(), "item") > 1);
    let output = source.run_after("insert into item values (4); insert into other values (1);", output.last_state());
    assert_eq!((numbers(&output, "item", "id"), numbers(&output, "other", "id")), (vec![4], vec![1]));
}

fn the_slot_lost_its_log(plugin: &str) {
    if !needs(13, "max_slot_wal_keep_size") {
        return;
    }
    let cluster = Cluster::forgetful("1MB");
    let source = Source::on(&cluster, plugin, TABLES, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (3)");
    for _ in 0..4 {
        source.db.fill_the_log();
    }
    assert_eq!(source.db.query_one("select wal_status from pg_replication_slots"), "lost");
    refused(&source.tap().state(&state), &[&source.slot, "on_slot_lost"]);
    let output = source.tap().state(&state).config("on_slot_lost", "copy_again").config("output_plugin", plugin).run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2, 3]);
    let output = source.run_after("insert into item values (4)", output.last_state());
    assert_eq!(numbers(&output, "item", "id"), [4]);
}

fn the_slot_is_in_use(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (3)");
    let mut holder = source.tap().state(&state).config("break_at_end_lsn", false).spawn();
    holder.wait_for(Duration::from_secs(30), |message| message.as_record().is_some());
    let active = format!("select active_pid from pg_replication_slots where slot_name = '{}'", source.slot);
    refused(&source.tap().state(&state), &[&source.slot, &source.db.query_one(&active)]);
    holder.signal(Signal::TERM);
    holder.finish().expect_code(143);
    // Its walsender may live a moment longer, which the tap waits for.
    assert_eq!(numbers(&source.run(&state), "item", "id"), [3]);
}

/// A slot under the name that the tap looks for, which it can't read.
#[test]
fn a_slot_of_another_kind() {
    let db = TestDb::new("log_kind");
    db.psql(TABLES);
    let catalog = select(Tap::new(&db).discover(), &["item"]);
    let tap = |slot: &str| Tap::new(&db).catalog(&catalog).config("replication_slot_name", slot);

    let physical = format!("{}_physical", db.name());
    db.query_one(&format!("select slot_name from pg_create_physical_replication_slot('{physical}')"));
    refused(&tap(&physical), &[&physical, "physical"]);
    db.psql(&format!("select pg_drop_replication_slot('{physical}')"));

    let decoding = db.slot_named(&format!("{}_decoding", db.name()), "test_decoding");
    refused(&tap(&decoding), &[&decoding, "test_decoding", "pgoutput", "wal2json"]);

    let other = TestDb::new("log_elsewhere");
    let elsewhere = other.slot("pgoutput");
    refused(&tap(&elsewhere), &[&elsewhere, other.name()]);
}

#[test]
fn the_publication() {
    let db = TestDb::new("log_publication");
    db.psql(TABLES);
    let slot = db.slot("pgoutput");
    let catalog = select(Tap::new(&db).discover(), &["item", "other"]);
    let tap = || Tap::new(&db).catalog(&catalog);
    let error = refused(&tap(), &["publication", &slot, "CREATE PUBLICATION"]);
    assert!(!error.stderr.contains("FOR ALL TABLES"), "advice that breaks updates of other tables");

    // A publication younger than the slot is not seen by it, hence the new slot.
    db.publication("for table item");
    db.psql(&format!("select pg_drop_replication_slot('{slot}')"));
    db.slot("pgoutput");
    let failed = tap().run_failing(1);
    assert_eq!((failed.logged("level=ERROR"), numbers(&failed, "item", "id")), (1, vec![1, 2]), "{}", failed.stderr);
    let told = |line: &&str| ["level=ERROR", "public-other", &slot].iter().all(|text| line.contains(text));
    assert_eq!(failed.stderr.lines().filter(told).count(), 1, "{}", failed.stderr);
    let named = tap().config("publication_name", "no such");
    refused(&named, &["no such"]);
}

#[test]
fn a_publication_of_some_operations() {
    let db = TestDb::new("log_operations");
    db.psql("create table item (id integer primary key); insert into item values (1), (2);");
    db.publication("for table item with (publish = 'insert, update')");
    db.slot("pgoutput");
    let catalog = select(Tap::new(&db).discover(), &["item"]);
    let first = Tap::new(&db).catalog(&catalog).run();
    let warned = |line: &str| line.contains("level=WARNING") && line.contains("does not publish delete of this table");
    assert_eq!(first.stderr.lines().filter(|line| warned(line)).count(), 1, "{}", first.stderr);
    db.psql("delete from item where id = 1; update item set id = 3 where id = 2;");
    let output = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
    assert_eq!(numbers(&output, "item", "id"), [2, 3]);
}

/// A publication that drops data in silence is told of.
#[test]
fn a_publication_with_gaps() {
    if !needs(15, "a publication's column lists and row filters") {
        return;
    }
    let db = TestDb::new("log_gaps");
    db.psql(
        "create table item (id integer primary key, a text, b text); create table other (id integer primary key);
        create table third (id integer primary key);",
    );
    let slot = db.slot_name();
    db.psql(&format!(
        "create publication {slot} for table item (id, a), other where (id > 5), third with (publish = 'insert, update')"
    ));
    db.slot("pgoutput");
    let catalog = select(Tap::new(&db).discover(), &["item", "other", "third"]);
    let first = Tap::new(&db).catalog(&catalog).run();
    for table in ["item", "other", "third"] {
        let warned = first.stderr.lines().any(|line| line.contains("level=WARNING") && line.contains(table));
        assert!(warned, "no warning about {table}:\n{}", first.stderr);
    }
    db.psql(
        "insert into item values (1, 'a', 'b'); insert into other values (1), (9); update item set a = 'c';
        update other set id = 1 where id = 9 and false; update other set id = 3 where id = 9; delete from third;",
    );
    let output = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
    let values: Vec<&Value> = output.records("public-item").iter().map(|record| &record["a"]).collect();
    assert_eq!(values, ["a", "c"]);
    // A row that leaves what the filter shows comes as a delete.
    assert_eq!(numbers(&output, "other", "id"), [9, 9]);
    assert!(output.records("public-other")[1]["_sdc_deleted_at"].is_string());
}
