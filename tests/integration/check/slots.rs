//! The slot, its plugin, and the bookmarks that it is to serve.

use std::time::Duration;

use serde_json::json;

use super::{ITEM, check, failure_mended, line, lines, mended, sql, tap};
use crate::harness::{Cluster, Tap, TestDb, needs, until_within};
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(
    no_slot,
    a_slot_in_use,
    a_lost_slot,
    a_slot_that_keeps_much,
    a_plugin_that_is_not_there,
    a_backlog_is_not_read,
    gaps,
);

fn no_slot(plugin: &str) {
    let db = TestDb::new("check_slot");
    db.psql(ITEM);
    db.psql("create table plain (n integer)");
    let tap = tap(&db, &[("item", "LOG_BASED"), ("plain", "LOG_BASED")]).config("output_plugin", plugin);
    let sql = failure_mended(&db, &tap, &[&db.slot_name(), "does not exist", "create_replication_slot"]);
    assert_eq!(sql.contains("CREATE PUBLICATION"), plugin == "pgoutput", "{sql}");
    line(&check(&tap), "ok", &[&db.slot_name(), plugin, "behind"]);
}

#[test]
fn a_slot_of_another_kind() {
    let db = TestDb::new("check_kind");
    db.psql(ITEM);
    let tap = |slot: &str| tap(&db, &[("item", "LOG_BASED")]).config("replication_slot_name", slot);
    let physical = format!("{}_physical", db.name());
    db.query_one(&format!("select slot_name from pg_create_physical_replication_slot('{physical}')"));
    line(&check(&tap(&physical)), "failure", &[&physical, "physical", "replication_slot_name"]);
    db.psql(&format!("select pg_drop_replication_slot('{physical}')"));
    let decoding = db.slot_named(&format!("{}_decoding", db.name()), "test_decoding");
    line(&check(&tap(&decoding)), "failure", &[&decoding, "test_decoding", "pgoutput and wal2json"]);
    let other = TestDb::new("check_elsewhere");
    let elsewhere = other.slot("pgoutput");
    line(&check(&tap(&elsewhere)), "failure", &[&elsewhere, other.name()]);
}

/// Who has it is told, and how to end that.
fn a_slot_in_use(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (2, 'b')");
    let mut holder = source.tap().state(&state).config("break_at_end_lsn", false).spawn();
    holder.wait_for(Duration::from_secs(30), |message| message.as_record().is_some());
    let tap = tap(&source.db, &[("item", "LOG_BASED")]);
    let output = check(&tap);
    let told = line(&output, "failure", &[&source.slot, "active for PID", "postgres", "tap-postgres-rs", "tap_id"]);
    source.db.psql(sql(told));
    holder.finish().expect_code(1);
    // The walsender takes a moment to end.
    until_within(Duration::from_secs(30), "the slot is free", || check(&tap).status.code() == Some(0));
}

fn a_lost_slot(plugin: &str) {
    if !needs(13, "max_slot_wal_keep_size") {
        return;
    }
    let cluster = Cluster::forgetful("1MB");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    (0..4).for_each(|_| source.db.fill_the_log());
    let tap = || tap(&source.db, &[("item", "LOG_BASED")]).config("output_plugin", plugin);
    let again = tap().config("on_slot_lost", "copy_again");
    line(&check(&again).expect_code(0), "warning", &[&source.slot, "is lost", "makes it anew"]);
    mended(&source.db, &tap(), "failure", &[&source.slot, "can't be read any more", "max_slot_wal_keep_size"]);
    failure_mended(&source.db, &tap(), &[&source.slot, "does not exist"]);
}

fn a_slot_that_keeps_much(plugin: &str) {
    if !needs(13, "wal_status") {
        return;
    }
    let cluster = Cluster::forgetful("1GB");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    (0..3).for_each(|_| source.db.fill_the_log());
    let tap = tap(&source.db, &[("item", "LOG_BASED")]);
    let output = check(&tap).expect_code(0);
    line(&output, "warning", &[&source.slot, "more than max_wal_size"]);
    source.db.psql("alter system set max_slot_wal_keep_size = '128MB'; select pg_reload_conf();");
    line(&check(&tap).expect_code(0), "warning", &[&source.slot, "and is lost when it is"]);
    source.db.psql("alter system set max_slot_wal_keep_size = '1MB'; select pg_reload_conf();");
    let status = "select wal_status from pg_replication_slots";
    assert_eq!(source.db.query_one(status), "unreserved");
    line(&check(&tap).expect_code(0), "warning", &[&source.slot, "about to be lost", "max_slot_wal_keep_size"]);
}

/// The server finds no library of this name, of a slot that is there or of one that is to be made.
fn a_plugin_that_is_not_there(plugin: &str) {
    let db = TestDb::new("check_plugin");
    db.psql(ITEM);
    let tap =
        tap(&db, &[("item", "LOG_BASED")]).config("create_replication_slot", true).config("output_plugin", plugin);
    let hide = format!("alter database {} set dynamic_library_path = '/nowhere'", db.name());
    db.psql(&hide);
    line(&check(&tap), "failure", &["install the output plugin", plugin]);
    db.psql(&format!("alter database {} reset dynamic_library_path", db.name()));
    line(&check(&tap).expect_code(0), "ok", &["output plugin", plugin, "is installed"]);
    db.replicate(plugin);
    line(&check(&tap).expect_code(0), "ok", &["output plugin", plugin, "is installed"]);
    db.psql(&hide);
    line(&check(&tap), "failure", &["install the output plugin", plugin]);
}

/// To see whether a plugin works, one record is enough: the server could not even keep what the log holds.
fn a_backlog_is_not_read(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    source.db.psql(&format!(
        "insert into item select n, repeat(md5(n::text), 30) from generate_series(2, 5000) n;
         alter database {0} set work_mem = '64kB'; alter database {0} set temp_file_limit = '1MB';",
        source.db.name()
    ));
    let output = check(&tap(&source.db, &[("item", "LOG_BASED")])).expect_code(0);
    line(&output, "ok", &["output plugin", plugin, "is installed"]);
}

/// Changes that the slot has not any more, or that the server never had.
fn gaps(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (2, 'b')");
    source.db.advance(&source.slot);
    let before = source.confirmed_flush();
    let tap = |state: &serde_json::Value| tap(&source.db, &[("item", "LOG_BASED")]).state(state);
    line(&check(&tap(&state)), "failure", &[&source.slot, "past the bookmark of \"public-item\"", "on_slot_lost"]);
    let again = tap(&state).config("on_slot_lost", "copy_again");
    line(
        &check(&again).expect_code(0),
        "warning",
        &["past the bookmark of \"public-item\"", "copies the stream again"],
    );
    let mut beyond = state.clone();
    beyond["bookmarks"]["public-item"]["lsn"] = json!(source.end() + (4 << 30));
    line(&check(&tap(&beyond)), "failure", &["public-item", "the server's log ends at"]);
    assert_eq!(source.confirmed_flush(), before);
    source.db.psql(&format!("select pg_drop_replication_slot('{}')", source.slot));
    let output = check(&tap(&state).config("create_replication_slot", true));
    line(&output, "failure", &[&source.slot, "went with it", "on_slot_lost"]);
    assert_eq!(lines(&output, "failure", &[]).len(), 1, "{}", output.stderr);
    check(&Tap::new(&source.db).arg("--test").config("create_replication_slot", true)).expect_code(0);
}
