//! A server that refuses for the moment is asked again for a quarter of a minute, whichever connection it refuses; what does
//! not pass by itself is told at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ITEM, SHUTDOWN, confirm, copied, failed, fill};
use crate::harness::{Cluster, Tap, TestDb, until};
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(a_server_that_is_down_and_comes_back, no_walsender_free_for_a_while);

/// How long the tap goes on asking, and some time for a slow machine.
const PATIENCE: Duration = Duration::from_secs(15);
const BOUND: Duration = Duration::from_secs(40);

/// Waits until the tap was refused; these words are in the server's log then.
#[track_caller]
fn until_refused(cluster: &Cluster, words: &str, before: usize) {
    until("the server refuses the tap", || cluster.log().matches(words).count() > before);
}

/// A run that nobody lets in, which takes its time to say so, but not for ever.
#[track_caller]
fn gives_up(tap: Tap, texts: &[&str]) {
    let started = Instant::now();
    let output = failed(tap.spawn().finish(), texts);
    let took = started.elapsed();
    assert!((PATIENCE..BOUND).contains(&took), "{took:?}");
    assert!(output.logged("trying again") >= 5, "{}", output.stderr);
    assert!(output.messages.is_empty(), "{}", output.stdout);
}

/// Nobody listens, as while a server restarts.
fn a_server_that_is_down_and_comes_back(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, state) = copied(&source);
    source.db.psql(&fill(1, 3));
    cluster.stop("SIGINT");
    let running = source.tap().state(&state).spawn();
    running.wait_for_log("trying again");
    cluster.start_again();
    let output = running.finish().expect_code(0);
    confirm(&mut target, &output, &state);
    target.assert_holds(&source.db, &["item"]);
}

#[test]
fn a_server_that_stays_down() {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, "pgoutput", ITEM, &["item"]);
    cluster.stop("SIGINT");
    gives_up(source.tap(), &["cannot connect to", "is the server running"]);
    cluster.start_again();
}

/// It listens, and says that it is not ready.
#[test]
fn a_server_that_is_starting_up() {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, "pgoutput", ITEM, &["item"]);
    let standby = cluster.stopped_standby("hot_standby = off");
    standby.launch();
    let replica = source.db.view_of(&standby);
    let tap = || Tap::new(&replica).catalog(&source.catalog.clone().select("public-item", "FULL_TABLE"));
    let ready = |log: &str| log.contains("entering standby mode");
    until("the standby answers", || ready(&standby.log()));
    gives_up(tap(), &["cannot connect to", "the database system is", "try again in a moment"]);
    let running = tap().spawn();
    running.wait_for_log("trying again");
    standby.promote();
    running.finish().expect_code(0);
}

/// A role with room for so many connections, in a database with a table to copy.
fn limited(connections: u32) -> (Arc<Cluster>, TestDb) {
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "outages_limited");
    db.psql(&format!(
        "create role tap login connection limit {connections}; {ITEM} {} grant select on item to tap",
        fill(1, 3)
    ));
    (cluster, db)
}

/// The first connection is refused, or the one for the copy.
#[test]
fn a_server_that_is_full() {
    for connections in [0, 1] {
        let (cluster, db) = limited(connections);
        let catalog = Tap::new(&db).discover().select("public-item", "FULL_TABLE");
        let tap = || Tap::new(&db).config("user", "tap").catalog(&catalog);
        gives_up(tap(), &["too many connections", "max_connections"]);
        let refusals = cluster.log().matches("too many connections").count();
        let running = tap().spawn();
        until_refused(&cluster, "too many connections", refusals);
        db.psql("alter role tap connection limit -1");
        assert_eq!(running.finish().expect_code(0).records("public-item").len(), 3);
    }
}

fn no_walsender_free_for_a_while(plugin: &str) {
    let cluster = Cluster::start("max_wal_senders = 1");
    let source = Source::on(&cluster, plugin, ITEM, &["item"]);
    let (mut target, state) = copied(&source);
    source.db.psql(&fill(1, 3));
    let tap = || source.tap().state(&state).config("wal_reader", "stream");
    // The copy's own may take a moment to go.
    source.db.wait_until("not exists (select from pg_stat_replication)");
    let mut holder = source.db.walsender();
    holder.run("show wal_level;");
    gives_up(tap(), &["max_wal_senders"]);
    let words = "requested standby connections exceeds";
    let refusals = cluster.log().matches(words).count();
    let running = tap().spawn();
    until_refused(&cluster, words, refusals);
    drop(holder);
    let output = running.finish().expect_code(0);
    confirm(&mut target, &output, &state);
    target.assert_holds(&source.db, &["item"]);
}

#[test]
fn a_wrong_password_is_not_tried_again() {
    let cluster = Cluster::start("password_encryption = 'md5'");
    let db = TestDb::on(&cluster, "outages_password");
    db.psql("create role tap login password 'right'");
    std::fs::write(cluster.dir().join("data/pg_hba.conf"), "local all postgres trust\nlocal all all md5\n")
        .expect("write pg_hba.conf");
    db.query_one("select pg_reload_conf()");
    let started = Instant::now();
    let output = failed(
        Tap::new(&db).config("user", "tap").config("password", "wrong").spawn().finish(),
        &["password authentication failed"],
    );
    assert!(started.elapsed() < SHUTDOWN, "{:?}", started.elapsed());
    assert_eq!(output.logged("trying again"), 0, "{}", output.stderr);
    assert_eq!(cluster.log().matches("password authentication failed").count(), 1);
}
