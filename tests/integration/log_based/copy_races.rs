//! Copies beside writers: every version of a row arrives exactly once, from the copy or from the log. The tables have no
//! key, so that a row which came twice would be there twice.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Source, select, slices, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Background, Cluster, Message, Output, Stalled, Tap, TestDb, needs};

with_both_plugins!(
    rows_changed_while_they_are_copied,
    rows_changed_without_a_spare_slot,
    rows_changed_beside_an_open_transaction,
    rows_changed_between_the_slot_and_its_copy,
    a_table_added_under_writers,
    a_commit_held_after_the_snapshot,
    a_commit_held_before_the_snapshot,
    a_commit_held_that_the_slot_is_past,
    a_prepared_commit_held_that_the_slot_is_past,
    a_publication_is_made_while_no_standby_answers,
    a_slice_waits_for_a_held_commit,
);

/// `a_large` is copied first, and slowly while nobody reads. `tracked` tells of every change, `plain` of inserts only.
const TABLES: &str = "create table a_large (id integer primary key, filler text);
    insert into a_large select i, repeat('x', 500) from generate_series(1, 10000) i;
    create table tracked (n integer, filler text); alter table tracked replica identity full;
    create table plain (n integer);
    create table keyed (n integer primary key);";
const STREAMS: [&str; 4] = ["a_large", "tracked", "plain", "keyed"];

/// Ten times each number is inserted; a third of the rows is then changed, a third deleted. A transaction each, which is what
/// psql makes of a line (no server before 11 commits in DO).
fn writer(from: u32, to: u32) -> String {
    let transactions = |i: u32| {
        let n = i * 10;
        let insert = format!(
            "insert into tracked values ({n})\\; insert into plain values ({n})\\; insert into keyed values ({n});\n"
        );
        let then = match i % 3 {
            0 => format!("update tracked set n = n + 1 where n = {n}\\; update keyed set n = n + 1 where n = {n};\n"),
            1 => format!("delete from tracked where n = {n}\\; delete from keyed where n = {n};\n"),
            _ => String::new(),
        };
        insert + &then
    };
    (from..=to).map(transactions).collect()
}

/// All that runs told of a table without a key: how often of each row that it is there, and that it is deleted.
fn told(outputs: &[Output], table: &str) -> HashMap<i64, (u32, u32)> {
    let mut told: HashMap<i64, (u32, u32)> = HashMap::new();
    for record in outputs.iter().flat_map(|output| output.records(&format!("public-{table}"))) {
        let row = told.entry(record["n"].as_i64().expect("a number")).or_default();
        match record.get("_sdc_deleted_at") {
            Some(Value::String(_)) => row.1 += 1,
            _ => row.0 += 1,
        }
    }
    told
}

/// What is in the source came once; what was deleted came once and went once, or never; nothing came twice.
#[track_caller]
fn assert_exactly_once(source: &Source, outputs: &[Output]) {
    for table in ["tracked", "plain"] {
        let mut told = told(outputs, table);
        let rows = source.db.query(&format!("select n from {table}"));
        for row in rows.iter().map(|row| row[0].as_deref().expect("a number")) {
            assert_eq!(told.remove(&row.parse().expect("a number")), Some((1, 0)), "{table}: {row}");
        }
        for (n, times) in told {
            let changed = (n / 10) % 3 == 0;
            let fits = times == (1, 1) || times == (0, 0) || (changed && times == (1, 0));
            assert!(fits, "{table}: {n}, which is gone, came and went {times:?}");
        }
    }
    let mut target = Target::default();
    for output in outputs {
        target.apply(&output.messages);
    }
    target.assert_holds(&source.db, &["keyed", "plain"]);
}

/// A tap that stands still in the copy of the large table, its snapshot taken.
#[track_caller]
fn stalled(source: &Source, tap: Tap) -> Stalled {
    let stalled = tap.timeout(Duration::from_secs(120)).stall();
    source.db.wait_until(
        "exists (select from pg_stat_activity where datname = current_database() and query like 'COPY%a_large%'
            and state = 'active' and wait_event = 'ClientWrite')",
    );
    stalled
}

