//! What happens to a table between the snapshot of its copy and the copy itself, or before the snapshot to its publication.

use serde_json::{Value, json};

use super::{Source, column, lsn, numbers, select, with_both_plugins};
use crate::harness::{Cluster, Stalled, Tap, TestDb, needs};

with_both_plugins!(tables_rewritten_after_the_snapshot, a_table_rewritten_again_and_again);

/// `a_large` is copied first, and slowly while nobody reads.
const TABLES: &str = "create table a_large (id integer primary key, filler text);
    insert into a_large select i, repeat('x', 500) from generate_series(1, 20000) i;
    create table retyped (id integer primary key, note integer); insert into retyped select i, i from generate_series(1, 5) i;
    create table emptied (id integer primary key); insert into emptied values (1), (2);
    create table root (id integer) partition by range (id);
    create table leaf partition of root (primary key (id)) for values from (0) to (100); insert into root values (1), (2);";

/// A tap that stands still in the copy of the large table, its snapshot taken.
#[track_caller]
fn stalled(source: &Source) -> Stalled {
    let stalled = source.tap().stall();
    source.db.wait_until(
        "exists (select from pg_stat_activity where datname = current_database() and query like 'COPY%a_large%'
            and state = 'active' and wait_event = 'ClientWrite')",
    );
    stalled
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort_unstable();
    numbers
}

fn tables_rewritten_after_the_snapshot(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["a_large", "retyped", "emptied", "root"]);
    let stalled = stalled(&source);
    source.db.psql(
        "alter table retyped alter note type text using 'n' || note;
         truncate emptied; insert into emptied values (3), (4); truncate leaf; insert into root values (5);",
    );
    let first = stalled.finish().expect_code(0);
    assert_eq!(first.records("public-a_large").len(), 20_000);
    assert_eq!(column(&first, "retyped", "note"), ["n1", "n2", "n3", "n4", "n5"]);
    let schema = &first.schemas("public-retyped")[0].schema["properties"]["note"]["type"];
    assert_eq!(schema, &json!(["string", "null"]), "the SCHEMA of the table as it is copied");
    assert_eq!(numbers(&first, "emptied", "id"), [3, 4]);
    assert_eq!(numbers(&first, "root", "id"), [5]);
    let second = source.run_after(
        "insert into retyped values (6, 'six'); insert into emptied values (6); insert into root values (6);",
        first.last_state(),
    );
    for table in ["retyped", "emptied", "root"] {
        assert_eq!(numbers(&second, table, "id"), [6], "{table}");
    }
}

/// Whatever the copy sees of such a table, the log has the rest of it, and no row comes twice.
fn a_table_rewritten_again_and_again(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["a_large", "emptied"]);
    for round in 0..2 {
        let stalled = stalled(&source);
        source.db.psql(&format!(
            "begin; truncate emptied; insert into emptied values ({round}); commit;
             vacuum full emptied; insert into emptied values ({});",
            round + 10
        ));
        let output = stalled.finish().expect_code(0);
        let state: &Value = output.last_state();
        let mut told = numbers(&output, "emptied", "id");
        // A row that came after the snapshot comes in the next run.
        told.extend(numbers(&source.run(state), "emptied", "id"));
        assert_eq!(sorted(told), [round, round + 10]);
    }
}

/// A writer that is older than a table's membership in the publication: its first row is not published, and no snapshot
/// of this moment sees it. A new slot would wait for it, but there is none to spare.
#[test]
fn a_table_just_published_without_a_spare_slot() {
    let cluster = Cluster::start("max_replication_slots = 1");
    for published in ["table other", "tables in schema public"] {
        let db = TestDb::on(&cluster, "log_published");
        db.psql("create table item (id integer primary key); create table other (id integer primary key);");
        if published != "table other" && !needs(15, "a publication of schemas") {
            continue;
        }
        let publication = db.publication("for table item");
        let slot = db.slot("pgoutput");
        let catalog = select(Tap::new(&db).discover(), &["item"]);
        let state = Tap::new(&db).catalog(&catalog).run().last_state().clone();

        let mut writer = db.session();
        writer.run("begin; insert into other values (1);");
        db.psql(&format!("alter publication {publication} add {published}"));
        let catalog = select(catalog, &["other"]);
        let tap = || Tap::new(&db).catalog(&catalog).state(&state);
        let before = db.confirmed_flush(&slot);
        let failed = tap().run_failing(1);
        assert!(failed.stderr.contains("publication") && failed.stderr.contains("run again"), "{}", failed.stderr);
        assert_eq!(failed.record_messages().count(), 0);
        assert!((before..=lsn(&state, "item")).contains(&db.confirmed_flush(&slot)));

        writer.run("insert into other values (2); commit;");
        let first = tap().run();
        assert_eq!(sorted(numbers(&first, "other", "id")), [1, 2], "{published}");
        // A writer that is younger than the membership is no obstacle.
        let mut writer = db.session();
        writer.run("begin; insert into other values (3);");
        let first = tap().run();
        assert_eq!(sorted(numbers(&first, "other", "id")), [1, 2]);
        writer.run("commit;");
        let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
        assert_eq!(numbers(&second, "other", "id"), [3]);
    }
}
