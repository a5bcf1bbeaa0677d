//! The server hears from the tap also while nobody takes what the tap prints, for longer than wal_sender_timeout.

use std::thread;
use std::time::Duration;

use super::{A_LOT, ITEM, confirm, copied, fill, until_blocked};
use crate::harness::Cluster;
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(a_reader_that_stops_inside_a_transaction, a_reader_that_stops_between_transactions);

const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(2);

#[track_caller]
fn stops(plugin: &str, sql: &str) {
    let cluster = Cluster::start(&format!("wal_sender_timeout = '{}s'", WAL_SENDER_TIMEOUT.as_secs()));
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, state) = copied(&source);
    source.db.psql(sql);
    let stalled = source.tap().state(&state).config("wal_reader", "stream").stall();
    until_blocked(&source);
    let reads = "select active_pid from pg_replication_slots";
    let walsender = source.db.query_one(reads);
    // Three times the limit, and half of one for the server to act.
    thread::sleep(WAL_SENDER_TIMEOUT * 7 / 2);
    assert_eq!(source.db.query_one(reads), walsender, "the server gave the tap up:\n{}", cluster.log());
    let output = stalled.finish().expect_code(0);
    confirm(&mut target, &output, &state);
    target.assert_holds(&source.db, &["item"]);
}

fn a_reader_that_stops_inside_a_transaction(plugin: &str) {
    // Inside a transaction the tap's own chunks are large: 4 MB each.
    stops(plugin, &fill(1, 4 * A_LOT));
}

fn a_reader_that_stops_between_transactions(plugin: &str) {
    let sql: String = (0..2 * A_LOT / 50).map(|n| fill(n * 50 + 1, n * 50 + 50)).collect();
    stops(plugin, &sql);
}
