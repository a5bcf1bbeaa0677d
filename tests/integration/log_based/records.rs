//! What a record of the log holds.

use std::thread;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Source, column, numbers, only, with_both_plugins};
use crate::harness::Output;
use crate::harness::compare::instant;

with_both_plugins!(
    a_delete_holds_the_identity,
    a_delete_tells_when_it_was_committed,
    a_changed_key_deletes_the_old_row,
    identity_full_holds_every_column,
    identity_index_without_the_key,
    identity_index_on_the_key,
    identity_nothing_on_a_table_with_a_key,
    debug_lsn_adds_positions,
    deselected_columns_stay_out,
    a_row_under_changes_in_one_transaction,
    rolled_back_changes_are_no_records,
    odd_names,
);

const ITEM: &str = "create table item (id integer primary key, note text); insert into item values (1, 'a'), (2, 'b');";

fn deleted(output: &Output, table: &str) -> Vec<bool> {
    column(output, table, "_sdc_deleted_at").iter().map(|time| !time.is_null()).collect()
}

fn a_delete_holds_the_identity(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after("delete from item where id = 2", &source.copied());
    let record = only(&output, "item");
    assert_eq!(record["id"], 2);
    assert_eq!(record.get("note"), None, "no column that the log doesn't hold");
    assert!(record["_sdc_deleted_at"].is_string());
    assert_eq!(record.len(), 2, "{record:?}");

    let output = source.run_after("insert into item values (3, null)", output.last_state());
    let record = only(&output, "item");
    assert_eq!(record.get("_sdc_deleted_at"), Some(&Value::Null));
    assert_eq!(record["note"], Value::Null);
}

fn a_delete_tells_when_it_was_committed(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql("delete from item where id = 1");
    // The clock of the tap is later than that of the delete by this much at least.
    thread::sleep(Duration::from_millis(1100));
    let later = Utc::now() - TimeDelta::seconds(1);
    let output = source.run(&state);
    let time = only(&output, "item")["_sdc_deleted_at"].as_str().and_then(instant).expect("an instant");
    assert!(time < later, "{time} is not before {later}");
}

fn a_changed_key_deletes_the_old_row(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after("update item set id = 20 where id = 2", &source.copied());
    assert_eq!(numbers(&output, "item", "id"), [2, 20]);
    assert_eq!(deleted(&output, "item"), [true, false]);
    assert_eq!(output.records("public-item")[1]["note"], "b");

    // The same under FULL, where every update brings the old row.
    source.db.psql("alter table item replica identity full");
    let output = source.run_after(
        "update item set id = 21 where id = 20; update item set note = 'c' where id = 21;",
        output.last_state(),
    );
    assert_eq!(numbers(&output, "item", "id"), [20, 21, 21]);
    assert_eq!(deleted(&output, "item"), [true, false, false]);
}

fn identity_full_holds_every_column(plugin: &str) {
    let source = Source::new(plugin, &format!("{ITEM} alter table item replica identity full;"), &["item"]);
    let output = source.run_after("delete from item where id = 2", &source.copied());
    let record = only(&output, "item");
    assert_eq!((&record["id"], &record["note"]), (&json!(2), &json!("b")));
}

/// The log names the old row by a unique index that says nothing of the key: there is no record to make of a delete.
fn identity_index_without_the_key(plugin: &str) {
    let sql = "create table item (id integer primary key, code text not null unique);
        insert into item values (1, 'a'), (2, 'b');
        alter table item replica identity using index item_code_key;";
    let source = Source::new(plugin, sql, &["item"]);
    let state = source.copied();
    let output = source.run_after("delete from item where id = 2; insert into item values (3, 'c');", &state);
    assert_eq!(numbers(&output, "item", "id"), [3]);
    let warned = |output: &Output| {
        output.stderr.lines().any(|l| l.contains("WARNING") && l.contains("item") && l.contains("identity"))
    };
    assert!(warned(&output), "{}", output.stderr);
    // Also in a run that has no delete to tell of.
    assert!(warned(&source.run(output.last_state())));
}

fn identity_index_on_the_key(plugin: &str) {
    let sql = "create table item (id integer primary key, code integer not null, note text, unique (code, id));
        insert into item values (1, 10, 'a'), (2, 20, 'b');
        alter table item replica identity using index item_code_id_key;";
    let source = Source::new(plugin, sql, &["item"]);
    let output = source.run_after(
        "delete from item where id = 2; update item set code = 11 where id = 1; update item set id = 5 where id = 1;",
        &source.copied(),
    );
    // A change of the identity that leaves the key alone deletes nothing.
    assert_eq!(numbers(&output, "item", "id"), [2, 1, 1, 5]);
    assert_eq!(deleted(&output, "item"), [true, false, true, false]);
    let first = output.records("public-item")[0];
    assert_eq!(first["code"], 20);
    assert_eq!(first.get("note"), None);
}

