//! Copies in slices: a run that is cut goes on where it was, the slot moves, and the target holds what the table does.

use std::time::Duration;

use serde_json::{Value, json};

use super::model::{killed_after, version};
use super::{Source, lsn, numbers, select, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Cluster, Message, Output, Tap, TestDb, needs, until_within};

with_both_plugins!(
    what_was_sent_does_not_come_again,
    a_copy_that_is_killed_goes_on,
    others_are_not_kept_waiting,
    rows_that_move_between_slices,
    rows_that_lie_in_other_files,
    a_gap_begins_the_copy_anew,
    what_was_altered_before_the_copy,
    tables_of_which_not_all_changes_come,
    columns_that_come_within_a_run,
    from_a_standby,
);

/// 2,000 rows in some 90 pages, 23 to a page.
pub(super) const TABLE: &str = "create table t (id integer primary key, n integer, filler text) with (fillfactor = 90);
    insert into t select i, 0, repeat('x', 280) from generate_series(1, 2000) i;";
const ROWS: usize = 2000;
/// Of some 70 rows, a STATE after each, and snapshots that last.
pub(super) const SLICES: &str = "24576,0,60000";

fn sliced(tap: Tap) -> Tap {
    tap.env("TAP_TEST_SLICING", SLICES)
}

/// A run that reads one slice and then the log.
fn step(source: &Source, state: &Value) -> Output {
    sliced(source.tap()).config("max_copy_seconds", 0).state(state).run()
}

/// A target, and the run in which it got the first slice.
fn begun(source: &Source) -> (Target, Output) {
    let mut target = Target::default();
    let first = step(source, &json!({}));
    target.apply(&first.messages);
    (target, first)
}

fn copied_rows(messages: &[Message]) -> usize {
    let records = messages.iter().filter_map(Message::as_record);
    records.filter(|record| !record.record.contains_key("_sdc_deleted_at")).count()
}

pub(super) fn page(state: &Value) -> Option<u64> {
    state["bookmarks"]["public-t"]["copy"][0].as_u64()
}

/// Has the copy end; the target takes everything.
#[track_caller]
fn finish(source: &Source, target: &mut Target, state: &Value) {
    let output = sliced(source.tap()).state(state).run();
    target.apply(&output.messages);
    let state = output.last_state();
    assert!(page(state).is_none() && state["bookmarks"]["public-t"]["xmin"].is_null(), "{state}");
}

fn what_was_sent_does_not_come_again(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let source = Source::new(plugin, TABLE, &["t"]);
    let (mut target, mut state, mut sent, mut runs, mut last) = (Target::default(), json!({}), 0, 0, None);
    while runs == 0 || page(&state).is_some() {
        let before = source.confirmed_flush();
        source.db.psql(&format!("insert into t values ({}, 1, 'new')", 10_000 + runs));
        let output = step(&source, &state);
        target.apply(&output.messages);
        sent += copied_rows(&output.messages);
        let now = output.last_state();
        if page(now).is_some() {
            // The reference and releases before this one copy again.
            assert_eq!(now["bookmarks"]["public-t"]["xmin"], 1);
            assert!(page(now) > last, "{now}");
            assert!(lsn(now, "t") > before, "the log was read");
            assert_eq!(output.logged("of its pages are copied"), 1, "{}", output.stderr);
            // The slot follows with the next run.
            assert!(runs == 0 || source.confirmed_flush() > before);
        }
        assert!(runs == 0 || version(now, "t") == version(&state, "t"));
        (last, state, runs) = (page(now).or(last), now.clone(), runs + 1);
    }
    assert!(runs > 20, "{runs}");
    assert!(sent <= ROWS + 2 * runs, "{sent} rows were copied in {runs} runs");
    target.assert_holds(&source.db, &["t"]);
    let output = source.run_after("delete from t where id < 100; update t set n = 2 where id = 500", &state);
    target.apply(&output.messages);
    target.assert_holds(&source.db, &["t"]);
}

