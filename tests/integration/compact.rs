//! `compact_changes`: of several changes of one row between two STATEs the last is sent.

use serde_json::{Value, json};

use crate::harness::target::Target;
use crate::harness::{Message, Output, Tap};
use crate::log_based::{Source, column, with_both_plugins};

with_both_plugins!(
    the_last_change_of_a_row_is_sent,
    keys_that_change,
    what_is_in_between,
    values_that_the_log_does_not_have,
    rows_without_a_key,
);

const ITEM: &str = "create table item (id integer primary key, n integer, note text);
    insert into item select i, 0, 'first' from generate_series(1, 100) i;";

fn compacted(tap: Tap) -> Tap {
    tap.config("compact_changes", true)
}

/// Both readers, from this state on: each leaves the target with what the tables hold.
#[track_caller]
fn run(source: &Source, copied: &Output, tables: &[&str], configs: &Value) -> Output {
    let mut last = None;
    for reader in ["stream", "bulk"] {
        let tap = compacted(source.tap().state(copied.last_state())).config("wal_reader", reader);
        let output = tap.configs(configs).run();
        let mut target = Target::default();
        target.apply(&copied.messages);
        target.apply(&output.messages);
        target.assert_holds(&source.db, tables);
        // The positions are those of a run that sends everything.
        let plain = source.tap().state(copied.last_state()).config("wal_reader", reader).configs(configs).run();
        for id in tables.iter().map(|table| format!("public-{table}")) {
            assert!(output.bookmark(&id)["lsn"].as_u64() <= plain.bookmark(&id)["lsn"].as_u64());
        }
        assert!(output.record_messages().count() <= plain.record_messages().count());
        last = Some(output);
    }
    last.expect("two runs")
}

fn the_last_change_of_a_row_is_sent(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let copied = source.tap().run();
    source.db.psql(
        "select 'update item set n = n + 1' from generate_series(1, 150) \\gexec
         delete from item where id = 7; delete from item where id = 8; insert into item values (8, 1000, 'again');
         insert into item values (500, 1, 'short-lived'); delete from item where id = 500;",
    );
    let output = run(&source, &copied, &["item"], &json!({}));
    // 15,000 updates: more than there are changes between two STATEs without it.
    let records = output.records("public-item");
    assert_eq!(records.len(), 101);
    let mut ids: Vec<i64> = column(&output, "item", "id").iter().filter_map(Value::as_i64).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=100).chain([500]).collect::<Vec<_>>());
    let whole = records.iter().filter(|record| record["_sdc_deleted_at"].is_null());
    assert!(whole.clone().all(|record| record["n"] == 150 || record["n"] == 1000), "{records:?}");
    assert_eq!(whole.count(), 99);
    assert_eq!(output.logged("compact_changes: 14,904 of 15,005 changes were left out"), 1, "{}", output.stderr);
}

fn keys_that_change(plugin: &str) {
    let source = Source::new(
        plugin,
        "create table item (a integer, b text, n integer, primary key (b, a));
         insert into item select i, 'x', 0 from generate_series(1, 20) i;",
        &["item"],
    );
    let copied = source.tap().run();
    source.db.psql(
        "update item set a = a + 100; update item set a = a - 100, n = 1 where a <= 110; update item set b = 'y\"\\' where a = 1;
         begin; update item set a = -1 where a = 2; update item set a = 2 where a = 3; update item set a = 3 where a = -1; commit;
         update item set n = n + 1; update item set n = n + 1;",
    );
    let output = run(&source, &copied, &["item"], &json!({}));
    let mut keys: Vec<(Value, Value)> =
        output.records("public-item").into_iter().map(|row| (row["b"].clone(), row["a"].clone())).collect();
    let all = keys.len();
    keys.sort_by_key(|(b, a)| (b.to_string(), a.as_i64()));
    keys.dedup();
    assert_eq!(keys.len(), all, "a key came twice");
}

