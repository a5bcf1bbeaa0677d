//! When the log is read in one go, when it is streamed instead, and that a bulk read keeps to the rules of any run.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Source, lsn, numbers, with_both_plugins};
use crate::harness::{Cluster, Message, Output, Role, Tap, needs, release};

with_both_plugins!(
    a_small_backlog_is_read_in_bulk,
    what_streams,
    a_refusal_of_the_server,
    a_role_without_the_right,
    a_slot_in_use_for_a_while,
    what_is_stored_is_acknowledged,
    a_signal_while_the_server_gathers,
);

const ITEM: &str = "create table item (id integer primary key, filler text);";

fn fill(from: i64, to: i64) -> String {
    format!("insert into item select i, repeat('x', 200) from generate_series({from}, {to}) i;")
}

/// A tap to which all is little: what other tests write is in the same log.
fn tap(source: &Source) -> Tap {
    source.tap().config("bulk_max_wal_mb", 1 << 20)
}

#[track_caller]
fn run(source: &Source, state: &Value) -> Output {
    tap(source).state(state).run()
}

#[track_caller]
fn run_after(source: &Source, sql: &str, state: &Value) -> Output {
    source.db.psql(sql);
    run(source, state)
}

/// How the run says it read the log.
#[track_caller]
fn assert_read_by(output: &Output, method: &str, why: &str) {
    assert_eq!(output.logged(&format!("({method}; slot ")), 1, "{}", output.stderr);
    let reasons = output.logged("not reading in bulk: ") + output.logged("streaming instead of reading in bulk: ");
    assert_eq!(reasons, usize::from(!why.is_empty()), "{}", output.stderr);
    assert!(output.stderr.lines().any(|line| line.contains("in bulk: ") && line.contains(why)) || why.is_empty());
}

fn a_small_backlog_is_read_in_bulk(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    assert_eq!(first.logged("; slot "), 0, "a run of copies alone: {}", first.stderr);
    let output = run_after(&source, &fill(1, 100), first.last_state());
    assert_read_by(&output, "bulk", "");
    assert_eq!(numbers(&output, "item", "id"), (1..=100).collect::<Vec<_>>());
    // Nothing to read.
    let idle = run(&source, output.last_state());
    assert_read_by(&idle, "bulk", "");
    assert_eq!((idle.record_messages().count(), idle.states().len()), (0, 1));
    assert!(lsn(idle.last_state(), "item") >= lsn(output.last_state(), "item"));
    // No walsender is needed, and none is left behind.
    source.db.wait_until(
        "not exists (select from pg_stat_activity where application_name like 'tap%' and datname = current_database())",
    );
}

fn what_streams(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let sql = format!(
        "{ITEM} create table big (id integer primary key, body text); alter table big alter body set storage external;"
    );
    let source = Source::new(plugin, &sql, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 20_000));
    let run = |key: &str, value: Value| tap(&source).state(&state).config(key, value).run();
    for (output, method, why) in [
        (run("bulk_max_wal_mb", 1.into()), "stream", "are more than bulk_max_wal_mb"),
        (run("wal_reader", "stream".into()), "stream", ""),
        (run("wal_reader", "bulk".into()), "bulk", ""),
        (run("wal_reader", "auto".into()), "bulk", ""),
    ] {
        assert_read_by(&output, method, why);
        assert_eq!(numbers(&output, "item", "id").len(), 20_000);
    }
    for reader in ["auto", "bulk"] {
        let tap = source.tap().state(&state).config("break_at_end_lsn", false).config("wal_reader", reader);
        let output = tap.config("logical_poll_total_seconds", 1).run();
        assert_read_by(&output, "stream", "break_at_end_lsn is false");
        assert_eq!(numbers(&output, "item", "id").len(), 20_000);
    }
    // A limit for auto alone.
    let tap = source.tap().state(&state).config("wal_reader", "bulk").config("bulk_max_wal_mb", 1);
    assert_read_by(&tap.run(), "bulk", "");

    let source = Source::of(source.db, source.slot, &["big"]);
    let state = source.copied();
    let output =
        run_after(&source, "insert into big select i, repeat(md5(i::text), 300) from generate_series(1, 50) i", &state);
    assert_read_by(&output, "stream", "in TOAST");
    let output = source.tap().state(&state).config("wal_reader", "bulk").run();
    assert_read_by(&output, "bulk", "");
}

/// The way that the server has is taken, and told.
#[test]
fn before_11_everything_is_streamed() {
    if release() >= 11 {
        return;
    }
    let source = Source::new("pgoutput", ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 3));
    for reader in ["auto", "bulk"] {
        let output = source.tap().state(&state).config("wal_reader", reader).run();
        assert_read_by(&output, "stream", "older than PostgreSQL 11");
        assert_eq!(numbers(&output, "item", "id"), [1, 2, 3]);
    }
}

