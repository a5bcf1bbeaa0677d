//! Two taps started on one slot at once.

use std::thread;

use serde_json::Value;

use super::{Source, assert_holds, lsn, numbers, with_both_plugins};
use crate::harness::Output;

with_both_plugins!(one_reads_and_the_other_says_who, both_end_well_if_the_first_is_quick);

const ITEM: &str = "create table item (id integer primary key, note text); insert into item values (1, 'a');";

/// Starts two with this state at once.
#[track_caller]
fn race(source: &Source, state: &Value, reader: &str) -> [Output; 2] {
    thread::scope(|scope| {
        let run = || source.tap().state(state).config("wal_reader", reader).output().parsed();
        let taps = [scope.spawn(run), scope.spawn(run)];
        taps.map(|tap| tap.join().expect("a thread that runs a tap"))
    })
}

/// One holds the slot for long, because nobody takes what it prints.
fn one_reads_and_the_other_says_who(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let state = first.last_state();
    source.db.psql("insert into item select i, repeat('x', 8000) from generate_series(2, 5000) i;");
    let taps = [(); 2].map(|()| source.tap().state(state).config("wal_reader", "stream").stall());
    // Whichever has the slot keeps it: its pipe is full long before the transaction ends.
    let active =
        format!("(select active_pid is not null from pg_replication_slots where slot_name = '{}')", source.slot);
    source.db.wait_until(&active);
    let holder = source
        .db
        .query_one(&format!("select active_pid from pg_replication_slots where slot_name = '{}'", source.slot));
    let third = source.tap().state(state).config("wal_reader", "stream").run_failing(1);
    assert!(third.stderr.contains(&holder) && third.stderr.contains(&source.slot), "{}", third.stderr);
    assert_eq!(third.record_messages().count(), 0);
    assert!(third.states().iter().all(|state| lsn(state, "item") == lsn(first.last_state(), "item")));
    assert!(source.confirmed_flush() <= lsn(state, "item"));
    let outputs = taps.map(|tap| tap.finish());
    let done: Vec<&Output> = outputs.iter().filter(|output| output.status.success()).collect();
    assert!(!done.is_empty(), "{} {}", outputs[0].stderr, outputs[1].stderr);
    for failed in outputs.iter().filter(|output| !output.status.success()) {
        assert_eq!(failed.status.code(), Some(1));
        assert!(failed.stderr.contains("is active for PID"), "{}", failed.stderr);
        assert_eq!(failed.record_messages().count(), 0);
    }
    assert_holds(&source.db, "item", &[&first.messages, &done[0].messages]);
    assert!(source.confirmed_flush() <= lsn(state, "item"), "nothing that came back in no state");
    let after = source.run_after("insert into item values (100000, 'z');", done[0].last_state());
    assert_eq!(numbers(&after, "item", "id"), [100_000]);
}

/// The one that comes too early waits: both print the same.
fn both_end_well_if_the_first_is_quick(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    for (reader, id) in [("stream", 2), ("bulk", 3), ("auto", 4)] {
        source.db.psql(&format!("insert into item values ({id}, 'x');"));
        let state = first.last_state();
        let expected: Vec<i64> = (2..=id).collect();
        for output in race(&source, state, reader) {
            assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
            assert_eq!(numbers(&output, "item", "id"), expected, "{reader}");
        }
        assert!(source.confirmed_flush() <= lsn(state, "item"));
    }
}
