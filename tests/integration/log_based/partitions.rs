//! A partitioned table is read through its root, however its leaves come and go.

use super::{Source, column, numbers, with_both_plugins};
use crate::harness::{Cluster, Output, TestDb, needs, release};

with_both_plugins!(
    changes_of_leaves_are_the_roots,
    a_leaf_attached_between_runs,
    a_leaf_selected_by_itself,
    a_row_that_moves_to_another_leaf,
    leaves_in_levels_and_with_other_columns,
);

const ROOT: &str = "create table event (id integer, at date, note text, primary key (id, at)) partition by range (at);
    create table event_2024 partition of event for values from ('2024-01-01') to ('2025-01-01');
    create table event_2025 partition of event for values from ('2025-01-01') to ('2026-01-01');
    insert into event values (1, '2024-05-05', 'a'), (2, '2025-05-05', 'b');";

/// The same where a partitioned table can have no key, but its leaves can.
const BEFORE_11: &str = "create table event (id integer, at date, note text) partition by range (at);
    create table event_2024 partition of event (primary key (id, at)) for values from ('2024-01-01') to ('2025-01-01');
    create table event_2025 partition of event (primary key (id, at)) for values from ('2025-01-01') to ('2026-01-01');
    insert into event values (1, '2024-05-05', 'a'), (2, '2025-05-05', 'b');";

fn root() -> &'static str {
    if release() < 11 { BEFORE_11 } else { ROOT }
}

fn ids(output: &Output) -> Vec<i64> {
    numbers(output, "event", "id")
}

/// With every way to publish a partitioned table.
fn sources(plugin: &str, sql: &str, streams: &[&str]) -> Vec<Source> {
    if plugin != "pgoutput" {
        return vec![Source::new(plugin, sql, streams)];
    }
    // Before 13 it is leaves that are published, and one attached later would be missing in a list of them.
    let ways: &[&str] = match release() {
        ..13 => &["for all tables"],
        _ => &[
            "for all tables",
            "for all tables with (publish_via_partition_root = true)",
            "for table event",
            "for table event with (publish_via_partition_root = true)",
        ],
    };
    let source = |way: &&str| {
        let db = TestDb::on(&Cluster::shared(), "log_partitions");
        db.psql(sql);
        db.publication(way);
        let slot = db.slot(plugin);
        Source::of(db, slot, streams)
    };
    ways.iter().map(source).collect()
}

fn changes_of_leaves_are_the_roots(plugin: &str) {
    for source in sources(plugin, root(), &["event"]) {
        let first = source.tap().run();
        let mut copied = ids(&first);
        copied.sort_unstable();
        assert_eq!(copied, [1, 2]);
        let output = source.run_after(
            "insert into event values (3, '2024-06-06', 'c'), (4, '2025-06-06', 'd');
             insert into event_2024 values (5, '2024-07-07', 'e');
             update event set note = 'x' where id = 4;
             delete from event where id = 3;
             update event_2025 set id = 6 where id = 4;",
            first.last_state(),
        );
        let told: Vec<(i64, bool)> = ids(&output)
            .into_iter()
            .zip(column(&output, "event", "_sdc_deleted_at"))
            .map(|(id, deleted)| (id, deleted.is_string()))
            .collect();
        // Without a key there is no old row that the target could delete.
        let moved = [(4, true)].into_iter().filter(|_| release() >= 11);
        let expected = [(3, false), (4, false), (5, false), (4, false), (3, true)].into_iter();
        assert_eq!(told, expected.chain(moved).chain([(6, false)]).collect::<Vec<_>>());
        assert!(output.record_messages().all(|record| record.stream == "public-event"));
        assert_eq!(source.run(output.last_state()).record_messages().count(), 0);
    }
}

fn a_leaf_attached_between_runs(plugin: &str) {
    for source in sources(plugin, root(), &["event"]) {
        let first = source.tap().run();
        let output = source.run_after(
            "create table event_2026 partition of event for values from ('2026-01-01') to ('2027-01-01');
             insert into event values (3, '2026-06-06', 'c');",
            first.last_state(),
        );
        assert_eq!(ids(&output), [3]);
        let output = source.run_after(
            "create table event_2027 (note text, gone integer, at date not null, id integer not null);
             alter table event_2027 drop column gone;
             alter table event attach partition event_2027 for values from ('2027-01-01') to ('2028-01-01');
             insert into event values (4, '2027-06-06', 'd');
             alter table event detach partition event_2024;
             insert into event values (5, '2025-02-02', 'e');",
            output.last_state(),
        );
        assert_eq!(ids(&output), [4, 5]);
        assert_eq!(column(&output, "event", "note"), ["d", "e"]);
    }
}

/// A leaf under its own name, beside the root or alone, where the log names leaves.
fn a_leaf_selected_by_itself(plugin: &str) {
    let source = Source::new(plugin, root(), &["event_2024"]);
    let output =
        source.run_after("insert into event values (3, '2024-06-06', 'c'), (4, '2025-06-06', 'd');", &source.copied());
    assert_eq!(numbers(&output, "event_2024", "id"), [3]);
    assert_eq!(output.record_messages().count(), 1);
}

fn a_row_that_moves_to_another_leaf(plugin: &str) {
    if !needs(11, "an update that moves a row to another partition") {
        return;
    }
    for source in sources(plugin, root(), &["event"]) {
        let output =
            source.run_after("update event set at = '2025-03-03', note = 'moved' where id = 1", &source.copied());
        assert_eq!(ids(&output), [1, 1]);
        let records = output.records("public-event");
        assert!(records[0]["_sdc_deleted_at"].is_string());
        assert_eq!(records[1]["note"], "moved");
    }
}

fn leaves_in_levels_and_with_other_columns(plugin: &str) {
    if !needs(11, "a default partition") {
        return;
    }
    let sql = format!(
        "{}
         create table event_2026 (note text, dropped integer, at date not null, id integer not null) partition by list (id);
         alter table event_2026 drop column dropped;
         create table event_2026_odd partition of event_2026 for values in (1, 3, 5);
         create table event_2026_rest partition of event_2026 default;
         alter table event attach partition event_2026 for values from ('2026-01-01') to ('2027-01-01');",
        root()
    );
    for source in sources(plugin, &sql, &["event"]) {
        let output = source.run_after(
            "insert into event values (3, '2026-06-06', 'c'), (4, '2026-06-06', 'd');
             update event set note = note || '!' where at > '2026-01-01';",
            &source.copied(),
        );
        assert_eq!(ids(&output), [3, 4, 3, 4]);
        assert_eq!(column(&output, "event", "note"), ["c", "d", "c!", "d!"]);
        assert_eq!(output.records("public-event")[0]["at"], "2026-06-06T00:00:00+00:00");
    }
}
