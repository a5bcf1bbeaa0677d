//! Columns that get another type, or come, go and are renamed, while the log has rows from before. Whatever the log has or
//! lacks, every RECORD fits the SCHEMA before it, and a row that the log brings is in the end as the table has it.

use serde_json::{Value, json};

use super::{Source, assert_fits, assert_holds, column, follow, numbers, with_both_plugins};
use crate::harness::{Message, Output};

with_both_plugins!(
    rows_from_before_another_type,
    rows_from_before_another_type_in_the_same_transaction,
    rows_from_before_a_narrower_type,
    rows_from_before_a_new_name,
    rows_from_before_a_default,
    rows_from_before_another_type_are_looked_up_by_nothing_but_a_key,
    a_key_of_another_type,
    a_key_that_cannot_be_told_from_the_log,
    a_value_that_went_with_its_row,
    a_type_that_changes_while_the_tap_reads,
    a_column_that_goes_and_comes_while_the_tap_reads,
);

const ITEM: &str =
    "create table item (id integer primary key, n integer, note text, flag boolean, at timestamp, list text[]);
    insert into item values (1, 1, '1', true, '2024-02-29 12:00', '{1}');";

/// Rows that no simple cast brings to what the table holds afterwards.
const BEFORE: &str =
    "insert into item values (2, 2, 'two', true, '2024-02-29 12:00:00.5', '{x}'), (3, null, '30', false, null, null);
    update item set n = 11, flag = false, at = 'infinity' where id = 1;";

const ALTER: &str = "alter table item alter n type text using 'n' || n, alter note type integer using length(note),
    alter flag type text using case when flag then 'yes' else 'no' end, alter at type text using 'at ' || at::text,
    alter list type integer[] using case when list is not null then array[7] end;";

const AFTER: &str =
    "insert into item values (4, 'four', 4, 'four', 'four', '{4}'); update item set n = 'last' where id = 3;";

/// The runs of both ways to read the log.
#[track_caller]
fn both(source: &Source, state: &Value) -> [Output; 2] {
    ["bulk", "stream"].map(|reader| source.tap().state(state).config("wal_reader", reader).run())
}

fn rows_from_before_another_type(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    source.db.psql(&format!("{BEFORE} {ALTER} {AFTER}"));
    for output in both(&source, first.last_state()) {
        assert_eq!(numbers(&output, "item", "id"), [2, 3, 1, 4, 3]);
        assert_fits(&output.messages);
        // pgoutput says that a column had another type. From wal2json it shows only where a value can't be of the type.
        if plugin == "pgoutput" {
            assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
        } else {
            let note = column(&output, "item", "note");
            assert_eq!((&note[0], &note[3]), (&json!(3), &json!(4)), "read from the table where it is no integer");
            assert_eq!(column(&output, "item", "list")[0], json!([7]));
        }
    }
}

fn rows_from_before_another_type_in_the_same_transaction(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    source.db.psql(&format!("begin; {BEFORE} {ALTER} {AFTER} commit;"));
    for output in both(&source, first.last_state()) {
        assert_eq!(numbers(&output, "item", "id"), [2, 3, 1, 4, 3]);
        assert_fits(&output.messages);
        assert_eq!(column(&output, "item", "n")[3..], ["four", "last"]);
        if plugin == "pgoutput" {
            assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
        }
    }
}

/// The form of a value is the same, and its size is not.
fn rows_from_before_a_narrower_type(plugin: &str) {
    let sql =
        "create table item (id integer primary key, n bigint, amount numeric(12, 2), word varchar(40), code char(8));";
    let source = Source::new(plugin, sql, &["item"]);
    let first = source.tap().run();
    source.db.psql(
        "insert into item values (1, 5000000000, 1234567.89, 'a word that is long', 'eight888'), (2, 2, 2.5, 'b', 'c');
         update item set n = 1, amount = 1.5, word = 'short', code = 'c' where id = 1;
         alter table item alter n type integer, alter amount type numeric(4, 2), alter word type varchar(6), alter code type char(2);
         insert into item values (3, 3, 3.5, 'three', 'd');",
    );
    for output in both(&source, first.last_state()) {
        assert_eq!(numbers(&output, "item", "id"), [1, 2, 1, 3]);
        assert_fits(&output.messages);
        assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
    }
}

