//! Partitions that come and go while the log is read, wherever they lie and however they are made.

use serde_json::Value;

use super::{Following, Source, assert_fits, assert_holds, follow, numbers, with_both_plugins};
use crate::harness::{Cluster, Output, TestDb, needs, release};

with_both_plugins!(
    leaves_attached_and_detached_while_the_tap_reads,
    a_table_whose_rows_were_seen_becomes_a_leaf,
    leaves_in_another_schema,
    a_leaf_in_a_schema_that_the_run_does_not_read,
    leaves_do_not_mix_up_their_columns,
    a_leaf_beside_its_root,
);

/// A partitioned table and its leaves; before 11 it is they that have keys.
fn root() -> String {
    let (key, leaf) = if release() < 11 { ("", "(primary key (id, at))") } else { (", primary key (id, at)", "") };
    format!(
        "create table event (id integer, at integer, note text, n integer {key}) partition by range (at);
         create table event_1 partition of event {leaf} for values from (0) to (100);
         create table event_2 partition of event {leaf} for values from (100) to (200);
         insert into event values (1, 1, 'a', 1), (2, 101, 'b', 2);"
    )
}

/// With every way to publish a partitioned table.
fn sources(plugin: &str, sql: &str, streams: &[&str]) -> Vec<Source> {
    let ways: &[&str] = match plugin {
        // It is leaves that are published, also those that come.
        "pgoutput" if release() < 13 => &["for all tables"],
        "pgoutput" => {
            &["for all tables", "for table event", "for table event with (publish_via_partition_root = true)"]
        }
        _ => &[""],
    };
    let source = |way: &&str| {
        let db = TestDb::on(&Cluster::shared(), "log_leaves");
        db.psql(sql);
        if !way.is_empty() {
            db.publication(way);
        }
        let slot = db.slot(plugin);
        Source::of(db, slot, streams)
    };
    ways.iter().map(source).collect()
}

/// Of tables that are attached and detached after their changes were seen. Before 15 a walsender that is told of roots goes on
/// with a table as it was at first.
fn moving(plugin: &str, sql: &str) -> Vec<Source> {
    let mut sources = sources(plugin, sql, &["event"]);
    if release() < 15 {
        sources.truncate(1);
    }
    sources
}

fn ids(output: &Output) -> Vec<i64> {
    numbers(output, "event", "id")
}

