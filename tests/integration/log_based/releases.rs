//! What only some releases of PostgreSQL have, or lack.

use serde_json::{Value, json};

use super::{Source, column, numbers, select};
use crate::harness::{Cluster, Tap, TestDb, needs, release, until_within};

const GENERATED: &str = "create table item (id integer primary key, n integer,
        stored integer generated always as (n * 2) stored, made integer generated always as (n * 3) virtual);
    insert into item (id, n) values (1, 1);";

/// The log has no virtual column, and a stored one where the publication says so: neither is ever told as null.
#[test]
fn generated_columns_as_they_are_published() {
    if !needs(18, "a published generated column") {
        return;
    }
    for (published, names) in [
        ("for table item", &["id", "n"][..]),
        ("for all tables with (publish_generated_columns = stored)", &["id", "n", "stored"]),
        ("for table item with (publish_generated_columns = none)", &["id", "n"]),
        ("for table item (id, n, stored)", &["id", "n", "stored"]),
    ] {
        let db = TestDb::new("log_generated");
        db.psql(GENERATED);
        db.publication(published);
        let slot = db.slot("pgoutput");
        let source = Source::of(db, slot, &["item"]);
        let first = source.tap().run();
        let second = source.run_after(
            "insert into item (id, n) values (2, 2); update item set n = 5 where id = 1",
            first.last_state(),
        );
        for output in [&first, &second] {
            for record in output.records("public-item") {
                let held: Vec<&str> =
                    record.keys().map(String::as_str).filter(|name| !name.starts_with("_sdc")).collect();
                assert_eq!(held, names, "{published}");
                assert!(record.get("stored").is_none_or(|twice| *twice == json!(2 * record["n"].as_i64().expect("n"))));
            }
            let schema = &output.schemas("public-item")[0].schema["properties"];
            assert_eq!((schema.get("made"), schema.get("stored").is_some()), (None, names.contains(&"stored")));
            let warned = output.stderr.lines().any(|line| line.contains("level=WARNING") && line.contains("made"));
            assert!(warned, "{published}: {}", output.stderr);
        }
        assert_eq!(numbers(&second, "item", "id"), [2, 1]);
    }
    // A copy of itself has them all.
    let db = TestDb::new("full_generated");
    db.psql(GENERATED);
    let output = Tap::new(&db).catalog(&Tap::new(&db).discover().select("public-item", "FULL_TABLE")).run();
    assert_eq!(Value::from(output.records("public-item")[0].clone()), json!({"id": 1, "n": 1, "stored": 2, "made": 3}));
}

/// The server gave the slot up for its age, not for its size.
#[test]
fn a_slot_that_nobody_read_for_too_long() {
    if !needs(18, "idle_replication_slot_timeout") {
        return;
    }
    let cluster = Cluster::start("idle_replication_slot_timeout = '1s'");
    let source = Source::on(&cluster, "pgoutput", "create table item (id integer primary key);", &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (1)");
    let lost = "select invalidation_reason = 'idle_timeout' from pg_replication_slots";
    until_within(std::time::Duration::from_secs(60), "the slot is given up", || {
        source.db.query_one(&format!("checkpoint; select coalesce(({lost}), false)")) == "t"
    });
    let failed = source.tap().state(&state).run_failing(1);
    for text in [source.slot.as_str(), "idle_timeout", "on_slot_lost"] {
        assert!(failed.stderr.contains(text), "{text:?} is not in {}", failed.stderr);
    }
    let output = source.tap().state(&state).config("on_slot_lost", "copy_again").run();
    assert_eq!(numbers(&output, "item", "id"), [1]);
}

const KEYED_LEAVES: &str = "create table event (id integer, at date) partition by range (at);
    create table event_2024 partition of event (primary key (id)) for values from ('2024-01-01') to ('2025-01-01');
    insert into event values (1, '2024-05-05');";

/// Before 13 no publication takes a partitioned table: the tap publishes its leaves, and those that come later, whose rows
/// of the time between only a copy can bring. It is the leaves' keys that identify the rows; before 11 a root can't have one.
#[test]
fn leaves_are_published_where_a_root_is_not() {
    if release() >= 13 {
        return;
    }
    let db = TestDb::new("log_leaves");
    db.psql(KEYED_LEAVES);
    let catalog = select(Tap::new(&db).discover(), &["event"]);
    let tap = |state: &Value| Tap::new(&db).catalog(&catalog).state(state).config("create_replication_slot", true);
    let first = tap(&json!({})).run();
    db.psql("insert into event values (2, '2024-06-06'); update event set at = '2024-07-07' where id = 1;");
    let second = tap(first.last_state()).run();
    assert_eq!(column(&second, "event", "at"), ["2024-06-06T00:00:00+00:00", "2024-07-07T00:00:00+00:00"]);

    db.psql(
        "create table event_2025 partition of event (primary key (id)) for values from ('2025-01-01') to ('2026-01-01');
         insert into event values (3, '2025-05-05');",
    );
    let third = tap(second.last_state()).run();
    let mut told = numbers(&third, "event", "id");
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3]);
    db.psql("insert into event values (4, '2025-06-06'); delete from event where id = 3;");
    let fourth = tap(third.last_state()).run();
    assert_eq!(numbers(&fourth, "event", "id"), [4, 3]);
    assert!(fourth.records("public-event")[1]["_sdc_deleted_at"].is_string());
}

/// Published under the name of a root without a key, an old row is not told apart: no record, rather than an empty one.
#[test]
fn a_root_without_a_key_has_no_empty_deletes() {
    if !needs(13, "publish_via_partition_root") {
        return;
    }
    let db = TestDb::new("log_rootless");
    db.psql(KEYED_LEAVES);
    db.publication("for all tables with (publish_via_partition_root = true)");
    let slot = db.slot("pgoutput");
    let source = Source::of(db, slot, &["event"]);
    let first = source.tap().run();
    assert_eq!(first.logged("partitions without a replica identity"), 1, "{}", first.stderr);
    let second = source
        .run_after("insert into event values (2, '2024-06-06'); delete from event where id = 1;", first.last_state());
    assert_eq!(numbers(&second, "event", "id"), [2]);
}