/// The run, with all that is written before, in and after it; then what comes after.
#[track_caller]
fn race(source: &Source, open: Option<&str>) -> Vec<Output> {
    source.db.psql(&writer(1, 60));
    let mut session = source.db.session();
    if let Some(sql) = open {
        session.run(sql);
    }
    // Beside the snapshot itself, whenever that is taken.
    let mut other = source.db.session();
    let writing = Background::start(move |stop| {
        let mut from = 60;
        while !stop.load(Ordering::Relaxed) {
            other.run(&writer(from + 1, from + 200));
            from += 200;
        }
        from
    });
    let stalled = stalled(source, source.tap());
    let from = writing.stop();
    source.db.psql(&writer(from + 1, from + 60));
    if open.is_none() {
        session.run("begin; insert into tracked values (9000000), (9000010); insert into plain values (9000000);");
    }
    session.run(
        "insert into tracked values (9000020); delete from tracked where n = 9000010; insert into keyed values (9000000);",
    );
    let mut outputs = vec![stalled.finish().expect_code(0)];
    source.db.psql(&writer(800_000, 800_040));
    outputs.push(source.run(outputs[0].last_state()));
    session.run("insert into plain values (9000030); commit;");
    outputs.push(source.run(outputs[1].last_state()));
    outputs
}

fn rows_changed_while_they_are_copied(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, TABLES, &STREAMS);
    assert_exactly_once(&source, &race(&source, None));
}

fn rows_changed_without_a_spare_slot(plugin: &str) {
    let cluster = Cluster::start("max_replication_slots = 3");
    let source = Source::on(&cluster, plugin, TABLES, &STREAMS);
    source.db.take_spare_slots();
    assert_exactly_once(&source, &race(&source, None));
}

/// A temporary slot waits for the transaction in vain.
fn rows_changed_beside_an_open_transaction(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, TABLES, &STREAMS);
    let open = "begin; insert into tracked values (9000000); savepoint a; insert into tracked values (9000010);
        insert into plain values (9000000);";
    assert_exactly_once(&source, &race(&source, Some(open)));
}

/// The run makes the slot, reads another table for a while, and only then copies: what the slot sends, the copy has not.
fn rows_changed_between_the_slot_and_its_copy(plugin: &'static str) {
    let db = TestDb::new("log_between");
    db.psql(&format!("{TABLES} {}", writer(1, 30)));
    let catalog = select(Tap::new(&db).discover(), &["tracked", "plain", "keyed"]);
    let source = Source::of(db, String::new(), &[]);
    let tap = |state: &Value| {
        let tap = Tap::new(&source.db).catalog(&catalog.clone().select("public-a_large", "FULL_TABLE")).state(state);
        tap.config("create_replication_slot", true).config("output_plugin", plugin)
    };
    let interrupted = json!({"bookmarks": {}, "currently_syncing": "public-a_large"});
    let stalled = stalled(&source, tap(&interrupted));
    source.db.psql(&writer(31, 90));
    let first = stalled.finish().expect_code(0);
    source.db.psql(&writer(91, 100));
    let second = tap(first.last_state()).run();
    assert_exactly_once(&source, &[first, second]);
}

/// Other tables are streamed already, and the slot is past much of what the new one has seen.
fn a_table_added_under_writers(plugin: &str) {
    for spare in [true, false] {
        let cluster = Cluster::start("max_replication_slots = 3");
        let mut source = Source::on(&cluster, plugin, TABLES, &["a_large"]);
        let mut state = source.copied();
        source.catalog = select(source.catalog.clone(), &["tracked", "plain", "keyed"]);
        if !spare {
            source.db.take_spare_slots();
        }
        source.db.psql(&writer(1, 100));
        let outputs = thread::scope(|scope| {
            let writing = scope.spawn(|| source.db.psql(&writer(101, 900)));
            let mut outputs: Vec<Output> = Vec::new();
            for _ in 0..3 {
                outputs.push(source.run(&state));
                state = outputs[outputs.len() - 1].last_state().clone();
            }
            writing.join().expect("the writer");
            outputs.push(source.run(&state));
            outputs
        });
        assert_exactly_once(&source, &outputs);
    }
}

