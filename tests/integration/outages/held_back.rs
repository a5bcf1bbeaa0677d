//! A failover slot whose changes the server holds back, because a standby of `synchronized_standby_slots` has not got them (17).

use std::time::{Duration, Instant};

use serde_json::Value;

use super::ITEM;
use crate::harness::{Cluster, Output, Tap, TestDb, needs};
use crate::log_based::{numbers, select};

const MAX_RUN: u64 = 3;

/// Whichever way the log is read, the run ends by itself in time, says what is waited for and moves nothing; `--test` says it too. Once
/// the standby is not waited for any more, the next run goes on.
#[test]
fn a_standby_that_is_down() {
    if !needs(17, "synchronized_standby_slots") {
        return;
    }
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "held_back");
    db.psql(ITEM);
    let slot = db.publication("for all tables");
    db.query(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput', false, false, true)"));
    let tap = |state: &Value| Tap::new(&db).catalog(&select(Tap::new(&db).discover(), &["item"])).state(state);
    let mut state = tap(&Value::Null).run().last_state().clone();
    db.psql("insert into item values (1)");
    // A bookmark to acknowledge, and a change behind it.
    state = tap(&state).run().last_state().clone();
    db.psql("select pg_create_physical_replication_slot('gone'); alter system set synchronized_standby_slots = 'gone'");
    db.psql("select pg_reload_conf(); insert into item values (2)");
    let held_back = |output: &Output| {
        assert!(
            output.stderr.contains("synchronized_standby_slots") && output.stderr.contains("gone"),
            "{}",
            output.stderr
        );
    };
    for reader in ["bulk", "auto", "stream"] {
        let started = Instant::now();
        let output = tap(&state)
            .config("wal_reader", reader)
            .config("max_run_seconds", MAX_RUN)
            .config("logical_poll_total_seconds", MAX_RUN)
            .run();
        assert!(started.elapsed() < Duration::from_secs(4 * MAX_RUN), "{reader}: {:?}", started.elapsed());
        held_back(&output);
        assert!(output.records("public-item").is_empty(), "{reader}");
        assert_eq!(output.bookmark("public-item")["lsn"], state["bookmarks"]["public-item"]["lsn"], "{reader}");
    }
    let started = Instant::now();
    held_back(&tap(&state).arg("--test").output());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    // What waited is gone from the server.
    db.wait_until("not exists (select from pg_stat_activity where wait_event = 'WaitForStandbyConfirmation')");
    db.psql("alter system reset synchronized_standby_slots");
    db.psql("select pg_reload_conf()");
    assert_eq!(numbers(&tap(&state).run(), "item", "id"), [2]);
}
