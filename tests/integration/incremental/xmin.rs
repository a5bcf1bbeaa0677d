//! INCREMENTAL by `xmin`: what was written since the last run comes, whoever wrote it, however and whenever that ended.
//!
//! A transaction that is open anywhere on the server has later rows come twice, so that these tests have servers of their own.

mod snapshots;
mod tables;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Catalog, Cluster, Output, Tap, TestDb, release};

const T: &str = "public-t";
const NONE: [i64; 0] = [];
const TABLE: &str = "create table t (id integer primary key, note text);
    insert into t select n, 'old' from generate_series(1, 5) n;";

/// A database on a server of its own.
fn server(test: &str, sql: &str) -> TestDb {
    let db = TestDb::on(&Cluster::start(""), test);
    db.psql(sql);
    db
}

fn catalog(db: &TestDb) -> Catalog {
    Tap::new(db).discover().select_incremental(T, "xmin")
}

fn tap(db: &TestDb) -> Tap {
    Tap::new(db).catalog(&catalog(db))
}

/// A run from this state.
#[track_caller]
fn from(db: &TestDb, state: &Value) -> Output {
    tap(db).state(state).run()
}

/// The state of a finished run with this value.
fn state(value: &Value) -> Value {
    json!({"bookmarks": {T: {"last_replication_method": "INCREMENTAL", "replication_key": "xmin",
        "replication_key_value": value, "version": 1}}})
}