fn a_copy_that_is_killed_goes_on(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let source = Source::new(plugin, TABLE, &["t"]);
    for connections in [1, 3] {
        let (mut target, mut state, mut sent) = (Target::default(), json!({}), 0);
        for kill in 0..20 {
            let tap = sliced(source.tap()).config("copy_parallelism", connections).state(&state);
            let killed = killed_after(&tap, 100 + kill);
            sent += copied_rows(&killed);
            let now = target.apply_confirmed(&killed).unwrap_or_else(|| state.clone());
            // What was not begun yet begins under another version.
            let goes_on = page(&state).is_none() || version(&now, "t") == version(&state, "t");
            assert!(page(&now) >= page(&state) && goes_on, "{state}, then {now}");
            state = now;
            source
                .db
                .psql(&format!("update t set n = n + 1 where id % 50 = {kill}; delete from t where id = {kill} + 7"));
            source.db.wait_until("not exists (select from pg_replication_slots where active)");
        }
        let output = sliced(source.tap()).config("copy_parallelism", connections).state(&state).run();
        sent += copied_rows(&output.messages);
        target.apply(&output.messages);
        target.assert_holds(&source.db, &["t"]);
        // What each connection had in hand at each kill, and what came after the last STATE that was read.
        let in_hand = 20 * (1 + connections) * 80;
        assert!(sent <= ROWS + ROWS / 10 + in_hand, "{sent} rows with {connections} connections");
    }
}

/// Each run sends the changes of the others, and a copy does not begin before one that is under way has ended.
fn others_are_not_kept_waiting(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let tables =
        format!("{TABLE} create table other (id integer primary key); create table b (id integer primary key);");
    let source = Source::new(plugin, &tables, &["other"]);
    let state = source.copied();
    let mut source = Source { catalog: select(source.catalog, &["t"]), ..source };
    let mut state = state;
    for id in 1..4 {
        source.db.psql(&format!("insert into other values ({id}); insert into b values ({id})"));
        let output = step(&source, &state);
        assert_eq!(numbers(&output, "other", "id"), [id]);
        assert_eq!(output.logged("no time left"), usize::from(id > 1), "{}", output.stderr);
        assert!(output.records("public-b").is_empty());
        state = output.last_state().clone();
        assert!(state["bookmarks"]["public-b"]["lsn"].is_null(), "{state}");
        // Its name comes first.
        source.catalog = select(source.catalog, &["b"]);
    }
    let output = sliced(source.tap()).state(&state).run();
    assert_eq!(numbers(&output, "b", "id"), [1, 2, 3]);
    assert!(page(output.last_state()).is_none(), "{}", output.last_state());
}

/// Rows go from pages that are not copied yet to such that are, with values that the log leaves out; keys change and come again.
fn rows_that_move_between_slices(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    // Of its own: beside an open transaction vacuum frees no space.
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, TABLE, &["t"]);
    source.db.psql(
        "alter table t add body text; alter table t alter body set storage external; vacuum full t;
         update t set body = repeat(id::text, 800) where id > 1900; delete from t where id < 60; vacuum t;",
    );
    let (mut target, first) = begun(&source);
    assert_eq!(page(first.last_state()).map(|page| page > 0), Some(true));
    // The free space is in the first pages.
    source.db.psql(
        "update t set n = 5 where id > 1950; update t set id = id + 5000 where id between 1901 and 1910;
         update t set id = 1 where id = 1920; delete from t where id = 1930; insert into t values (1930, 9, 'again', 'b');",
    );
    assert_ne!(source.db.query_one("select count(*) from t where id > 1900 and ctid < '(3,0)'"), "0", "rows moved");
    let second = sliced(source.tap())
        .config("max_copy_seconds", 0)
        .config("unchanged_toast", "omit")
        .state(first.last_state())
        .run();
    target.apply(&second.messages);
    source.db.psql("vacuum t; update t set n = 6 where id > 1990; update t set id = 2 where id = 5001;");
    finish(&source, &mut target, second.last_state());
    target.assert_holds(&source.db, &["t"]);
}

