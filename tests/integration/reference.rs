//! The reference's own output, for its own database (fixtures/reference), is what the tap prints, but for the
//! differences that the contract promises: those are spelt out here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::harness::compare::{assert_messages, assert_same, instant, state_placeholders};
use crate::harness::decimal;
use crate::harness::messages::Record;
use crate::harness::tap::reference_dialect;
use crate::harness::{Catalog, Message, Output, Tap, TestDb, needs, plugins, release};

/// The streams of the LOG_BASED run.
const REPLICATED: [&str; 7] = [
    "Odd Schema-Quoted \"Table\"",
    "public-arrays",
    "public-dropped_column",
    "public-events",
    "public-no_key",
    "public-scalars",
    "public-toasted",
];

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/reference").join(file)
}

fn expected(file: &str) -> Vec<Message> {
    Message::parse_lines(&fs::read_to_string(fixture(file)).expect("read an expected file"))
}

/// The reference's database, rows included. What an old server does not know is put in its own words.
fn database(test: &str) -> TestDb {
    let db = TestDb::new(test);
    let mut setup = fs::read_to_string(fixture("setup.sql")).expect("read setup.sql");
    let mut in_old_words = |since: u32, new: &str, old: &str| {
        assert!(setup.contains(new), "{new}");
        if release() < since {
            setup = setup.replace(new, old);
        }
    };
    in_old_words(12, " generated always as (n * 2) stored", "");
    in_old_words(11, ", primary key (id, region)) partition", ") partition");
    db.psql(&setup);
    db.psql_file(&fixture("rows.sql"));
    if release() < 12 {
        db.psql("update generated set doubled = n * 2");
    }
    db
}

fn tap(db: &TestDb) -> Tap {
    Tap::new(db).configs(&reference_dialect())
}

/// Expected messages, one run of one stream each: every run starts with its SCHEMA.
fn runs(messages: Vec<Message>) -> Vec<(String, Vec<Message>)> {
    let mut runs: Vec<(String, Vec<Message>)> = Vec::new();
    for message in messages {
        if let Message::Schema(schema) = &message {
            runs.push((schema.stream.clone(), Vec::new()));
        }
        runs.last_mut().expect("a SCHEMA comes first").1.push(message);
    }
    runs
}

fn without_states(messages: &[Message]) -> impl Iterator<Item = &Message> {
    messages.iter().filter(|message| !message.is_state())
}

/// Compares a last STATE with the reference's: the same bookmarks with the same keys and, where they don't vary, values.
/// Here a bookmark may also hold `table_oid` and `definition`, and an `xmin` of null says no more than none.
#[track_caller]
fn assert_last_state(what: &str, output: &Output, expected: &[Message]) {
    let shape = |state: &Value| {
        let mut state = state_placeholders(state);
        for bookmark in state["bookmarks"].as_object_mut().expect("bookmarks").values_mut() {
            let bookmark = bookmark.as_object_mut().expect("a bookmark");
            bookmark.shift_remove("table_oid");
            bookmark.shift_remove("definition");
            if bookmark.get("xmin").is_some_and(Value::is_null) {
                bookmark.shift_remove("xmin");
            }
        }
        state
    };
    let expected = expected.iter().rev().find_map(Message::as_state).expect("an expected STATE");
    assert_same(&format!("{what}, last state"), &shape(output.last_state()), &shape(expected));
}

/// Every record of a run carries the version that the run's state has for its stream.
#[track_caller]
fn assert_versions(output: &Output) {
    for record in output.record_messages() {
        let version = record.version.map(Value::from);
        assert_eq!(version.as_ref(), output.bookmark(&record.stream).get("version"), "version of {record:?}");
    }
}

#[test]
fn catalog() {
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let db = database("reference_catalog");
    let expected = fs::read_to_string(fixture("expected-catalog.json")).expect("read the expected catalog");
    let expected = Catalog::new(serde_json::from_str(&expected).expect("the expected catalog is JSON"));
    let actual = tap(&db).discover();

    let mut sorted = expected.ids();
    sorted.sort_unstable();
    assert_eq!(actual.ids(), sorted, "streams are ordered by schema and table");
    for entry in expected.streams() {
        let id = entry["tap_stream_id"].as_str().expect("tap_stream_id");
        assert_same(id, &comparable(actual.stream(id), db.name()), &comparable(entry, "ref"));
        let columns = |entry: &Value| entry["schema"]["properties"].as_object().map(|p| p.keys().cloned().collect());
        let (actual, expected): (Option<Vec<String>>, _) = (columns(actual.stream(id)), columns(entry));
        assert_eq!(actual, expected, "columns of {id} by position");
    }
}

/// A catalog entry without what varies: the database's name, the number of rows, the order of the metadata.
fn comparable(entry: &Value, dbname: &str) -> Value {
    let mut entry = entry.clone();
    let metadata = entry["metadata"].as_array_mut().expect("metadata is a list");
    metadata.sort_by_key(|item| item["breadcrumb"].to_string());
    let table = metadata.iter_mut().find(|item| item["breadcrumb"] == json!([])).expect("metadata of the table");
    let table = table["metadata"].as_object_mut().expect("metadata of the table");
    assert_eq!(table["database-name"], dbname);
    table.insert("database-name".to_owned(), json!("<dbname>"));
    assert!(table["row-count"].is_i64(), "row-count of {table:?}");
    table.insert("row-count".to_owned(), json!("<count>"));
    entry
}

