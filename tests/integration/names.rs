//! Names and keys that collide: streams with each other, columns with what Singer adds, keys of the catalog with the server's.

use serde_json::{Map, Value, json};

use crate::harness::target::Target;
use crate::harness::{Catalog, Message, Output, Tap, TestDb, check_protocol, needs, plugins};

/// The lines of this level that hold all of these texts.
fn told(output: &Output, level: &str, texts: &[&str]) -> usize {
    let level = format!("level={level}");
    output.stderr.lines().filter(|line| line.contains(&level) && texts.iter().all(|text| line.contains(text))).count()
}

/// Schema and table with a hyphen between, whichever of the hyphens that is.
#[test]
fn two_tables_of_one_stream_without_a_catalog() {
    let db = TestDb::new("names_streams");
    db.psql(
        r#"create schema a; create schema "a-b"; create table a."b-c" (id integer primary key, w integer);
         create table "a-b".c (id integer primary key, v text); create table other (id integer primary key);
         insert into a."b-c" values (1, 10); insert into "a-b".c values (1, 'x'); insert into other values (1);"#,
    );
    db.replicate("pgoutput");
    let mut state = json!({});
    for id in [2, 3] {
        let output = Tap::new(&db).state(&state).run_failing(1);
        assert_eq!(told(&output, "ERROR", &[r#""a-b-c""#, r#""a"."b-c""#, r#""a-b"."c""#]), 1, "{}", output.stderr);
        assert!(output.record_messages().all(|record| record.stream == "public-other"));
        assert_eq!(output.records("public-other").len(), 1);
        state = output.last_state().clone();
        db.psql(&format!(r#"insert into other values ({id}); insert into "a-b".c values ({id});"#));
    }
    let check = Tap::new(&db).arg("--test").output().expect_code(1);
    assert_eq!(told(&check, "ERROR", &["failure", r#""a-b-c""#]), 1, "{}", check.stderr);
}

#[test]
fn two_streams_of_one_table() {
    let db = TestDb::new("names_entries");
    db.psql("create table t (id integer primary key); insert into t values (1);");
    let mut catalog = Tap::new(&db).discover().select("public-t", "FULL_TABLE").as_value().clone();
    let mut again = catalog["streams"][0].clone();
    again["tap_stream_id"] = json!("again");
    catalog["streams"].as_array_mut().expect("streams").push(again);
    let output = Tap::new(&db).catalog(&Catalog::new(catalog)).run_failing(1);
    assert_eq!(told(&output, "ERROR", &["\"again\"", "\"public-t\"", "\"public\".\"t\""]), 1, "{}", output.stderr);
    assert_eq!(output.records("public-t").len(), 1);
}

/// In every method, as messages and in files.
#[test]
fn columns_of_singers_names() {
    for plugin in plugins() {
        for method in ["LOG_BASED", "FULL_TABLE", "INCREMENTAL"] {
            for batched in [false, true] {
                let db = TestDb::new("names_columns");
                db.psql(
                    "create table d (id integer primary key, v text, _sdc_deleted_at timestamptz, _sdc_lsn bigint,
                       _sdc_table_version bigint);
                     insert into d values (1, 'a', '2020-01-01', 5, 7), (2, 'b', null, null, null);",
                );
                db.replicate(plugin);
                let catalog = Tap::new(&db).discover();
                let catalog = match method {
                    "INCREMENTAL" => catalog.select_incremental("public-d", "id"),
                    method => catalog.select("public-d", method),
                };
                let tap = |state: &Value| {
                    let tap = Tap::new(&db).catalog(&catalog).state(state).config("debug_lsn", true);
                    let root = format!("file://{}", tap.dir().join("files").display());
                    let config =
                        json!({"storage": {"root": root}, "encoding": {"format": "jsonl", "compression": "none"}});
                    if batched { tap.config("batch_config", config) } else { tap }
                };
                let mut target = Target::default();
                let mut state = json!({});
                for id in [3, 4] {
                    let tap = tap(&state);
                    // Parsed by the harness, which refuses a property that comes twice.
                    let output = tap.run();
                    check_protocol(&output.messages);
                    for line in output.messages.iter().filter_map(|message| match message {
                        Message::Batch(batch) => Some(&batch.manifest[0]),
                        _ => None,
                    }) {
                        let text =
                            std::fs::read_to_string(line.strip_prefix("file://").expect("a file")).expect("read");
                        let versions = |line: &str| line.matches("_sdc_table_version").count();
                        assert!(text.lines().all(|line| versions(line) == 1), "{text}");
                    }
                    let names = ["public-d", "_sdc_deleted_at", "_sdc_lsn", "_sdc_table_version"];
                    assert_eq!(told(&output, "WARNING", &names), 1, "{method}: {}", output.stderr);
                    target.apply(&output.messages);
                    let rows = db.query_one("select count(*) from d").parse::<usize>().expect("a number");
                    assert_eq!(target.rows("public-d").len(), rows, "{plugin} {method} {batched}");
                    state = output.last_state().clone();
                    db.psql(&format!(
                        "insert into d values ({id}, 'c', '2021-01-01', 1, 2); update d set _sdc_lsn = 9"
                    ));
                }
                let check = tap(&state).arg("--test").output();
                assert_eq!(told(&check, "WARNING", &["public-d", "_sdc_deleted_at"]), 1, "{}", check.stderr);
            }
        }
    }
}

/// A target could not tell rows apart without it.
#[test]
fn a_key_of_singers_name() {
    let db = TestDb::new("names_key");
    db.psql(
        "create table k (_sdc_lsn bigint primary key, v text); create table r (id integer primary key, _sdc_lsn bigint);
         create table other (id integer); insert into other values (1);",
    );
    let catalog = Tap::new(&db).discover().select("public-k", "FULL_TABLE").select("public-other", "FULL_TABLE");
    let output = Tap::new(&db).catalog(&catalog.select_incremental("public-r", "_sdc_lsn")).run_failing(1);
    assert_eq!(told(&output, "ERROR", &["public-k", "_sdc_lsn"]), 1, "{}", output.stderr);
    assert_eq!(told(&output, "ERROR", &["public-r", "_sdc_lsn"]), 1, "{}", output.stderr);
    assert_eq!(output.records("public-other").len(), 1);
}

/// `<name>_inserts` is for tables without a key; a server cuts names at 63 bytes.
#[test]
fn long_names_of_slots_and_publications() {
    let tables = "create table keyed (id integer primary key); create table keyless (v text);
        insert into keyed values (1); insert into keyless values ('k');";
    for (length, by_tap_id) in [(55, false), (56, false), (60, false), (63, false), (63, true)] {
        let db = TestDb::new("n");
        db.psql(tables);
        let mut name = db.slot_name();
        while name.len() < length {
            name.push('s');
        }
        let catalog =
            Tap::new(&db).discover().select("public-keyed", "LOG_BASED").select("public-keyless", "LOG_BASED");
        let tap = |state: &Value| {
            let tap = Tap::new(&db).catalog(&catalog).state(state).config("create_replication_slot", true);
            if by_tap_id {
                tap.config("tap_id", "t".repeat(60))
            } else {
                tap.config("replication_slot_name", name.as_str())
            }
        };
        let mut state = json!({});
        for id in [2, 3, 4] {
            let output = tap(&state).run();
            assert_eq!(output.record_messages().count(), 2, "{length}: {}", output.stderr);
            state = output.last_state().clone();
            db.psql(&format!("insert into keyed values ({id}); insert into keyless values ('{id}');"));
            tap(&state).arg("--test").output().expect_code(0);
        }
        let published = "select count(*) from pg_publication where pubname like '%\\_inserts'";
        assert_eq!(db.query_one(published), "1");
    }
}

/// In the metadata, by either name, or on the entry, as the Meltano SDK has it.
#[test]
fn keys_that_the_catalog_names() {
    let db = TestDb::new("names_keys");
    db.psql(
        "create table nk (id integer not null unique, v text); insert into nk values (1, 'a');
         create view v as select * from nk; create table pk (id integer primary key, v text);",
    );
    db.replicate("pgoutput");
    let catalogs = |stream: &str, method: &str| -> Vec<Catalog> {
        let plain = Tap::new(&db).discover().select(stream, method);
        let keyed = |key: &str| plain.clone().set(stream, None, &json!({key: ["id"]}));
        let mut on_entry = plain.as_value().clone();
        let streams = on_entry["streams"].as_array_mut().expect("streams");
        let entry = streams.iter_mut().find(|entry| entry["tap_stream_id"] == stream).expect("the stream");
        entry["key_properties"] = json!(["id"]);
        vec![keyed("table-key-properties"), keyed("view-key-properties"), Catalog::new(on_entry)]
    };
    for stream in ["public-nk", "public-v"] {
        for catalog in catalogs(stream, "FULL_TABLE") {
            let output = Tap::new(&db).catalog(&catalog).run();
            assert_eq!(output.schemas(stream)[0].key_properties, ["id"], "{stream}");
            assert_eq!(output.logged("level=WARNING"), 0, "{}", output.stderr);
        }
    }
    // What leads to a row in the log only the server knows.
    for catalog in catalogs("public-nk", "LOG_BASED") {
        let output = Tap::new(&db).catalog(&catalog).run();
        assert!(output.schemas("public-nk")[0].key_properties.is_empty());
        assert_eq!(told(&output, "WARNING", &["public-nk", "(id)", "primary key"]), 1, "{}", output.stderr);
        let check = Tap::new(&db).catalog(&catalog).arg("--test").output();
        assert_eq!(told(&check, "WARNING", &["public-nk", "(id)", "primary key"]), 1, "{}", check.stderr);
    }
    // A table's own key stands.
    let named = Tap::new(&db).discover().select("public-pk", "FULL_TABLE").set(
        "public-pk",
        None,
        &json!({"table-key-properties": ["v"]}),
    );
    assert_eq!(Tap::new(&db).catalog(&named).run().schemas("public-pk")[0].key_properties, ["id"]);
}

/// However many rows have one value of the key, the next run gets past them.
#[test]
fn a_limit_among_equal_keys() {
    let db = TestDb::new("names_limit");
    db.psql(
        "create table t (id integer primary key, updated_at timestamptz);
         insert into t select g, '2024-01-01' from generate_series(1, 5) g;
         insert into t values (6, '2024-01-02'), (7, null); insert into t select g, '2024-01-03' from generate_series(8, 20) g;",
    );
    let catalog = Tap::new(&db).discover().select_incremental("public-t", "updated_at");
    for limit in [1, 3, 5] {
        let mut ids = std::collections::BTreeSet::new();
        let mut state = json!({});
        for _ in 0..20 {
            let output = Tap::new(&db).catalog(&catalog).config("limit", limit).state(&state).run();
            let records: Vec<&Map<String, Value>> = output.records("public-t");
            ids.extend(records.iter().map(|record| record["id"].as_i64().expect("an id")));
            if output.last_state() == &state {
                break;
            }
            state = output.last_state().clone();
        }
        // Rows whose key is NULL are behind all others, and before no bookmark.
        assert_eq!(ids, (1..=20).filter(|id| *id != 7).collect(), "limit {limit}");
    }
    let whole = Tap::new(&db).catalog(&catalog).run();
    assert_eq!(whole.records("public-t").len(), 20, "the first run has those without a key");
    assert_eq!(Tap::new(&db).catalog(&catalog).state(whole.last_state()).run().records("public-t").len(), 13);
    // Of keys that no bookmark can hold the run says so.
    db.psql("update t set updated_at = '-infinity'");
    let stuck = Tap::new(&db).catalog(&catalog).config("limit", 3).run();
    assert_eq!(told(&stuck, "WARNING", &["public-t", "`limit`"]), 1, "{}", stuck.stderr);
}

/// Every JSON document fits its SCHEMA, by whichever way it comes.
#[test]
fn json_that_is_no_object_or_array() {
    if !needs(10, "jsonb") {
        return;
    }
    for plugin in plugins() {
        let db = TestDb::new("names_json");
        db.psql("create table s (id integer primary key, j jsonb, k json, a jsonb[]);");
        db.replicate(plugin);
        let rows = r#"('{"a": 1}'), ('[1, [true]]'), ('true'), ('"x"'), ('3'), ('2.5'), ('null'), (null)"#;
        let insert = |from: i32| {
            db.psql(&format!(
                "insert into s select {from} + row_number() over (), d::jsonb, d::json, array[d, '[1]', '\"y\"', '7']::jsonb[]
                   from (values {rows}) v(d)"
            ));
        };
        let catalog = Tap::new(&db).discover().select("public-s", "LOG_BASED");
        insert(0);
        let first = Tap::new(&db).catalog(&catalog).run();
        insert(100);
        let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
        for output in [&first, &second] {
            assert_eq!(output.records("public-s").len(), 8);
            crate::log_based::assert_fits(&output.messages);
        }
        let reference = Tap::new(&db).catalog(&catalog).config("schema_dialect", "reference").run();
        let property = &reference.schemas("public-s")[0].schema["properties"]["j"];
        assert_eq!(property, &json!({"type": ["null", "object", "array"]}));
    }
}
