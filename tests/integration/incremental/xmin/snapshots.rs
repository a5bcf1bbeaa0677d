//! Writers beside a run, runs that are cut short, and standbys.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{NONE, T, TABLE, from, ids, server, snapshot_xmin, state, tap};
use crate::harness::target::Target;
use crate::harness::{Background, Message};

/// What a transaction has written that is open while a run reads comes in the next one, by its subtransactions too, prepared ones
/// included; what commits after it began does not hide it.
#[test]
fn transactions_that_are_open() {
    let db = server("xmin_open", TABLE);
    let mut open = db.session();
    open.run("begin; update t set note = 'open' where id = 1; savepoint a; update t set note = 'sub' where id = 2;");
    let oldest = snapshot_xmin(&db);
    db.psql("update t set note = 'committed' where id = 3");
    let mut sub = db.session();
    sub.run("begin; savepoint a; update t set note = 'sub' where id = 4; release a;");
    db.psql("begin; update t set note = 'prepared' where id = 5; prepare transaction 'xmin'");
    let first = tap(&db).run();
    assert_eq!(ids(&first), [1, 2, 3, 4, 5]);
    assert_eq!(first.bookmark(T)["replication_key_value"], json!(oldest.to_string()));
    assert_eq!(first.records(T).iter().filter(|row| row["note"] != "old").count(), 1);

    open.run("commit;");
    sub.run("commit;");
    let second = from(&db, first.last_state());
    // The one that the first run saw comes again.
    assert_eq!(ids(&second), [1, 2, 3, 4]);
    db.psql("commit prepared 'xmin'");
    let third = from(&db, second.last_state());
    assert_eq!(third.records(T).iter().find(|row| row["id"] == 5).map(|row| &row["note"]), Some(&json!("prepared")));
    assert_eq!(ids(&from(&db, third.last_state())), NONE);
}

/// Writers of every kind while run follows run: in the end the target has what the table has.
#[test]
fn writers_beside_every_run() {
    let db = server("xmin_writers", "create table t (id serial primary key, n integer, note text)");
    db.psql("insert into t (n) select 0 from generate_series(1, 200)");
    let writers: Vec<Background<()>> = (0..4)
        .map(|writer| {
            let mut session = db.session();
            Background::start(move |stop| {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let id = (round * 7 + writer * 50) % 200 + 1;
                    let end = ["commit", "rollback", "rollback to a; commit"][round % 3];
                    let pause = ["", "select pg_sleep(0.02) \\g /dev/null"][round % 2];
                    // Not the same rows, so that nobody waits for a lock.
                    session.run(&format!(
                        "begin; update t set n = {round} where id = {id} and id % 4 = {writer}; savepoint a;
                         insert into t (n, note) values ({round}, 'of {writer}'); {pause}
                         update t set n = n + 1 where id = {id} + 4 and id % 4 = {writer};
                         {end};"
                    ));
                }
            })
        })
        .collect();
    let mut target = Target::default();
    let mut state = json!({});
    for _ in 0..12 {
        let output = from(&db, &state);
        target.apply(&output.messages);
        state = output.last_state().clone();
    }
    for writer in writers {
        writer.stop();
    }
    target.apply(&from(&db, &state).messages);
    target.assert_holds(&db, &["t"]);
}

/// Rows have no order, so that the bookmark stays where it was until all are sent.
#[test]
fn a_run_that_is_cut_short() {
    let db = server(
        "xmin_cut",
        "create table t (id integer primary key, filler text); alter table t alter filler set storage external;
         insert into t select i, repeat('x', 1900) from generate_series(1, 20000) i;",
    );
    for value in [Value::Null, json!("3")] {
        let given = state(&value);
        let mut run = tap(&db).state(&given).spawn();
        run.wait_for(Duration::from_secs(30), |message| matches!(message, Message::Record(_)));
        run.signal(Signal::TERM);
        let output = run.finish();
        assert_eq!(output.status.code(), Some(143), "{}", output.stderr);
        assert!(output.records(T).len() < 20_000, "it was cut short");
        for state in output.states() {
            assert_eq!(state["bookmarks"][T]["replication_key_value"], value, "{state}");
        }
        assert_eq!(output.bookmark(T)["version"], 1);
    }
}

/// A standby has the ids of its primary: runs from either go on from each other's bookmarks.
#[test]
fn standbys() {
    let db = server("xmin_standby", TABLE);
    let standby = db.cluster().standby();
    let replica = db.view_of(&standby);
    let replayed = || {
        let end = db.query_one("select pg_current_wal_insert_lsn()");
        replica.wait_until(&format!("pg_last_wal_replay_lsn() >= '{end}'"));
    };
    let secondary = || {
        let host = json!({"use_secondary": true, "secondary_host": standby.dir(), "secondary_port": standby.port()});
        tap(&db).configs(&host)
    };
    replayed();
    let first = secondary().run();
    assert_eq!(ids(&first), [1, 2, 3, 4, 5]);

    let mut open = db.session();
    open.run("begin; update t set note = 'open' where id = 1;");
    db.psql("update t set note = 'new' where id = 2");
    replayed();
    let second = secondary().state(first.last_state()).run();
    assert_eq!(ids(&second), [2]);
    open.run("commit;");
    replayed();
    let third = secondary().state(second.last_state()).run();
    assert_eq!(ids(&third), [1, 2]);

    // One that lags has not had what the primary had when it was read.
    replica.psql("select pg_wal_replay_pause()");
    db.psql("update t set note = 'late' where id = 3");
    db.psql("update t set note = 'late' where id = 4");
    let primary = from(&db, third.last_state());
    assert_eq!(ids(&primary), [3, 4]);
    let lagging = secondary().state(primary.last_state()).run();
    assert_eq!((ids(&lagging), lagging.logged("lags behind")), (vec![1, 2, 3, 4, 5], 1), "{}", lagging.stderr);
    replica.psql("select pg_wal_replay_resume()");
    replayed();
    let last = secondary().state(lagging.last_state()).run();
    assert_eq!(ids(&last), [3, 4], "what it showed as it was comes as it is");
}