/// The catalog that the reference was given: the key of a view is named in the catalog, as no constraint tells it.
fn full_table_catalog(catalog: &Catalog, stream: &str, expected: &[Message]) -> Catalog {
    let catalog = catalog.clone().select(stream, "FULL_TABLE");
    let Message::Schema(schema) = &expected[0] else { panic!("a SCHEMA comes first") };
    match catalog.metadata(stream, None)["is-view"] == true {
        true => catalog.set(stream, None, &json!({"view-key-properties": schema.key_properties})),
        false => catalog,
    }
}

#[test]
fn full_table() {
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let db = database("reference_full_table");
    let catalog = tap(&db).discover();
    for (stream, expected) in runs(expected("expected-full_table.jsonl")) {
        let output = tap(&db).catalog(&full_table_catalog(&catalog, &stream, &expected)).run();
        assert_messages(&stream, output.without_states(), without_states(&expected));
        assert_last_state(&stream, &output, &expected);
        assert_versions(&output);
    }
}

#[test]
fn incremental() {
    let db = database("reference_incremental");
    let catalog = tap(&db).discover();
    let mut runs = runs(expected("expected-incremental.jsonl")).into_iter();
    for key in ["updated_at", "id", "amount"] {
        let tap = || tap(&db).catalog(&catalog.clone().select_incremental("public-events", key));
        let (_, expected) = runs.next().expect("a first run");
        let first = tap().run();
        assert_messages(&format!("by {key}, first run"), first.without_states(), without_states(&expected));
        assert_last_state(&format!("by {key}, first run"), &first, &expected);
        assert_versions(&first);

        let (_, expected) = runs.next().expect("a second run");
        let second = tap().state(first.last_state()).run();
        assert_messages(&format!("by {key}, second run"), second.without_states(), without_states(&expected));
        assert_last_state(&format!("by {key}, second run"), &second, &expected);
        assert_versions(&second);
        let version = |output: &Output| output.bookmark("public-events")["version"].clone();
        assert_eq!(version(&first), version(&second), "by {key}: a version lasts as long as the bookmark");
    }
}

#[test]
fn log_based_wal2json_stream() {
    log_based("wal2json", "stream", "");
}

#[test]
fn log_based_wal2json_bulk() {
    log_based("wal2json", "bulk", "");
}

#[test]
fn log_based_pgoutput_stream() {
    log_based("pgoutput", "stream", "");
}

#[test]
fn log_based_pgoutput_bulk() {
    log_based("pgoutput", "bulk", "");
}

/// What a server, a database or a role is set to must not show in a value.
const OTHER_SETTINGS: &str = r#"
    alter database :"dbname" set datestyle = 'SQL, DMY';
    alter database :"dbname" set intervalstyle = 'iso_8601';
    alter database :"dbname" set timezone = 'Asia/Kolkata';
    alter database :"dbname" set extra_float_digits = 0;
    alter database :"dbname" set bytea_output = 'escape';
    alter database :"dbname" set standard_conforming_strings = off;
    alter database :"dbname" set search_path = '';
    alter database :"dbname" set client_encoding = 'LATIN1';
"#;

#[test]
fn log_based_with_other_settings() {
    log_based("wal2json", "auto", OTHER_SETTINGS);
    log_based("pgoutput", "auto", OTHER_SETTINGS);
}

#[test]
fn full_table_with_other_settings() {
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let db = database("reference_other_settings");
    db.psql(OTHER_SETTINGS);
    let catalog = tap(&db).discover();
    for (stream, expected) in runs(expected("expected-full_table.jsonl")) {
        let output = tap(&db).catalog(&full_table_catalog(&catalog, &stream, &expected)).run();
        assert_messages(&stream, output.without_states(), without_states(&expected));
    }
}

/// The first run copies, the second reads changes.sql from the log.
fn log_based(plugin: &str, wal_reader: &str, settings: &str) {
    if !plugins().contains(&plugin) {
        return;
    }
    let db = database(&format!("ref_{plugin}_{wal_reader}"));
    db.replicate(plugin);
    let changes = format!("set search_path = public;\n{}", fs::read_to_string(fixture("changes.sql")).expect("read"));
    db.psql(settings);
    let catalog = tap(&db).discover();
    let catalog = REPLICATED.iter().fold(catalog, |catalog, stream| catalog.select(stream, "LOG_BASED"));
    let tap = || tap(&db).config("wal_reader", wal_reader).catalog(&catalog);
    let what = |run| format!("{plugin}, {wal_reader}, {run}");

    let copied = expected("expected-log_based_initial.jsonl");
    let first = tap().run();
    assert_messages(&what("first run"), first.without_states(), without_states(&copied));
    assert_last_state(&what("first run"), &first, &copied);
    assert_versions(&first);

    let before = Utc::now();
    db.psql(&changes);
    let after = Utc::now();
    let mut streamed = expected("expected-log_based.jsonl");
    restore_lost_values(&mut streamed, &copied);
    let second = tap().state(first.last_state()).run();
    assert_messages(&what("second run"), second.without_states(), without_states(&streamed));
    assert_last_state(&what("second run"), &second, &streamed);
    assert_versions(&second);
    assert_deletes(&second, before, after);

    // What was read is not read again.
    let third = tap().state(second.last_state()).run();
    assert_eq!(third.record_messages().collect::<Vec<_>>(), Vec::<&Record>::new());
    assert_last_state(&what("third run"), &third, &streamed);
}