fn leaves_attached_and_detached_while_the_tap_reads(plugin: &str) {
    if !needs(11, "a default partition") {
        return;
    }
    for source in moving(plugin, &root()) {
        let first = source.tap().run();
        let output = follow(&source, "event", first.last_state(), |running| {
            running.after("insert into event values (3, 3, 'c', 3);", 3);
            running.after("create table event_3 partition of event for values from (200) to (300); insert into event values (4, 204, 'd', 4);", 4);
            // Another order of columns, and one that is gone.
            running.after(
                "create table event_4 (n integer, gone text, note text, at integer not null, id integer not null); alter table event_4 drop gone;
                 alter table event attach partition event_4 for values from (300) to (400); insert into event values (5, 305, 'e', 5);",
                5,
            );
            running.after(
                "create table event_5 partition of event for values from (400) to (500) partition by list (id);
                 create table event_5_odd partition of event_5 for values in (1, 3, 5, 7, 9); insert into event values (7, 405, 'f', 6);",
                7,
            );
            running.after(
                "create table event_5_rest (like event_4); alter table event_5 attach partition event_5_rest default;
                 insert into event values (8, 405, 'g', 7); update event set note = 'gg', at = 6 where id = 8;",
                8,
            );
            running.after("delete from event_2;", 2);
            running.after(
                "alter table event detach partition event_2; insert into event_2 values (90, 150, 'nobody wants it', 9);
                 insert into event values (10, 10, 'h', 10); update event_2 set n = 1; delete from event_2;",
                10,
            );
            running.after("truncate event_2; insert into event_2 values (91, 150); alter table event attach partition event_2 for values from (100) to (200);
                insert into event values (11, 111, 'i', 11); delete from event where id = 91;", 11);
        });
        assert_fits(&output.messages);
        assert!(!ids(&output).contains(&90), "a leaf that was detached is not the root's any more");
        assert_eq!(
            output.records("public-event").iter().filter(|r| r.get("note").is_some_and(|note| note == "gg")).count(),
            1
        );
        let last = source.run(output.last_state());
        assert_holds(&source.db, "event", &[&first.messages, &output.messages, &last.messages]);
    }
}

/// Where the publication names the root, the server knows of each change whether it was the root's.
#[test]
fn a_leaf_that_is_detached_before_its_changes_are_read() {
    if !needs(15, "a walsender that notices what was detached") {
        return;
    }
    let db = TestDb::on(&Cluster::shared(), "log_detached");
    db.psql(&root());
    db.publication("for table event with (publish_via_partition_root = true)");
    let slot = db.slot("pgoutput");
    let source = Source::of(db, slot, &["event"]);
    let first = source.tap().run();
    let output = source.run_after(
        "insert into event values (3, 103); delete from event_2; alter table event detach partition event_2; insert into event_2 values (90, 150);
         drop table event_2; insert into event values (4, 4);",
        first.last_state(),
    );
    assert_eq!(ids(&output), [3, 2, 3, 4]);
    assert_holds(&source.db, "event", &[&first.messages, &output.messages]);
}

/// Its earlier rows were nobody's; those from then on are the root's.
fn a_table_whose_rows_were_seen_becomes_a_leaf(plugin: &str) {
    let sql = format!(
        "{} create table later (like event_1 including all); create table other (id integer primary key);",
        root()
    );
    for source in moving(plugin, &sql) {
        let state = source.copied();
        let output = follow(&source, "event", &state, |running| {
            running.after("insert into later values (50, 250); insert into event values (3, 3);", 3);
            running.after("delete from later; alter table event attach partition later for values from (200) to (300); insert into later values (51, 251);", 51);
            running.after("insert into event values (52, 252);", 52);
            running.after("begin; alter table event detach partition later; insert into later values (53, 253); commit; insert into event values (4, 4);", 4);
            running.after("begin; insert into later values (54, 254); alter table event attach partition later for values from (200) to (300);
                insert into later values (55, 255); commit;", 55);
        });
        assert_fits(&output.messages);
        let seen: Vec<i64> = output
            .records("public-event")
            .iter()
            .filter(|record| record["_sdc_deleted_at"].is_null())
            .filter_map(|record| record["id"].as_i64())
            .collect();
        assert!(!seen.contains(&50) && !seen.contains(&53), "{seen:?}");
        assert!([51, 52, 55].iter().all(|id| seen.contains(id)), "{seen:?}");
    }
}

fn leaves_in_another_schema(plugin: &str) {
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let sql = format!(
        "{} create schema \"far away\"; create table \"far away\".leaf partition of event for values from (200) to (300);",
        root()
    );
    for source in sources(plugin, &sql, &["event"]) {
        let first = source.tap().run();
        let output = follow(&source, "event", first.last_state(), |running| {
            running.after("insert into event values (3, 203);", 3);
            running.after("create table \"far away\".more partition of event for values from (300) to (400); insert into event values (4, 304);", 4);
            running.after("alter table \"far away\".leaf set schema public; update event set n = 4 where id = 3; insert into event values (5, 205);", 5);
        });
        assert_fits(&output.messages);
        assert_eq!(ids(&output), [3, 4, 3, 5]);
        assert_holds(&source.db, "event", &[&first.messages, &output.messages]);
    }
}

/// wal2json is told which schemas to send when it starts; a run can't go on where that is not enough.
fn a_leaf_in_a_schema_that_the_run_does_not_read(plugin: &str) {
    const NEW: &str =
        "create schema elsewhere; create table elsewhere.leaf partition of event for values from (200) to (300);";
    for source in sources(plugin, &root(), &["event"]) {
        let first = source.tap().run();
        let follow_on = |state: &Value| {
            let tap = source.tap().state(state).config("break_at_end_lsn", false);
            Following { running: tap.spawn(), db: &source.db, stream: "public-event".to_owned() }
        };
        let mut following = follow_on(first.last_state());
        following.after("insert into event values (3, 3);", 3);
        source.db.psql(&format!("{NEW} insert into event values (4, 204); insert into event values (5, 5);"));
        let second = if plugin == "wal2json" {
            let output = following.running.finish().expect_code(1);
            assert!(output.stderr.contains("elsewhere") && output.stderr.contains("run again"), "{}", output.stderr);
            output
        } else {
            following.after("insert into event values (6, 6);", 6);
            following.running.signal(rustix::process::Signal::TERM);
            following.running.finish().expect_code(143)
        };
        let third = source.run_after("insert into event values (7, 207);", second.last_state());
        assert_fits(&third.messages);
        assert_holds(&source.db, "event", &[&first.messages, &second.messages, &third.messages]);
        // Of a run that begins later, all is read.
        source.db.psql("create schema third; create table third.leaf partition of event for values from (300) to (400); insert into event values (8, 308);");
        let fourth = source.run(third.last_state());
        assert_eq!(ids(&fourth), [8]);
    }
}

/// The table is described anew because of one leaf, while the log has older rows of another.
fn leaves_do_not_mix_up_their_columns(plugin: &str) {
    let mut sources = sources(plugin, &root(), &["event"]);
    if plugin == "pgoutput" && release() >= 15 {
        let db = TestDb::on(&Cluster::shared(), "log_leaves");
        db.psql(&root());
        // The first leaf never shows all of its columns.
        db.publication("for table event_1 (id, at, n), event_2");
        let slot = db.slot(plugin);
        sources.push(Source::of(db, slot, &["event"]));
    }
    for source in sources {
        let first = source.tap().run();
        let output = follow(&source, "event", first.last_state(), |running| {
            running.after("insert into event values (4, 104, 'd', 4);", 4);
            // It goes on when the table has changed behind what it reads.
            running.running.signal(rustix::process::Signal::STOP);
            source.db.psql(
                "insert into event values (5, 5, 'e', 5); insert into event values (6, 106, 'f', 6); update event set n = 60 where id = 6;
                 update event set n = 50 where id = 5; alter table event add first text; alter table event drop column note;
                 insert into event (id, at, n) values (7, 107, 7);",
            );
            running.running.signal(rustix::process::Signal::CONT);
            running.after("insert into event (id, at, n) values (8, 8, 8);", 8);
        });
        assert_fits(&output.messages);
        assert_eq!(ids(&output), [4, 5, 6, 6, 5, 7, 8]);
        assert_eq!(numbers(&output, "event", "n"), [4, 5, 6, 60, 50, 7, 8]);
    }
}

/// A leaf that is a stream of its own, where the log names leaves.
fn a_leaf_beside_its_root(plugin: &str) {
    let source = Source::new(plugin, &root(), &["event", "event_1"]);
    let first = source.tap().run();
    let output = follow(&source, "event", first.last_state(), |running| {
        running.after("insert into event values (3, 3, 'c', 3);", 3);
        running.after("alter table event add more text default 'm'; insert into event values (4, 4, 'd', 4, 'x'); insert into event values (5, 105);", 5);
        running.after("alter table event detach partition event_1; insert into event_1 values (6, 6); insert into event values (7, 107);", 7);
        running.after("alter table event attach partition event_1 for values from (0) to (100); insert into event_1 values (8, 8);", 8);
    });
    assert_fits(&output.messages);
    assert_eq!(numbers(&output, "event_1", "id"), [3, 4, 6, 8]);
    let mut seen = ids(&output);
    seen.retain(|id| *id != 6);
    assert_eq!(seen, [3, 4, 5, 7, 8]);
    assert_eq!(output.records("public-event_1")[1]["more"], "x");
}
