//! `batch_config`: rows of tables in files, of which BATCH messages tell.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::harness::messages::Batch;
use crate::harness::target::Target;
use crate::harness::{Message, Output, Tap, TestDb, plugins};
use crate::log_based::Source;

const ITEM: &str = "create table item (id integer primary key, note text, amount numeric, at timestamptz, doc jsonb);
    insert into item select i, E'n\\t\"' || i, i * 1.10, '2024-02-29 12:00:00+05:30', '{\"a\": 1.10}' from generate_series(1, 2500) i;";

fn database(test: &str) -> TestDb {
    let db = TestDb::new(test);
    db.psql(ITEM);
    db
}

/// With batches of 1,000 rows in a directory that does not exist yet; returns that too.
fn batched(tap: Tap, compression: &str) -> (Tap, PathBuf) {
    let root = tap.dir().join("made/batches");
    let config = json!({
        "encoding": {"format": "jsonl", "compression": compression},
        "storage": {"root": format!("file://{}", root.display()), "prefix": "pre-"},
        "batch_size": "1000",
    });
    (tap.config("batch_config", config), root)
}

fn full_table(db: &TestDb) -> Tap {
    Tap::new(db).config("default_replication_method", "FULL_TABLE")
}

fn batches(output: &Output) -> Vec<&Batch> {
    let messages = output.messages.iter();
    messages.filter_map(|message| if let Message::Batch(batch) = message { Some(batch) } else { None }).collect()
}

fn files(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).expect("the directory of the batches");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn files_hold_the_records() {
    let db = database("batches");
    let plain = full_table(&db).run();
    for (compression, extension) in [("gzip", ".json.gz"), ("none", ".json")] {
        let (tap, root) = batched(full_table(&db), compression);
        let output = tap.run();
        assert_eq!(output.record_messages().count(), 0);
        let batches = batches(&output);
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.records().len()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        let mut told: Vec<PathBuf> = Vec::new();
        for batch in &batches {
            assert_eq!(batch.encoding, json!({"format": "jsonl", "compression": compression}));
            told.extend(batch.manifest.iter().map(|url| PathBuf::from(url.strip_prefix("file://").expect("a URL"))));
        }
        assert_eq!(files(&root), told, "every file is told of");
        let name = |path: &PathBuf| path.file_name().expect("a name").to_str().expect("text").to_owned();
        assert!(told.iter().map(name).all(|name| name.starts_with("pre-") && name.ends_with(extension)), "{told:?}");

        let version = output.bookmark("public-item")["version"].clone();
        let mut records: Vec<Map<String, Value>> = batches.iter().flat_map(|batch| batch.records()).collect();
        for record in &mut records {
            assert_eq!(record.remove("_sdc_table_version"), Some(version.clone()));
        }
        let expected: Vec<Map<String, Value>> = plain.records("public-item").into_iter().cloned().collect();
        assert_eq!(records, expected);
        assert_eq!(output.logged("message=public-item: 2,500 records, "), 1, "{}", output.stderr);
    }
}

/// A target may know neither versions nor properties that no SCHEMA names.
#[test]
fn versions_are_declared_or_left_out() {
    let db = database("batches_versions");
    for activates in [true, false] {
        let (tap, _) = batched(full_table(&db).config("activate_version", activates), "none");
        let output = tap.run();
        let declared = &output.schemas("public-item")[0].schema["properties"]["_sdc_table_version"];
        assert_eq!(*declared, if activates { json!({"type": ["integer", "null"]}) } else { Value::Null });
        let batches = batches(&output);
        let records: Vec<Map<String, Value>> = batches.iter().flat_map(|batch| batch.records()).collect();
        assert_eq!(records.len(), 2500);
        assert!(records.iter().all(|record| record.contains_key("_sdc_table_version") == activates));
        let activated = output.messages.iter().filter(|message| matches!(message, Message::ActivateVersion { .. }));
        assert_eq!(activated.count() > 0, activates);
        // A run without batches and the state are as ever.
        let plain = full_table(&db).config("activate_version", activates).state(output.last_state()).run();
        assert_eq!(plain.records("public-item").len(), 2500);
        assert!(plain.schemas("public-item")[0].schema["properties"]["_sdc_table_version"].is_null());
        let activated = plain.messages.iter().any(|message| matches!(message, Message::ActivateVersion { .. }));
        assert_eq!(activated, activates);
    }
}

#[test]
fn a_target_holds_what_the_table_does() {
    let db = database("batches_again");
    let (tap, _) = batched(full_table(&db), "gzip");
    let mut target = Target::default();
    let first = tap.run();
    target.apply(&first.messages);
    assert_eq!(target.rows("public-item").len(), 2500);
    db.psql("delete from item where id % 2 = 0; update item set note = 'new' where id < 10; create table nothing (id integer);");
    let (tap, _) = batched(full_table(&db).state(first.last_state()), "gzip");
    let second = tap.run();
    target.apply(&second.messages);
    assert_eq!(target.rows("public-item").len(), 1250, "the rows that are gone");
    assert!(batches(&second).iter().all(|batch| batch.stream == "public-item"), "no file of an empty table");
}

