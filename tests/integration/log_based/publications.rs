//! Publications: what of the database they concern, and where they did not exist.

use std::thread;
use std::time::{Duration, Instant};

use super::{Source, lsn, numbers};
use serde_json::{Value, json};

use crate::harness::{Cluster, Tap, TestDb, needs, release};

const READERS: [&str; 2] = ["stream", "bulk"];

/// A publication of all tables also has what can't be published: that matters to no run and to no `--test`.
#[test]
fn tables_of_nobody() {
    let source = Source::new("pgoutput", "create table t (id integer primary key); insert into t values (1)", &["t"]);
    let mut state = source.copied();
    source.db.psql("create table nocols (); create schema apart; create table apart.nocols ();");
    if release() >= 17 {
        source.db.psql("create table calculated (n integer generated always as (1) stored)");
    }
    for (id, reader) in [2, 3].into_iter().zip(READERS) {
        source.db.psql(&format!("insert into t values ({id})"));
        source.tap().state(&state).arg("--test").output().expect_code(0);
        let output = source.tap().config("wal_reader", reader).state(&state).run();
        assert_eq!(numbers(&output, "t", "id"), [id]);
        state = output.last_state().clone();
    }
}

/// A partitioned table may be published before it has a partition.
#[test]
fn a_root_without_leaves() {
    if !needs(11, "keys of partitioned tables") {
        return;
    }
    let sql = "create table t (id integer primary key) partition by range (id)";
    let source = Source::new("pgoutput", sql, &["t"]);
    source.tap().arg("--test").output().expect_code(0);
    let state = source.copied();
    let output = source
        .run_after("create table leaf partition of t for values from (0) to (10); insert into t values (1)", &state);
    assert_eq!(numbers(&output, "t", "id"), [1]);
}

/// Others may lock or drop tables that are published and not selected.
#[test]
fn a_lock_on_another_table() {
    let cluster = Cluster::start("");
    let sql =
        "create table t (id integer primary key); create table other (id integer); create table third (id integer);";
    let source = Source::on(&cluster, "pgoutput", sql, &["t"]);
    let mut state = source.copied();
    for (id, reader, other) in [(1, "stream", "other"), (2, "bulk", "third")] {
        source.db.psql(&format!("insert into t values ({id})"));
        let mut session = source.db.session();
        session.run(&format!("begin; drop table {other};"));
        let started = Instant::now();
        source.tap().state(&state).arg("--test").output().expect_code(0);
        let output = source.tap().config("wal_reader", reader).state(&state).run();
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(numbers(&output, "t", "id"), [id]);
        state = output.last_state().clone();
        thread::sleep(Duration::from_millis(100));
        session.run("commit;");
    }
}

/// A publication that was dropped and made again, or had another name for a while, while changes were made: an error that says what
/// to do, in each run by each reader, and no STATE past it.
#[test]
fn a_gap() {
    let drop = ("drop publication {}", "create publication {} for all tables");
    let rename = ("alter publication {} rename to away", "alter publication away rename to {}");
    for (reader, (away, back)) in [("stream", drop), ("bulk", drop), ("stream", rename), ("bulk", rename)] {
        let sql = "create table d (id integer primary key, v text); insert into d values (1, 'a'), (2, 'b')";
        let source = Source::new("pgoutput", sql, &["d"]);
        let state = source.copied();
        let slot = source.slot.clone();
        source.db.psql(&away.replace("{}", &slot));
        source
            .db
            .psql("insert into d values (3, 'lost'); update d set v = 'lost' where id = 1; delete from d where id = 2");
        source.db.psql(&back.replace("{}", &slot));
        source.db.psql("insert into d values (4, 'after')");
        let tap = || source.tap().config("wal_reader", reader);
        // Older servers may not notice a rename.
        if away.contains("rename") && tap().state(&state).output().status.success() {
            let output = tap().state(&state).run();
            assert_eq!(numbers(&output, "d", "id").len(), 4, "{}", output.stderr);
            continue;
        }
        for _ in 0..2 {
            let output = tap().state(&state).run_failing(1);
            assert!(
                output.logged("level=ERROR") == 1 && output.stderr.contains(&format!("\"{slot}\"")),
                "{}",
                output.stderr
            );
            assert!(output.stderr.contains("on_slot_lost to copy_again"), "{}", output.stderr);
            assert!(output.states().iter().all(|written| lsn(written, "d") == lsn(&state, "d")));
            assert!(output.records("public-d").is_empty(), "{:?}", output.messages);
        }
        // The advice is right.
        source.db.query(&format!("select pg_drop_replication_slot('{slot}')"));
        let output = tap().state(&state).config("on_slot_lost", "copy_again").run();
        let mut ids = numbers(&output, "d", "id");
        ids.sort_unstable();
        assert_eq!(ids, [1, 3, 4]);
    }
}