fn rows_that_lie_in_other_files(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let plain = [
        ("vacuum full t", true),
        ("truncate t; insert into t select i, 1, 'x' from generate_series(5, 900) i", true),
        ("alter table t alter n type bigint", true),
        (
            "alter table t rename to gone; create table t (like gone including all); insert into t select * from gone where id < 1500",
            true,
        ),
        // Pages that are copied have it, too.
        ("alter table t add c integer default 5", true),
        ("vacuum t; reindex table t; analyze t; grant select on t to public; update t set n = 6", false),
    ];
    let leaves = [
        ("create table l9 partition of p for values from (9000) to (9999); insert into p values (9001)", false),
        (
            "begin; create table l9 partition of p (b default 'b' not null) for values from (9000) to (9999);
             insert into l9 select i from generate_series(9000, 9900) i; commit",
            false,
        ),
        (
            "create table l9 (like p including all); insert into l9 values (9001);
             alter table p attach partition l9 for values from (9000) to (9999)",
            true,
        ),
        (
            "begin; create table l9 (gone integer, id integer not null, a name, b name, c name, d name); alter table l9 drop gone;
             insert into l9 select i from generate_series(9000, 9900) i;
             alter table p attach partition l9 for values from (9000) to (9999); commit",
            true,
        ),
        // What is written meanwhile is in no log of the root.
        (
            "alter table p detach partition l1; insert into l1 values (0, 'while detached'); delete from l1 where id < 100 and id > 0;
             alter table p attach partition l1 for values from (0) to (1000)",
            true,
        ),
        ("vacuum full l1", true),
        // Its rows stay in the target, as after any copy: that is as if they were in another partition.
        (
            "create table l3 partition of p for values from (5000) to (6000); alter table p detach partition l2;
             create table l4 partition of p for values from (1000) to (2000); insert into p select * from l2",
            false,
        ),
    ];
    for (sql, anew) in plain {
        let source = Source::new(plugin, TABLE, &["t"]);
        check(&source, "t", sql, anew);
    }
    for (sql, anew) in leaves {
        let db = TestDb::new("slices");
        db.psql(
            "create table p (id integer primary key, a name, b name, c name, d name) partition by range (id);
             create table l1 partition of p for values from (0) to (1000); create table l2 partition of p for values from (1000) to (2000);
             insert into p select i, repeat('x', 60), repeat('x', 60), repeat('x', 60), repeat('x', 60) from generate_series(1, 1999) i;",
        );
        let source = match plugin {
            "pgoutput" => {
                db.publication("for table p with (publish_via_partition_root = true)");
                let slot = db.slot(plugin);
                Source::of(db, slot, &["p"])
            }
            _ => {
                let slot = db.slot(plugin);
                Source::of(db, slot, &["p"])
            }
        };
        check(&source, "p", sql, anew);
    }

    fn check(source: &Source, table: &str, sql: &str, anew: bool) {
        let (mut target, first) = begun(source);
        let copy = |state: &Value| state["bookmarks"][format!("public-{table}")]["copy"].clone();
        assert!(copy(first.last_state()).is_array(), "{}", first.last_state());
        source.db.psql(sql);
        let second = step(source, first.last_state());
        target.apply(&second.messages);
        let is_anew = version(second.last_state(), table) != version(first.last_state(), table);
        assert_eq!(is_anew, anew, "{sql}: {}", second.stderr);
        let last = sliced(source.tap()).state(second.last_state()).run();
        target.apply(&last.messages);
        assert!(copy(last.last_state()).is_null(), "{sql}: {}", last.last_state());
        target.assert_holds(&source.db, &[table]);
    }
}

/// Whatever `on_slot_lost` says: the target does not have the table yet.
fn a_gap_begins_the_copy_anew(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let source = Source::new(plugin, TABLE, &["t"]);
    let (mut target, first) = begun(&source);
    source.db.psql("delete from t where id < 40");
    source.db.advance(&source.slot);
    let output = sliced(source.tap()).state(first.last_state()).run();
    target.apply(&output.messages);
    assert_eq!(output.logged("copying the table anew"), 1, "{}", output.stderr);
    assert!(version(output.last_state(), "t") > version(first.last_state(), "t"));
    target.assert_holds(&source.db, &["t"]);
}

/// A row would be in no slice that moves from pages that are not copied yet to such that are.
fn tables_of_which_not_all_changes_come(plugin: &str) {
    if !needs(15, "row filters") {
        return;
    }
    const PUBLISH: &str = "alter publication {} set (publish = 'insert')";
    const FILTER: &str = "alter publication {} set table t where (id < 1500)";
    const IDENTITY: &str = "alter table t replica identity nothing";
    let ways = if plugin == "pgoutput" { vec![PUBLISH, FILTER] } else { vec![IDENTITY] };
    for way in ways {
        for from_the_start in [true, false] {
            // Of its own: vacuum is to free space.
            let cluster = Cluster::start("");
            let db = TestDb::on(&cluster, "not_all");
            db.psql(TABLE);
            let publication = if plugin == "pgoutput" { db.publication("for table t") } else { String::new() };
            let slot = db.slot(plugin);
            let source = Source::of(db, slot, &["t"]);
            let way = way.replace("{}", &publication);
            source.db.psql("delete from t where id between 100 and 200; vacuum t");
            if from_the_start {
                source.db.psql(&way);
            }
            let (mut target, first) = begun(&source);
            assert_eq!(page(first.last_state()).is_none(), from_the_start, "{way}: {}", first.last_state());
            if !from_the_start {
                source.db.psql(&way);
                source.db.psql("update t set n = 1 where id between 1800 and 1900");
                assert_ne!(source.db.query_one("select count(*) from t where id >= 1800 and ctid < '(20,0)'"), "0");
                let second = step(&source, first.last_state());
                target.apply(&second.messages);
                assert!(page(second.last_state()).is_none(), "{way}: {}", second.stderr);
            }
            target.assert_holds(&source.db, &["t"]);
        }
    }
}

