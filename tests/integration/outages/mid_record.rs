//! Where the log ends in the middle of a record when a run starts, the run ends all the same, soon, and loses nothing.
//!
//! The server's WAL writer takes whole pages to disk, and the rest only for a commit. So a record that nothing was committed
//! behind stays on disk in part, until the background writer logs something, which is stopped here.

use std::time::{Duration, Instant};

use super::{ITEM, StoppedWriter, confirm, copied, fill};
use crate::harness::database::Session;
use crate::harness::{Cluster, Role, TestDb, until};
use crate::log_based::{Source, with_both_plugins};
with_both_plugins!(an_end_inside_a_record, an_end_inside_a_record_that_the_role_can_not_mark);

/// Writes records of this size until one of them is on disk in part, as long as the session's transaction is open.
#[track_caller]
fn write_part_of_a_record(db: &TestDb, size: usize) -> Session {
    let from = db.lsn("pg_current_wal_insert_lsn()");
    let partly = format!(
        "select (f - '0/0'::pg_lsn) % 8192 = 0 and f - '0/0'::pg_lsn > {from} and f < i \
         from pg_current_wal_flush_lsn() f, pg_current_wal_insert_lsn() i"
    );
    let mut session = db.session();
    session.run("begin;");
    let mut tries = 0;
    until("a record is on disk in part", || {
        // One that ends in the page in which it begins is not on disk at all.
        if tries % 25 == 0 {
            session.run(&format!("select pg_logical_emit_message(false, 'filler', repeat('x', {size}));"));
        }
        tries += 1;
        db.query_one(&partly) == "t"
    });
    session
}

/// A run by this role while the log ends inside of a record of this size; then one when it does not.
#[track_caller]
fn ends(plugin: &str, size: usize, revoked: &str) {
    let cluster = Cluster::start("wal_writer_delay = '50ms'\nwal_writer_flush_after = 0");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let role = Role::reader(&source.db, "replication");
    source.db.psql(revoked);
    let (mut target, mut state) = copied(&source);
    let writer = StoppedWriter::of(&source.db);
    for round in 0..2 {
        source.db.psql(&fill(round * 3 + 1, round * 3 + 3));
        let open = write_part_of_a_record(&source.db, size);
        let started = Instant::now();
        let output = source.tap().state(&state).config("user", role.name.as_str()).run();
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
        drop(open);
        state = confirm(&mut target, &output, &state);
        target.assert_holds(&source.db, &["item"]);
    }
    drop(writer);
    source.db.psql(&fill(7, 9));
    confirm(&mut target, &source.run(&state), &state);
    target.assert_holds(&source.db, &["item"]);
}

/// SQL that takes functions from everybody but their owner.
fn revoke(functions: &str) -> String {
    format!(
        "do $$ declare f regprocedure; begin \
           for f in select oid from pg_proc where proname in ({functions}) loop \
             execute format('revoke execute on function %s from public', f); \
           end loop; \
         end $$;"
    )
}

/// The role may not write a message behind it, but an empty transaction.
fn an_end_inside_a_record(plugin: &str) {
    ends(plugin, 100_000, &revoke("'pg_logical_emit_message'"));
}

/// Neither. A record that begins in the last page is told from a server that is busy.
fn an_end_inside_a_record_that_the_role_can_not_mark(plugin: &str) {
    ends(plugin, 6_000, &revoke("'pg_logical_emit_message', 'txid_current', 'pg_current_xact_id'"));
}
