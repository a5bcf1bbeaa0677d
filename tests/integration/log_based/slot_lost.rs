//! `on_slot_lost: copy_again` mends in one run what a slot has lost: whatever happened to the source meanwhile, the target
//! then holds it, and no row that is gone.

use serde_json::Value;

use super::model::{STREAMS, assert_activated_last, killed_after, tables, version};
use super::{Source, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Cluster, Tap, TestDb, needs};

with_both_plugins!(
    a_slot_that_lost_its_log_is_mended_in_one_run,
    a_slot_made_anew_by_somebody_is_mended_in_one_run,
    a_server_restored_from_a_backup_is_mended_in_one_run,
);

/// What no log tells of any more.
const MEANWHILE: &str = "insert into keyed values (6, 'six'); insert into plain values (6, 'six');
    update keyed set filler = 'new' where id = 2; update plain set filler = 'new' where id = 2;
    delete from keyed where id = 3; delete from plain where id = 3;";

/// The target of a whole first copy, and the state of it.
fn copied(source: &Source) -> (Target, Value) {
    let first = source.tap().run();
    let mut target = Target::default();
    target.apply(&first.messages);
    (target, first.last_state().clone())
}

/// The slot can't serve the state. A run says so and does nothing; with copy_again it is killed, and the next one mends all.
#[track_caller]
fn mended(plugin: &str, db: &TestDb, source: &Source, mut target: Target, state: &Value) {
    let flushed = format!(
        "select coalesce(max(confirmed_flush_lsn::text), 'none') from pg_replication_slots where slot_name = '{}'",
        source.slot
    );
    let before = db.query_one(&flushed);
    let tap = |state: &Value| Tap::new(db).catalog(&source.catalog).state(state);
    let refused = tap(state).run_failing(1);
    // A lost slot is an error of the run, a gap each stream's own.
    let errors: Vec<&str> = refused.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    assert!([1, STREAMS.len()].contains(&errors.len()), "{}", refused.stderr);
    assert!(errors.iter().all(|error| error.contains("copy_again")), "{}", refused.stderr);
    assert_eq!((refused.without_states().len(), db.query_one(&flushed)), (0, before));

    let again = |state: &Value| tap(state).config("on_slot_lost", "copy_again").config("output_plugin", plugin);
    // In the middle of the second copy.
    let killed = killed_after(&again(state), 12);
    assert_activated_last(&killed, state);
    let confirmed = target.apply_confirmed(&killed).expect("a STATE");
    let mending = again(&confirmed).run();
    assert_activated_last(&mending.messages, &confirmed);
    target.apply(&mending.messages);
    target.assert_holds(db, &STREAMS);
    for table in STREAMS {
        assert!(version(mending.last_state(), table) > version(state, table));
        assert!(mending.bookmark(&format!("public-{table}"))["xmin"].is_null());
    }
    // From here on the log tells.
    db.psql(
        "insert into keyed values (9, 'nine'); insert into plain values (9, 'nine'); delete from keyed where id = 1;",
    );
    let last = tap(mending.last_state()).run();
    assert_eq!(last.record_messages().count(), 3);
    target.apply(&last.messages);
    target.assert_holds(db, &STREAMS);
}

fn a_slot_that_lost_its_log_is_mended_in_one_run(plugin: &str) {
    if !needs(13, "max_slot_wal_keep_size") {
        return;
    }
    let cluster = Cluster::forgetful("1MB");
    let source = Source::on(&cluster, plugin, &tables(5), &STREAMS);
    let (target, state) = copied(&source);
    source.db.psql(MEANWHILE);
    let lost =
        format!("select coalesce(wal_status, 'none') from pg_replication_slots where slot_name = '{}'", source.slot);
    for round in 0.. {
        assert!(round < 50, "the slot keeps its log");
        source.db.fill_the_log();
        if source.db.query_one(&lost) == "lost" {
            break;
        }
    }
    mended(plugin, &source.db, &source, target, &state);
}

fn a_slot_made_anew_by_somebody_is_mended_in_one_run(plugin: &str) {
    let source = Source::new(plugin, &tables(5), &STREAMS);
    let (target, state) = copied(&source);
    source.db.psql(MEANWHILE);
    source
        .db
        .wait_until("not exists (select from pg_replication_slots where active and database = current_database())");
    source.db.psql(&format!("select pg_drop_replication_slot('{}')", source.slot));
    source.db.slot(plugin);
    mended(plugin, &source.db, &source, target, &state);
}

/// The backup is of the time before what the target has seen; the slot is made after it was restored.
fn a_server_restored_from_a_backup_is_mended_in_one_run(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, &tables(5), &STREAMS);
    let backup = cluster.standby();
    let restored = source.db.view_of(&backup);
    // Nothing that comes from then on gets there.
    backup.promote();
    restored.wait_until("not pg_is_in_recovery()");
    restored.slot(plugin);
    let (mut target, _) = copied(&source);
    source.db.psql(MEANWHILE);
    // The log of the restored server ends far before what the state says.
    source.db.psql("select pg_logical_emit_message(false, 'filler', repeat('x', 1000000)) from generate_series(1, 20) \\g /dev/null");
    let later = source.tap().run();
    target.apply(&later.messages);
    mended(plugin, &restored, &source, target, later.last_state());
    restored.psql(&format!("select pg_drop_replication_slot('{}')", source.slot));
}