/// While it lives, every commit that is not `local` waits for a standby that there is not.
struct NoStandby<'a>(&'a TestDb);

impl NoStandby<'_> {
    fn of(db: &TestDb) -> NoStandby<'_> {
        db.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf();");
        db.wait_until("current_setting('synchronous_standby_names') = 'nobody'");
        NoStandby(db)
    }
}

impl Drop for NoStandby<'_> {
    /// Also where a test fails: whoever waits would do so for ever.
    fn drop(&mut self) {
        self.0.psql("alter system reset synchronous_standby_names; select pg_reload_conf();");
    }
}

/// Runs while a transaction that did this hangs in its commit: in the log, and seen by nobody.
fn beside_a_held_commit<T>(db: &TestDb, sql: &str, run: impl FnOnce() -> T) -> T {
    let is_held = "exists (select from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep')";
    thread::scope(|scope| {
        let _nobody = NoStandby::of(db);
        scope.spawn(|| db.psql(sql));
        db.wait_until(is_held);
        let done = run();
        assert_eq!(db.query_one(&format!("select ({is_held})::text")), "true", "a test of a commit that was held");
        done
    })
}

const HELD: &str = "insert into tracked values (7); insert into plain values (7); insert into keyed values (7);";

/// One transaction: of several, the first would hang alone.
fn held() -> String {
    format!("begin; {HELD} commit;")
}

fn a_commit_held_after_the_snapshot(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, &format!("{TABLES} insert into tracked values (1)"), &STREAMS);
    let stalled = stalled(&source, source.tap());
    let mut outputs = beside_a_held_commit(&source.db, &held(), || {
        let first = stalled.finish().expect_code(0);
        let second = source.run(first.last_state());
        vec![first, second]
    });
    assert_eq!(told(&outputs[..1], "tracked").get(&7), None);
    outputs.push(source.run(outputs[1].last_state()));
    assert_exactly_once(&source, &outputs);
}

fn a_commit_held_before_the_snapshot(plugin: &str) {
    for spare in [false, true] {
        let cluster = Cluster::start("max_replication_slots = 3");
        let source = Source::on(&cluster, plugin, &format!("{TABLES} insert into tracked values (1)"), &STREAMS);
        if !spare {
            source.db.take_spare_slots();
        }
        let mut outputs = beside_a_held_commit(&source.db, &held(), || {
            // No snapshot has it, the slot still does: it comes from the log.
            let first = source.tap().run();
            assert_eq!(told(std::slice::from_ref(&first), "tracked").get(&7), Some(&(1, 0)));
            let second = source.run(first.last_state());
            vec![first, second]
        });
        outputs.push(source.run(outputs[1].last_state()));
        assert_exactly_once(&source, &outputs);
    }
}

/// The streams of the first run have read past the commit that nobody sees, and said so to the slot.
fn held_before_the_slot(plugin: &str, prepare: &str, commit: &str) {
    let cluster = Cluster::start("max_replication_slots = 3");
    let mut source = Source::on(&cluster, plugin, &format!("{TABLES} insert into tracked values (1)"), &["a_large"]);
    source.db.take_spare_slots();
    let copied = source.copied();
    source.db.psql(prepare);
    let (before, all) = (source.catalog.clone(), select(source.catalog.clone(), &["tracked", "plain", "keyed"]));
    source.catalog = all;
    let failed = beside_a_held_commit(&source.db, commit, || {
        source.db.psql("set synchronous_commit = local; insert into a_large values (0)");
        let state = Tap::new(&source.db).catalog(&before).state(&copied).run().last_state().clone();
        let state = Tap::new(&source.db).catalog(&before).state(&state).run().last_state().clone();
        source.tap().state(&state).run_failing(1)
    });
    assert!(failed.stderr.contains("synchronous standby"), "{}", failed.stderr);
    assert_eq!(told(std::slice::from_ref(&failed), "tracked").get(&7), None);
    let left = failed.last_state();
    for table in ["tracked", "plain", "keyed"] {
        assert_eq!(left["bookmarks"][format!("public-{table}")]["xmin"], 1, "{table} of {left}");
    }
    let mut target = Target::default();
    target.apply(&failed.messages);
    target.apply(&source.run(left).messages);
    target.assert_holds(&source.db, &["tracked", "plain", "keyed"]);
}

