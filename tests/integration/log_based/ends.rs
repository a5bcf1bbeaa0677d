//! How a run ends: of itself, by a signal, by its reader, by its server. Whatever happens, what was printed is whole lines
//! and the last STATE among them loses nothing.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Source, lsn, numbers, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Background, Cluster, Message, Output, Role, Running, Tap, TestDb, check_protocol};

with_both_plugins!(
    nothing_for_other_readers_of_the_log,
    a_signal_ends_a_stream,
    a_signal_ends_a_copy,
    a_signal_cancels_the_query_of_a_copy,
    a_reader_that_goes_away,
    a_reader_that_stops_for_a_while,
    new_changes_are_followed,
    the_longest_run,
    a_run_without_any_limit,
    the_longest_wait,
    a_busy_server_whose_tables_are_idle,
    a_server_that_restarts,
);

const LIMIT: Duration = Duration::from_secs(40);
const ITEM: &str = "create table item (id integer, filler text);";

fn fill(from: i64, to: i64) -> String {
    format!("insert into item select i, repeat('x', 500) from generate_series({from}, {to}) i;")
}

fn is_row(id: i64) -> impl Fn(&Message) -> bool {
    move |message| message.as_record().is_some_and(|record| record.record["id"] == id)
}

/// The last STATE that it printed, after a check of all that it printed.
#[track_caller]
fn last_state(output: &Output) -> Value {
    assert!(output.stdout.is_empty() || output.stdout.ends_with('\n'), "the last line is not whole");
    check_protocol(&output.messages);
    output.last_state().clone()
}

/// What a run printed before its last STATE, or an earlier one that claims the same, and what the next prints from it are
/// all rows, each once.
#[track_caller]
fn assert_nothing_lost(source: &Source, ended: &Output, expected: &[i64]) {
    let state = last_state(ended);
    let same = |message: &Message| message.as_state().is_some_and(|of| lsn(of, "item") == lsn(&state, "item"));
    let at = ended.messages.iter().position(same).expect("a STATE");
    let mut ids: Vec<i64> =
        ended.messages[..at].iter().filter_map(Message::as_record).filter_map(|r| r.record["id"].as_i64()).collect();
    ids.extend(numbers(&source.run(&state), "item", "id"));
    ids.sort_unstable();
    assert_eq!(ids, expected);
}

/// A run that follows new changes until it is told to stop.
fn follow(source: &Source, state: &Value) -> Running {
    source.tap().state(state).config("break_at_end_lsn", false).spawn()
}

fn a_signal_ends_a_stream(plugin: &str) {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let source = Source::new(plugin, ITEM, &["item"]);
        let state = source.copied();
        source.db.psql(&fill(1, 3));
        let mut running = follow(&source, &state);
        running.wait_for(LIMIT, is_row(3));
        running.signal(signal);
        let output = running.finish().expect_code(code);
        assert_nothing_lost(&source, &output, &[1, 2, 3]);
        assert!(output.messages.last().is_some_and(Message::is_state), "the rows it had read are in its state");
        assert!(lsn(output.last_state(), "item") > lsn(&state, "item"));

        // While a lot is under way, in the middle of a transaction.
        source.db.psql(&fill(4, 60_000));
        let mut running = follow(&source, output.last_state());
        running.wait_for(LIMIT, is_row(1000));
        running.signal(signal);
        let output = running.finish().expect_code(code);
        // A transaction that was cut short comes again, whole.
        let printed = numbers(&output, "item", "id");
        let next = source.run(&last_state(&output));
        let again = numbers(&next, "item", "id");
        let all: Vec<i64> = (4..=60_000).collect();
        assert!(again == all || (printed == all && again.is_empty()), "{} and {}", printed.len(), again.len());
        // No STATE stands inside of it: a target that keeps what a STATE confirms has each row once.
        let mut target = Target::default();
        target.apply_confirmed(&output.messages);
        target.apply(&next.messages);
        assert_eq!(target.rows("public-item").len(), all.len());
    }
}

