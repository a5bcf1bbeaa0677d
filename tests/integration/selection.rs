//! A catalog passed back: what it selects, how each stream is read, and what has changed since it was made.

use serde_json::{Value, json};

use crate::harness::{Catalog, Output, Tap, TestDb};

const T: &str = "public-t";

/// A table and a view with a row each.
fn database(test: &str) -> TestDb {
    let db = TestDb::new(test);
    db.psql(
        "create table t (id integer primary key, a text, b integer, c jsonb); insert into t values (1, 'a', 2, '{}');
         create table other (id integer primary key); insert into other values (1);
         create view v as select id, a from t;",
    );
    db
}

fn columns(output: &Output, stream: &str) -> Vec<String> {
    let properties = output.schemas(stream)[0].schema["properties"].as_object().expect("properties");
    let properties: Vec<String> = properties.keys().cloned().collect();
    assert_eq!(
        properties,
        output.records(stream)[0].keys().cloned().collect::<Vec<_>>(),
        "SCHEMA and RECORD of {stream}"
    );
    properties
}

/// How a stream was read, by its bookmark.
fn method<'a>(output: &'a Output, stream: &str) -> &'a str {
    output.bookmark(stream)["last_replication_method"].as_str().expect("a method")
}

fn full(db: &TestDb) -> Catalog {
    Tap::new(db).discover().select(T, "FULL_TABLE")
}

#[test]
fn columns_selected_and_not() {
    let db = database("selection_columns");
    let run = |catalog: &Catalog| Tap::new(&db).catalog(catalog).run();
    assert_eq!(columns(&run(&full(&db)), T), ["id", "a", "b", "c"]);
    assert_eq!(columns(&run(&full(&db).column(T, "a", false)), T), ["id", "b", "c"]);
    // The key comes in any case.
    assert_eq!(columns(&run(&full(&db).column(T, "id", false).column(T, "c", false)), T), ["id", "a", "b"]);
    let by_default = full(&db).set(T, Some("a"), &json!({"selected-by-default": false}));
    assert_eq!(columns(&run(&by_default), T), ["id", "b", "c"]);
    assert_eq!(columns(&run(&by_default.column(T, "a", true)), T), ["id", "a", "b", "c"]);
    let inclusion = full(&db).set(T, Some("a"), &json!({"inclusion": "automatic", "selected": false}));
    let inclusion = inclusion.set(T, Some("b"), &json!({"inclusion": "unsupported", "selected": true}));
    assert_eq!(columns(&run(&inclusion), T), ["id", "a", "c"]);
    // Only the selected stream is there.
    assert_eq!(run(&full(&db)).last_state()["bookmarks"].as_object().map(|b| b.len()), Some(1));
}

#[test]
fn forms_that_meltano_writes() {
    let db = database("selection_meltano");
    let entry = |more: &[(&str, Value)], table: Value| {
        let mut catalog = Tap::new(&db).discover().set(T, None, &table).as_value().clone();
        let streams = catalog["streams"].as_array_mut().expect("streams");
        let entry = streams.iter_mut().find(|entry| entry["tap_stream_id"] == T).expect("the stream");
        for (key, value) in more {
            entry[key] = value.clone();
        }
        Catalog::new(catalog)
    };
    let incremental = ("replication_method", json!("INCREMENTAL"));
    for catalog in [
        entry(&[], json!({"selected": true, "replication-method": "INCREMENTAL", "replication-key": "b"})),
        entry(&[], json!({"selected": "true", "replication_method": "INCREMENTAL", "replication_key": "b"})),
        entry(&[("selected", json!(true)), incremental.clone(), ("replication_key", json!("b"))], json!({})),
        entry(
            &[("selected", json!(true)), ("replication-method", json!("INCREMENTAL")), ("replication-key", json!("b"))],
            json!({}),
        ),
        entry(&[incremental, ("replication_key", json!("b"))], json!({"selected": true})),
    ] {
        let output = Tap::new(&db).catalog(&catalog).run();
        assert_eq!((method(&output, T), &output.bookmark(T)["replication_key"]), ("INCREMENTAL", &json!("b")));
    }
    // The metadata is what a user edits.
    let both = entry(
        &[("selected", json!(false)), ("replication_method", json!("LOG_BASED"))],
        json!({"selected": true, "replication-method": "FULL_TABLE"}),
    );
    assert_eq!(method(&Tap::new(&db).catalog(&both).run(), T), "FULL_TABLE");
}

