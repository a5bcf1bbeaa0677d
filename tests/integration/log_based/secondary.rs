//! Tables read from a standby, the log from the primary.

use serde_json::json;

use super::{Source, numbers, with_both_plugins};
use crate::harness::{Cluster, Tap};

with_both_plugins!(a_lagging_standby_loses_nothing);

fn a_lagging_standby_loses_nothing(plugin: &str) {
    let cluster = Cluster::start("");
    let tables = "create table keyed (id integer primary key); insert into keyed values (1), (2);
                  create table plain (id integer); alter table plain replica identity full;
                  insert into plain values (1), (2)";
    let source = Source::on(&cluster, plugin, tables, &["keyed", "plain"]);
    let standby = cluster.standby();
    let replica = source.db.view_of(&standby);
    let tap = |state: Option<&serde_json::Value>| {
        let tap: Tap = source.tap().configs(&json!({
            "use_secondary": true,
            "secondary_host": standby.dir(),
            "secondary_port": standby.port(),
        }));
        match state {
            Some(state) => tap.state(state),
            None => tap,
        }
    };
    // The standby stops here for a while: what comes now it does not show, and the log has to bring.
    replica.psql("select pg_wal_replay_pause()");
    source.db.psql("insert into keyed values (3); insert into plain values (3); delete from keyed where id = 1");
    let first = tap(None).run();
    // The keyed table comes from the standby; the other one from the primary, because its rows can't be told apart.
    assert_eq!(numbers(&first, "plain", "id"), [1, 2, 3]);
    assert!(numbers(&first, "keyed", "id").contains(&2));
    source.db.psql("insert into keyed values (4); insert into plain values (4)");
    let second = tap(Some(first.last_state())).run();
    assert_eq!(numbers(&second, "plain", "id"), [4], "exactly once");
    let mut keyed = numbers(&first, "keyed", "id");
    keyed.extend(numbers(&second, "keyed", "id"));
    for id in [2, 3, 4] {
        assert!(keyed.contains(&id), "{id} of {keyed:?}");
    }
    let deleted = second.records("public-keyed").into_iter().any(|r| r["id"] == 1 && r["_sdc_deleted_at"].is_string());
    assert!(deleted || !numbers(&first, "keyed", "id").contains(&1), "the delete came, or the row never did");
}