/// No STATE is ahead of the files before it.
#[test]
fn a_bookmark_moves_with_each_file() {
    let db = database("batches_incremental");
    let catalog = Tap::new(&db).discover().select_incremental("public-item", "id");
    let (tap, _) = batched(Tap::new(&db).catalog(&catalog), "gzip");
    let output = tap.run();
    let (mut last, mut seen) = (Value::Null, Vec::new());
    for message in &output.messages {
        match message {
            Message::Batch(batch) => last = batch.records().last().expect("a row")["id"].clone(),
            Message::State(state) => {
                let value = &state["bookmarks"]["public-item"]["replication_key_value"];
                assert_eq!(*value, last);
                seen.push(value.clone());
            }
            _ => {}
        }
    }
    seen.dedup();
    assert_eq!(seen, [json!(null), json!(1000), json!(2000), json!(2500)]);
    let (tap, _) = batched(Tap::new(&db).catalog(&catalog).state(output.last_state()), "gzip");
    let again = tap.run();
    assert_eq!(batches(&again).iter().map(|batch| batch.records().len()).sum::<usize>(), 1);
}

#[test]
fn a_copy_goes_into_files_and_the_changes_after_it_do_not() {
    for plugin in plugins() {
        let source = Source::new(plugin, ITEM, &["item"]);
        let mut target = Target::default();
        let (tap, _) = batched(source.tap().config("copy_parallelism", 2), "gzip");
        let copy = tap.run();
        target.apply(&copy.messages);
        assert_eq!((batches(&copy).len(), copy.record_messages().count()), (3, 0));
        source.db.psql("delete from item where id > 2000; insert into item values (-1, 'new', 0.1, now(), null);");
        let (tap, _) = batched(source.tap().state(copy.last_state()), "gzip");
        let changes = tap.run();
        target.apply(&changes.messages);
        assert_eq!((batches(&changes).len(), changes.record_messages().count()), (0, 501));
        let rows: usize = source.db.query_one("select count(*) from item").parse().expect("a number");
        assert_eq!(target.rows("public-item").len(), rows);
    }
}

/// The state says that nothing was stored, and no half of a file stays.
#[test]
fn a_directory_that_takes_no_file_ends_the_run() {
    let db = database("batches_refused");
    let (tap, root) = batched(full_table(&db), "gzip");
    fs::write(tap.dir().join("made"), "a file").expect("write a file");
    let output = tap.run_failing(1);
    assert!(batches(&output).is_empty() && !root.exists());
    let told = output.stderr.lines().find(|line| line.contains("level=ERROR")).expect("an error");
    assert!(told.contains("cannot write the batch ") && told.contains("batch_config"), "{told}");
}

#[test]
fn a_query_that_fails_leaves_no_half_of_a_file() {
    let db = TestDb::new("batches_failed");
    // The last row fails, far into a file.
    db.psql(
        "create view failing as select i, repeat('x', 1000) as filler, 1 / (i - 1999) as last from generate_series(1, 1999) i",
    );
    let catalog = Tap::new(&db).discover().select("public-failing", "FULL_TABLE");
    let (tap, root) = batched(Tap::new(&db).catalog(&catalog), "none");
    let output = tap.run_failing(1);
    assert!(output.stderr.contains("division by zero"), "{}", output.stderr);
    assert_eq!((files(&root).len(), batches(&output).len()), (1, 1), "{}", output.stderr);
}

#[test]
fn wrong_settings_are_named() {
    let db = TestDb::new("batches_wrong");
    for (config, told) in [
        (json!("x"), r#"key "batch_config": expected an object, found "x""#),
        (json!({}), r#"key "batch_config": "storage": key "root" is missing"#),
        (json!({"storage": {"root": "s3://bucket"}}), r#""root": "s3://bucket" is no directory of this machine"#),
        (json!({"storage": {"root": "file://here"}}), r#""file://here" is no directory of this machine"#),
        (json!({"storage": {"root": "file:///b"}, "batch_size": 0}), r#"key "batch_config": "batch_size": at least 1"#),
        (
            json!({"storage": {"root": "file:///b"}, "encoding": {"format": "parquet"}}),
            r#""encoding": "format": "parquet" is not one of jsonl"#,
        ),
        (json!({"storage": {"root": "file:///b"}, "encoding": {"level": 1}}), r#""encoding": unknown key "level""#),
    ] {
        let output = Tap::new(&db).config("batch_config", config).output().expect_code(2);
        assert!(output.stderr.contains(told), "{told} in {}", output.stderr);
    }
}
