//! Values that the log leaves out, of tables that change before they are looked up.

use serde_json::{Value, json};

use super::{Source, column, numbers, with_both_plugins};
use crate::harness::{Message, Output, check_protocol};

with_both_plugins!(
    columns_come_and_go_in_the_transaction,
    a_missing_column_is_dropped,
    the_identity_becomes_full,
    the_identity_becomes_the_key,
);

/// Two columns that an update of the title leaves out, and columns before them whose drop moves them.
const DOC: &str = "
    create function big(text) returns text language sql immutable as
        $$ select string_agg(md5(i::text || $1), '') from generate_series(1, 300) i $$;
    create table doc (id integer primary key, first text, note text, title text, body text, more text);
    alter table doc alter body set storage external, alter more set storage external;
    insert into doc select i, 'f', 'n', 't' || i, big('b' || i), big('m' || i) from generate_series(1, 6) i;";

fn big(source: &Source, of: &str) -> Value {
    json!(source.db.query_one(&format!("select big('{of}')")))
}

/// What a run that follows the log prints of a transaction that comes when it knows the table already.
#[track_caller]
fn meanwhile(source: &Source, sql: &str) -> Output {
    let timeout = std::time::Duration::from_secs(30);
    let state = source.copied();
    let mut running = source.tap().state(&state).config("break_at_end_lsn", false).spawn();
    let is = |title: &'static str| {
        move |message: &Message| message.as_record().is_some_and(|record| record.record["title"] == title)
    };
    source.db.psql("insert into doc (id, title) values (100, 'start')");
    running.wait_for(timeout, is("start"));
    source.db.psql(sql);
    source.db.psql("insert into doc (id, title) values (101, 'stop')");
    running.wait_for(timeout, is("stop"));
    running.signal(rustix::process::Signal::TERM);
    let output = running.finish().expect_code(143);
    check_protocol(&output.messages);
    output
}

/// The records of the changes in between.
fn changed(output: &Output) -> Vec<&serde_json::Map<String, Value>> {
    output.records("public-doc").into_iter().filter(|record| record["id"].as_i64().is_some_and(|id| id < 100)).collect()
}

fn columns_come_and_go_in_the_transaction(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let output = meanwhile(
        &source,
        "begin; update doc set title = 'one' where id = 1;
         alter table doc drop column first, add extra text; update doc set title = 'two', extra = 'e' where id = 2;
         alter table doc drop column note, add last integer; update doc set title = 'three', last = 3 where id = 3; commit;",
    );
    let records = changed(&output);
    let titles: Vec<&Value> = records.iter().map(|record| &record["title"]).collect();
    assert_eq!(titles, ["one", "two", "three"]);
    for (record, id) in records.iter().zip(1..) {
        assert_eq!(record["id"], id);
        assert_eq!(record["body"], big(&source, &format!("b{id}")));
        assert_eq!(record["more"], big(&source, &format!("m{id}")));
    }
    assert_eq!((&records[1]["extra"], &records[2]["last"]), (&json!("e"), &json!(3)));
}

/// What the table still has is looked up all the same.
fn a_missing_column_is_dropped(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let output = meanwhile(
        &source,
        "begin; update doc set title = 'one' where id = 1; alter table doc drop column body, add extra text;
         update doc set title = 'two' where id = 2; commit;",
    );
    let records = changed(&output);
    assert_eq!(records.len(), 2);
    for (record, id) in records.iter().zip(1..) {
        assert_eq!(record["more"], big(&source, &format!("m{id}")), "row {id}");
        assert_eq!(record.get("body"), None);
    }
}

const CHANGES: &str =
    "update doc set title = 'new' where id = 2; update doc set id = 30 where id = 3; delete from doc where id = 4;";

/// The records of [`CHANGES`] and of the same a little later.
#[track_caller]
fn assert_changed(source: &Source, output: &Output) {
    assert_eq!(numbers(output, "doc", "id"), [2, 3, 30, 4, 5]);
    let records = output.records("public-doc");
    let gone: Vec<bool> = column(output, "doc", "_sdc_deleted_at").iter().map(Value::is_string).collect();
    assert_eq!(gone, [false, true, false, true, false]);
    for (at, of) in [(0, 2), (2, 3), (4, 5)] {
        assert_eq!(records[at]["body"], big(source, &format!("b{of}")), "record {at}");
        assert_eq!(records[at]["more"], big(source, &format!("m{of}")), "record {at}");
        assert_eq!(records[at]["first"], "f");
    }
}

fn the_identity_becomes_full(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let state = source.copied();
    let sql = format!("{CHANGES} alter table doc replica identity full; update doc set title = 'new' where id = 5;");
    assert_changed(&source, &source.run_after(&sql, &state));
}

fn the_identity_becomes_the_key(plugin: &str) {
    let source = Source::new(plugin, &format!("{DOC} alter table doc replica identity full;"), &["doc"]);
    let state = source.copied();
    let sql = format!("{CHANGES} alter table doc replica identity default; update doc set title = 'new' where id = 5;");
    assert_changed(&source, &source.run_after(&sql, &state));
}