/// The ids of the records, sorted.
fn ids(output: &Output) -> Vec<i64> {
    let mut ids: Vec<i64> = output.records(T).iter().map(|record| record["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

/// The xmin of a snapshot that is taken now, with its epoch.
fn snapshot_xmin(db: &TestDb) -> u64 {
    db.query_one("select txid_snapshot_xmin(txid_current_snapshot())").parse().expect("a transaction id")
}

#[test]
fn what_was_written_comes() {
    let db = server("xmin", TABLE);
    let first = tap(&db).run();
    assert_eq!(ids(&first), [1, 2, 3, 4, 5]);
    let kept = first.bookmark(T);
    let expected = json!({"last_replication_method": "INCREMENTAL", "replication_key": "xmin",
        "replication_key_value": snapshot_xmin(&db).to_string(), "version": kept["version"],
        "table_oid": db.query_one("select 't'::regclass::oid").parse::<u32>().expect("an oid")});
    assert_eq!(kept, &expected);
    assert_eq!(first.schemas(T)[0].bookmark_properties, Vec::<String>::new(), "xmin is no property");

    db.psql("update t set note = 'new' where id = 2; insert into t values (6, 'new'); delete from t where id = 1");
    let second = from(&db, first.last_state());
    assert_eq!(ids(&second), [2, 6]);
    assert_eq!(second.bookmark(T)["version"], kept["version"], "the version stays");
    // Nothing new.
    let third = from(&db, second.last_state());
    assert_eq!((ids(&third), third.last_state()), (NONE.to_vec(), second.last_state()));
    // As many transactions as no list has, and as a list has to have.
    db.psql("update t set note = 'newer' where id = 3");
    db.psql(&"select txid_current() \\g /dev/null\n".repeat(17_000));
    assert_eq!(ids(&from(&db, third.last_state())), [3]);
    db.psql("update t set note = 'newer' where id = 4");
    let fifth = from(&db, &state(&json!(snapshot_xmin(&db) - 1)));
    assert_eq!(ids(&fifth), [4], "a number is fine too");
}

/// Freezing, and what moves rows, leaves them their ids.
#[test]
fn frozen_rows() {
    let db = server("xmin_frozen", TABLE);
    db.psql("create index on t (note); vacuum freeze t");
    let mut output = tap(&db).run();
    for (id, sql) in [(1, "vacuum freeze t"), (2, "vacuum full t"), (3, "cluster t using t_note_idx")] {
        db.psql(&format!("update t set note = 'new' where id = {id}; {sql}"));
        output = from(&db, output.last_state());
        assert_eq!(ids(&output), [id], "{sql}");
    }
    db.psql("begin; truncate t; copy t from stdin with (freeze);\n7\tfrozen\n\\.\ncommit;");
    output = from(&db, output.last_state());
    assert_eq!(ids(&output), [7]);
    assert_eq!(ids(&from(&db, output.last_state())), NONE);
}

/// Ids begin again from 3 after 2^32: rows from before and after are both new, and frozen ones whose ids are in use again come
/// once more rather than not at all.
#[test]
fn ids_that_wrap_around() {
    let db = server("xmin_wrap", TABLE);
    let frozen: u32 = db.query_one("select xmin from t limit 1").parse().expect("an id");
    for database in [db.name(), "postgres", "template1"] {
        let status = db.cluster().psql(database).args(["-qc", "vacuum freeze"]).status();
        assert!(status.expect("run psql").success());
    }
    let cluster = Arc::clone(db.cluster());
    cluster.stop("SIGINT");
    if !cluster.set_next_xid(1, u32::MAX - 40) {
        return;
    }
    cluster.start_again();
    let epoch = 1u64 << 32;
    assert!((2 * epoch - 41..2 * epoch).contains(&snapshot_xmin(&db)));
    let first = tap(&db).run();
    db.psql("update t set note = 'before' where id = 1");
    let burn = |until: u64| {
        while snapshot_xmin(&db) < until {
            db.psql(&"select txid_current() \\g /dev/null\n".repeat(20));
        }
    };
    burn(2 * epoch + 4);
    db.psql("update t set note = 'after' where id = 2");
    let second = from(&db, first.last_state());
    assert_eq!(ids(&second), [1, 2]);
    db.psql("update t set note = 'again' where id = 3");
    let third = from(&db, second.last_state());
    assert_eq!(ids(&third), [3]);
    burn(2 * epoch + u64::from(frozen));
    // Rows that are frozen since the last time round, those that describe the columns too, have ids that are in use again.
    let fourth = from(&db, third.last_state());
    assert_eq!(ids(&fourth), [1, 2, 3, 4, 5]);
    assert_eq!(ids(&from(&db, fourth.last_state())), NONE);

    // False bookmarks: half of all ids ago is too long, less is not.
    let now = snapshot_xmin(&db);
    for (back, whole) in [((1u64 << 31) + 1000, true), (epoch + 1, true), ((1 << 31) - 1000, false)] {
        let output = from(&db, &state(&json!((now - back).to_string())));
        let told = output.logged("half of all transaction ids were used");
        assert_eq!((output.records(T).len(), told), (5, usize::from(whole)), "{back}");
    }
}

/// A bookmark that this server can't have written has the whole table read, and says so.
#[test]
fn bookmarks_of_another_server() {
    let db = server("xmin_future", TABLE);
    let now = snapshot_xmin(&db);
    for value in [json!((now + 1000).to_string()), json!("18446744073709551615"), json!("2020-01-01"), json!(-1)] {
        let output = from(&db, &state(&value));
        assert_eq!(ids(&output), [1, 2, 3, 4, 5], "{value}");
        assert_eq!(output.warnings().len(), 1, "{}", output.stderr);
        assert_eq!(output.logged("no transaction that this server has had"), 1, "{}", output.stderr);
        assert_eq!(output.bookmark(T)["replication_key_value"], json!(now.to_string()));
        assert_eq!(output.bookmark(T)["version"], 1);
    }
    let output = from(&db, &state(&json!(now.to_string())));
    assert_eq!((ids(&output), output.warnings().len()), (NONE.to_vec(), 0));
}

#[test]
fn another_key_clears_the_bookmark() {
    let db = server("xmin_keys", TABLE);
    let by_id = Tap::new(&db).discover().select_incremental(T, "id");
    let first = tap(&db).run();
    let second = Tap::new(&db).catalog(&by_id).state(first.last_state()).run();
    assert_eq!(ids(&second), [1, 2, 3, 4, 5]);
    let keys: Vec<&String> = second.bookmark(T).as_object().expect("a bookmark").keys().collect();
    assert_eq!(keys, ["last_replication_method", "replication_key", "version", "replication_key_value"]);
    let third = from(&db, second.last_state());
    assert_eq!(ids(&third), [1, 2, 3, 4, 5]);
    assert_ne!(third.bookmark(T)["version"], second.bookmark(T)["version"]);
}

#[test]
fn a_limit_does_not_count() {
    let db = server("xmin_limit", TABLE);
    let output = tap(&db).config("limit", 2).run();
    assert_eq!(ids(&output), [1, 2, 3, 4, 5]);
    assert_eq!(output.logged("`limit` does not count"), 1, "{}", output.stderr);
    assert_eq!(tap(&db).run().logged("`limit`"), 0);
}

#[test]
fn discovery_names_it() {
    let db = TestDb::new("discovery_names");
    db.psql(TABLE);
    let output = Tap::new(&db).arg("--discover").output().expect_code(0);
    assert_eq!(output.logged("\"xmin\""), 1, "{}", output.stderr);
    assert!(!output.stdout.contains("xmin"), "the catalog is the reference's");
    let help = Tap::bare().arg("--help").output().expect_code(0).stdout;
    assert!(help.contains("xmin"), "{help}");
    let output = Tap::new(&db).catalog(&Tap::new(&db).discover().select(T, "INCREMENTAL")).run_failing(1);
    assert_eq!(output.logged("or xmin, which every table has"), 1, "{}", output.stderr);
}

/// As many connections as `copy_parallelism` allows read the table, all of it and what is new.
#[test]
fn several_connections() {
    let db = server(
        "xmin_parallel",
        "create table t (id integer, note text) with (fillfactor = 10);
         insert into t select i, repeat('n', 80) from generate_series(1, 15000) i;",
    );
    let divided = |output: &Output| output.logged("copied in ") == usize::from(release() >= 14);
    let first = tap(&db).config("copy_parallelism", 3).run();
    assert!(ids(&first) == (1..=15_000).collect::<Vec<_>>() && divided(&first), "{}", first.stderr);
    db.psql("update t set note = 'new' where id % 100 = 0");
    let second = tap(&db).config("copy_parallelism", 3).state(first.last_state()).run();
    assert!(ids(&second) == (1..=150).map(|n| n * 100).collect::<Vec<_>>() && divided(&second), "{}", second.stderr);
}

/// Files of BATCH messages: the bookmark moves with the last of them.
#[test]
fn batches() {
    let db = server("xmin_batches", TABLE);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = json!({"storage": {"root": format!("file://{}", folder.path().display())}, "batch_size": 2});
    let batch = |tap: Tap| tap.config("batch_config", config.clone()).run();
    let value = |state: &Value| state["bookmarks"][T]["replication_key_value"].clone();
    let first = batch(tap(&db));
    let states: Vec<Value> = first.states().into_iter().map(value).collect();
    let (last, others) = states.split_last().expect("a STATE");
    assert_eq!(last, &json!(snapshot_xmin(&db).to_string()));
    assert!(others.iter().all(Value::is_null), "{others:?}");
    db.psql("update t set note = 'new' where id = 2");
    let second = batch(tap(&db).state(first.last_state()));
    let files = second.messages.iter().filter_map(|message| match message {
        crate::harness::Message::Batch(batch) => Some(batch.records()),
        _ => None,
    });
    assert_eq!(files.flatten().map(|row| row["id"].clone()).collect::<Vec<_>>(), [2]);
}