fn rows_from_before_a_new_name(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    source.db.psql(
        "insert into item (id, note) values (2, 'b'); update item set note = 'a' where id = 1;
         begin; insert into item (id, note) values (3, 'c'); alter table item rename note to remark;
         insert into item (id, remark) values (4, 'd'); commit;",
    );
    for output in both(&source, first.last_state()) {
        assert_eq!(column(&output, "item", "remark"), ["b", "a", "c", "d"]);
        assert_fits(&output.messages);
        let late = output.schemas("public-item").last().expect("a SCHEMA").schema["properties"].clone();
        assert_eq!(late.get("note"), None);
    }
}

fn rows_from_before_a_default(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    source.db.psql(
        "insert into item (id) values (2), (3); delete from item where id = 3; update item set n = 5 where id = 1;
         alter table item add more integer not null default 7, drop at;",
    );
    for output in both(&source, first.last_state()) {
        assert_eq!(numbers(&output, "item", "id"), [2, 3, 3, 1]);
        // A row that is gone has no value any more; the record of its delete follows.
        let more: Vec<_> = output.records("public-item").iter().map(|record| record.get("more").cloned()).collect();
        assert_eq!(more, [Some(json!(7)), None, None, Some(json!(7))]);
        assert_fits(&output.messages);
        assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
    }
}

/// Without a key as the log has it where the type can hold it, else nothing and a warning. With one from the table, also where
/// values that an update left alone are omitted.
fn rows_from_before_another_type_are_looked_up_by_nothing_but_a_key(plugin: &str) {
    let keyless = "create table item (id integer, n integer, note text); alter table item replica identity full;";
    let keyed = "create table item (id integer primary key, n integer, note text);";
    for (sql, toast, notes) in [(keyless, "fetch", [Some(1), None]), (keyed, "omit", [Some(0), Some(0)])] {
        let source = Source::new(plugin, sql, &["item"]);
        let state = source.copied();
        source.db.psql(
            "insert into item values (1, 1, '1'), (2, 2, 'secret'); alter table item alter n type text, alter note type integer using 0;",
        );
        for reader in ["bulk", "stream"] {
            let tap = source.tap().state(&state).config("wal_reader", reader).config("unchanged_toast", toast);
            let output = tap.run();
            assert_fits(&output.messages);
            assert_eq!(column(&output, "item", "n"), ["1", "2"]);
            let records = output.records("public-item");
            assert_eq!([0, 1].map(|at: usize| records[at].get("note").and_then(Value::as_i64)), notes);
            assert_eq!(
                output.logged("values of \"note\" from before"),
                usize::from(toast == "fetch"),
                "{}",
                output.stderr
            );
            assert!(!output.stderr.contains("secret"));
        }
    }
}

fn a_key_of_another_type(plugin: &str) {
    let sql =
        "create table item (id integer primary key, note text, body text); insert into item values (1, 'a'), (2, 'b');
        alter table item alter body set storage external;
        insert into item select 9, 'big', string_agg(md5(i::text), '') from generate_series(1, 300) i;";
    let source = Source::new(plugin, sql, &["item"]);
    let first = source.tap().run();
    source.db.psql(
        "insert into item values (3, 'c'); delete from item where id = 1; update item set note = 'bigger' where id = 9;
         alter table item alter id type text; insert into item values ('four', 'd'); delete from item where id = '2';",
    );
    for output in both(&source, first.last_state()) {
        assert_eq!(output.logged("public-item: the key was made anew since the last run"), 1, "{}", output.stderr);
        assert_eq!(column(&output, "item", "id"), ["3", "9", "four"]);
        assert!(output.messages.iter().any(|message| matches!(message, Message::ActivateVersion { .. })));
        assert_fits(&output.messages);
    }
}

