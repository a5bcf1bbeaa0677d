//! INCREMENTAL: rows at or past the bookmark, whatever the key's type; what a bookmark takes and what clears it.

mod xmin;

use serde_json::{Value, json};

use crate::harness::compare::canonical;
use crate::harness::{Message, Output, Tap, TestDb, release};

const T: &str = "public-t";

/// A table of (id, k) with these keys (SQL expressions) in this order, ids counted from 1.
fn table(test: &str, key_type: &str, keys: &[&str]) -> TestDb {
    let db = TestDb::new(test);
    db.psql(&format!("create table t (id integer generated always as identity primary key, k {key_type})"));
    insert(&db, keys);
    db
}

fn insert(db: &TestDb, keys: &[&str]) {
    let rows: Vec<String> = keys.iter().map(|key| format!("({key})")).collect();
    db.psql(&format!("insert into t (k) values {}", rows.join(", ")));
}

fn tap(db: &TestDb) -> Tap {
    Tap::new(db).catalog(&Tap::new(db).discover().select_incremental(T, "k"))
}

/// The ids of the records, in the order they came.
fn ids(output: &Output) -> Vec<i64> {
    output.records(T).iter().map(|record| record["id"].as_i64().expect("an id")).collect()
}

/// A first run, four more rows, a second run: `new` are keys in the order (below, equal to, above the bookmark, NULL).
/// The second run sends the rows from the bookmark on, the one that made it included, and nothing below it.
#[track_caller]
fn resumes(key_type: &str, old: &[&str], bookmark: &Value, new: [&str; 4]) {
    let db = table("incremental_resume", key_type, old);
    let first = tap(&db).run();
    let count = i64::try_from(old.len()).expect("a few rows");
    assert_eq!(first.records(T).len(), old.len(), "{key_type}");
    // The last of them has the largest key.
    assert_eq!(ids(&first).iter().position(|id| *id == count), Some(old.len() - 1), "{key_type}");
    assert_eq!(first.schemas(T)[0].bookmark_properties, ["k"]);
    let kept = first.bookmark(T);
    assert_eq!(canonical(&kept["replication_key_value"]), canonical(bookmark), "{key_type}");
    assert_eq!((&kept["replication_key"], &kept["last_replication_method"]), (&json!("k"), &json!("INCREMENTAL")));
    // In the bookmark as in the record.
    assert_eq!(first.records(T).last().expect("rows")["k"], kept["replication_key_value"], "{key_type}");

    insert(&db, &new);
    let second = tap(&db).state(first.last_state()).run();
    let mut sent = ids(&second);
    assert_eq!(sent.pop(), Some(count + 3), "{key_type}: the largest key last");
    sent.sort_unstable();
    assert_eq!(sent, [count, count + 2], "{key_type}");
    assert_eq!(second.bookmark(T)["version"], kept["version"], "{key_type}: the version stays");
    let above = &second.records(T).last().expect("rows")["k"];
    assert_eq!(&second.bookmark(T)["replication_key_value"], above, "{key_type}");

    // Nothing new: the rows of the bookmark again, and the same state.
    let third = tap(&db).state(second.last_state()).run();
    assert_eq!((ids(&third), third.last_state()), (vec![count + 3], second.last_state()), "{key_type}");
}

#[test]
fn integers() {
    resumes("integer", &["-2147483648", "5", "7"], &json!(7), ["6", "7", "2147483647", "null"]);
    resumes("smallint", &["-1", "5"], &json!(5), ["4", "5", "6", "null"]);
    let large = Value::Number("9223372036854775806".parse().expect("a number"));
    resumes(
        "bigint",
        &["1", "9223372036854775806"],
        &large,
        ["9223372036854775805", "9223372036854775806", "9223372036854775807", "null"],
    );
}

#[test]
fn numerics_to_the_last_digit() {
    let number = |text: &str| Value::Number(text.parse().expect("a number"));
    let digits = "12345678901234567890.1234567890123456789";
    resumes(
        "numeric",
        &["-1", digits],
        &number(digits),
        [
            "12345678901234567890.1234567890123456788",
            "12345678901234567890.12345678901234567890",
            "12345678901234567890.1234567890123456790",
            "null",
        ],
    );
    resumes("numeric(12,2)", &["0.01", "0.02"], &number("0.02"), ["0.01", "0.02", "0.03", "null"]);
    resumes("double precision", &["0.1", "0.3"], &number("0.3"), ["0.29999999999999993", "0.3", "1e300", "null"]);
}