/// What changes meanwhile is in no log.
#[test]
fn a_table_that_is_not_published_for_a_while() {
    if !needs(14, "ranges of pages") {
        return;
    }
    let db = TestDb::new("unpublished");
    db.psql(TABLE);
    let (publication, slot) = (db.publication("for table t"), db.slot("pgoutput"));
    let source = Source::of(db, slot, &["t"]);
    let (mut target, first) = begun(&source);
    source.db.psql(&format!(
        "alter publication {publication} drop table t; delete from t where id < 50; insert into t values (9000, 1, 'x');
         alter publication {publication} add table t; create table other (id integer);
         alter publication {publication} add table other"
    ));
    let second = step(&source, first.last_state());
    target.apply(&second.messages);
    assert!(version(second.last_state(), "t") > version(first.last_state(), "t"), "{}", second.stderr);
    source.db.psql(&format!("create table more (id integer); alter publication {publication} add table more"));
    let third = step(&source, second.last_state());
    target.apply(&third.messages);
    assert!(page(third.last_state()) > page(second.last_state()), "another table is no reason: {}", third.stderr);
    finish(&source, &mut target, third.last_state());
    target.assert_holds(&source.db, &["t"]);
}

/// Between two slices of one run.
fn columns_that_come_within_a_run(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let source = Source::new(plugin, TABLE, &["t"]);
    for connections in [1, 3] {
        let mut target = Target::default();
        let tap = source.tap().env("TAP_TEST_SLICING", "24576,0,0").config("copy_parallelism", connections);
        let mut running = tap.spawn();
        for _ in 0..200 {
            running.next_message(Duration::from_secs(20));
        }
        let sql = format!("alter table t add c{connections} integer default 7");
        let output = std::thread::scope(|scope| {
            scope.spawn(|| source.db.psql(&sql));
            running.finish().expect_code(0)
        });
        target.apply(&output.messages);
        assert_eq!(output.logged("copying it anew"), 1, "{}", output.stderr);
        target.apply(&source.run(output.last_state()).messages);
        target.assert_holds(&source.db, &["t"]);
    }
}

/// The bookmark lies where the slot does, before an ALTER that the copy knows; what the log has from before it is older than the copy.
fn what_was_altered_before_the_copy(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let cluster = Cluster::start("max_replication_slots = 2");
    let source = Source::on(&cluster, plugin, TABLE, &["t"]);
    source.db.take_spare_slots();
    source.db.psql("update t set n = 5 where id < 40; alter table t alter n type integer using n * 10");
    let mut target = Target::default();
    let killed = killed_after(&sliced(source.tap()), 400);
    let state = target.apply_confirmed(&killed).expect("a STATE");
    assert!(page(&state).is_some() && lsn(&state, "t") <= source.confirmed_flush(), "{state}");
    source.db.wait_until("not exists (select from pg_replication_slots where active)");
    finish(&source, &mut target, &state);
    target.assert_holds(&source.db, &["t"]);
}

fn from_a_standby(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, TABLE, &["t"]);
    let standby = cluster.standby();
    let replica = source.db.view_of(&standby);
    let settings = json!({"use_secondary": true, "secondary_host": standby.dir(), "secondary_port": standby.port()});
    let (mut target, mut state) = (Target::default(), json!({}));
    for runs in 0..60 {
        let replayed = replica.query_one("select pg_is_wal_replay_paused()");
        // It lags behind in every second run, but for what the run needs.
        if replayed == "t" {
            replica.psql("select pg_wal_replay_resume()");
        } else if runs > 0 {
            replica.wait_until(&format!("pg_last_wal_replay_lsn() - '0/0' >= {}", lsn(&state, "t")));
            replica.psql("select pg_wal_replay_pause()");
            replica.wait_until("pg_get_wal_replay_pause_state() = 'paused'");
        }
        source
            .db
            .psql(&format!("update t set n = n + 1 where id % 40 = {runs}; delete from t where id = {runs} + 1900"));
        let output = sliced(source.tap()).configs(&settings).config("max_copy_seconds", 0).state(&state).run();
        target.apply(&output.messages);
        state = output.last_state().clone();
        if page(&state).is_none() {
            break;
        }
    }
    assert!(page(&state).is_none(), "{state}");
    replica.psql("select pg_wal_replay_resume()");
    let output = source.run(&state);
    target.apply(&output.messages);
    target.assert_holds(&source.db, &["t"]);
}