/// Changes of a time in which the publication did not send them are in no log: one run says so of the stream, and of no other.
#[test]
fn not_published_for_a_while() {
    let mut cases = vec![
        ("for table t, u", "alter publication {} drop table t", "alter publication {} add table t"),
        ("for table t, u", "alter publication {} set table u", "alter publication {} set table t, u"),
    ];
    if release() >= 15 {
        cases.push((
            "for table t, u",
            "alter publication {} set table u, t (id)",
            "alter publication {} set table t, u",
        ));
        cases.push((
            "for table u, tables in schema apart",
            "alter table apart.t set schema public",
            "alter table t set schema apart",
        ));
        cases.push((
            "for table u, tables in schema apart",
            "alter publication {} drop tables in schema apart",
            "alter publication {} add tables in schema apart",
        ));
    }
    for (of, away, back) in cases {
        for reader in READERS {
            let db = TestDb::new("publications");
            let schema = if of.contains("schema") { "apart" } else { "public" };
            db.psql(&format!(
                "create schema apart; create table {schema}.t (id integer primary key, v text); create table u (id integer primary key);"
            ));
            let name = db.publication(of);
            db.slot("pgoutput");
            let catalog = Tap::new(&db).discover();
            let id = format!("{schema}-t");
            let catalog = catalog.select(&id, "LOG_BASED").select("public-u", "LOG_BASED");
            let run = |state: &Value| {
                let output = Tap::new(&db).catalog(&catalog).config("wal_reader", reader).state(state).run();
                (output.warnings().into_iter().filter(|line| line.contains("publication")).collect::<Vec<_>>(), output)
            };
            let (warnings, output) = run(&json!({}));
            assert!(warnings.is_empty(), "{warnings:?}");
            let (warnings, output) = run(output.last_state());
            assert!(warnings.is_empty(), "what was made before the copy: {warnings:?}");
            db.psql(&away.replace("{}", &name));
            let now = if away.contains("set schema") { "public" } else { schema };
            db.psql(&format!("insert into {now}.t values (1, 'lost')"));
            db.psql(&back.replace("{}", &name));
            db.psql(&format!("insert into {schema}.t values (2, 'sent'); insert into u values (1)"));
            let state = output.last_state();
            let checked = Tap::new(&db).catalog(&catalog).state(state).arg("--test").output().expect_code(0);
            assert_eq!(
                checked.stderr.matches("what that publishes, may have been altered").count(),
                1,
                "{}",
                checked.stderr
            );
            let (warnings, output) = run(state);
            assert!(warnings.len() == 1 && warnings[0].contains(&format!("{id}: ")), "{away}: {warnings:?}");
            let (warnings, _) = run(output.last_state());
            assert!(warnings.is_empty(), "{away}: said once: {warnings:?}");
        }
    }
}

/// What publishes changes only, and only some kinds of them.
#[test]
fn some_changes_not_published_for_a_while() {
    let source = Source::new("pgoutput", "create table t (id integer primary key); insert into t values (1)", &["t"]);
    let state = source.copied();
    source.db.psql(&format!("alter publication {} set (publish = 'insert')", source.slot));
    source.db.psql("delete from t");
    let all = if release() >= 11 { "insert, update, delete, truncate" } else { "insert, update, delete" };
    source.db.psql(&format!("alter publication {} set (publish = '{all}')", source.slot));
    let output = source.run(&state);
    assert!(output.stderr.contains("what that publishes, may have been altered"), "{}", output.stderr);
    let output = source.run(output.last_state());
    assert!(!output.stderr.contains("what that publishes"), "{}", output.stderr);
}

/// The server's warnings reach a run whatever the role has set.
#[test]
fn warnings_are_not_left_out() {
    if !needs(18, "a publication that is passed over with a warning") {
        return;
    }
    let source = Source::new("pgoutput", "create table d (id integer primary key)", &["d"]);
    let state = source.copied();
    let name = source.db.name();
    source.db.psql(&format!("alter database {name} set client_min_messages = error"));
    source.db.psql(&format!("drop publication {}", source.slot));
    source.db.psql("insert into d values (1)");
    source.db.publication("for all tables");
    for reader in READERS {
        source.tap().config("wal_reader", reader).state(&state).run_failing(1);
    }
}

/// What no release before 18 can publish is not asked for.
#[test]
fn a_key_that_is_generated() {
    if !needs(12, "a generated column") {
        return;
    }
    let sql = "create table t (id integer, k integer generated always as (id * 2) stored primary key)";
    let source = Source::new("pgoutput", sql, &["t"]);
    for tap in [source.tap(), source.tap().arg("--test")] {
        let output = tap.output().expect_code(1);
        let told =
            output.stderr.lines().find(|line| line.contains("does not publish the key column")).expect("an error");
        let possible = release() >= 18;
        assert_eq!(
            (told.contains("publish_generated_columns"), told.contains("from PostgreSQL 18 on")),
            (possible, !possible),
            "{told}"
        );
    }
}
