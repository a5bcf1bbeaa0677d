//! Tables whose columns change while the log goes on. What the log says of rows that are older than the table's present
//! form can't always be told; what can be, is, and every RECORD fits the SCHEMA before it.

use serde_json::{Value, json};

use super::{Source, column, numbers, with_both_plugins};
use crate::harness::needs;

with_both_plugins!(
    a_column_is_added,
    a_column_is_added_between_rows_of_a_transaction,
    a_column_is_dropped,
    a_column_is_renamed,
    a_column_changes_its_type,
    a_column_is_dropped_and_made_anew,
    a_table_that_is_not_selected_changes,
    a_table_is_renamed,
    a_generated_column,
    columns_change_while_the_tap_reads,
);

const ITEM: &str =
    "create table item (id integer primary key, note text, n integer); insert into item values (1, 'a', 1);";

fn a_column_is_added(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "insert into item values (2, 'b', 2); alter table item add more numeric(6, 2) default 1.5;
         insert into item values (3, 'c', 3, 2.50); update item set more = 7 where id = 2;",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [2, 3, 2]);
    let records = output.records("public-item");
    assert_eq!(records[0]["note"], "b");
    let more: Vec<String> = records[1..].iter().map(|record| record["more"].to_string()).collect();
    assert_eq!(more, ["2.50", "7.00"]);
    let schema = output.schemas("public-item").last().expect("a SCHEMA").schema["properties"]["more"].clone();
    assert!(schema.is_object(), "{schema}");
}

fn a_column_is_added_between_rows_of_a_transaction(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "begin; insert into item values (2, 'b', 2); alter table item add more text; insert into item values (3, 'c', 3, 'm');
         alter table item drop column n; insert into item values (4, 'd', 'm'); commit; insert into item values (5, 'e', 'o');",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [2, 3, 4, 5]);
    assert_eq!(column(&output, "item", "note"), ["b", "c", "d", "e"]);
    let more: Vec<_> = output.records("public-item")[1..].iter().map(|record| record["more"].clone()).collect();
    assert_eq!(more, ["m", "m", "o"]);
}

fn a_column_is_dropped(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "insert into item values (2, 'b', 2); alter table item drop column note; insert into item values (3, 3);
         delete from item where id = 2;",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [2, 3, 2]);
    let records = output.records("public-item");
    assert_eq!((&records[0]["n"], &records[1]["n"]), (&json!(2), &json!(3)));
    let last = output.schemas("public-item").last().expect("a SCHEMA").schema["properties"].clone();
    assert_eq!(last.get("note"), None, "{last}");
}

fn a_column_is_renamed(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "insert into item values (2, 'b', 2); alter table item rename note to remark; insert into item values (3, 'c', 3);",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [2, 3]);
    assert_eq!(output.records("public-item")[1]["remark"], "c");
}

fn a_column_changes_its_type(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "insert into item values (2, '20', 2); alter table item alter note type integer using null, alter n type text;
         insert into item values (3, 30, 'three'); update item set n = 'two' where id = 2;",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id")[..2], [2, 3]);
    let records = output.records("public-item");
    assert_eq!((&records[1]["note"], &records[1]["n"]), (&json!(30), &json!("three")));
    // Every value fits the SCHEMA that is in force, also that of a row from before the change.
    for (record, schema) in output.record_messages().zip(std::iter::repeat(output.schemas("public-item"))) {
        let schema = &schema.last().expect("a SCHEMA").schema;
        assert!(jsonschema::is_valid(schema, &Value::Object(record.record.clone())), "{record:?} under {schema}");
    }
}

fn a_column_is_dropped_and_made_anew(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let output = source.run_after(
        "insert into item values (2, 'b', 2); alter table item drop column note; alter table item add note text;
         insert into item values (3, 3, 'c');",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "n"), [2, 3]);
    assert_eq!(output.records("public-item")[1]["note"], "c");
}

fn a_table_that_is_not_selected_changes(plugin: &str) {
    let sql = format!("{ITEM} create table other (id integer primary key);");
    let source = Source::new(plugin, &sql, &["item"]);
    let output = source.run_after(
        "insert into other values (1); alter table other add x point; insert into other values (2, '(1,2)');
         insert into item values (2, 'b', 2); drop table other; create table other (y xml); insert into item values (3, 'c', 3);",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "item", "id"), [2, 3]);
}

/// The stream of the catalog is gone; its table's new name is nobody's.
fn a_table_is_renamed(plugin: &str) {
    let sql = format!("{ITEM} create table other (id integer primary key);");
    let source = Source::new(plugin, &sql, &["item", "other"]);
    let state = source.copied();
    source.db.psql("insert into item values (2, 'b', 2); insert into other values (1);");
    let output = source.run(&state);
    source.db.psql(
        "alter table item rename to things; insert into things values (3, 'c', 3); insert into other values (2);",
    );
    let failed = source.tap().state(output.last_state()).output();
    assert!(failed.stderr.contains("item"), "{}", failed.stderr);
    // Back under its name it is the same table: nothing was lost.
    source.db.psql("alter table things rename to item;");
    let output = source.run(output.last_state());
    assert_eq!(numbers(&output, "other", "id"), [2]);
}

/// pgoutput doesn't publish a generated column before PostgreSQL 18, so a copy doesn't have it either.
fn a_generated_column(plugin: &str) {
    if !needs(12, "generated columns") {
        return;
    }
    let sql = "create table item (id integer primary key, n integer, twice integer generated always as (n * 2) stored);
        insert into item (id, n) values (1, 1);";
    let source = Source::new(plugin, sql, &["item"]);
    let first = source.tap().run();
    let output = source.run_after("insert into item (id, n) values (2, 2); update item set n = 5;", first.last_state());
    assert_eq!(numbers(&output, "item", "n").len(), 3);
    if plugin == "wal2json" {
        assert_eq!(numbers(&first, "item", "twice"), [2]);
        assert_eq!(numbers(&output, "item", "twice"), [4, 10, 10]);
    } else {
        for output in [&first, &output] {
            assert!(output.schemas("public-item").iter().all(|s| s.schema["properties"].get("twice").is_none()));
            let warned = output.stderr.lines().any(|line| line.contains("WARNING") && line.contains("twice"));
            assert!(warned, "{}", output.stderr);
        }
    }
}

/// The tap knows the table as it was when it started; the log brings the change.
fn columns_change_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    let tap = source.tap().state(&state).config("break_at_end_lsn", false);
    let mut running = tap.spawn();
    let timeout = std::time::Duration::from_secs(30);
    let is =
        |id: i64| move |message: &crate::harness::Message| message.as_record().is_some_and(|r| r.record["id"] == id);
    source.db.psql("insert into item values (2, 'b', 2)");
    running.wait_for(timeout, is(2));
    source.db.psql("alter table item add more text; insert into item values (3, 'c', 3, 'm');");
    let record = running.wait_for(timeout, is(3));
    assert_eq!(record.as_record().expect("a record").record["more"], "m");
    source.db.psql("alter table item drop column note; insert into item values (4, 4, 'o');");
    let record = running.wait_for(timeout, is(4));
    assert_eq!(record.as_record().expect("a record").record["more"], "o");
    source.db.psql("alter table item alter n type text; insert into item values (5, 'five', 'o');");
    let record = running.wait_for(timeout, is(5));
    assert_eq!(record.as_record().expect("a record").record["n"], "five");
    running.signal(rustix::process::Signal::TERM);
    let output = running.finish().expect_code(143);
    crate::harness::check_protocol(&output.messages);
}
