//! What the log says of old rows, with each REPLICA IDENTITY, and when that changes.

use serde_json::Value;

use super::{Source, assert_fits, assert_holds, column, follow, numbers, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Cluster, Output, TestDb};

with_both_plugins!(
    every_identity_and_every_change,
    no_identity,
    tables_without_a_key,
    an_identity_that_changes_between_changes,
    an_identity_that_changes_while_the_tap_reads,
    an_identity_that_was_away_for_a_while,
    another_key,
    another_key_while_the_tap_reads,
);

const ITEM: &str = "create table item (id integer primary key, code integer not null, note text, unique (code, id));
    insert into item select i, i * 10, 'n' || i from generate_series(1, 9) i;";

const CHANGES: &str = "insert into item values (20, 200, 'new'); update item set note = 'changed' where id = 1; update item set code = 21 where id = 2;
    update item set id = 30 where id = 3; update item set id = 40, code = 41, note = null where id = 4; delete from item where id = 5;
    begin; update item set id = id + 100 where id in (6, 7); delete from item where id = 106; commit; insert into item values (5, 55, 'again');";

/// Both readers bring a target to what the table holds.
#[track_caller]
fn assert_brings(source: &Source, first: &Output, table: &str) {
    for reader in ["bulk", "stream"] {
        let output = source.tap().state(first.last_state()).config("wal_reader", reader).run();
        assert_fits(&output.messages);
        assert_holds(&source.db, table, &[&first.messages, &output.messages]);
    }
}

fn every_identity_and_every_change(plugin: &str) {
    for identity in ["default", "full", "using index item_code_id_key", "using index item_pkey"] {
        let source = Source::new(plugin, &format!("{ITEM} alter table item replica identity {identity};"), &["item"]);
        let first = source.tap().run();
        source.db.psql(CHANGES);
        assert_brings(&source, &first, "item");
    }
}

/// A publication that has updates makes them fail in the application; where it has none they are told by nobody.
fn no_identity(plugin: &str) {
    let db = TestDb::on(&Cluster::shared(), "log_nothing");
    db.psql(&format!("{ITEM} alter table item replica identity nothing;"));
    if plugin == "pgoutput" {
        db.publication("for table item with (publish = 'insert')");
    }
    let slot = db.slot(plugin);
    let source = Source::of(db, slot, &["item"]);
    let first = source.tap().run();
    let output = source.run_after(CHANGES, first.last_state());
    let warned = |output: &Output| {
        output
            .stderr
            .lines()
            .filter(|line| line.contains("WARNING") && line.contains("item") && line.contains("identity"))
            .count()
    };
    assert!(warned(&first) == 1 && warned(&output) >= 1, "{}", output.stderr);
    assert_eq!(numbers(&output, "item", "id"), [20, 5]);
    assert!(super::lsn(output.last_state(), "item") > super::lsn(first.last_state(), "item"));
}

fn tables_without_a_key(plugin: &str) {
    let sql = "create table full_one (n integer, note text); alter table full_one replica identity full;
        create table indexed (n integer not null unique, note text); alter table indexed replica identity using index indexed_n_key;
        insert into full_one values (1, 'a'), (1, 'a'); insert into indexed values (1, 'a'), (2, 'b');";
    let source = Source::new(plugin, sql, &["full_one", "indexed"]);
    let first = source.tap().run();
    source.db.psql("insert into full_one values (1, 'a'), (3, null); insert into indexed values (3, 'c');");
    assert_brings(&source, &first, "full_one");
    assert_brings(&source, &first, "indexed");
    // Without a key a target appends: an update is a row more, and a delete one that says so.
    let output = source.run_after(
        "update full_one set note = 'b' where n = 3; delete from indexed where n = 2; update indexed set n = 10 where n = 1;",
        first.last_state(),
    );
    assert_eq!(numbers(&output, "full_one", "n"), [1, 3, 3]);
    let gone: Vec<bool> = column(&output, "indexed", "_sdc_deleted_at").iter().map(Value::is_string).collect();
    assert_eq!((numbers(&output, "indexed", "n"), gone), (vec![3, 2, 10], vec![false, true, false]));
}

const TURNS: [&str; 5] = ["full", "using index item_code_id_key", "default", "full", "default"];

fn an_identity_that_changes_between_changes(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    for (turn, identity) in (1..).zip(TURNS) {
        source.db.psql(&turn_sql(turn, identity));
    }
    assert_brings(&source, &first, "item");
}

fn an_identity_that_changes_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let output = follow(&source, "item", first.last_state(), |running| {
        for (turn, identity) in (1..).zip(TURNS) {
            running.after(
                &format!("{} insert into item values ({turn}0000, 0);", turn_sql(turn, identity)),
                turn * 10_000,
            );
        }
    });
    assert_fits(&output.messages);
    assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
}

/// Changes before and after the identity becomes this, in one transaction.
fn turn_sql(turn: i64, identity: &str) -> String {
    format!(
        "begin; insert into item values ({turn}000, 1, 'x'), ({turn}001, 1, 'y'), ({turn}002, 1, 'z'); update item set id = id + 100 where id = {turn};
         delete from item where id = {turn}001; alter table item replica identity {identity}; update item set id = id + 1000 where id = {turn} + 100;
         update item set note = 'w', code = 7 where id = {turn}002; delete from item where id = {turn}000; commit;"
    )
}

/// The deletes of that time are in no log; wal2json's server says so, and the tap passes it on.
fn an_identity_that_was_away_for_a_while(plugin: &str) {
    if plugin != "wal2json" {
        // The publication publishes updates: they would have failed.
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(
        "alter table item replica identity nothing; delete from item where id = 1; insert into item values (30, 3);
         alter table item replica identity default; delete from item where id = 2;",
    );
    for reader in ["bulk", "stream"] {
        let output = source.tap().state(&state).config("wal_reader", reader).run();
        assert_eq!(numbers(&output, "item", "id"), [30, 2]);
        let warned = output.stderr.lines().filter(|line| line.contains("WARNING") && line.contains("\"item\""));
        assert_eq!(warned.count(), 1, "{}", output.stderr);
    }
}

/// The key moves to another column: the table is copied again.
fn another_key(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let output = source.run_after(
        "delete from item where id = 9; alter table item drop constraint item_pkey; alter table item add primary key (code);
         insert into item values (50, 500, 'x'); delete from item where code = 80;",
        first.last_state(),
    );
    assert_fits(&output.messages);
    assert_eq!(output.logged("public-item: the key was made anew"), 1, "{}", output.stderr);
    let mut target = Target::default();
    target.apply(&first.messages);
    target.apply(&output.messages);
    target.assert_holds(&source.db, &["item"]);
}

fn another_key_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    let output = follow(&source, "item", &state, |running| {
        running.after("delete from item where id = 9;", 9);
        running.after(
            "alter table item drop constraint item_pkey; alter table item add primary key (code);
            delete from item where code = 80; insert into item values (50, 500, 'x');",
            50,
        );
    });
    assert_fits(&output.messages);
    let records = output.records("public-item");
    assert_eq!((&records[0]["id"], &records[1]["code"], &records[2]["code"]), (&9.into(), &80.into(), &500.into()));
    let keys: Vec<&[String]> = output.schemas("public-item").iter().map(|s| s.key_properties.as_slice()).collect();
    assert_eq!(keys, [["id"], ["code"]]);
}