/// What the server gathers is more than it may write to disk.
fn a_refusal_of_the_server(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 40_000));
    source.db.psql(&format!("alter database {} set temp_file_limit = '1MB'", source.db.name()));
    let output = run(&source, &state);
    assert_eq!(output.logged("(bulk; slot "), 1, "{}", output.stderr);
    assert_eq!(output.logged("streaming instead of reading in bulk: "), 1, "{}", output.stderr);
    assert!(output.stderr.contains("temp_file_limit"), "{}", output.stderr);
    assert_eq!(numbers(&output, "item", "id"), (1..=40_000).collect::<Vec<_>>());
    let next = run_after(&source, &fill(40_001, 40_002), output.last_state());
    assert_read_by(&next, "bulk", "");
    assert_eq!(numbers(&next, "item", "id"), [40_001, 40_002]);
}

/// A role may have been denied either function; START_REPLICATION needs neither.
fn a_role_without_the_right(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    for function in ["pg_logical_slot_peek_binary_changes", "pg_replication_slot_advance"] {
        let source = Source::new(plugin, ITEM, &["item"]);
        let role = Role::reader(&source.db, "replication");
        let as_role = |state: &Value| tap(&source).config("user", role.name.as_str()).state(state).run();
        // The second state is one that there is something to acknowledge from.
        let first = source.copied();
        source.db.psql(&fill(1, 2));
        let state = as_role(&first).last_state().clone();
        source.db.psql(&format!("revoke execute on function {function} from public; {}", fill(3, 4)));
        let output = as_role(&state);
        assert_eq!(output.logged("streaming instead of reading in bulk: "), 1, "{}", output.stderr);
        assert!(output.stderr.contains(function), "{}", output.stderr);
        assert_eq!(numbers(&output, "item", "id"), [3, 4]);
        assert_eq!(source.confirmed_flush(), lsn(&state, "item"), "acknowledged by the stream");
    }
}

fn a_slot_in_use_for_a_while(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 3));
    let mut holder = source.tap().state(&state).config("break_at_end_lsn", false).spawn();
    holder.wait_for(Duration::from_secs(30), |message| message.as_record().is_some());
    let tap = source.tap().state(&state).config("wal_reader", "bulk");
    let mut child = tap.command().spawn().expect("run the tap");
    let mut log =
        BufReader::new(child.stderr.take().expect("a piped stderr")).lines().map(|line| line.expect("a line"));
    let refused = log.find(|line| line.contains("streaming instead of reading in bulk: ")).expect("the refusal");
    assert!(refused.contains("is active for PID"), "{refused}");
    holder.signal(Signal::TERM);
    holder.finish().expect_code(143);
    let rest: Vec<String> = log.collect();
    let output = child.wait_with_output().expect("wait for the tap");
    assert!(output.status.success(), "{rest:?}");
    let messages = Message::parse_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(messages.iter().filter(|message| message.as_record().is_some()).count(), 3);
}

fn what_is_stored_is_acknowledged(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let source = Source::new(plugin, ITEM, &["item"]);
    let mut states = vec![source.copied()];
    for n in 1..4 {
        let given = &states[states.len() - 1];
        let output = run_after(&source, &fill(n, n), given);
        assert_read_by(&output, "bulk", "");
        assert_eq!(numbers(&output, "item", "id"), [n]);
        assert_eq!(source.confirmed_flush(), lsn(given, "item"), "what the run was given, not what it printed");
        states.push(output.last_state().clone());
    }
    // A target that did not store the last of them.
    let again = run(&source, &states[2]);
    assert_eq!(numbers(&again, "item", "id"), [3]);
    assert_eq!(source.confirmed_flush(), lsn(&states[2], "item"));
}

fn a_signal_while_the_server_gathers(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let state = source.copied();
    source.db.psql(&fill(1, 300_000));
    const READ: &str =
        "select from pg_stat_activity where query like 'COPY (SELECT lsn, data%' and pid <> pg_backend_pid()";
    let stalled = source.tap().state(&state).config("wal_reader", "bulk").stall();
    source.db.wait_until(&format!("exists ({READ} and state = 'active')"));
    let gathering =
        source.db.query_one(&format!("select exists ({READ} and wait_event is distinct from 'ClientWrite')"));
    let signalled = Instant::now();
    stalled.signal(Signal::TERM);
    let output = stalled.finish().expect_code(143);
    assert_eq!(lsn(output.last_state(), "item"), lsn(&state, "item"), "nothing was complete");
    source.db.wait_until(&format!("not exists ({READ})"));
    assert!(signalled.elapsed() < Duration::from_secs(20), "{:?}", signalled.elapsed());
    source.db.wait_until("not exists (select from pg_replication_slots where active)");
    if gathering == "t" {
        assert!(
            cluster.log().contains("canceling statement due to user request"),
            "it went on until it had a row to send"
        );
    }
    let tap = source.tap().state(&state).config("wal_reader", "bulk").timeout(Duration::from_secs(180));
    assert_eq!(tap.run().records("public-item").len(), 300_000);
}