#[test]
fn nothing_selected_is_a_run_that_says_so() {
    let db = database("selection_nothing");
    let output = Tap::new(&db).catalog(&Tap::new(&db).discover()).run();
    assert_eq!((output.messages.len(), output.logged("level=WARNING")), (1, 1), "{}", output.stderr);
}

#[test]
fn schema_edits_are_kept_until_the_type_changes() {
    let db = database("selection_schema");
    let edit = |column: &str, schema: Value| {
        let mut catalog = full(&db).as_value().clone();
        let streams = catalog["streams"].as_array_mut().expect("streams");
        let entry = streams.iter_mut().find(|entry| entry["tap_stream_id"] == T).expect("the stream");
        entry["schema"]["properties"][column] = schema;
        Catalog::new(catalog)
    };
    let property = |catalog: &Catalog, column: &str| {
        Tap::new(&db).catalog(catalog).run().schemas(T)[0].schema["properties"][column].clone()
    };
    let as_text = json!({"type": ["null", "string"]});
    let edited = edit("b", as_text.clone());
    assert_eq!(property(&edited, "b"), as_text);
    let described = json!({"type": ["null", "string"], "description": "what it is", "format": "email"});
    assert_eq!(property(&edit("a", described.clone()), "a"), described);
    assert_eq!(
        property(&edit("c", json!({})), "c"),
        json!({"type": ["object", "array", "string", "number", "integer", "boolean", "null"]}),
        "nothing is no edit"
    );
    // As the reference's catalogs have it, and those of earlier releases.
    let reference = json!({"type": ["null", "object", "array"]});
    assert_ne!(property(&edit("c", reference.clone()), "c"), reference, "what a tap discovered is no edit");

    // What only the server can know.
    let unedited = full(&db);
    db.psql("alter table t alter b type bigint, add column d numeric(6, 2)");
    let bigint = json!({"type": ["integer", "null"], "minimum": i64::MIN, "maximum": i64::MAX});
    assert_eq!(property(&edited, "b"), bigint, "the edit was of another type");
    assert_eq!(property(&unedited, "b"), bigint);
    assert_eq!(property(&unedited, "d")["type"], json!(["number", "null"]), "younger than the catalog");
    db.psql("alter table t drop column c");
    assert_eq!(columns(&Tap::new(&db).catalog(&unedited).run(), T), ["id", "a", "b", "d"]);
}

#[test]
fn a_dropped_table_fails_the_run_after_the_others_were_read() {
    let db = database("selection_dropped");
    db.psql("create table gone (id integer primary key)");
    let catalog = full(&db).select("public-other", "FULL_TABLE").select("public-gone", "FULL_TABLE");
    db.psql("drop table gone");
    let output = Tap::new(&db).catalog(&catalog).run_failing(1);
    assert_eq!((output.records(T).len(), output.records("public-other").len()), (1, 1));
    let said: Vec<&str> = output.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    assert!(matches!(said.as_slice(), [line] if line.contains("public-gone")), "{said:?}");
    // What was read is kept.
    assert_eq!(output.bookmark("public-other")["xmin"], Value::Null);
    let again = Tap::new(&db).catalog(&catalog).state(output.last_state()).run_failing(1);
    assert_eq!(again.records(T).len(), 1);
}

