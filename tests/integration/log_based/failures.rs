//! A failure is one stream's wherever it can be: the others are read, its bookmark stays, the slot keeps what it needs, and an
//! ERROR names it.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Source, bookmark, lsn, numbers, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Catalog, Output, Role, Tap, TestDb, check_protocol};

with_both_plugins!(
    queries_that_fail,
    a_copy_that_fails,
    a_gap_of_one_stream,
    a_table_that_is_missing_for_a_while,
    queries_that_fail_without_a_catalog,
);

const TABLES: &str = "create table item (id integer primary key); create table other (id integer primary key);
    insert into item values (5); insert into other values (3);";

/// The ERRORs of a run, each of which names one of these streams and the text beside it, in whatever order.
#[track_caller]
fn assert_failed(output: &Output, failures: &[(&str, &str)]) {
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    let told = |&(stream, text): &(&str, &str)| {
        errors.iter().filter(|line| line.contains(stream) && line.contains(text)).count() == 1
    };
    assert!(errors.len() == failures.len() && failures.iter().all(told), "{failures:?} in {}", output.stderr);
    assert!(output.messages.last().is_some_and(crate::harness::Message::is_state), "no STATE at the end");
}

fn integers(output: &Output, stream: &str, column: &str) -> Vec<i64> {
    output.records(stream).iter().map(|record| record[column].as_i64().expect("an integer")).collect()
}

/// Views and matviews, in every method, with and without rows before the one that fails.
fn queries_that_fail(plugin: &str) {
    let sql = "create view broken as select 1 / (id - 1) as x from item; create table whole (id integer);
        create materialized view empty as select 1 as x with no data; insert into whole values (1);
        create table loose (id integer primary key, k json); insert into loose values (1, '1');
        create function once(i integer) returns integer language plpgsql as $$ begin
          if i = 10 then raise exception 'secret'; end if; return i; end $$;
        create view counted as select once(id) as k from item;";
    let source = Source::new(plugin, &format!("{TABLES}{sql}"), &["item"]);
    let catalog = source.catalog.clone().select("public-broken", "FULL_TABLE").select("public-whole", "FULL_TABLE");
    let catalog = catalog.select_incremental("public-counted", "k");
    let tap = |catalog: &Catalog, state: &Value| Tap::new(&source.db).catalog(catalog).state(state);
    let mut target = Target::default();
    let first = tap(&catalog, &json!({})).run();
    target.apply(&first.messages);
    // The key of a table can't be compared, and a view is not there yet.
    let catalog = catalog.select_incremental("public-loose", "k").select("public-empty", "FULL_TABLE");
    source.db.psql("insert into item values (1), (10); insert into whole values (2);");
    let mut state = first.last_state().clone();
    for round in 0..3 {
        let output = tap(&catalog, &state).run_failing(1);
        assert_failed(
            &output,
            &[
                ("public-broken", "division by zero"),
                ("public-empty", "has not been populated"),
                ("public-counted", "a function raised it"),
                ("public-loose", "\"k\""),
            ],
        );
        target.apply(&output.messages);
        assert_eq!(numbers(&output, "item", "id"), if round == 0 { vec![1, 10] } else { vec![] });
        assert_eq!(integers(&output, "public-whole", "id"), [1, 2]);
        // The target keeps what it has of a stream that fails.
        let activated = output.messages.iter().any(|message| {
            matches!(message, crate::harness::Message::ActivateVersion { stream, .. } if stream == "public-broken")
        });
        assert!(!activated, "half of a view is activated");
        assert_eq!(output.bookmark("public-counted")["replication_key_value"], 5);
        // The slot follows the streams that are read.
        assert!(source.confirmed_flush() >= lsn(&state, "item").min(lsn(first.last_state(), "item")));
        state = output.last_state().clone();
    }
    assert!(source.confirmed_flush() > lsn(first.last_state(), "item"));
    target.assert_holds(&source.db, &["item", "whole"]);
    source.db.psql("delete from item where id in (1, 10); refresh materialized view empty;");
    let catalog = catalog.select("public-loose", "FULL_TABLE");
    let mended = tap(&catalog, &state).run();
    target.apply(&mended.messages);
    target.assert_holds(&source.db, &["item", "whole"]);
    assert_eq!((integers(&mended, "public-empty", "x"), integers(&mended, "public-broken", "x")), (vec![1], vec![0]));
}

