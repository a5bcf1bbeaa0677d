//! Slots that were made with two_phase: transactions come at PREPARE TRANSACTION.

use serde_json::{Value, json};

use super::{numbers, select, with_both_plugins};
use crate::harness::{Tap, TestDb, needs, release};

with_both_plugins!(a_slot_with_two_phase);

/// pgoutput sends what may yet be rolled back: refused in the first run and in every other, and by `--test`, with the SQL that mends
/// it. wal2json sends a prepared transaction when it commits.
fn a_slot_with_two_phase(plugin: &str) {
    if !needs(14, "two_phase") {
        return;
    }
    let db = TestDb::new("two_phase");
    db.psql("create table d (id integer primary key, v text); insert into d values (1, 'a')");
    if plugin == "pgoutput" {
        db.publication("for all tables");
    }
    let slot = db.slot_name();
    db.psql(&format!("select pg_create_logical_replication_slot('{slot}', '{plugin}', false, true)"));
    let tap = |state: &Value| Tap::new(&db).catalog(&select(Tap::new(&db).discover(), &["d"])).state(state);
    if plugin == "pgoutput" {
        let mut sql = String::new();
        for state in [json!({}), json!({"bookmarks": {"public-d": {"lsn": 1, "version": 1}}})] {
            let again = tap(&state).config("on_slot_lost", "copy_again");
            for tap in [tap(&state), again, tap(&state).arg("--test")] {
                let output = tap.output().expect_code(1);
                let told =
                    output.stderr.lines().find(|line| line.contains("was made with two_phase")).expect("an error");
                assert!(told.contains(&format!("\"{slot}\"")) && told.contains("on_slot_lost"), "{told}");
                assert_eq!(told.contains("TWO_PHASE false"), release() >= 18, "{told}");
                sql = told.rsplit_once("run: ").expect("SQL").1.replace(";)", ";");
                assert!(output.parsed().records("public-d").len() <= 1, "but for the one of --test");
            }
        }
        db.psql(&sql);
    }
    let first = tap(&json!({})).run();
    db.psql(&format!(
        "begin; insert into d values (3, 'prepared'); prepare transaction 'one_{slot}'; commit prepared 'one_{slot}';
         begin; insert into d values (5, 'never'); prepare transaction 'two_{slot}'; rollback prepared 'two_{slot}';
         insert into d values (4, 'after');"
    ));
    assert_eq!(numbers(&tap(first.last_state()).run(), "d", "id"), [3, 4]);
}

/// The walsender's command that the error names turns it off.
#[test]
fn it_can_be_turned_off() {
    if !needs(18, "ALTER_REPLICATION_SLOT … TWO_PHASE") {
        return;
    }
    let db = TestDb::new("two_phase_off");
    db.psql("create table d (id integer primary key)");
    let slot = db.publication("for all tables");
    let tap = |state: &Value| Tap::new(&db).catalog(&select(Tap::new(&db).discover(), &["d"])).state(state);
    db.slot("pgoutput");
    let first = tap(&json!({})).run();
    db.walsender().run(&format!("ALTER_REPLICATION_SLOT {slot} (TWO_PHASE true);"));
    db.psql("begin; insert into d values (1); prepare transaction 'it_can_be'; commit prepared 'it_can_be'");
    tap(first.last_state()).run_failing(1);
    db.walsender().run(&format!("ALTER_REPLICATION_SLOT {slot} (TWO_PHASE false);"));
    assert_eq!(numbers(&tap(first.last_state()).run(), "d", "id"), [1]);
}