#[test]
fn a_view_has_the_key_that_the_catalog_names() {
    let db = database("selection_view");
    let catalog = Tap::new(&db).discover().select("public-v", "FULL_TABLE");
    assert!(Tap::new(&db).catalog(&catalog).run().schemas("public-v")[0].key_properties.is_empty());
    let keyed = catalog.clone().set("public-v", None, &json!({"view-key-properties": ["id"]}));
    assert_eq!(Tap::new(&db).catalog(&keyed).run().schemas("public-v")[0].key_properties, ["id"]);
    // A key without which a target can't tell rows apart comes like that of a table.
    let output = Tap::new(&db).catalog(&keyed.clone().column("public-v", "id", false)).run();
    assert_eq!(columns(&output, "public-v"), ["id", "a"]);
    let nowhere = keyed.set("public-v", None, &json!({"view-key-properties": ["id", "gone"]}));
    let output = Tap::new(&db).catalog(&nowhere).run_failing(1);
    assert!(output.logged("public-v") == 1 && output.logged("gone") == 1, "{}", output.stderr);
    // A table's key is the server's to tell.
    let table = full(&db).set(T, None, &json!({"view-key-properties": ["a"], "table-key-properties": ["b"]}));
    assert_eq!(Tap::new(&db).catalog(&table).run().schemas(T)[0].key_properties, ["id"]);

    let log_based = Tap::new(&db).catalog(&catalog.select("public-v", "LOG_BASED")).output();
    assert_ne!(log_based.status.code(), Some(0));
    assert_eq!(log_based.logged("public-v"), 1, "{}", log_based.stderr);
}

#[test]
fn a_stream_without_columns_is_skipped() {
    let db = database("selection_empty");
    db.psql("create table keyless (a integer); insert into keyless values (1)");
    let catalog = full(&db).select("public-keyless", "FULL_TABLE").column("public-keyless", "a", false);
    let output = Tap::new(&db).catalog(&catalog).run();
    assert_eq!((output.records(T).len(), output.schemas("public-keyless").len()), (1, 0));
    let warned = output.stderr.lines().any(|line| line.contains("level=WARNING") && line.contains("public-keyless"));
    assert!(warned, "{}", output.stderr);
}

#[test]
fn an_unknown_method_is_wrong_usage() {
    let db = database("selection_unknown");
    for unknown in ["SOMETIMES", "full table"] {
        let catalog = Tap::new(&db).discover().select(T, unknown);
        let output = Tap::new(&db).catalog(&catalog).output().expect_code(2);
        assert_eq!((output.logged(T), output.logged(unknown)), (1, 1), "{}", output.stderr);
    }
    // Of a stream that is not selected it does not matter.
    let catalog = full(&db).set("public-other", None, &json!({"replication-method": "SOMETIMES"}));
    Tap::new(&db).catalog(&catalog).run();
}

#[test]
fn without_a_method_the_default_one_holds() {
    let db = database("selection_default");
    db.replicate("pgoutput");
    let catalog = Tap::new(&db).discover().set(T, None, &json!({"selected": true}));
    for wanted in ["FULL_TABLE", "LOG_BASED"] {
        let tap = || Tap::new(&db).config("default_replication_method", wanted);
        assert_eq!(method(&tap().catalog(&catalog).run(), T), wanted);
        let all = tap().run();
        assert_eq!((method(&all, T), method(&all, "public-other")), (wanted, wanted));
        assert_eq!(method(&all, "public-v"), "FULL_TABLE", "no log has a view's rows");
    }
    let keyed = catalog.set(T, None, &json!({"replication-key": "b"}));
    let incremental = Tap::new(&db).config("default_replication_method", "INCREMENTAL").catalog(&keyed).run();
    assert_eq!(method(&incremental, T), "INCREMENTAL");
}