/// The copy of a LOG_BASED stream is one of the queries: with the others that are copied, and those that are streamed.
fn a_copy_that_fails(plugin: &str) {
    let sql = "create table broken (id integer primary key, n integer); insert into broken select i, 500 - i from generate_series(1, 1000) i;
        alter table broken enable row level security; create policy p on broken for select using (1 / n < 5);
        create table last (id integer primary key); insert into last values (7);";
    let source = Source::new(plugin, &format!("{TABLES}{sql}"), &["item", "broken", "last"]);
    let role = Role::reader(&source.db, "replication");
    let tap = |state: &Value| source.tap().state(state).config("user", role.name.as_str());
    let item = Tap::new(&source.db).catalog(&super::select(Tap::new(&source.db).discover(), &["item"])).run();
    source.db.psql("insert into item values (6)");
    let mut target = Target::default();
    target.apply(&item.messages);
    let mut state = item.last_state().clone();
    for id in [8, 9] {
        let failed = tap(&state).run_failing(1);
        assert_failed(&failed, &[("public-broken", "division by zero")]);
        target.apply(&failed.messages);
        state = failed.last_state().clone();
        assert_eq!(state["bookmarks"]["public-broken"]["xmin"], 1, "an unfinished copy: {state}");
        source.db.psql(&format!("insert into last values ({id}); insert into broken values ({id}000, 3);"));
    }
    source.db.psql("alter policy p on broken using (true)");
    let output = tap(&state).run();
    target.apply(&output.messages);
    target.assert_holds(&source.db, &["item", "broken", "last"]);
    let after = source.run_after("insert into broken values (0, 0)", output.last_state());
    assert_eq!(numbers(&after, "broken", "id"), [0]);
}

/// What a bookmark needs is gone, or not there yet: that stream alone is refused, and nothing is given up for it.
fn a_gap_of_one_stream(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let first = source.copied();
    let state =
        source.run_after("insert into item values (6); insert into other values (4);", &first).last_state().clone();
    let state = source.run(&state).last_state().clone();
    let mut wrong = state.clone();
    let confirmed = source.confirmed_flush();
    bookmark(&mut wrong, "other")["lsn"] = json!(lsn(&first, "other").min(confirmed - 8));
    source.db.psql("insert into item values (7); insert into other values (5);");
    for ids in [vec![7], vec![]] {
        let failed = source.tap().state(&wrong).run_failing(1);
        assert_failed(&failed, &[("public-other", "on_slot_lost")]);
        assert_eq!((numbers(&failed, "item", "id"), failed.records("public-other").len()), (ids, 0));
        assert_eq!(failed.bookmark("public-other"), &wrong["bookmarks"]["public-other"]);
        assert_eq!(source.confirmed_flush(), confirmed);
        wrong = failed.last_state().clone();
    }
    // The advice.
    wrong["bookmarks"].as_object_mut().expect("bookmarks").remove("public-other");
    let mended = source.run_after("insert into other values (8)", &wrong);
    assert_eq!(numbers(&mended, "other", "id"), [3, 4, 5, 8]);
}

/// A selected table that is not there keeps its bookmark and what it needs, until it is there again or deselected.
fn a_table_that_is_missing_for_a_while(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let state = source.copied();
    source.db.psql("insert into item values (6); insert into other values (4); alter table other rename to away;");
    let mut states = vec![state.clone()];
    for id in [7, 8] {
        let failed = source.tap().state(states.last().expect("one")).run_failing(1);
        assert_failed(&failed, &[("public-other", "there is no such table")]);
        assert_eq!(failed.bookmark("public-other"), &state["bookmarks"]["public-other"]);
        assert!(source.confirmed_flush() <= lsn(&state, "other"), "what the stream needs was given up");
        states.push(failed.last_state().clone());
        source.db.psql(&format!("insert into item values ({id})"));
    }
    source.db.psql("alter table away rename to other; insert into other values (9);");
    let output = source.run(states.last().expect("one"));
    assert_eq!((numbers(&output, "other", "id"), numbers(&output, "item", "id")), (vec![4, 9], vec![8]));
    // Deselected, one that is gone holds nothing up any more.
    source.db.psql("drop table other");
    let held = source.tap().state(output.last_state()).run_failing(1);
    let without = super::select(Tap::new(&source.db).discover(), &["item"]);
    let tap = |state: &Value| Tap::new(&source.db).catalog(&without).state(state);
    let alone = tap(held.last_state()).run();
    assert!(alone.last_state()["bookmarks"].get("public-other").is_none(), "{}", alone.last_state());
    tap(alone.last_state()).run();
    assert!(source.confirmed_flush() > lsn(output.last_state(), "other"));
}

