//! `batch_config`: rows of tables in files, of which BATCH messages tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::harness::messages::Batch;
use crate::harness::target::Target;
use crate::harness::{Message, Output, Tap, TestDb, plugins, release};
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

/// In their order, of one stream each; nothing of the log is a RECORD.
#[test]
fn changes_go_into_files_too() {
    for plugin in plugins() {
        let tables = format!("{ITEM} create table other (id integer primary key, n integer);");
        let source = Source::new(plugin, &tables, &["item", "other"]);
        let mut target = Target::default();
        let (tap, _) = batched(source.tap().config("copy_parallelism", 2), "gzip");
        let copy = tap.run();
        target.apply(&copy.messages);
        assert_eq!((batches(&copy).len(), copy.record_messages().count()), (3, 0));
        source.db.psql(
            "delete from item where id > 2000; insert into item values (-1, 'new', 0.1, now(), null);
             insert into other values (1, 0);
             select 'update other set n = n + 1; update item set note = note || 1 where id = 5' from generate_series(1, 1100) \\gexec
             alter table item add column late integer; update item set late = id where id < 100; truncate other;
             insert into other values (7, 7);",
        );
        for reader in ["bulk", "stream"] {
            let (tap, _) = batched(source.tap().state(copy.last_state()).config("wal_reader", reader), "none");
            let tap = tap.config("on_truncate", "activate_version");
            let changes = tap.run();
            let mut target = Target::default();
            target.apply(&copy.messages);
            target.apply(&changes.messages);
            assert_eq!(changes.record_messages().count(), 0);
            let batches = batches(&changes);
            let of_other: Vec<usize> = batches
                .iter()
                .filter(|batch| batch.stream == "public-other")
                .map(|batch| batch.records().len())
                .collect();
            assert_eq!(of_other.iter().sum::<usize>(), 1102);
            assert!(of_other.iter().all(|records| *records <= 1000) && of_other.len() < 5, "{of_other:?}");
            let order: Vec<Value> = batches
                .iter()
                .filter(|batch| batch.stream == "public-other")
                .flat_map(|batch| batch.records())
                .map(|record| record["n"].clone())
                .collect();
            assert_eq!(order, (0..=1100).chain([7]).map(|n| json!(n)).collect::<Vec<_>>());
            target.assert_holds(&source.db, &["item", "other"]);
        }
    }
}

/// Each with a file of its own.
#[test]
fn several_connections_write_files() {
    let db = TestDb::new("batches_parallel");
    // Some 20 MB for few rows.
    db.psql(
        "create table item (id integer primary key, note text) with (fillfactor = 10);
         insert into item select i, repeat('n', 80) from generate_series(1, 15000) i;",
    );
    let (tap, root) = batched(full_table(&db).config("copy_parallelism", 3), "gzip");
    let output = tap.run();
    if release() >= 14 {
        assert_eq!(output.logged("ranges by up to 3 connections"), 1, "{}", output.stderr);
    }
    let batches = batches(&output);
    let mut ids: Vec<Value> = batches.iter().flat_map(|batch| batch.records()).map(|row| row["id"].clone()).collect();
    ids.sort_by_key(Value::as_i64);
    assert_eq!(ids, (1..=15000).map(|id| json!(id)).collect::<Vec<_>>());
    assert_eq!(batches.len(), files(&root).len());
    assert!(batches.iter().rev().skip(1).all(|batch| batch.records().len() == 1000));
}

/// A directory that many runs write into, all at a time, has the files of all of them.
#[test]
fn no_run_writes_over_another() {
    let db = database("batches_shared");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = json!({"storage": {"root": format!("file://{}", folder.path().display())}, "batch_size": 500});
    let running: Vec<_> = (0..4).map(|_| full_table(&db).config("batch_config", config.clone()).spawn()).collect();
    let outputs: Vec<Output> = running.into_iter().map(|running| running.finish().parsed()).collect();
    assert_eq!(files(folder.path()).len(), 20);
    for output in outputs {
        assert_eq!(batches(&output).iter().map(|batch| batch.records().len()).sum::<usize>(), 2500);
    }
}

/// What a file says is stored at once, however long the next query takes.
#[test]
fn a_state_does_not_wait_for_the_next_rows() {
    let db = database("batches_slow");
    db.psql("create view slow as select pg_sleep(600)::text as n");
    let catalog = Tap::new(&db).discover().select_incremental("public-item", "id").select("public-slow", "FULL_TABLE");
    let (tap, _) = batched(Tap::new(&db).catalog(&catalog), "gzip");
    let mut running = tap.spawn();
    let is_stored = |message: &Message| {
        message.as_state().is_some_and(|state| state["bookmarks"]["public-item"]["replication_key_value"] == 2500)
    };
    running.wait_for(Duration::from_secs(60), is_stored);
    db.wait_until(
        "exists (select from pg_stat_activity where query like '%slow%' and state = 'active' and pid <> pg_backend_pid())",
    );
    running.signal(Signal::TERM);
    assert_eq!(running.finish().status.code(), Some(143));
}

/// No STATE is ahead of a file, whichever of the log can't be written: the changes that are lost come again.
#[test]
fn a_file_of_changes_that_can_not_be_written() {
    for plugin in plugins() {
        // The name of its files is too long for a file system.
        let long = "l".repeat(60);
        let sql = format!("{ITEM} create table {long} (id integer primary key);");
        let source = Source::new(plugin, &sql, &["item", &long]);
        let copy = source.tap().run();
        source.db.psql(&format!(
            "update item set note = 'before' where id <= 1500; insert into {long} values (1);
             update item set note = 'after' where id <= 1500; insert into {long} select generate_series(2, 20000);"
        ));
        let tap = source.tap().state(copy.last_state());
        let root = tap.dir().join("made");
        let storage = json!({"root": format!("file://{}", root.display()), "prefix": "p".repeat(150)});
        let tap = tap.config("batch_config", json!({"storage": storage, "batch_size": 1000}));
        let output = tap.run_failing(1);
        assert!(output.stderr.contains("cannot write the batch "), "{}", output.stderr);
        let mut target = Target::default();
        target.apply(&copy.messages);
        let state = target.apply_confirmed(&output.messages).unwrap_or_else(|| copy.last_state().clone());
        let told = batches(&output);
        assert!(told.iter().all(|batch| batch.stream == "public-item"));
        assert_eq!(files(&root).len(), told.len(), "no file that nobody was told of");
        target.apply(&source.tap().state(&state).run().messages);
        target.assert_holds(&source.db, &["item", &long]);
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
    // What was read is the target's, as with RECORDs; the rows have no version that holds.
    let records: Vec<usize> = batches(&output).iter().map(|batch| batch.records().len()).collect();
    assert_eq!((files(&root).len(), records), (2, vec![1000, 998]), "{}", output.stderr);
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