/// Vacuum does not wait for the whole copy, with one connection or several.
#[test]
fn snapshots_are_replaced() {
    if !needs(14, "ranges of pages") {
        return;
    }
    // Of its own: no snapshot is younger than an open transaction.
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, "pgoutput", TABLE, &["t"]);
    source.db.psql("insert into t select i, 0, repeat('x', 280) from generate_series(2001, 60000) i");
    for connections in [1, 3] {
        let tap = source.tap().env("TAP_TEST_SLICING", "65536,0,100").config("copy_parallelism", connections);
        let mut running = tap.spawn();
        let oldest = || {
            source.db.query_one(
                "select coalesce(min(backend_xmin::text::int8), 0) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid() and application_name like '%tap-postgres-rs%'",
            )
        };
        let mut seen = std::collections::BTreeSet::new();
        until_within(Duration::from_secs(60), "snapshots are replaced", || {
            // It gets on as its reader does.
            for _ in 0..500 {
                if running.next_message(Duration::from_secs(20)).is_none() {
                    return true;
                }
            }
            source.db.psql("insert into t values (0, 0, 'x'); delete from t where id = 0");
            let xmin = oldest();
            if xmin != "0" {
                seen.insert(xmin);
            }
            seen.len() > 2
        });
        assert!(seen.len() > 2, "{connections} connections: {seen:?}");
        running.signal(rustix::process::Signal::TERM);
        running.finish();
        source.db.wait_until("not exists (select from pg_replication_slots where active)");
    }
}

/// The slice in hand is finished, then what there is of the log is read.
#[test]
fn a_run_out_of_time() {
    if !needs(14, "ranges of pages") {
        return;
    }
    let source = Source::new("pgoutput", TABLE, &["t"]);
    for until_the_end in [true, false] {
        let mut target = Target::default();
        let tap = || {
            let tap = sliced(source.tap()).config("max_run_seconds", 0);
            tap.config("break_at_end_lsn", until_the_end)
        };
        let first = tap().run();
        target.apply(&first.messages);
        let before = page(first.last_state());
        assert!(before.is_some());
        source.db.psql("update t set n = n + 1 where id > 1900");
        let second = tap().state(first.last_state()).run();
        target.apply(&second.messages);
        assert!(page(second.last_state()) > before);
        assert!(lsn(second.last_state(), "t") > lsn(first.last_state(), "t"));
        let mut state = second.last_state().clone();
        for _ in 0..60 {
            if page(&state).is_none() {
                break;
            }
            source.db.psql(&(0..20).map(|id| format!("update t set n = n + 1 where id = {id};\n")).collect::<String>());
            let output = tap().state(&state).run();
            target.apply(&output.messages);
            assert!(lsn(output.last_state(), "t") > lsn(&state, "t"), "{}", output.stderr);
            state = output.last_state().clone();
        }
        finish(&source, &mut target, &state);
        target.assert_holds(&source.db, &["t"]);
    }
}

/// A STATE stands behind the files of the rows that it is about.
#[test]
fn in_batches() {
    if !needs(14, "ranges of pages") {
        return;
    }
    let source = Source::new("pgoutput", TABLE, &["t"]);
    let (mut target, mut state) = (Target::default(), json!({}));
    let mut runs = 0;
    while runs == 0 || page(&state).is_some() {
        let tap = sliced(source.tap()).config("max_copy_seconds", 0).state(&state);
        let root = tap.dir().join("batches");
        let tap = tap.config("batch_config", json!({"storage": {"root": format!("file://{}", root.display())}}));
        let output = tap.run();
        // Whatever comes behind the first STATE that tells of a slice is lost.
        let is_told = |message: &Message| message.as_state().is_some_and(|now| page(now) > page(&state));
        let kept = output.messages.iter().position(is_told).unwrap_or(output.messages.len() - 1);
        target.apply(&output.messages[..kept]);
        (state, runs) = (output.messages[kept].as_state().expect("a STATE").clone(), runs + 1);
        assert!(runs < 100);
    }
    assert!(runs > 20, "{runs}");
    target.assert_holds(&source.db, &["t"]);
}
