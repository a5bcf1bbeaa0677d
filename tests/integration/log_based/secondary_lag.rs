//! Copies from a standby that lags: what it does not show yet the log brings, also where the log is younger than the copy.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{numbers, select, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Cluster, Output, Tap, TestDb};

with_both_plugins!(
    a_standby_that_replays_late_loses_nothing,
    a_table_is_published_before_the_standby_knows,
    a_secondary_that_is_no_standby,
);

const TABLES: &str = "create table item (id integer primary key, n integer); insert into item values (1, 1), (2, 1);
    create table later (id integer primary key, n integer); insert into later values (1, 1), (2, 1), (3, 1);
    create table plain (id integer); alter table plain replica identity full; insert into plain values (1), (2);";

struct Lagging {
    primary: TestDb,
    standby: Arc<Cluster>,
    plugin: &'static str,
}

impl Lagging {
    fn new(plugin: &'static str) -> Lagging {
        let cluster = Cluster::start("");
        let primary = TestDb::on(&cluster, "log_lag");
        primary.psql(TABLES);
        let standby = cluster.standby();
        Lagging { primary, standby, plugin }
    }

    fn tap(&self, tables: &[&str], state: &Value) -> Tap {
        let catalog = select(Tap::new(&self.primary).discover(), tables);
        Tap::new(&self.primary).catalog(&catalog).state(state).configs(&json!({
            "use_secondary": true,
            "secondary_host": self.standby.dir(),
            "secondary_port": self.standby.port(),
            "create_replication_slot": true,
            "output_plugin": self.plugin,
        }))
    }

    fn replica(&self) -> std::mem::ManuallyDrop<TestDb> {
        self.primary.view_of(&self.standby)
    }

    /// Waits until the standby has all that the primary has now.
    fn catch_up(&self) {
        let end = self.primary.query_one("select pg_current_wal_flush_lsn()");
        self.replica().wait_until(&format!("pg_last_wal_replay_lsn() >= '{end}'"));
    }

    #[track_caller]
    fn assert_converged(&self, outputs: &[&Output], tables: &[&str]) {
        let mut target = Target::default();
        for output in outputs {
            target.apply(&output.messages);
        }
        target.assert_holds(&self.primary, tables);
    }
}

fn a_standby_that_replays_late_loses_nothing(plugin: &'static str) {
    let lagging = Lagging::new(plugin);
    let tables = ["item", "later", "plain"];
    lagging.catch_up();
    // From here on commits are seen there a second late.
    lagging.standby.stop("SIGINT");
    lagging.standby.set_recovery("recovery_min_apply_delay = '1s'");
    lagging.standby.start_again();
    let write = |from: u32| {
        // Two transactions each.
        let transactions = |i: u32| {
            format!(
                "insert into item values ({i}, 1)\\; insert into later values ({i}, 1)\\; insert into plain values ({i});
                 update item set n = n + 1 where id = {i} - 1\\; delete from later where id = {i} - 2;"
            )
        };
        lagging.primary.psql(&(from..=from + 300).map(transactions).collect::<String>())
    };
    let (first, second) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(100));
        let first = lagging.tap(&tables, &json!({})).run();
        let second = lagging.tap(&tables, first.last_state()).run();
        writing.join().expect("the writer");
        (first, second)
    });
    write(1000);
    let third = lagging.tap(&tables, second.last_state()).run();
    lagging.assert_converged(&[&first, &second, &third], &tables);
}

/// The standby stands where the table is not yet published: what it lacks then is in no log.
fn a_table_is_published_before_the_standby_knows(plugin: &'static str) {
    let lagging = Lagging::new(plugin);
    let first = lagging.tap(&["item"], &json!({})).run();
    lagging.catch_up();
    lagging.replica().psql("select pg_wal_replay_pause()");
    lagging
        .primary
        .psql("insert into later values (4, 1); update later set n = 2 where id = 1; delete from later where id = 2;");
    let tap = lagging.tap(&["item", "later"], first.last_state()).spawn();
    if plugin == "pgoutput" {
        // It has looked, and waits.
        lagging.replica().wait_until(
            "exists (select from pg_stat_activity where application_name = 'tap-postgres-rs' and query = 'COMMIT')",
        );
    }
    lagging.replica().psql("select pg_wal_replay_resume()");
    let second = tap.finish().expect_code(0);
    lagging.primary.psql("insert into later values (5, 1); delete from later where id = 3;");
    let third = lagging.tap(&["item", "later"], second.last_state()).run();
    lagging.assert_converged(&[&first, &second, &third], &["item", "later"]);
}

/// Promoted, or the primary under another name: what it shows may not be in the log, or not yet.
fn a_secondary_that_is_no_standby(plugin: &'static str) {
    let lagging = Lagging::new(plugin);
    lagging.catch_up();
    lagging.standby.promote();
    lagging.replica().wait_until("not pg_is_in_recovery()");
    lagging.replica().psql("insert into item values (99, 1); delete from item where id = 1;");
    let first = lagging.tap(&["item"], &json!({})).run();
    assert_eq!(numbers(&first, "item", "id"), [1, 2]);
    assert_eq!(first.logged("the secondary is no standby"), 1);
}