fn a_signal_ends_a_copy(plugin: &str) {
    let source = Source::new(plugin, &format!("{ITEM} {}", fill(1, 200_000)), &["item"]);
    let mut running = source.tap().spawn();
    running.wait_for(LIMIT, is_row(10));
    running.signal(Signal::TERM);
    let output = running.finish().expect_code(143);
    let state = last_state(&output);
    if output.records("public-item").len() < 200_000 {
        assert_eq!(state["bookmarks"]["public-item"]["xmin"], 1, "unfinished: {state}");
    }
    let again = source.run(&state);
    assert_eq!(again.records("public-item").len(), 200_000, "a copy begins from the start");
    assert_eq!(source.run(again.last_state()).record_messages().count(), 0);
}

/// A backend that has no row to send would sleep on.
fn a_signal_cancels_the_query_of_a_copy(plugin: &str) {
    let source =
        Source::new(plugin, &format!("{ITEM} {} alter table item add primary key (id);", fill(1, 3)), &["item"]);
    source.db.psql(
        "create function slow(integer) returns boolean language sql volatile as
           'select pg_sleep(600) is not null or $1 is null';
         alter table item enable row level security; create policy p on item using (slow(id));",
    );
    let role = Role::reader(&source.db, "replication");
    let item = "public-item";
    for catalog in [
        source.catalog.clone(),
        source.catalog.clone().select(item, "FULL_TABLE"),
        source.catalog.clone().select_incremental(item, "id"),
    ] {
        let running = Tap::new(&source.db).catalog(&catalog).config("user", role.name.as_str()).spawn();
        let sleeping = "select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
        source.db.wait_until(&format!("exists ({sleeping})"));
        running.signal(Signal::TERM);
        running.finish().expect_code(143);
        source.db.wait_until(&format!("not exists ({sleeping})"));
    }
}

fn a_reader_that_goes_away(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 50_000));
    for state in [Some(&state), None] {
        let tap = match state {
            Some(state) => source.tap().state(state),
            None => source.tap(),
        };
        let mut child = tap.command().spawn().expect("run the tap");
        let mut stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        drop(stdout);
        let mut stderr = String::new();
        child.stderr.take().expect("a piped stderr").read_to_string(&mut stderr).expect("read the log");
        let status = child.wait().expect("wait for the tap");
        assert_eq!(status.code(), Some(1), "{stderr}");
        let errors = stderr.lines().filter(|line| line.contains("level=ERROR") || line.contains("level=CRITICAL"));
        assert_eq!(errors.count(), 1, "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

/// The server must hear from the tap also while nobody takes what the tap prints.
fn a_reader_that_stops_for_a_while(plugin: &str) {
    let cluster = Cluster::start("wal_sender_timeout = '3s'");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 40_000));
    let tap = source.tap().state(&state);
    let mut child = tap.command().spawn().expect("run the tap");
    let mut stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
    let mut text = String::new();
    stdout.read_line(&mut text).expect("a line");
    thread::sleep(Duration::from_secs(7));
    let stderr = thread::spawn({
        let mut pipe = child.stderr.take().expect("a piped stderr");
        move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        }
    });
    stdout.read_to_string(&mut text).expect("the rest");
    let status = child.wait().expect("wait for the tap");
    let stderr = stderr.join().expect("the reader of the log").expect("the log");
    assert!(status.success(), "{status}: {stderr}");
    let records = Message::parse_lines(&text).iter().filter(|message| message.as_record().is_some()).count();
    assert_eq!(records, 40_000);
}

fn new_changes_are_followed(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let mut running = follow(&source, &source.copied());
    for id in 1..4 {
        source.db.psql(&fill(id, id));
        running.wait_for(LIMIT, is_row(id));
        // What has been read reaches the target's state without more to come.
        let at = source.db.lsn("pg_current_wal_insert_lsn()");
        if id == 2 {
            running.wait_for(LIMIT, |message| message.as_state().is_some_and(|state| lsn(state, "item") >= at));
        }
    }
    running.signal(Signal::TERM);
    let output = running.finish().expect_code(143);
    assert_nothing_lost(&source, &output, &[1, 2, 3]);
}

