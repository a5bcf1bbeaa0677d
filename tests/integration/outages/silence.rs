//! A connection that goes silent with both sockets open: an error where the server owes an answer, within a time that is
//! known; patience where it may be busy.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::relay::{NEVER, Relay, Silence};
use super::{A_LOT, ITEM, LIMIT, confirm, copied, failed, fill, fill_a_lot, is_row};
use crate::harness::{Cluster, Output, Running, Tap, needs, until};
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(silence_in_a_copy_is_legal, silence_in_a_bulk_read_is_legal, every_socket_finds_a_dead_peer);

/// The walsender answers what it is asked, within ten times its own patience.
const ANSWERS: &str = "wal_sender_timeout = '1s'";

/// A run that has to notice by itself that nothing comes any more.
#[track_caller]
fn notices(running: Running) -> Output {
    let started = Instant::now();
    let output = failed(running.finish(), &["has not answered for 10 s", "wal_sender_timeout"]);
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    output
}

/// With pgoutput from 15 on; elsewhere a server may be silent while it decodes.
#[test]
fn a_stream_that_goes_silent_between_messages() {
    if !needs(15, "a walsender that answers while it decodes") {
        return;
    }
    let cluster = Cluster::start(ANSWERS);
    let source = Source::on(&cluster, "pgoutput", ITEM, &["item"]);
    let (mut target, state) = copied(&source);
    source.db.psql(&fill(1, 3));
    let relay = Relay::before(&cluster, NEVER);
    let tap = source.tap().state(&state).config("wal_reader", "stream").config("break_at_end_lsn", false);
    let mut running = relay.lead(tap).spawn();
    running.wait_for(LIMIT, is_row(3));
    relay.fall_silent();
    let state = confirm(&mut target, &notices(running), &state);
    source.db.psql(&fill(4, 5));
    confirm(&mut target, &source.run(&state), &state);
    target.assert_holds(&source.db, &["item"]);
}

#[test]
fn a_stream_that_goes_silent_inside_a_message() {
    if !needs(15, "a walsender that answers while it decodes") {
        return;
    }
    let cluster = Cluster::start(ANSWERS);
    let source = Source::on(&cluster, "pgoutput", ITEM, &["item"]);
    let (mut target, state) = copied(&source);
    source.db.psql(&format!("{} insert into item values (2, repeat('y', 1000000)); {}", fill(1, 1), fill(3, 3)));
    let relay = Relay::before(&cluster, Silence { after: "START_REPLICATION", bytes: 500_000 });
    let running = relay.lead(source.tap().state(&state).config("wal_reader", "stream")).spawn();
    relay.until_silent();
    let state = confirm(&mut target, &notices(running), &state);
    confirm(&mut target, &source.run(&state), &state);
    target.assert_holds(&source.db, &["item"]);
}

/// TCP connects, and then nothing: to either kind of client, at the login or at what is set first.
#[test]
fn a_login_that_goes_silent() {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, "pgoutput", ITEM, &["item"]);
    let state = source.copied();
    let logins =
        [("user\0", "stream"), ("set_config", "stream"), ("replication\0database", "stream"), ("user\0", "bulk")];
    thread::scope(|scope| {
        for (after, reader) in logins {
            let tap = source.tap().state(&state).config("wal_reader", reader).timeout(Duration::from_secs(120));
            let cluster = &cluster;
            scope.spawn(move || {
                let relay = Relay::before(cluster, Silence { after, bytes: 0 });
                let started = Instant::now();
                let output = relay.lead(tap).spawn().finish();
                failed(output, &["no answer in time", "firewall"]);
                assert!(started.elapsed() < Duration::from_secs(75), "{after:?}: {:?}", started.elapsed());
            });
        }
    });
}

#[track_caller]
fn goes_on_after_silence(source: &Source, tap: Tap, after: &'static str) -> Output {
    let relay = Relay::before(source.db.cluster(), Silence { after, bytes: 200_000 });
    let running = relay.lead(tap).spawn();
    relay.until_silent();
    // Longer than anything that the tap would ask in the meantime.
    thread::sleep(Duration::from_secs(3));
    relay.go_on();
    running.finish().expect_code(0)
}

/// A server that computes is as silent as a network that is cut: TCP alone tells them apart.
fn silence_in_a_copy_is_legal(plugin: &str) {
    let cluster = Cluster::start(ANSWERS);
    let source = Source::on(&cluster, plugin, &format!("{ITEM} {}", fill_a_lot(0)), &["item"]);
    let output = goes_on_after_silence(&source, source.tap(), "COPY (");
    assert_eq!(output.records("public-item").len(), A_LOT as usize);
}

fn silence_in_a_bulk_read_is_legal(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let cluster = Cluster::start(ANSWERS);
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, state) = copied(&source);
    source.db.psql(&fill_a_lot(0));
    let tap = source.tap().state(&state).config("wal_reader", "bulk");
    let output = goes_on_after_silence(&source, tap, "pg_logical_slot_peek");
    confirm(&mut target, &output, &state);
    target.assert_holds(&source.db, &["item"]);
}

/// Where nothing is asked of the server, and so no answer is missed, the kernel asks.
fn every_socket_finds_a_dead_peer(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (_, state) = copied(&source);
    source.db.psql(&fill(1, 3));
    let relay = Relay::before(&cluster, NEVER);
    let tap = source.tap().state(&state).config("wal_reader", "stream").config("break_at_end_lsn", false);
    let mut running = relay.lead(tap).spawn();
    running.wait_for(LIMIT, is_row(3));
    // The connection for queries, and the walsender's.
    until("two sockets with a keepalive timer and none without", || {
        let timers = timers_of_sockets_to(relay.port());
        timers.len() == 2 && timers.iter().all(|timer| timer == "02")
    });
}

/// The kind of timer that runs for each open socket to a port of loopback: 02 is keepalive.
fn timers_of_sockets_to(port: u16) -> Vec<String> {
    const OPEN: &str = "01";
    let peer = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let to_peer = rows.filter(|row| row.get(2) == Some(&peer.as_str()) && row.get(3) == Some(&OPEN));
    to_peer.map(|row| row[5].split(':').next().unwrap_or_default().to_owned()).collect()
}