/// SCHEMA and ACTIVATE_VERSION stand where they stood: nothing goes from one side of them to the other.
fn what_is_in_between(plugin: &str) {
    let tables = format!(
        "{ITEM} create table other (id integer primary key, n integer); insert into other values (1, 0), (2, 0);"
    );
    let source = Source::new(plugin, &tables, &["item", "other"]);
    let copied = source.tap().run();
    source.db.psql(
        "update item set n = 1; update item set n = 2; update other set n = 1; update other set n = 2;
         truncate other; insert into other values (1, 5), (3, 5); update other set n = 6;
         alter table item add column late text default 'late'; update item set n = 3; update item set n = 4 where id < 50;",
    );
    let output = run(&source, &copied, &["item", "other"], &json!({"on_truncate": "activate_version"}));
    let activated = output.messages.iter().position(|message| matches!(message, Message::ActivateVersion { .. }));
    let (before, after) = output.messages.split_at(activated.expect("an ACTIVATE_VERSION"));
    let told = |messages: &[Message], stream: &str| -> Vec<Value> {
        let records = messages.iter().filter_map(Message::as_record).filter(|record| record.stream == stream);
        let mut told: Vec<Value> = records.map(|record| json!([record.record["id"], record.record["n"]])).collect();
        told.sort_by_key(ToString::to_string);
        told
    };
    assert_eq!(told(before, "public-other"), [json!([1, 2]), json!([2, 2])]);
    assert_eq!(told(after, "public-other"), [json!([1, 6]), json!([3, 6])]);
    assert_eq!((told(before, "public-item").len(), told(after, "public-item").len()), (100, 100));
}

/// A record that lacks a value stands for no other; with the values looked up all are whole.
fn values_that_the_log_does_not_have(plugin: &str) {
    let source = Source::new(
        plugin,
        "create table item (id integer primary key, n integer, big text); alter table item alter big set storage external;
         insert into item select i, 0, repeat('b', 5000) from generate_series(1, 10) i;",
        &["item"],
    );
    let copied = source.tap().run();
    source.db.psql(
        "update item set big = repeat('c', 5000); update item set n = 1; update item set n = 2;
         update item set n = 3 where id < 5; delete from item where id = 10;",
    );
    let output = run(&source, &copied, &["item"], &json!({}));
    assert_eq!(output.records("public-item").len(), 10);
    assert!(
        column(&output, "item", "id").iter().all(|id| *id == 10)
            || output
                .records("public-item")
                .iter()
                .filter(|row| row["id"] != 10)
                .all(|row| row["big"] == "c".repeat(5000))
    );

    let tap = compacted(source.tap().state(copied.last_state())).config("unchanged_toast", "omit");
    let output = tap.run();
    let of_one: Vec<(bool, Value)> = output
        .records("public-item")
        .into_iter()
        .filter(|row| row["id"] == 1)
        .map(|row| (row.contains_key("big"), row["n"].clone()))
        .collect();
    // With wal2json and the table's key as identity, as with pgoutput, an update that left the value alone does not have it.
    assert_eq!(of_one, [(true, json!(0)), (false, json!(1)), (false, json!(2)), (false, json!(3))]);
    assert_eq!(
        output.records("public-item").iter().filter(|row| row["id"] == 10).count(),
        1,
        "a delete stands for all"
    );
}

/// Each change, in order.
fn rows_without_a_key(plugin: &str) {
    let source = Source::new(
        plugin,
        "create table item (n integer, note text); alter table item replica identity full; insert into item values (0, 'a');",
        &["item"],
    );
    let copied = source.tap().run();
    source.db.psql("select 'update item set n = n + 1' from generate_series(1, 20) \\gexec");
    let output = compacted(source.tap().state(copied.last_state())).run();
    let plain = source.tap().state(copied.last_state()).run();
    assert_eq!(column(&output, "item", "n"), column(&plain, "item", "n"));
    assert_eq!(output.records("public-item").len(), 20);
}
