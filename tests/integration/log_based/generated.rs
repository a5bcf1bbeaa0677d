//! Columns that a publication does not send, or that the table computes, are no NULLs.

use serde_json::{Value, json};

use super::{Source, assert_fits, column, follow, numbers, with_both_plugins};
use crate::harness::{Cluster, Output, TestDb, needs};

with_both_plugins!(a_generated_column_added_while_the_tap_reads, a_generated_column_added_between_runs);

const ITEM: &str = "create table item (id integer primary key, n integer); insert into item values (1, 1);";

/// Whether the stream has the column at all.
fn properties(output: &Output, column: &str) -> Vec<bool> {
    output.schemas("public-item").iter().map(|s| s.schema["properties"].get(column).is_some()).collect()
}

/// No record says NULL of what is none.
#[track_caller]
fn assert_twice(output: &Output) {
    for record in output.records("public-item") {
        if let Some(twice) = record.get("twice") {
            assert_eq!(*twice, json!(record["n"].as_i64().expect("an integer") * 2), "{record:?}");
        }
    }
}

fn a_generated_column_added_while_the_tap_reads(plugin: &str) {
    if !needs(12, "generated columns") {
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    let output = follow(&source, "item", &state, |running| {
        running.after("insert into item values (2, 2);", 2);
        running.after(
            "alter table item add twice integer generated always as (n * 2) stored; insert into item values (3, 3);",
            3,
        );
        running.after("update item set n = 20 where id = 2; insert into item values (4, 4);", 4);
        running.after("alter table item add more text; insert into item values (5, 5, default, 'm');", 5);
    });
    assert_fits(&output.messages);
    assert_twice(&output);
    assert_eq!(output.records("public-item").last().expect("a record")["more"], "m");
    let sent = output.records("public-item").iter().filter(|record| record.contains_key("twice")).count();
    if plugin == "wal2json" {
        assert_eq!(sent, 4);
    } else {
        assert_eq!((sent, properties(&output, "twice")), (0, vec![false, false]));
        assert!(
            output.stderr.lines().any(|line| line.contains("WARNING") && line.contains("twice")),
            "{}",
            output.stderr
        );
    }
}

fn a_generated_column_added_between_runs(plugin: &str) {
    if !needs(12, "generated columns") {
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    let output = source.run_after(
        "insert into item values (2, 2); alter table item add twice integer generated always as (n * 2) stored;
         insert into item values (3, 3); update item set n = 10 where id = 1;",
        &state,
    );
    assert_eq!(numbers(&output, "item", "id"), [2, 3, 1]);
    assert_fits(&output.messages);
    assert_twice(&output);
    if plugin == "wal2json" {
        assert_eq!(numbers(&output, "item", "twice"), [4, 6, 20]);
    } else {
        assert_eq!(properties(&output, "twice"), [false]);
    }
}

/// A database whose publication is made with this.
fn published(sql: &str, what: &str) -> Source {
    let db = TestDb::on(&Cluster::shared(), "log_published");
    db.psql(sql);
    db.publication(what);
    let slot = db.slot("pgoutput");
    Source::of(db, slot, &["item"])
}

#[test]
fn a_column_that_the_publications_list_lacks() {
    if !needs(15, "a publication's column list") {
        return;
    }
    let source = published(ITEM, "for table item (id, n)");
    let state = source.copied();
    let output = follow(&source, "item", &state, |running| {
        running.after("insert into item values (2, 2);", 2);
        running.after("alter table item add more text default 'm'; insert into item values (3, 3, 'x');", 3);
        running.after("alter table item drop more, add more integer; insert into item values (4, 4, 4);", 4);
        running.after("alter table item drop more, add more text default 'm'; insert into item values (5, 5, 'x');", 5);
    });
    assert_fits(&output.messages);
    assert!(output.records("public-item").iter().all(|record| !record.contains_key("more")));
    assert_eq!(properties(&output, "more"), [false]);

    // The list is widened: the column comes, for rows from before with what the table has.
    source.db.psql(&format!(
        "insert into item values (6, 6, 'e'); alter publication {0} set table item (id, n, more);
         insert into item values (7, 7, 'f'); alter publication {0} set table item (id, n); insert into item values (8, 8, 'g');",
        source.slot
    ));
    let last = output.last_state();
    let narrow = source.run(last);
    assert_eq!(numbers(&narrow, "item", "id"), [6, 7, 8]);
    assert!(narrow.records("public-item").iter().all(|record| !record.contains_key("more")));
    source.db.psql(&format!("alter publication {} set table item (id, n, more);", source.slot));
    let wide = source.run(last);
    assert_eq!(column(&wide, "item", "more"), ["e", "f", "g"]);
}

/// 18 can publish stored generated columns, and computes virtual ones that no log has.
#[test]
fn generated_columns_of_18() {
    if !needs(18, "a published generated column") {
        return;
    }
    let sql = "create table item (id integer primary key, n integer, twice integer generated always as (n * 2) stored,
        thrice integer generated always as (n * 3) virtual); insert into item (id, n) values (1, 1);";
    for (how, sent) in [("none", false), ("stored", true)] {
        let source = published(sql, &format!("for table item with (publish_generated_columns = {how})"));
        let first = source.tap().run();
        let output = follow(&source, "item", first.last_state(), |running| {
            running.after("insert into item (id, n) values (2, 2);", 2);
            running.after(
                "alter table item add plus integer generated always as (n + 1) virtual, add minus integer generated always as (n - 1) stored;
                 insert into item (id, n) values (3, 3);",
                3,
            );
        });
        for output in [&first, &output] {
            assert_fits(&output.messages);
            assert_twice(output);
            let has = |name: &str| output.records("public-item").iter().filter(|r| r.contains_key(name)).count();
            assert_eq!((has("thrice"), has("plus")), (0, 0));
            assert_eq!(has("twice") > 0, sent);
        }
        let minus = output.records("public-item")[1].get("minus").cloned();
        assert_eq!(minus, sent.then_some(json!(2)));
        let full: Value = Value::Object(output.records("public-item")[0].clone());
        assert_eq!(full.get("twice"), sent.then_some(&json!(4)));
    }
}