#[test]
fn without_a_default_the_server_decides_and_the_log_says_why() {
    let db = database("selection_rule");
    db.psql(
        "create table keyless (a integer); create table whole (a integer); alter table whole replica identity full;
         insert into keyless values (1); insert into whole values (1)",
    );
    let streams = [T, "public-keyless", "public-whole", "public-v"];
    let methods = |output: &Output| streams.map(|stream| method(output, stream).to_owned());
    let said = |output: &Output, stream: &str| {
        let line = output.stderr.lines().find(|line| line.contains(&format!("{stream}:")) && line.contains(" ("));
        line.unwrap_or_else(|| panic!("nothing of {stream} in\n{}", output.stderr)).to_owned()
    };

    let no_slot = Tap::new(&db).run();
    assert_eq!(methods(&no_slot), ["FULL_TABLE"; 4]);
    assert!(said(&no_slot, T).contains("slot"), "{}", said(&no_slot, T));

    db.replicate("pgoutput");
    let with_slot = Tap::new(&db).run();
    assert_eq!(methods(&with_slot), ["LOG_BASED", "FULL_TABLE", "LOG_BASED", "FULL_TABLE"]);
    assert!(said(&with_slot, "public-keyless").contains("key"), "{}", said(&with_slot, "public-keyless"));
    assert!(said(&with_slot, "public-v").contains("view"), "{}", said(&with_slot, "public-v"));
    // The same for a stream that a catalog selects and says no more of.
    let catalog =
        streams.iter().fold(Tap::new(&db).discover(), |c, stream| c.set(stream, None, &json!({"selected": true})));
    assert_eq!(methods(&Tap::new(&db).catalog(&catalog).run()), methods(&with_slot));
    // A state that it wrote is what the next run goes on from.
    db.psql("insert into t values (2, 'new'); insert into whole values (2)");
    let next = Tap::new(&db).state(with_slot.last_state()).run();
    assert_eq!(
        (next.records(T).len(), next.records("public-whole").len(), next.records("public-keyless").len()),
        (1, 1, 1)
    );

    let created = database("selection_create");
    let output = Tap::new(&created).config("create_replication_slot", true).run();
    assert_eq!(method(&output, T), "LOG_BASED");
}

#[test]
fn a_role_that_can_read_nothing_fails_without_a_catalog_too() {
    let db = TestDb::new("selection_nothing");
    for tap in [Tap::new(&db), Tap::new(&db).arg("--discover")] {
        let output = tap.run_failing(1);
        assert_eq!(output.logged("the role can read no table of the database"), 1, "{}", output.stderr);
    }
}

#[test]
fn what_has_no_log_or_no_identity_is_read_whole() {
    let db = TestDb::new("selection_log");
    db.psql(
        "create table t (id integer primary key); create unlogged table fast (id integer primary key);
         create table nameless (id integer primary key); alter table nameless replica identity nothing;
         insert into t values (1); insert into fast values (1); insert into nameless values (1);",
    );
    db.replicate("pgoutput");
    let fast = "public-fast";
    let discovered = Tap::new(&db).discover();
    let selected =
        discovered.ids().iter().fold(discovered.clone(), |c, id| c.set(id, None, &json!({"selected": true})));
    for tap in [Tap::new(&db), Tap::new(&db).catalog(&selected)] {
        let output = tap.run();
        for (stream, expected, why) in [
            (T, "LOG_BASED", ""),
            (fast, "FULL_TABLE", "it is unlogged"),
            ("public-nameless", "FULL_TABLE", "it has no replica identity"),
        ] {
            assert_eq!((method(&output, stream), output.records(stream).len()), (expected, 1), "{stream}");
            let said =
                output.stderr.lines().any(|line| line.contains(&format!("{stream}: reading by {expected} ({why}")));
            assert!(said, "{}", output.stderr);
        }
    }
    // A default for all that nobody chose for this table.
    let output = Tap::new(&db).config("default_replication_method", "LOG_BASED").run();
    assert_eq!(method(&output, fast), "FULL_TABLE");
    assert!(output.logged("public-fast: reading by FULL_TABLE") > 0, "{}", output.stderr);

    let chosen = discovered.select(fast, "LOG_BASED");
    let output = Tap::new(&db).catalog(&chosen).run_failing(1);
    assert!(output.stderr.contains(fast) && output.stderr.contains("unlogged"), "{}", output.stderr);
    assert_eq!(output.record_messages().count(), 0);
}

