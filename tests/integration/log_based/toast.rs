//! Values that the log leaves out because they did not change.

use serde_json::{Value, json};

use super::{Source, column, numbers, only, with_both_plugins};

with_both_plugins!(
    fetched,
    omitted,
    the_old_row_has_it_under_full,
    several_rows_of_one_transaction,
    a_row_deleted_afterwards,
    a_row_changed_again_afterwards,
    a_key_that_moves,
    a_composite_key_of_odd_types,
    json_and_arrays,
    a_deselected_column_is_not_fetched,
    a_deselected_column_beside_it,
    many_rows,
    a_keyless_table_omits,
    null_and_changed_values_are_no_unchanged_ones,
);

/// Longer than a page and not compressed.
const BIG: &str = "(select string_agg(md5(i::text || $1), '') from generate_series(1, 300) i)";

const DOC: &str = "create table doc (id integer primary key, title text, body text);
    alter table doc alter body set storage external;
    create function big(text) returns text language sql immutable as
        $$ select string_agg(md5(i::text || $1), '') from generate_series(1, 300) i $$;
    insert into doc select i, 't' || i, big(i::text) from generate_series(1, 5) i;";

fn body(source: &Source, of: &str) -> Value {
    json!(source.db.query_one(&BIG.replace("$1", &format!("'{of}'"))))
}

fn fetched(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let output = source.run_after("update doc set title = 'new' where id = 2", &source.copied());
    let record = only(&output, "doc");
    assert_eq!((&record["title"], &record["body"]), (&json!("new"), &body(&source, "2")));
    assert_eq!(record["_sdc_deleted_at"], Value::Null);
}

fn omitted(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let state = source.copied();
    source.db.psql("update doc set title = 'new' where id = 2");
    let output = source.tap().config("unchanged_toast", "omit").state(&state).run();
    let record = only(&output, "doc");
    assert_eq!(record["title"], "new");
    assert_eq!(record.get("body"), None);
}

fn the_old_row_has_it_under_full(plugin: &str) {
    let source = Source::new(plugin, &format!("{DOC} alter table doc replica identity full;"), &["doc"]);
    let state = source.copied();
    source.db.psql("update doc set title = 'new' where id = 2; update doc set body = 'short' where id = 2;");
    for way in ["omit", "fetch"] {
        let output = source.tap().config("unchanged_toast", way).state(&state).run();
        // Of the time of the update, not the newer one of the table.
        assert_eq!(column(&output, "doc", "body"), [body(&source, "2"), json!("short")], "{way}");
    }
}

fn several_rows_of_one_transaction(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let output = source.run_after(
        "begin; update doc set title = 'new'; insert into doc values (6, 'six', null); update doc set title = 'newer' where id = 3; commit;",
        &source.copied(),
    );
    assert_eq!(numbers(&output, "doc", "id"), [1, 2, 3, 4, 5, 6, 3]);
    let mut expected: Vec<Value> = ["1", "2", "3", "4", "5"].iter().map(|id| body(&source, id)).collect();
    expected.extend([Value::Null, body(&source, "3")]);
    assert_eq!(column(&output, "doc", "body"), expected);
    let titles = column(&output, "doc", "title");
    assert_eq!((&titles[2], &titles[6]), (&json!("new"), &json!("newer")), "in the order of the log");
}

fn a_row_deleted_afterwards(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let state = source.copied();
    let output = source.run_after("update doc set title = 'new' where id = 2; delete from doc where id = 2;", &state);
    let records = output.records("public-doc");
    assert_eq!(records.len(), 2);
    assert_eq!((&records[0]["title"], records[0].get("body")), (&json!("new"), None));
    assert!(records[1]["_sdc_deleted_at"].is_string());
}

fn a_row_changed_again_afterwards(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let output = source.run_after(
        "update doc set title = 'new' where id = 2; update doc set body = big('other') where id = 2;",
        &source.copied(),
    );
    // The newer value wins; the record that brings it follows.
    assert_eq!(column(&output, "doc", "body"), [body(&source, "other"), body(&source, "other")]);
    assert_eq!(column(&output, "doc", "title"), ["new", "new"]);
}

fn a_key_that_moves(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let output = source.run_after("update doc set id = 20 where id = 2", &source.copied());
    assert_eq!(numbers(&output, "doc", "id"), [2, 20]);
    let records = output.records("public-doc");
    assert!(records[0]["_sdc_deleted_at"].is_string());
    assert_eq!((&records[1]["title"], &records[1]["body"]), (&json!("t2"), &body(&source, "2")));
}