fn the_longest_run(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 3));
    let started = Instant::now();
    let tap = source.tap().state(&state).config("break_at_end_lsn", "false").config("max_run_seconds", "3");
    let output = tap.run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2, 3]);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_nothing_lost(&source, &output, &[1, 2, 3]);
}

fn a_run_without_any_limit(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 3));
    for (seconds, bounded) in [(u64::MAX, true), (u64::MAX, false), (i64::MAX as u64, false)] {
        let tap = source.tap().state(&state).config("break_at_end_lsn", bounded).config("max_run_seconds", seconds);
        let tap = tap.config("logical_poll_total_seconds", if bounded { seconds } else { 1 });
        assert_eq!(numbers(&tap.run(), "item", "id"), [1, 2, 3]);
    }
}

fn the_longest_wait(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 3));
    let tap = source.tap().state(&state).config("break_at_end_lsn", false).config("logical_poll_total_seconds", 2);
    let output = tap.run();
    assert_eq!(numbers(&output, "item", "id"), [1, 2, 3]);
    assert_nothing_lost(&source, &output, &[1, 2, 3]);
}

/// What other databases write makes the server send one keepalive after the other.
fn a_busy_server_whose_tables_are_idle(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let state = source.copied();
    let other = TestDb::on(&cluster, "busy");
    other.psql("create table busy (n integer);");
    let mut session = other.session();
    let writing = Background::start(move |stop| {
        for _ in (0..30_000).take_while(|_| !stop.load(Ordering::Relaxed)) {
            session.run("insert into busy values (1); select pg_sleep(0.002);");
        }
    });
    source.db.psql(&fill(1, 3));
    let mut running = follow(&source, &state);
    running.wait_for(LIMIT, is_row(3));
    running.wait_for(LIMIT, |message| {
        message.as_state().is_some_and(|printed| lsn(printed, "item") > lsn(&state, "item"))
    });
    running.signal(Signal::TERM);
    let output = running.finish().expect_code(143);
    assert_nothing_lost(&source, &output, &[1, 2, 3]);

    let limited = |key: &str, seconds: u32| {
        let tap = source.tap().state(output.last_state()).config("break_at_end_lsn", false);
        tap.config(key, seconds).run()
    };
    assert_eq!(limited("max_run_seconds", 2).record_messages().count(), 0);
    assert_eq!(limited("logical_poll_total_seconds", 2).record_messages().count(), 0);
    writing.stop();
}

fn a_server_that_restarts(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let mut state = source.copied();
    let mut next = 1;
    for how in ["SIGINT", "SIGQUIT"] {
        source.db.psql(&fill(next, next + 2));
        let mut running = follow(&source, &state);
        running.wait_for(LIMIT, is_row(next + 2));
        let started = Instant::now();
        cluster.stop(how);
        let output = running.finish().expect_code(1);
        assert!(started.elapsed() < Duration::from_secs(30), "the server waited for the tap");
        let errors =
            output.stderr.lines().filter(|l| l.contains("level=ERROR") || l.contains("level=CRITICAL")).count();
        assert_eq!(errors, 1, "{}", output.stderr);
        cluster.start_again();
        source.db.psql(&fill(next + 3, next + 4));
        assert_nothing_lost(&source, &output, &(next..next + 5).collect::<Vec<_>>());
        state = source.run(output.last_state()).last_state().clone();
        next += 5;
    }
}

/// wal2json hands logical messages on, and pipelinewise-tap-postgres up to 2.1.0 fails on them: no run may leave one in
/// the log that such a slot reads, be it the tap's own, to which its predecessor may return, or another pipeline's.
fn nothing_for_other_readers_of_the_log(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    if !source.db.cluster().has_wal2json() {
        return;
    }
    source.db.psql("select pg_create_logical_replication_slot('other_' || current_database(), 'wal2json')");
    source.run_after(&fill(1, 1), &source.copied());
    let action = source.db.query_one(
        "select distinct data::json ->> 'action' from pg_logical_slot_peek_changes(
             'other_' || current_database(), null, null, 'format-version', '2', 'include-transaction', 'false')",
    );
    assert_eq!(action, "I");
}