/// A key that was renamed: nothing says which row of the target is meant.
fn a_key_that_cannot_be_told_from_the_log(plugin: &str) {
    for (create, change) in [
        (
            "id integer primary key, note text",
            "insert into item values (5, 'e'); alter table item rename id to number;",
        ),
        (
            "id integer primary key, note text",
            "update item set note = 'f'; insert into item values (5, 'e'); alter table item rename id to \"other\";",
        ),
    ] {
        let sql = format!("create table item ({create}); create table other (id integer primary key);");
        let source = Source::new(plugin, &sql, &["item", "other"]);
        let mut state = source.copied();
        source.db.psql(&format!("insert into other values (1); {change} insert into other values (2);"));
        for reader in ["bulk", "stream"] {
            let before = source.confirmed_flush();
            let failed = source.tap().state(&state).config("wal_reader", reader).run_failing(1);
            assert_fits(&failed.messages);
            let line = failed.stderr.lines().find(|line| line.contains("level=ERROR")).expect("an error");
            assert!(line.contains("public-item") && line.contains("key") && line.contains("bookmark"), "{line}");
            assert_eq!(numbers(&failed, "other", "id"), [1, 2], "the other stream goes on");
            assert!(failed.records("public-item").is_empty());
            assert_eq!(source.confirmed_flush(), before.max(super::lsn(&state, "item")));
        }
        // The advice helps.
        state["bookmarks"].as_object_mut().expect("bookmarks").shift_remove("public-item");
        let output = source.run(&state);
        assert_eq!(numbers(&output, "other", "id"), [1, 2]);
        assert_holds(&source.db, "item", &[&output.messages]);
    }
}

fn a_value_that_went_with_its_row(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    source.db.psql(
        "insert into item (id, note) values (2, 'gone'), (3, 'stays'); alter table item alter note type integer using 0;
         delete from item where id = 2; update item set note = 9 where id in (1, 3);",
    );
    for output in both(&source, first.last_state()) {
        assert_eq!(numbers(&output, "item", "id"), [2, 3, 2, 1, 3]);
        assert_fits(&output.messages);
        assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
    }
}

fn a_type_that_changes_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let output = follow(&source, "item", first.last_state(), |running| {
        running.after("insert into item (id, n) values (2, 2);", 2);
        running.after("begin; insert into item (id, n) values (3, 3); alter table item alter n type text; insert into item (id, n) values (4, 'four'); commit;", 4);
        running
            .after("alter table item alter n type integer using length(n); insert into item (id, n) values (5, 5);", 5);
        running
            .after("alter table item alter note type integer using 6; insert into item (id, note) values (6, 66);", 6);
    });
    assert_fits(&output.messages);
    let n = column(&output, "item", "n");
    assert_eq!((&n[0], &n[2]), (&json!(2), &json!("four")));
    // wal2json does not say that what a text can hold is a number now: the next run knows.
    if plugin == "pgoutput" {
        assert_eq!((&n[3], &output.records("public-item")[4]["note"]), (&json!(5), &json!(66)));
        let kind = |schema: &&crate::harness::messages::Schema| schema.schema["properties"]["n"]["type"][0].clone();
        let kinds: Vec<Value> = output.schemas("public-item").iter().map(kind).collect();
        assert_eq!(kinds, ["integer", "string", "integer", "integer"], "a SCHEMA for each form");
    }
}

fn a_column_that_goes_and_comes_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    let output = follow(&source, "item", &state, |running| {
        running.after("insert into item (id, note) values (2, 'b');", 2);
        running.after("alter table item drop note; insert into item (id) values (3);", 3);
        running.after("alter table item add note text; insert into item (id, note) values (4, 'd');", 4);
        running
            .after("alter table item drop note, add note integer[]; insert into item (id, note) values (5, '{5}');", 5);
        running.after("alter table item rename note to x; insert into item (id, x) values (6, '{6}');", 6);
        running.after("alter table item rename x to note; insert into item (id, note) values (7, '{7}');", 7);
    });
    assert_fits(&output.messages);
    let notes: Vec<_> = output.records("public-item").iter().map(|record| record.get("note").cloned()).collect();
    // To wal2json an array is a text, which a text can hold.
    let fifth = if plugin == "pgoutput" { json!([5]) } else { json!("{5}") };
    assert_eq!(notes, [Some(json!("b")), None, Some(json!("d")), Some(fifth), None, Some(json!([7]))]);
    assert_eq!(output.records("public-item")[4]["x"], json!([6]));
}
