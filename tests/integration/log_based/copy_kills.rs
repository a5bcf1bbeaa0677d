//! A copy that is killed at any line: the next run repeats what is unfinished, and nothing is lost or there twice.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::model::{STREAMS, assert_activated_last, killed_after, tables, version};
use super::{Source, numbers, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Cluster, Message, Tap};

with_both_plugins!(
    a_copy_killed_at_every_line,
    a_copy_without_a_spare_slot_killed_at_every_line,
    a_repeated_copy_killed_at_any_line,
    a_signal_in_a_copy_leaves_a_valid_state,
    a_run_out_of_time_after_a_copy,
    a_long_read_of_another_method,
);

struct Life {
    source: Source,
    _cluster: Arc<Cluster>,
    /// Of the next row.
    id: u32,
}

impl Life {
    #[track_caller]
    fn new(plugin: &str) -> Life {
        // Of its own: slots are taken away.
        let cluster = Cluster::start("max_replication_slots = 4");
        Life { source: Source::on(&cluster, plugin, &tables(3), &STREAMS), _cluster: cluster, id: 100 }
    }

    /// Changes after which each table has as many rows as before.
    fn change(&mut self) {
        self.id += 1;
        let id = self.id;
        self.source.db.psql(&format!(
            "insert into keyed values ({id}, repeat('z', 100)); insert into plain values ({id}, repeat('z', 100));
             update keyed set filler = filler || 'u' where id < 2;
             delete from keyed where id = {id} - 1 and id > 100;"
        ));
    }

    /// The state and the target after a run that was killed, the next one, and one more.
    #[track_caller]
    fn mend(&mut self, killed: &[Message], given: &Value, target: &mut Target, tap: impl Fn(&Value) -> Tap) -> Value {
        assert_activated_last(killed, given);
        let state = target.apply_confirmed(killed).unwrap_or_else(|| given.clone());
        self.change();
        let next = tap(&state).run();
        assert_activated_last(&next.messages, &state);
        target.apply(&next.messages);
        self.change();
        let last = tap(next.last_state()).run();
        target.apply(&last.messages);
        target.assert_holds(&self.source.db, &STREAMS);
        for table in STREAMS {
            assert!(last.bookmark(&format!("public-{table}"))["xmin"].is_null());
            assert_eq!(version(last.last_state(), table), version(next.last_state(), table));
        }
        last.last_state().clone()
    }
}

fn at_every_line(plugin: &str, spare: bool) {
    let mut life = Life::new(plugin);
    if !spare {
        life.source.db.take_spare_slots();
    }
    let total = life.source.tap().run().messages.len();
    assert!(total > 12, "{total}");
    for lines in 1..total {
        let killed = killed_after(&life.source.tap(), lines);
        let catalog = life.source.catalog.clone();
        let tap = {
            let db = life.source.db.view_of(life.source.db.cluster());
            move |state: &Value| Tap::new(&db).catalog(&catalog).state(state)
        };
        life.mend(&killed, &json!({}), &mut Target::default(), tap);
    }
}

fn a_copy_killed_at_every_line(plugin: &str) {
    at_every_line(plugin, true);
}

fn a_copy_without_a_spare_slot_killed_at_every_line(plugin: &str) {
    at_every_line(plugin, false);
}

/// The slot is gone, and everything is copied again by one run: here by two, the first of which is killed.
fn a_repeated_copy_killed_at_any_line(plugin: &'static str) {
    let mut life = Life::new(plugin);
    let first = life.source.tap().run();
    let mut target = Target::default();
    target.apply(&first.messages);
    let mut state = first.last_state().clone();
    let (db, slot) = (life.source.db.view_of(life.source.db.cluster()), life.source.slot.clone());
    let catalog = life.source.catalog.clone();
    let tap = |state: &Value| {
        let tap = Tap::new(&db).catalog(&catalog).state(state);
        tap.config("on_slot_lost", "copy_again").config("output_plugin", plugin)
    };
    // After the first SCHEMA, STATE, record, ACTIVATE_VERSION and STATE, and in the second copy.
    for lines in [1, 2, 3, 7, 8, 11] {
        db.wait_until("not exists (select from pg_replication_slots where active)");
        // What is deleted now no log tells of.
        db.psql(&format!(
            "insert into keyed values (50, 'gone'); insert into plain values (50, 'gone');
             select pg_drop_replication_slot('{slot}'); delete from keyed where id = 50; delete from plain where id = 50;"
        ));
        let killed = killed_after(&tap(&state), lines);
        assert_eq!(killed.len(), lines, "a run that was killed");
        let mended = life.mend(&killed, &state, &mut target, tap);
        for table in STREAMS {
            assert!(version(&mended, table) > version(&state, table));
        }
        state = mended;
    }
}

/// SIGTERM in the middle of a copy.
fn a_signal_in_a_copy_leaves_a_valid_state(plugin: &str) {
    let source = Source::new(plugin, &tables(3), &STREAMS);
    for table in STREAMS {
        let mut running = source.tap().spawn();
        running.wait_for(Duration::from_secs(40), |m| m.as_record().is_some_and(|r| r.stream.ends_with(table)));
        running.signal(Signal::TERM);
        let output = running.finish();
        if output.status.code() == Some(0) {
            continue;
        }
        let output = output.expect_code(143);
        let mut target = Target::default();
        assert!(output.messages.last().is_some_and(Message::is_state), "{:?}", output.messages.last());
        target.apply(&output.messages);
        let state = output.last_state();
        let next = source.run(state);
        assert_activated_last(&next.messages, state);
        target.apply(&next.messages);
        target.assert_holds(&source.db, &STREAMS);
    }
}

/// The time of other methods is not that of the log.
fn a_long_read_of_another_method(plugin: &str) {
    let source =
        Source::new(plugin, "create table t (id integer primary key); create table full_t (id integer);", &["t"]);
    let state = source.copied();
    source.db.psql(&(1..=30).map(|id| format!("insert into t values ({id});\n")).collect::<String>());
    let mut lock = source.db.session();
    lock.run("begin; lock table full_t;");
    let catalog = source.catalog.clone().select("public-full_t", "FULL_TABLE");
    let running = Tap::new(&source.db).catalog(&catalog).config("max_run_seconds", 1).state(&state).spawn();
    source.db.wait_until("exists (select from pg_locks where not granted and relation = 'full_t'::regclass)");
    std::thread::sleep(Duration::from_millis(1200));
    lock.run("commit;");
    assert_eq!(numbers(&running.finish().expect_code(0), "t", "id").len(), 30);
}

/// A copy in one piece that was begun is finished, and the log read past it; others begin in a later run.
fn a_run_out_of_time_after_a_copy(plugin: &str) {
    let mut life = Life::new(plugin);
    life.source.db.take_spare_slots();
    let mut target = Target::default();
    let first = life.source.tap().config("max_run_seconds", 0).run();
    target.apply(&first.messages);
    assert_eq!(numbers(&first, "keyed", "id").len(), 3);
    assert_eq!(first.logged("public-plain: there is no time left"), 1, "{}", first.stderr);
    assert!(first.last_state()["bookmarks"]["public-keyed"]["xmin"].is_null(), "{}", first.last_state());
    life.change();
    let second = life.source.tap().state(first.last_state()).config("max_run_seconds", 1).run();
    target.apply(&second.messages);
    life.change();
    target.apply(&life.source.run(second.last_state()).messages);
    target.assert_holds(&life.source.db, &STREAMS);
}