/// In a publication that publishes updates the server would refuse them; without one they are sent without the old row.
fn identity_nothing_on_a_table_with_a_key(plugin: &str) {
    let sql = format!("{ITEM} alter table item replica identity nothing;");
    let source = Source::new(plugin, &sql, &["item"]);
    let state = source.copied();
    let changes = match plugin {
        "pgoutput" => "insert into item values (3, 'c');",
        _ => "insert into item values (3, 'c'); delete from item where id = 1;",
    };
    let output = source.run_after(changes, &state);
    assert_eq!(numbers(&output, "item", "id"), [3]);
    let warnings = output.stderr.lines().filter(|l| l.contains("WARNING") && l.contains("item"));
    // The tap's own at the start, and what wal2json says of the delete.
    assert_eq!(warnings.count(), if plugin == "wal2json" { 2 } else { 1 }, "{}", output.stderr);
}

fn debug_lsn_adds_positions(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let copied = source.tap().config("debug_lsn", "true").run();
    assert!(
        copied.record_messages().all(|record| !record.record.contains_key("_sdc_lsn")),
        "only the log has positions"
    );
    let from = source.end();
    source.db.psql(
        "insert into item values (3, 'c'); update item set note = 'd' where id = 3; delete from item where id = 3;",
    );
    let output = source.tap().config("debug_lsn", "true").state(copied.last_state()).run();
    let positions: Vec<u64> = column(&output, "item", "_sdc_lsn")
        .iter()
        .map(|lsn| {
            lsn.as_u64().or_else(|| lsn.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{lsn} is no position"))
        })
        .collect();
    assert_eq!(positions.len(), 3);
    assert!(positions.is_sorted() && positions[0] >= from && positions[2] <= source.end(), "{positions:?} from {from}");
    let without = source.run(copied.last_state());
    assert!(without.record_messages().all(|record| !record.record.contains_key("_sdc_lsn")));
}

fn deselected_columns_stay_out(plugin: &str) {
    let sql = format!("{ITEM} alter table item add secret text default 's'; alter table item replica identity full;");
    let mut source = Source::new(plugin, &sql, &["item"]);
    source.catalog = source.catalog.clone().column("public-item", "secret", false);
    let changes = "insert into item values (3, 'c', 's'); update item set secret = 't'; delete from item where id = 1;";
    let output = source.run_after(changes, &source.copied());
    assert_eq!(output.records("public-item").len(), 5);
    assert!(output.record_messages().all(|record| !record.record.contains_key("secret")));
    assert!(output.schemas("public-item").iter().all(|schema| schema.schema["properties"].get("secret").is_none()));
}

fn a_row_under_changes_in_one_transaction(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "begin;
         insert into item values (3, 'c');
         update item set note = 'd' where id = 3;
         delete from item where id = 3;
         insert into item values (3, 'e');
         commit;",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [3; 4]);
    assert_eq!(deleted(&output, "item"), [false, false, true, false]);
    assert_eq!(output.records("public-item")[3]["note"], "e");
    let times: Vec<_> = output.record_messages().map(|record| record.time_extracted.clone()).collect();
    assert!(times.iter().all(Option::is_some));
}

fn rolled_back_changes_are_no_records(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "begin; insert into item values (3, 'c'); rollback;
         begin; insert into item values (4, 'd'); savepoint s; insert into item values (5, 'e'); rollback to s; commit;
         begin; insert into item values (6, 'f'); prepare transaction 'one'; rollback prepared 'one';
         begin; insert into item values (7, 'g'); prepare transaction 'two'; commit prepared 'two';"
            .replace("'one'", &format!("'one {plugin}'"))
            .replace("'two'", &format!("'two {plugin}'"))
            .as_str(),
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [4, 7]);
}

/// Names that wal2json escapes, that need quotes in SQL, and that differ in case alone.
fn odd_names(plugin: &str) {
    let names = ["a b", "a,b", "a.b", "a*b", "a\\b", "a'b", "A", "ä", "a\"\"b", "select"];
    let create = |name: &str| format!(r#"create table "{name}" ("I d" integer primary key, "No""te" text);"#);
    let sql: String = names.iter().map(|name| create(name)).collect();
    let tables: Vec<String> = names.iter().map(|name| name.replace("\"\"", "\"")).collect();
    let selected: Vec<&str> = tables.iter().map(String::as_str).collect();
    let source = Source::new(plugin, &format!("create table a (id integer);{sql}"), &selected);
    let state = source.copied();
    let fill: String = names.iter().map(|name| format!(r#"insert into "{name}" values (1, 'x');"#)).collect();
    let output = source.run_after(&format!("insert into a values (9);{fill}"), &state);
    for table in &tables {
        assert_eq!(only(&output, table)["No\"te"], "x", "{table}");
    }
}
