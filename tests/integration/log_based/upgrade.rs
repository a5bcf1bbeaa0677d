//! pg_upgrade takes a logical slot along (17) if nothing is left to decode behind what it acknowledges.

use super::{Source, numbers, with_both_plugins};
use crate::harness::{Cluster, needs};

with_both_plugins!(an_idle_run_leaves_nothing);

fn an_idle_run_leaves_nothing(plugin: &str) {
    if !needs(17, "a slot that is upgraded") {
        return;
    }
    for reader in ["stream", "bulk"] {
        let cluster = Cluster::start("");
        let source =
            Source::on(&cluster, plugin, "create table t (id integer primary key); insert into t values (1)", &["t"]);
        let tap = || source.tap().config("wal_reader", reader);
        let mut state = tap().run().last_state().clone();
        source.db.psql("insert into t values (2)");
        let output = tap().state(&state).run();
        assert_eq!(numbers(&output, "t", "id"), [2]);
        state = output.last_state().clone();
        // Nobody writes any more: the next run acknowledges what this one has read.
        tap().state(&state).run();
        cluster.stop("INT");
        cluster.start_for_upgrade();
        let caught_up = format!("select binary_upgrade_logical_slot_has_caught_up('{}')", source.slot);
        assert_eq!(source.db.query_one(&caught_up), "t", "{reader}");
        cluster.stop("INT");
        cluster.start_again();
    }
}
