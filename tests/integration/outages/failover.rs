//! Failover slots (PostgreSQL 17): the standby keeps a copy of the primary's slot, and the tap goes on there.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::standby::Pair;
use super::{ITEM, confirm, failed, fill};
use crate::harness::target::Target;
use crate::harness::{Cluster, Tap, TestDb, needs, until};
use crate::log_based::select;

/// A slot on the primary that standbys are to have too.
#[track_caller]
fn failover_slot(db: &TestDb) {
    let slot = db.slot_name();
    db.query_one(&format!(
        "select slot_name from pg_create_logical_replication_slot('{slot}', 'pgoutput', false, false, true)"
    ));
}

/// A primary that sends nothing that its standby may not have, and the standby.
fn pair() -> Pair {
    let standby = "hot_standby_feedback = on\nsync_replication_slots = on\nsynchronized_standby_slots = ''";
    Pair::start("synchronized_standby_slots = 'standby'", standby)
}

fn tap(db: &TestDb) -> Tap {
    Tap::new(db).catalog(&select(Tap::new(db).discover(), &["item"]))
}

/// Waits until the standby's copy of the slot is where the primary's is, and fit for use.
#[track_caller]
fn until_synced(pair: &Pair) {
    let (slot, replica) = (pair.primary.slot_name(), pair.replica());
    let confirmed = pair.primary.confirmed_flush(&slot);
    let sql = format!(
        "select count(*) from pg_replication_slots where slot_name = '{slot}' and synced and not temporary \
         and invalidation_reason is null and confirmed_flush_lsn - '0/0'::pg_lsn >= {confirmed}"
    );
    until("the slot is synced", || {
        // A worker that finds nothing to do looks again only after a while, and less and less often.
        pair.primary.query_one("select pg_log_standby_snapshot()");
        thread::sleep(Duration::from_millis(100));
        replica.query_one(&sql) == "1"
    });
}

#[test]
fn a_promoted_standby_goes_on() {
    if !needs(17, "failover of slots") {
        return;
    }
    let pair = pair();
    failover_slot(&pair.primary);
    pair.primary.psql(&fill(1, 3));
    let mut target = Target::default();
    let mut state = confirm(&mut target, &tap(&pair.primary).run(), &Value::Null);
    for (from, reader) in [(4, "stream"), (7, "bulk")] {
        pair.primary.psql(&fill(from, from + 2));
        let output = tap(&pair.primary).state(&state).config("wal_reader", reader).run();
        state = confirm(&mut target, &output, &state);
    }
    target.assert_holds(&pair.primary, &["item"]);
    until_synced(&pair);
    pair.write(&fill(10, 12));
    // Not before it is a primary.
    failed(pair.tap().state(&state).spawn().finish(), &[&pair.primary.slot_name(), "primary", "promoted"]);

    pair.primary.cluster().stop("SIGQUIT");
    pair.standby.promote();
    let replica = pair.replica();
    replica.wait_until("not pg_is_in_recovery()");
    for (from, reader) in [(13, "stream"), (16, "bulk")] {
        replica.psql(&fill(from, from + 2));
        let output = pair.tap().state(&state).config("wal_reader", reader).run();
        state = confirm(&mut target, &output, &state);
        target.assert_holds(&replica, &["item"]);
    }
    assert_eq!(pair.tap().state(&state).run().record_messages().count(), 0);
}

/// The primary sends nothing meanwhile, and the log says why.
#[test]
fn a_standby_that_is_away() {
    if !needs(17, "failover of slots") {
        return;
    }
    let pair = pair();
    failover_slot(&pair.primary);
    let mut target = Target::default();
    let state = confirm(&mut target, &tap(&pair.primary).run(), &Value::Null);
    pair.standby.stop("SIGINT");
    pair.primary.psql(&fill(1, 3));
    let running = tap(&pair.primary).state(&state).config("wal_reader", "stream").spawn();
    running.wait_for_log("synchronized_standby_slots");
    pair.standby.start_again();
    let output = running.finish().expect_code(0);
    confirm(&mut target, &output, &state);
    target.assert_holds(&pair.primary, &["item"]);
    assert!(output.logged("the server warns") < 3, "{}", output.stderr);
}

/// What is made anew for a lost one is a failover slot again.
#[test]
fn a_lost_failover_slot() {
    if !needs(17, "failover of slots") {
        return;
    }
    let cluster = Cluster::forgetful("1MB");
    let db = TestDb::on(&cluster, "outages_failover");
    db.psql(ITEM);
    db.publication("for all tables");
    failover_slot(&db);
    let mut target = Target::default();
    let state = confirm(&mut target, &tap(&db).run(), &Value::Null);
    db.psql(&fill(1, 3));
    let lost = "select wal_status from pg_replication_slots";
    until("the slot is lost", || {
        db.fill_the_log();
        db.query_one(lost) == "lost"
    });
    let output = tap(&db).state(&state).config("on_slot_lost", "copy_again").run();
    confirm(&mut target, &output, &state);
    target.assert_holds(&db, &["item"]);
    assert_eq!(db.query_one("select failover from pg_replication_slots"), "t");
}
