//! What the slot is told: that which came back in a state, and nothing that was only printed.

use serde_json::{Value, json};

use super::{Source, bookmark, lsn, numbers, select, with_both_plugins};
use crate::harness::until_within;

with_both_plugins!(
    a_printed_state_is_not_acknowledged,
    states_on_the_way_are_not_acknowledged,
    the_least_position_is_acknowledged,
    a_reset_starts_where_the_slot_stands,
    a_copy_acknowledges_nothing,
    a_failed_run_acknowledges_no_more_than_its_state,
);

const TABLES: &str = "create table item (id integer primary key); create table other (id integer primary key);";

fn a_printed_state_is_not_acknowledged(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let copied = source.copied();
    let mut given = copied.clone();
    for n in 1..4 {
        let output = source.run_after(&format!("insert into item values ({n})"), &given);
        assert_eq!(numbers(&output, "item", "id"), [n]);
        assert!(lsn(output.last_state(), "item") > lsn(&given, "item"));
        assert_eq!(source.confirmed_flush(), lsn(&given, "item"), "what the run was given, not what it printed");
        given = output.last_state().clone();
    }
}

fn states_on_the_way_are_not_acknowledged(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    let transaction =
        |n: u32| format!("insert into item select generate_series({}, {});", n * 12_000, n * 12_000 + 11_999);
    let changes: String = (0..3).map(transaction).collect();
    let output = source.run_after(&changes, &state);
    assert!(output.states().len() > 3, "a test of a run without states on its way");
    assert_eq!(source.confirmed_flush(), lsn(&state, "item"));
    assert_eq!(numbers(&source.run(&state), "item", "id").len(), 36_000, "a target that died gets all of it again");
}

fn the_least_position_is_acknowledged(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let first = source.copied();
    let least = lsn(&first, "item").min(lsn(&first, "other"));
    source.run_after("insert into item values (1)", &first);
    assert_eq!(source.confirmed_flush(), least);
    let mut state = source.run_after("insert into other values (1)", &first).last_state().clone();
    bookmark(&mut state, "other")["lsn"] = json!(lsn(&first, "other"));
    source.run(&state);
    assert!(source.confirmed_flush() <= lsn(&first, "other"), "{} {first}", source.confirmed_flush());
}

/// `lsn` 1 is PipelineWise's way to forget a position.
fn a_reset_starts_where_the_slot_stands(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let mut state = source.copied();
    source.db.psql("insert into item values (1)");
    let slot = source.confirmed_flush();
    bookmark(&mut state, "item")["lsn"] = json!(1);
    let output = source.run(&state);
    assert_eq!(numbers(&output, "item", "id"), [1]);
    assert_eq!(source.confirmed_flush(), slot);
    assert!(lsn(output.last_state(), "item") > slot);

    // The slot having moved on in between is what such a state forgives.
    source.db.psql("insert into item values (2)");
    source.db.advance(&source.slot);
    let slot = source.confirmed_flush();
    let output = source.run_after("insert into item values (3)", &state);
    assert_eq!(numbers(&output, "item", "id"), [3]);
    assert_eq!(source.confirmed_flush(), slot);
}

fn a_copy_acknowledges_nothing(plugin: &str) {
    let source = Source::new(plugin, &format!("{TABLES} insert into item values (1)"), &["item"]);
    let slot = source.confirmed_flush();
    let state = source.copied();
    assert_eq!(source.confirmed_flush(), slot);
    assert!(lsn(&state, "item") >= slot, "{state} of a slot at {slot}");
    assert_eq!(state["bookmarks"]["public-item"]["xmin"], Value::Null);
}

/// A stream can't be read, after another one's bookmark was fine: the slot stays where the state's streams need it.
fn a_failed_run_acknowledges_no_more_than_its_state(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let state = source.copied();
    source.db.psql("insert into item values (1)");
    let slot = source.confirmed_flush();
    let mut wrong = state.clone();
    bookmark(&mut wrong, "other")["lsn"] = json!(source.end() + (1 << 30));
    source.tap().state(&wrong).run_failing(1);
    assert!((slot..=lsn(&state, "item")).contains(&source.confirmed_flush()));
    assert_eq!(numbers(&source.run(&state), "item", "id"), [1]);
}

/// PipelineWise writes the state file anew as the target confirms; the slot follows while the run goes on.
#[test]
fn a_state_file_that_changes_is_acknowledged() {
    let source = Source::new("pgoutput", TABLES, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (1)");
    let tap = source.tap().state(&state).config("break_at_end_lsn", false).config("max_run_seconds", 50);
    let mut running = tap.spawn();
    let timeout = std::time::Duration::from_secs(40);
    let stored = running.wait_for(timeout, |message| {
        message.as_state().is_some_and(|printed| lsn(printed, "item") > lsn(&state, "item"))
    });
    let stored = stored.as_state().expect("a STATE");
    running.tap().file("state.json", &stored.to_string());
    until_within(timeout, "the newer state is acknowledged", || source.confirmed_flush() >= lsn(stored, "item"));
    assert_eq!(source.confirmed_flush(), lsn(stored, "item"));
    running.signal(rustix::process::Signal::TERM);
    running.finish().expect_code(143);
}

/// A stream that this run copied is read from the slot next time, from where its copy stands in the log.
#[test]
fn a_state_file_that_changes_spares_a_stream_just_copied() {
    let mut source = Source::new("pgoutput", TABLES, &["item"]);
    let state = source.copied();
    source.catalog = select(source.catalog.clone(), &["other"]);
    source.db.psql("insert into other values (1)");
    let tap = source.tap().state(&state).config("break_at_end_lsn", false).config("max_run_seconds", 50);
    let mut running = tap.spawn();
    let timeout = std::time::Duration::from_secs(40);
    let is_copied = |state: &Value| {
        let other = &state["bookmarks"]["public-other"];
        other["lsn"].is_u64() && other["xmin"].is_null()
    };
    running.wait_for(timeout, |message| message.as_state().is_some_and(is_copied));
    source.db.psql("insert into other values (2); insert into item values (1)");
    let end = source.end();
    let printed = running.wait_for(timeout, |message| {
        message.as_state().is_some_and(|state| is_copied(state) && lsn(state, "item") >= end)
    });
    let printed = printed.as_state().expect("a STATE");
    assert!(lsn(printed, "other") < lsn(printed, "item"), "a test of positions that differ: {printed}");
    running.tap().file("state.json", &printed.to_string());
    let moved = format!(
        "select confirmed_flush_lsn - '0/0' >= {} from pg_replication_slots where slot_name = '{}'",
        lsn(printed, "other"),
        source.slot
    );
    source.db.wait_until(&moved);
    assert_eq!(source.confirmed_flush(), lsn(printed, "other"), "{printed}");
    running.signal(rustix::process::Signal::TERM);
    running.finish().expect_code(143);
    assert_eq!(numbers(&source.run(printed), "other", "id"), [2]);
}