fn a_commit_held_that_the_slot_is_past(plugin: &str) {
    held_before_the_slot(plugin, "", &held());
}

fn a_prepared_commit_held_that_the_slot_is_past(plugin: &str) {
    held_before_the_slot(plugin, &format!("begin; {HELD} prepare transaction 'held';"), "commit prepared 'held'");
}

/// An earlier run may have read past it.
fn a_slice_waits_for_a_held_commit(plugin: &str) {
    if !needs(14, "ranges of pages") {
        return;
    }
    let cluster = Cluster::start("max_replication_slots = 3");
    let source = Source::on(&cluster, plugin, slices::TABLE, &["t"]);
    source.db.take_spare_slots();
    let tap = |state: &Value| source.tap().env("TAP_TEST_SLICING", slices::SLICES).state(state);
    let mut target = Target::default();
    let first = tap(&json!({})).config("max_copy_seconds", 0).run();
    target.apply(&first.messages);
    assert!(slices::page(first.last_state()).is_some());
    let running = beside_a_held_commit(&source.db, "update t set n = 7", || {
        let running = tap(first.last_state()).spawn();
        running.wait_for_log("waiting for a commit");
        running
    });
    let second = running.finish().expect_code(0);
    target.apply(&second.messages);
    assert!(slices::page(second.last_state()).is_none(), "{}", second.last_state());
    target.assert_holds(&source.db, &["t"]);
}

/// Nobody waits for what the tap itself commits.
fn a_publication_is_made_while_no_standby_answers(plugin: &'static str) {
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "log_nobody");
    db.psql(&format!("{TABLES} insert into tracked values (1); insert into plain values (1);"));
    let nobody = NoStandby::of(&db);
    let discovered = Tap::new(&db).discover();
    let tap = |tables: &[&str], state: &Value| {
        let tap = Tap::new(&db).catalog(&select(discovered.clone(), tables)).state(state);
        tap.config("create_replication_slot", true).config("output_plugin", plugin)
    };
    let first = tap(&["tracked"], &json!({})).run();
    let second = tap(&["tracked", "plain"], first.last_state()).run();
    drop(nobody);
    db.psql("insert into tracked values (2); insert into plain values (2);");
    let outputs = [first, tap(&["tracked", "plain"], second.last_state()).run(), second];
    for table in ["tracked", "plain"] {
        assert_eq!(told(&outputs, table), HashMap::from([(1, (1, 0)), (2, (1, 0))]), "{table}");
    }
    assert!(outputs.iter().all(|output| output.messages.last().is_some_and(Message::is_state)));
}

/// A run that has no slot of its own leaves none, and takes none of others.
#[test]
fn spare_slots_stay_as_they_are() {
    let cluster = Cluster::start("max_replication_slots = 3");
    let source = Source::on(&cluster, "pgoutput", TABLES, &STREAMS);
    source.db.take_spare_slots();
    let slots = "select string_agg(slot_name, ' ' order by slot_name) from pg_replication_slots";
    let before = source.db.query_one(slots);
    source.copied();
    assert_eq!(source.db.query_one(slots), before);
    source.db.free_spare_slots();
    source.copied();
    assert_eq!(source.db.query_one(slots), source.slot);
}
