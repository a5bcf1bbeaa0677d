//! A server that is shut down or crashes in the middle of a run does not wait for the tap, and the next run goes on.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{A_LOT, ITEM, LIMIT, SHUTDOWN, confirm, copied, failed, fill, fill_a_lot, is_row, until_blocked};
use crate::harness::target::Target;
use crate::harness::{Cluster, Output, Tap, plugins};
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(
    a_shutdown_or_crash_in_mid_stream,
    a_shutdown_or_crash_while_the_reader_stalls,
    a_shutdown_in_mid_copy,
    a_shutdown_of_an_idle_stream,
);

/// Ends the server, which must not take long; where it waits for the tap, that is killed.
#[track_caller]
fn end(cluster: &Cluster, how: &str, tap: u32) {
    let started = Instant::now();
    thread::scope(|scope| {
        let stop = scope.spawn(|| cluster.stop(how));
        while !stop.is_finished() {
            if started.elapsed() > SHUTDOWN {
                let tap = Pid::from_raw(tap as i32).expect("not 0");
                kill_process(tap, Signal::KILL).expect("kill the tap");
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(started.elapsed() < SHUTDOWN, "{how}: the server waited for the tap for {:?}", started.elapsed());
}

/// The run that was cut off says so; the next one brings the rest.
#[track_caller]
fn goes_on(source: &Source, target: &mut Target, cut_off: Output, before: &Value) -> Value {
    let state = confirm(target, &failed(cut_off, &["again"]), before);
    source.db.cluster().start_again();
    let next = source.run(&state);
    let state = confirm(target, &next, &state);
    target.assert_holds(&source.db, &["item"]);
    assert_eq!(source.run(&state).record_messages().count(), 0, "it came already");
    state
}

fn a_shutdown_or_crash_in_mid_stream(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, mut state) = copied(&source);
    for (round, how) in ["SIGINT", "SIGQUIT"].into_iter().enumerate() {
        let first = round as i64 * A_LOT;
        source.db.psql(&fill_a_lot(first));
        let mut running = source.tap().state(&state).config("break_at_end_lsn", false).spawn();
        running.wait_for(LIMIT, is_row(first + 3_000));
        end(&cluster, how, running.pid());
        state = goes_on(&source, &mut target, running.finish(), &state);
    }
}

/// What the server sent can't be taken from it while nobody takes it from the tap.
fn a_shutdown_or_crash_while_the_reader_stalls(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, mut state) = copied(&source);
    let cases = [("stream", "SIGINT"), ("bulk", "SIGINT"), ("stream", "SIGQUIT"), ("bulk", "SIGQUIT")];
    for (round, (reader, how)) in cases.into_iter().enumerate() {
        source.db.psql(&fill_a_lot(round as i64 * A_LOT));
        let stalled = source.tap().state(&state).config("wal_reader", reader).stall();
        until_blocked(&source);
        end(&cluster, how, stalled.pid());
        state = goes_on(&source, &mut target, stalled.finish(), &state);
    }
}

fn a_shutdown_in_mid_copy(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    source.db.psql(&fill_a_lot(0));
    for how in ["SIGINT", "SIGQUIT"] {
        let stalled = source.tap().stall();
        until_blocked(&source);
        end(&cluster, how, stalled.pid());
        let mut target = Target::default();
        let cut_off = stalled.finish();
        let last = cut_off.last_state();
        assert_eq!(last["bookmarks"]["public-item"]["xmin"], 1, "the copy is not done: {last}");
        goes_on(&source, &mut target, cut_off, &Value::Null);
    }
}

fn a_shutdown_of_an_idle_stream(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, mut state) = copied(&source);
    for (id, how) in [(1, "SIGINT"), (2, "SIGQUIT")] {
        let tap: Tap = source.tap().state(&state).config("break_at_end_lsn", false);
        let mut running = tap.spawn();
        source.db.psql(&fill(id, id));
        running.wait_for(LIMIT, is_row(id));
        end(&cluster, how, running.pid());
        state = goes_on(&source, &mut target, running.finish(), &state);
    }
}

/// wal2json names tables as they were called, and in the end nobody can be asked whether they still are: the next run finds out.
#[test]
fn a_table_renamed_just_before_a_crash() {
    if !plugins().contains(&"wal2json") {
        return;
    }
    let cluster = Cluster::start("");
    for (round, reader) in ["stream", "auto"].into_iter().enumerate() {
        let sql = format!("create table item{round} (id integer primary key)");
        let stream = format!("item{round}");
        let source = Source::on(&cluster, "wal2json", &sql, &[&stream]);
        let (mut target, mut state) = copied(&source);
        let tap = || source.tap().config("wal_reader", reader);
        let mut running = tap().state(&state).config("break_at_end_lsn", false).spawn();
        source.db.psql(&format!("insert into {stream} values (1)"));
        running.wait_for(LIMIT, is_row(1));
        source.db.psql(&format!(
            "alter table {stream} rename to away; insert into away values (2); alter table away rename to {stream}; insert into {stream} values (3)"
        ));
        running.wait_for(LIMIT, is_row(3));
        end(&cluster, "SIGQUIT", running.pid());
        state = confirm(&mut target, &running.finish().expect_code(1), &state);
        cluster.start_again();
        // It may say that it has to be run again.
        for _ in 0..2 {
            let output = tap().state(&state).output().parsed();
            state = confirm(&mut target, &output, &state);
        }
        target.assert_holds(&source.db, &[&stream]);
        // Nothing stays behind that would have it copied for ever.
        assert_eq!(tap().state(&state).run().record_messages().count(), 0);
    }
}