/// `--select` and `--deselect`, on runs without a catalog and in the one that is discovered: both select the same.
#[test]
fn patterns_of_streams_and_columns() {
    let db = TestDb::new("selection_patterns");
    db.psql(
        "create table t (id integer primary key, a text, secret text); insert into t values (1, 'a', 'b');
         create schema sales; create table sales.orders (id integer primary key, total integer, secret text);
         insert into sales.orders values (1, 2, 'c');
         create table sales.\"odd.name\" (id integer primary key, note text); insert into sales.\"odd.name\" values (1, 'd');
         create table sales.parted (id integer primary key, note text) partition by list (id);
         create table sales.part_1 partition of sales.parted for values in (1); insert into sales.parted values (1, 'e');",
    );
    let (t, orders, odd, root, leaf) = (T, "sales-orders", "sales-odd.name", "sales-parted", "sales-part_1");
    for (options, expected) in [
        (
            &["--select", "sales-*", "--deselect", "sales-*.secret"][..],
            &[(odd, &["id", "note"][..]), (orders, &["id", "total"]), (root, &["id", "note"])][..],
        ),
        (&["--deselect", "sales-*", "--deselect", "*.secret"], &[(t, &["id", "a"])]),
        (&["--select", "public-t.a", "--select", "sales-part_?"], &[(t, &["id", "a"]), (leaf, &["id", "note"])]),
        (&["--select", "sales-odd\\.name.id"], &[(odd, &["id"])]),
        (&["--select", "*.id", "--deselect", "sales-pa*.*"], &[(t, &["id"]), (odd, &["id"]), (orders, &["id"])]),
    ] {
        let tap = || {
            options
                .iter()
                .fold(Tap::new(&db).config("default_replication_method", "FULL_TABLE"), |tap, option| tap.arg(*option))
        };
        let catalog = tap().discover();
        let from_catalog = Tap::new(&db).config("default_replication_method", "FULL_TABLE").catalog(&catalog);
        for output in [tap().run(), from_catalog.run()] {
            let mut streams: Vec<(&str, Vec<String>)> =
                expected.iter().map(|(stream, _)| (*stream, columns(&output, stream))).collect();
            streams.sort();
            let mut wanted: Vec<(&str, Vec<String>)> = expected
                .iter()
                .map(|(stream, columns)| (*stream, columns.iter().map(|c| (*c).to_owned()).collect()))
                .collect();
            wanted.sort();
            assert_eq!(streams, wanted, "{options:?}");
            assert_eq!(
                output.last_state()["bookmarks"].as_object().map(|b| b.len()),
                Some(expected.len()),
                "{options:?}"
            );
            assert!(output.warnings().is_empty(), "{:?}", output.warnings());
        }
    }
    // A misspelt name would leave its stream out, or not leave a column out.
    for (options, wrong, what) in [
        (&["--select", "public-*", "--select", "sale-*"][..], r#"--select "sale-*""#, "stream"),
        (&["--deselect", "public-u"], r#"--deselect "public-u""#, "stream"),
        (&["--deselect", "sales-*.sercet"], r#"--deselect "sales-*.sercet""#, "column"),
        (&["--select", "public-t.b"], r#"--select "public-t.b""#, "column"),
    ] {
        for mode in [None, Some("--discover"), Some("--test")] {
            let tap = options.iter().copied().chain(mode).fold(Tap::new(&db), |tap, option| tap.arg(option));
            let output = tap.output();
            assert!(output.stderr.contains(&format!("{wrong} matches no {what}")), "{mode:?}: {}", output.stderr);
            assert_ne!(output.status.code(), Some(0), "{mode:?}");
            assert_eq!(output.stdout, "", "{mode:?}");
        }
    }
    let checked = Tap::new(&db).arg("--test").arg("--select").arg("public-t.a").output().expect_code(0).parsed();
    assert_eq!(checked.records(T)[0].keys().collect::<Vec<_>>(), ["id", "a"]);
    let both = Tap::new(&db).catalog(&full(&db)).arg("--select").arg("public-t").output();
    assert_eq!(both.status.code(), Some(2));
}