#[test]
fn instants() {
    resumes(
        "timestamp",
        &["'2020-01-01'", "'2024-02-29 12:00:00.000001'"],
        &json!("2024-02-29T12:00:00.000001+00:00"),
        ["'2024-02-29 12:00:00'", "'2024-02-29 12:00:00.000001'", "'2024-02-29 12:00:00.000002'", "null"],
    );
    resumes(
        "timestamptz",
        &["'2020-01-01+00'", "'2024-02-29 12:00+05:30'"],
        &json!("2024-02-29T06:30:00+00:00"),
        ["'2024-02-29 06:29:59.999999+00'", "'2024-02-29 06:30+00'", "'9999-12-31 23:59:59.999999+00'", "null"],
    );
    resumes(
        "date",
        &["'0001-01-01'", "'2024-02-29'"],
        &json!("2024-02-29T00:00:00+00:00"),
        ["'2024-02-28'", "'2024-02-29'", "'9999-12-31'", "null"],
    );
    resumes(
        "time",
        &["'00:00'", "'12:00:00.5'"],
        &json!("12:00:00.500000"),
        ["'12:00'", "'12:00:00.50'", "'13:00'", "null"],
    );
}

#[test]
fn texts() {
    let quoted = r#"it's a "\key""#;
    resumes("text", &["'a'", r#"'it''s a "\key"'"#], &json!(quoted), ["'a'", r#"'it''s a "\key"'"#, "'z'", "null"]);
    resumes("varchar(10)", &["'a'", "'hello'"], &json!("hello"), ["'hell'", "'hello'", "'z'", "null"]);
    // Compared as a whole, not by the first character that a cast to "character" would leave.
    resumes("char(8)", &["'a'", "'hello'"], &json!("hello   "), ["'hell'", "'hello'", "'z'", "null"]);
    let uuid = |last: &str| format!("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a{last}'");
    resumes(
        "uuid",
        &[&uuid("01"), &uuid("11")],
        &json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        [&uuid("10"), &uuid("11"), &uuid("12"), "null"],
    );
}

#[test]
fn types_of_users() {
    let db = TestDb::new("incremental_types");
    db.psql(
        "create schema types; create type types.mood as enum ('sad', 'ok', 'happy');
         create domain types.counter as bigint check (value > 0);
         create table t (id integer primary key, m types.mood, c types.counter, b bit(3));
         insert into t values (1, 'sad', 1, '001'), (2, 'ok', 2, '010'), (3, 'happy', 3, '100')",
    );
    for (key, value) in [("m", json!("ok")), ("c", json!(2)), ("b", json!("010"))] {
        let catalog = Tap::new(&db).discover().select_incremental(T, key);
        let state = json!({"bookmarks": {T: {"last_replication_method": "INCREMENTAL", "replication_key": key,
            "replication_key_value": value, "version": 1}}});
        let output = Tap::new(&db).catalog(&catalog).state(&state).run();
        assert_eq!(ids(&output), [2, 3], "{key}");
    }
}

#[test]
fn a_first_run_sends_nulls_too_and_never_keeps_one() {
    let db = table("incremental_nulls", "integer", &["null", "2", "null", "1"]);
    let output = tap(&db).run();
    assert_eq!(ids(&output)[..2], [4, 2]);
    assert_eq!(output.records(T).len(), 4);
    assert_eq!(output.bookmark(T)["replication_key_value"], 2);

    let db = table("incremental_only_nulls", "integer", &["null"]);
    let first = tap(&db).run();
    assert!(first.bookmark(T).get("replication_key_value").is_none_or(Value::is_null), "{}", first.last_state());
    insert(&db, &["1"]);
    assert_eq!(tap(&db).state(first.last_state()).run().records(T).len(), 2);
}

#[test]
fn an_empty_table_has_no_bookmark_value() {
    let db = table("incremental_empty", "integer", &["1"]);
    db.psql("truncate t");
    let first = tap(&db).run();
    assert!(first.bookmark(T).get("replication_key_value").is_none_or(Value::is_null), "{}", first.last_state());
    insert(&db, &["1"]);
    let second = tap(&db).state(first.last_state()).run();
    assert_eq!((ids(&second), second.bookmark(T)["version"].clone()), (vec![2], first.bookmark(T)["version"].clone()));
}

#[test]
fn a_limit_cuts_a_run_and_the_next_goes_on() {
    let db = table("incremental_limit", "integer", &["1", "2", "2", "3", "4", "5"]);
    let mut state = json!({});
    // Rows of the bookmark come again and don't count, so that the run gets past them.
    for (expected, bookmark) in [(vec![1, 2], 2), (vec![2, 3, 4, 5], 4)] {
        let output = tap(&db).config("limit", 2).state(&state).run();
        let mut sent = ids(&output);
        sent.sort_unstable();
        assert_eq!((sent, &output.bookmark(T)["replication_key_value"]), (expected, &json!(bookmark)));
        state = output.last_state().clone();
    }
    let output = tap(&db).config("limit", "4").state(&state).run();
    assert_eq!((output.records(T).len(), &output.bookmark(T)["replication_key_value"]), (2, &json!(5)));
}

#[test]
fn a_state_follows_every_ten_thousand_rows() {
    let db = TestDb::new("incremental_states");
    db.psql(
        "create table t (id integer primary key, k integer);
             insert into t select n, n / 3 from generate_series(0, 24999) n",
    );
    let output = tap(&db).run();
    let mut rows = 0;
    let mut states = Vec::new();
    for message in &output.messages {
        match message {
            Message::Record(_) => rows += 1,
            Message::State(value) => states.push((rows, value["bookmarks"][T]["replication_key_value"].clone())),
            _ => {}
        }
    }
    let expected = [(0, Value::Null), (10_000, json!(3333)), (20_000, json!(6666)), (25_000, json!(8333))];
    assert_eq!(states, expected, "rows before each STATE, and its value");
    // A run that ended at any of them goes on without a gap.
    let again = tap(&db).state(output.states()[1]).run();
    assert_eq!((again.records(T).len(), again.bookmark(T)), (25_000 - 9_999, output.bookmark(T)));
}

#[test]
fn fallback_values_are_sent_and_never_kept() {
    for (key_type, good, value, odd) in [
        (
            "timestamp",
            "'2024-01-01'",
            json!("2024-01-01T00:00:00+00:00"),
            ["'infinity'", "'20000-01-01'", "'infinity'"],
        ),
        (
            "timestamptz",
            "'2024-01-01+00'",
            json!("2024-01-01T00:00:00+00:00"),
            ["'infinity'", "'10000-01-01+00'", "'infinity'"],
        ),
        ("date", "'2024-01-01'", json!("2024-01-01T00:00:00+00:00"), ["'infinity'", "'20000-01-01'", "'infinity'"]),
        ("numeric", "1.5", json!(1.5), ["'NaN'", if release() < 14 { "'NaN'" } else { "'infinity'" }, "'NaN'"]),
        ("double precision", "1.5", json!(1.5), ["'NaN'", "'infinity'", "'NaN'"]),
        ("time", "'10:00'", json!("10:00:00"), ["'24:00'", "'24:00'", "'24:00'"]),
    ] {
        let keys: Vec<&str> = [good].into_iter().chain(odd).collect();
        let db = table("incremental_fallback", key_type, &keys);
        let first = tap(&db).run();
        assert_eq!(first.records(T).len(), 4, "{key_type}");
        assert_eq!(canonical(&first.bookmark(T)["replication_key_value"]), canonical(&value), "{key_type}");
        assert_eq!(tap(&db).state(first.last_state()).run().records(T).len(), 4, "{key_type}");
    }
    // Before year 1: sorted first, so no row comes after it with a lesser key.
    let db = table("incremental_bc", "timestamp", &["'-infinity'", "'0044-03-15 BC'"]);
    let output = tap(&db).run();
    assert_eq!(output.records(T).len(), 2);
    let kept = &output.bookmark(T)["replication_key_value"];
    assert!(kept.is_null(), "{kept}");
}

#[test]
fn another_key_or_method_clears_the_bookmark() {
    let db = table("incremental_change", "integer", &["1", "2"]);
    let state = |bookmark: Value| json!({"bookmarks": {T: bookmark}, "currently_syncing": null});
    let kept = json!({"last_replication_method": "INCREMENTAL", "replication_key": "k", "replication_key_value": 2, "version": 5});
    let same = tap(&db).state(&state(kept.clone())).run();
    assert_eq!((ids(&same), &same.bookmark(T)["version"]), (vec![2], &json!(5)));

    let with = |key: &str, value: Value| {
        let mut bookmark = kept.clone();
        bookmark[key] = value;
        state(bookmark)
    };
    for given in [
        with("replication_key", json!("id")),
        with("last_replication_method", json!("FULL_TABLE")),
        state(json!({"last_replication_method": "LOG_BASED", "lsn": 1, "version": 5, "xmin": null})),
    ] {
        let output = tap(&db).state(&given).run();
        assert_eq!(ids(&output), [1, 2], "{given}");
        let bookmark = output.bookmark(T);
        assert_ne!(bookmark["version"], 5, "{given}");
        let keys: Vec<&String> = bookmark.as_object().expect("a bookmark").keys().collect();
        assert_eq!(keys.len(), 4, "nothing of the old method is left in {bookmark}");
    }
    // Without last_replication_method, as other tools write it, the bookmark stands.
    let other = json!({"replication_key": "k", "replication_key_value": 2, "version": 5, "more": true});
    assert_eq!(ids(&tap(&db).state(&state(other)).run()), [2]);
}

#[test]
fn a_view_has_the_keys_that_the_catalog_names() {
    let db = table("incremental_view", "integer", &["3", "1", "2"]);
    db.psql("create view v as select id, k from t; create materialized view m as select id, k from t");
    for stream in ["public-v", "public-m"] {
        let catalog = Tap::new(&db).discover().select_incremental(stream, "k");
        let catalog = catalog.set(stream, None, &json!({"view-key-properties": ["id"]}));
        let output = Tap::new(&db).catalog(&catalog).run();
        assert_eq!(output.schemas(stream)[0].key_properties, ["id"]);
        let keys: Vec<&Value> = output.records(stream).iter().map(|record| &record["k"]).collect();
        assert_eq!(keys, [1, 2, 3], "{stream}");
        let again = Tap::new(&db).catalog(&catalog).state(output.last_state()).run();
        assert_eq!(again.records(stream).len(), 1, "{stream}");
    }
}

#[test]
fn a_key_that_is_missing_is_named() {
    let db = table("incremental_wrong", "integer", &["1"]);
    let catalog = Tap::new(&db).discover();
    for (catalog, text) in [
        (catalog.clone().select(T, "INCREMENTAL"), "replication key"),
        (catalog.clone().select_incremental(T, "gone"), "gone"),
        (catalog.select_incremental(T, "k").column(T, "k", false), "\"k\""),
    ] {
        let output = Tap::new(&db).catalog(&catalog).output().expect_code(1);
        assert_eq!(output.logged(text), 1, "{}", output.stderr);
    }
}

#[test]
fn keys_of_odd_types() {
    // Old keys, the second the larger, and a new one above.
    for (key_type, old, new) in [
        ("boolean", ["false", "true"], "true"),
        ("bit(1)", ["'0'", "'1'"], "'1'"),
        ("bit varying", ["'0'", "'101'"], "'11'"),
        ("bytea", [r"'\x00'", r"'\x0a'"], r"'\x0b'"),
        ("interval", ["'1 day'", "'1 mon'"], "'2 mons'"),
        ("oid", ["1", "3000000000"], "4000000000"),
        ("pg_lsn", ["'0/1'", "'0/A'"], "'0/B'"),
        ("inet", ["'1.2.3.4'", "'2.2.3.4'"], "'3.2.3.4'"),
        ("money", ["1", "1234.5"], "2000"),
        ("real", ["0.1", "0.3"], "0.4"),
        ("int4range", ["'[1,2)'", "'[3,5)'"], "'[4,5)'"),
    ] {
        let db = table("incremental_odd", key_type, &old);
        let first = tap(&db).run();
        insert(&db, &[new]);
        assert_eq!(ids(&tap(&db).state(first.last_state()).run()), [2, 3], "{key_type}");
    }
    // Rather than a bookmark that the next run can't read, or that skips rows.
    for (key_type, key) in [("integer[]", "'{1}'"), ("jsonb", "'{}'"), ("timetz", "'01:00+02'")] {
        let db = table("incremental_refused", key_type, &[key]);
        let output = tap(&db).output().expect_code(1);
        assert_eq!(output.logged("can't be replicated by \"k\""), 1, "{}", output.stderr);
    }
}
