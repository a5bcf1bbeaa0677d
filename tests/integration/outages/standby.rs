//! The log of a hot standby, which can be read from PostgreSQL 16 on, and what the tap says before that.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ITEM, StoppedWriter, confirm, failed, fill};
use crate::harness::target::Target;
use crate::harness::{Background, Cluster, Tap, TestDb, needs, release, until};
use crate::log_based::{lsn, select};

/// A primary, and a standby that keeps in touch with it.
pub(super) struct Pair {
    pub(super) primary: TestDb,
    pub(super) standby: Arc<Cluster>,
}

impl Pair {
    /// With a table and its publication on the primary, and a physical slot `standby`.
    #[track_caller]
    pub(super) fn start(primary: &str, standby: &str) -> Pair {
        let cluster = Cluster::start(primary);
        let primary = TestDb::on(&cluster, "outages_standby");
        primary.psql(ITEM);
        primary.publication("for all tables");
        primary.query_one("select slot_name from pg_create_physical_replication_slot('standby')");
        let standby = cluster.stopped_standby(&format!("wal_receiver_status_interval = '1s'\n{standby}"));
        standby.set_recovery("primary_slot_name = 'standby'");
        standby.start_again();
        Pair { primary, standby }
    }

    /// The database on the standby.
    pub(super) fn replica(&self) -> ManuallyDrop<TestDb> {
        self.primary.view_of(&self.standby)
    }

    /// Runs SQL on the primary and waits until the standby has replayed it.
    #[track_caller]
    pub(super) fn write(&self, sql: &str) {
        self.primary.psql(sql);
        let end = self.primary.query_one("select pg_current_wal_insert_lsn()");
        self.replica().wait_until(&format!("pg_last_wal_replay_lsn() >= '{end}'"));
    }

    /// Does on the standby what has to wait for its primary's word on the transactions that are running there.
    #[track_caller]
    fn while_told<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let work = scope.spawn(work);
            while !work.is_finished() {
                self.primary.query_one("select pg_log_standby_snapshot()");
                thread::sleep(Duration::from_millis(200));
            }
            work.join().expect("what is done on the standby")
        })
    }

    /// The tap on the standby.
    #[track_caller]
    pub(super) fn tap(&self) -> Tap {
        let replica = self.replica();
        Tap::new(&replica).catalog(&select(Tap::new(&replica).discover(), &["item"]))
    }

    /// A slot on the standby, and what a target has and the state is after the copy.
    #[track_caller]
    fn copied(&self) -> (Target, Value) {
        self.while_told(|| self.replica().slot("pgoutput"));
        let mut target = Target::default();
        let state = confirm(&mut target, &self.while_told(|| self.tap().run()), &Value::Null);
        (target, state)
    }
}

const FEEDBACK: &str = "hot_standby_feedback = on";

#[test]
fn the_log_of_a_standby() {
    if !needs(16, "decoding on a standby") {
        return;
    }
    let pair = Pair::start("", FEEDBACK);
    pair.write(&fill(1, 3));
    let (mut target, mut state) = pair.copied();
    target.assert_holds(&pair.primary, &["item"]);
    for (round, reader) in ["stream", "bulk"].into_iter().enumerate() {
        let first = 4 + 3 * round as i64;
        pair.write(&fill(first, first + 2));
        let started = Instant::now();
        let output = pair.tap().state(&state).config("wal_reader", reader).run();
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
        assert_eq!(output.logged(&format!("({reader}; slot")), 1, "{}", output.stderr);
        let before = lsn(&state, "item");
        state = confirm(&mut target, &output, &state);
        assert!(lsn(&state, "item") > before);
        target.assert_holds(&pair.primary, &["item"]);
    }
    assert_eq!(pair.tap().state(&state).run().record_messages().count(), 0);
    assert!(pair.replica().confirmed_flush(&pair.primary.slot_name()) >= lsn(&state, "item"));
}