fn queries_that_fail_without_a_catalog(plugin: &str) {
    let db = TestDb::new(&format!("failures_{plugin}"));
    db.psql(&format!("{TABLES} create view broken as select 1 / (id - 1) as x from item;"));
    db.replicate(plugin);
    let role = Role::reader(&db, "replication");
    let tap = |state: &Value| Tap::new(&db).config("user", role.name.as_str()).state(state);
    let first = tap(&json!({})).run();
    db.psql(&format!(
        "insert into item values (1); insert into other values (4); revoke select on other from {};",
        role.name
    ));
    let mut state = first.last_state().clone();
    for id in [6, 7] {
        let failed = tap(&state).run_failing(1);
        assert_failed(&failed, &[("public-broken", "division by zero"), ("public-other", "GRANT SELECT")]);
        assert_eq!(failed.bookmark("public-other"), &first.last_state()["bookmarks"]["public-other"]);
        assert!(db.confirmed_flush(&db.slot_name()) <= lsn(first.last_state(), "other"));
        state = failed.last_state().clone();
        db.psql(&format!("insert into item values ({id})"));
    }
    db.psql(&format!("delete from item where id = 1; grant select on other to {}", role.name));
    let output = tap(&state).run();
    assert_eq!((numbers(&output, "other", "id"), numbers(&output, "item", "id")), (vec![4], vec![7, 1]));
}

/// A state file that moves during the run does not give up what a stream needs that can't be read.
#[test]
fn a_state_file_that_changes_beside_a_failure() {
    let source = Source::new("pgoutput", TABLES, &["item", "other"]);
    let state = source.copied();
    source.db.psql("insert into item values (6); insert into other values (4); alter table other rename to away;");
    let tap = source.tap().state(&state).config("break_at_end_lsn", false).config("wal_reader", "stream");
    let mut running = tap.spawn();
    let moved = running.wait_for(Duration::from_secs(40), |message| {
        message.as_state().is_some_and(|printed| lsn(printed, "item") > lsn(&state, "item"))
    });
    running.tap().file("state.json", &moved.as_state().expect("a STATE").to_string());
    std::thread::sleep(Duration::from_secs(13));
    assert!(source.confirmed_flush() <= lsn(&state, "other"));
    running.signal(Signal::TERM);
    let output = running.finish().expect_code(143);
    check_protocol(&output.messages);
    assert!(output.logged("public-other") > 0, "a run that is ended by a signal has told of it");
}

/// Dropped behind the back of a run that has yet to read them.
#[test]
fn tables_dropped_during_the_run() {
    let sql = "create table a_large (id integer primary key, filler text);
        insert into a_large select i, repeat('x', 500) from generate_series(1, 20000) i;
        create table whole (id integer); create table at (id integer); create table z (id integer); insert into z values (1);";
    let source = Source::new("pgoutput", &format!("{TABLES}{sql}"), &["a_large", "item", "other"]);
    let catalog = source.catalog.clone().select("public-whole", "FULL_TABLE").select("public-z", "FULL_TABLE");
    let tap =
        Tap::new(&source.db).catalog(&catalog.select_incremental("public-at", "id")).config("copy_parallelism", 1);
    let stalled = tap.stall();
    source.db.wait_until(
        "exists (select from pg_stat_activity where query like 'COPY%a_large%' and wait_event = 'ClientWrite')",
    );
    source.db.psql("drop table item, whole, at");
    let output = stalled.finish().expect_code(1);
    check_protocol(&output.messages);
    assert_failed(&output, &["public-item", "public-whole", "public-at"].map(|stream| (stream, "does not exist")));
    assert_eq!((output.records("public-a_large").len(), numbers(&output, "other", "id")), (20000, vec![3]));
    assert_eq!(integers(&output, "public-z", "id"), [1]);
}

/// What the publication lacks of one stream, or the role may not add to it, leaves the others as they are.
#[test]
fn publications_that_lack_one_stream() {
    let db = TestDb::new("failures_published");
    let role = Role::new(&db, "replication");
    db.psql(&format!(
        "{TABLES} create table foreigners (id integer primary key); alter table item owner to {0};
         alter table other owner to {0}; grant select on foreigners to {0}; grant create on database {1} to {0};
         grant usage on schema public to {0};",
        role.name,
        db.name()
    ));
    let tap = |tables: &[&str], state: &Value| {
        let tap = Tap::new(&db).catalog(&super::select(Tap::new(&db).discover(), tables)).state(state);
        tap.config("user", role.name.as_str()).config("create_replication_slot", true)
    };
    let failed = tap(&["foreigners", "item", "other"], &json!({})).run_failing(1);
    assert_failed(&failed, &[("public-foreigners", "must be owner")]);
    db.psql("insert into item values (1); insert into foreigners values (1);");
    let failed = tap(&["foreigners", "item", "other"], failed.last_state()).run_failing(1);
    assert_failed(&failed, &[("public-foreigners", "must be owner")]);
    assert_eq!(numbers(&failed, "item", "id"), [1]);
    db.psql(&format!("alter table foreigners owner to {}", role.name));
    let output = tap(&["foreigners", "item", "other"], failed.last_state()).run();
    assert_eq!(numbers(&output, "foreigners", "id"), [1]);
}