fn a_composite_key_of_odd_types(plugin: &str) {
    let sql = r#"
        create table doc (at timestamptz, "odd ""key" text, u uuid, n numeric(10, 2), b bytea, ok boolean, f double precision, c char(4),
            d interval, v daterange, note text, body text,
            primary key (at, "odd ""key", u, n, b, ok, f, c, d, v));
        alter table doc alter body set storage external;
        insert into doc select '2024-02-29 12:00:00.123456+05:30', E'it''s \\ a\tkey', md5(i::text)::uuid, 1.10, '\x00ff', true, 0.1, 'ab', '1 day 2 h', '[2024-01-01,2024-02-01)',
            'n' || i, (select string_agg(md5(j::text || i), '') from generate_series(1, 300) j) from generate_series(1, 3) i;"#;
    let source = Source::new(plugin, sql, &["doc"]);
    let copied = source.tap().run();
    let output = source.run_after("update doc set note = note || '!'", copied.last_state());
    let first: Vec<_> = copied.records("public-doc").iter().map(|record| record["body"].clone()).collect();
    assert_eq!(column(&output, "doc", "body"), first);
    assert_eq!(column(&output, "doc", "note"), ["n1!", "n2!", "n3!"]);
}

fn json_and_arrays(plugin: &str) {
    let sql = "
        create table doc (id integer primary key, title text, j jsonb, k json, a integer[]);
        insert into doc select 1, 't', jsonb_object_agg('k' || i, md5(i::text)),
            json_object_agg('k' || i, 1.10), array_agg(i * 7919) from generate_series(1, 3000) i;
        alter table doc alter j set storage external;";
    let source = Source::new(plugin, sql, &["doc"]);
    let copied = source.tap().run();
    let output = source.run_after("update doc set title = 'new'", copied.last_state());
    let (before, after) = (only(&copied, "doc"), only(&output, "doc"));
    for column in ["j", "k", "a"] {
        assert_eq!(after[column], before[column], "{column}");
    }
    assert_eq!(after["title"], "new");
}

fn a_deselected_column_is_not_fetched(plugin: &str) {
    let mut source = Source::new(plugin, DOC, &["doc"]);
    source.catalog = source.catalog.clone().column("public-doc", "body", false);
    let output = source.run_after("update doc set title = 'new' where id = 2", &source.copied());
    let record = only(&output, "doc");
    assert_eq!(record.keys().collect::<Vec<_>>(), ["id", "title", "_sdc_deleted_at"]);
}

/// The tuple has as many values as columns are selected, though not the same.
fn a_deselected_column_beside_it(plugin: &str) {
    let sql = format!("{DOC} alter table doc add other text default 'o', add more text default 'm';");
    for identity in ["default", "full"] {
        let mut source = Source::new(plugin, &format!("{sql} alter table doc replica identity {identity};"), &["doc"]);
        source.catalog = source.catalog.clone().column("public-doc", "other", false);
        let output = source.run_after("update doc set title = 'new' where id = 2", &source.copied());
        let record = only(&output, "doc");
        assert_eq!((&record["title"], &record["more"]), (&json!("new"), &json!("m")));
        assert_eq!(record["body"], body(&source, "2"), "{identity}");
    }
}

/// More than any batch, in more transactions than one.
fn many_rows(plugin: &str) {
    let sql = format!("{DOC} insert into doc select i, 't', big((i % 5)::text) from generate_series(6, 1500) i;");
    let source = Source::new(plugin, &sql, &["doc"]);
    let output = source.run_after(
        "update doc set title = 'one' where id % 2 = 0; update doc set title = 'two' where id % 2 = 1;",
        &source.copied(),
    );
    let records = output.records("public-doc");
    assert_eq!(records.len(), 1500);
    let bodies: Vec<Value> = ["0", "1", "2", "3", "4"].iter().map(|of| body(&source, of)).collect();
    let fives = body(&source, "5");
    for record in records {
        let id = record["id"].as_u64().expect("an id") as usize;
        let expected = if id == 5 { &fives } else { &bodies[id % 5] };
        assert_eq!(&record["body"], expected, "row {id}");
        assert_eq!(record["title"], if id.is_multiple_of(2) { "one" } else { "two" });
    }
}

/// Without a key there is nothing to fetch by; a primary key can't be missing from the identity, so this is FULL.
fn a_keyless_table_omits(plugin: &str) {
    let sql = DOC.replace("integer primary key", "integer");
    let source = Source::new(plugin, &format!("{sql} alter table doc replica identity full;"), &["doc"]);
    let output = source.run_after("update doc set title = 'new' where id = 2", &source.copied());
    assert_eq!(only(&output, "doc")["body"], body(&source, "2"));
}

fn null_and_changed_values_are_no_unchanged_ones(plugin: &str) {
    let source = Source::new(plugin, DOC, &["doc"]);
    let state = source.copied();
    let changes = "update doc set body = null where id = 1; update doc set body = big('x') where id = 2;
        update doc set body = '' where id = 3; update doc set title = null where id = 1;";
    let output = source.run_after(changes, &state);
    assert_eq!(column(&output, "doc", "body"), [Value::Null, body(&source, "x"), json!(""), Value::Null]);
    assert_eq!(column(&output, "doc", "title"), [json!("t1"), json!("t2"), json!("t3"), Value::Null]);
}