/// Rows that are written during the copy, in transactions that begin before it and end after it, come exactly once.
#[test]
fn a_copy_from_a_standby_while_its_primary_writes() {
    if !needs(16, "decoding on a standby") {
        return;
    }
    let pair = Pair::start("", FEEDBACK);
    pair.write(&fill(1, 3));
    pair.while_told(|| pair.replica().slot("pgoutput"));
    let writers = [1, 2, 3].map(|writer| {
        let mut session = pair.primary.session();
        Background::start(move |stop| {
            let mut id = writer * 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                let (first, second) = (fill(id, id), fill(id + 1, id + 1));
                session.run(&format!("begin; {first} select pg_sleep(0.05); {second} commit;"));
                id += 2;
            }
        })
    });
    let mut target = Target::default();
    let first = pair.while_told(|| pair.tap().run());
    writers.into_iter().for_each(Background::stop);
    let state = confirm(&mut target, &first, &Value::Null);
    pair.write(&fill(4, 5));
    confirm(&mut target, &pair.tap().state(&state).run(), &state);
    target.assert_holds(&pair.primary, &["item"]);
}

#[test]
fn a_slot_on_a_standby_is_made_by_the_tap() {
    if !needs(16, "decoding on a standby") {
        return;
    }
    let pair = Pair::start("", FEEDBACK);
    pair.write(&fill(1, 3));
    let tap = || pair.tap().config("create_replication_slot", true);
    let mut target = Target::default();
    let state = confirm(&mut target, &pair.while_told(|| tap().run()), &Value::Null);
    pair.write(&fill(4, 5));
    confirm(&mut target, &tap().state(&state).run(), &state);
    target.assert_holds(&pair.primary, &["item"]);
}

/// An idle primary logs nothing of its transactions, and a slot on the standby can't be made.
#[test]
fn a_primary_that_does_not_say_what_is_running() {
    if !needs(16, "decoding on a standby") {
        return;
    }
    let pair = Pair::start("", FEEDBACK);
    pair.while_told(|| pair.replica().slot("pgoutput"));
    let _writer = StoppedWriter::of(&pair.primary);
    pair.write(&fill(1, 3));
    let started = Instant::now();
    failed(pair.tap().spawn().finish(), &["which transactions are running", "pg_log_standby_snapshot()"]);
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
    // Nothing of it stays.
    let replica = pair.replica();
    until("the slot that was not finished is gone", || {
        pair.primary.query_one("select pg_log_standby_snapshot()");
        replica.query_one("select count(*) from pg_replication_slots") == "1"
    });
    let mut target = Target::default();
    confirm(&mut target, &pair.while_told(|| pair.tap().run()), &Value::Null);
    target.assert_holds(&pair.primary, &["item"]);
}

/// The primary removed what the standby's slot still needed.
#[test]
fn a_slot_that_lost_a_conflict_with_recovery() {
    if !needs(16, "decoding on a standby") {
        return;
    }
    let pair = Pair::start("", "hot_standby_feedback = off");
    pair.write(&fill(1, 3));
    let (mut target, state) = pair.copied();
    pair.write(&fill(4, 5));
    pair.write(
        "create table passing (a integer); drop table passing; vacuum full pg_class; insert into item values (6, 'x');",
    );
    pair.replica().wait_until(
        "1 = (select count(*) from pg_replication_slots where to_jsonb(pg_replication_slots) ->> 'conflicting' = 'true')",
    );
    let output = failed(
        pair.tap().state(&state).spawn().finish(),
        &[&pair.primary.slot_name(), "hot_standby_feedback = on", "on_slot_lost"],
    );
    assert_eq!(output.record_messages().count(), 0);
    let again = || pair.tap().state(&state).config("on_slot_lost", "copy_again");
    confirm(&mut target, &pair.while_told(|| again().run()), &state);
    target.assert_holds(&pair.primary, &["item"]);
}

#[test]
fn a_standby_before_16() {
    if release() >= 16 {
        return;
    }
    let pair = Pair::start("", FEEDBACK);
    pair.write(&fill(1, 3));
    for create in [false, true] {
        let tap = pair.tap().config("create_replication_slot", create);
        failed(tap.spawn().finish(), &["this standby", "16", "primary", "use_secondary"]);
    }
}