/// The differences that the contract promises: a numeric keeps every digit (the reference goes through a double), and
/// bigint[] holds numbers (there: strings). changes.sql copies rows of scalars and arrays under id + 10, so that the
/// values are those of the first run.
fn restore_lost_values(streamed: &mut [Message], copied: &[Message]) {
    let original = |stream: &str, id: i64| -> Map<String, Value> {
        let mut records = copied.iter().filter_map(Message::as_record);
        let found = records.find(|record| record.stream == stream && record.record["id"] == id);
        found.unwrap_or_else(|| panic!("no row {id} of {stream}")).record.clone()
    };
    let amounts = BTreeMap::from([(5, "5.50"), (2, "2.20"), (7, "7.00")]);
    let mut restored = 0;
    for message in streamed {
        let Message::Record(record) = message else { continue };
        let lost: &[&str] = match record.stream.as_str() {
            "public-scalars" => &["c_numeric", "c_numeric_12_2", "c_numeric_38_0"],
            "public-arrays" => &["a_bigint"],
            "public-events" if record.record.contains_key("amount") => &["amount"],
            _ => &[],
        };
        for column in lost {
            let id = record.record["id"].as_i64().expect("an id");
            let value = match *column {
                "amount" => serde_json::from_str(amounts[&id]).expect("a number"),
                _ => original(&record.stream, id - 10)[*column].clone(),
            };
            record.record.insert((*column).to_owned(), value);
            restored += 1;
        }
    }
    assert_eq!(restored, 4 * 3 + 3 + 3, "values put in place of the reference's");
}

/// A delete carries the time at which it was committed; anything else a null.
#[track_caller]
fn assert_deletes(output: &Output, before: DateTime<Utc>, after: DateTime<Utc>) {
    let deleted: Vec<_> = output.record_messages().filter(|r| !r.record["_sdc_deleted_at"].is_null()).collect();
    assert_eq!(deleted.len(), 2);
    for record in deleted {
        let time = record.record["_sdc_deleted_at"].as_str().and_then(instant).expect("an instant");
        // The server's clock is this machine's; its microseconds are rounded.
        let slack = TimeDelta::milliseconds(5);
        assert!(before - slack <= time && time <= after + slack, "{time} outside {before}..{after}");
    }
}

/// An array that is NULL is null, here and in the log; the reference has `[]` in its place.
#[test]
fn null_array_is_null() {
    for &plugin in plugins() {
        let db = database("reference_null_array");
        db.replicate(plugin);
        db.psql("insert into arrays (id) values (20)");
        let catalog = tap(&db).discover().select("public-arrays", "LOG_BASED");
        let first = tap(&db).catalog(&catalog).run();
        db.psql("insert into arrays (id) values (21)");
        let second = tap(&db).catalog(&catalog).state(first.last_state()).run();
        let columns = catalog.stream("public-arrays")["schema"]["properties"].as_object().expect("properties").clone();
        assert_eq!(columns.len(), 21);
        for (output, id) in [(&first, 20), (&second, 21)] {
            let records = output.records("public-arrays");
            let record = records.iter().find(|record| record["id"] == id).unwrap_or_else(|| panic!("no row {id}"));
            for column in columns.keys().filter(|column| *column != "id") {
                assert_eq!(record[column], Value::Null, "{column} of row {id}, {plugin}");
            }
        }
    }
}

/// A numeric of the log is the numeric of the copy, to the last digit.
#[test]
fn numeric_is_exact() {
    let exact = "123456789012345678901234567890.12345678901234567890123456789";
    for &plugin in plugins() {
        let db = database("reference_numeric");
        db.replicate(plugin);
        let catalog = tap(&db).discover().select("public-scalars", "LOG_BASED");
        let first = tap(&db).catalog(&catalog).run();
        db.psql("insert into scalars (id, c_numeric) select 40, c_numeric from scalars where id = 4");
        let second = tap(&db).catalog(&catalog).state(first.last_state()).run();
        for (output, id) in [(&first, 4), (&second, 40)] {
            let record = output.record_messages().find(|record| record.record["id"] == id).expect("the row");
            let digits = decimal::canonical(&record.record["c_numeric"].to_string());
            assert_eq!(digits, exact, "row {id}, {plugin}");
        }
    }
}
