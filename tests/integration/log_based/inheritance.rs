//! A table that others inherit from: the log has each row under the table that holds it, and so has the copy.

use serde_json::json;

use super::{Source, column, numbers, select, with_both_plugins};
use crate::harness::{Cluster, Output, Tap, TestDb};

with_both_plugins!(each_row_under_its_own_table, the_parent_alone);

const TABLES: &str = "create table parent (id integer primary key, note text);
    create table child (extra text, primary key (id)) inherits (parent);
    insert into parent values (1, 'p'); insert into child values (2, 'c', 'x'), (3, 'c', 'y');";

const CHANGES: &str = "insert into parent values (4, 'p'); insert into child values (5, 'c', 'z');
    update parent set note = 'new' where id in (1, 2); delete from parent where id = 3;";

fn told(output: &Output, table: &str) -> Vec<i64> {
    numbers(output, table, "id")
}

/// With every way to publish a table that others inherit from; the last is the tap's own.
fn sources(plugin: &str, streams: &[&str]) -> Vec<Source> {
    let ways: &[Option<&str>] = match plugin {
        "pgoutput" => &[Some("for all tables"), Some("for table parent"), Some("for table only parent, child"), None],
        _ => &[Some("")],
    };
    let source = |way: &Option<&str>| {
        let db = TestDb::on(&Cluster::shared(), "log_inherits");
        db.psql(TABLES);
        match way {
            Some("") => {}
            Some(way) => drop(db.publication(way)),
            None => {
                let catalog = select(Tap::new(&db).discover(), streams);
                Tap::new(&db).catalog(&catalog).config("create_replication_slot", true).run();
                let published = "select string_agg(tablename, ',' order by tablename) from pg_publication_tables
                    where pubname like '%' || current_database() || '%'";
                let mut expected = streams.to_vec();
                expected.sort_unstable();
                assert_eq!(db.query_one(published), expected.join(","), "only what is selected");
                let slot = db.slot_name();
                return Source::of(db, slot, streams);
            }
        }
        let slot = db.slot(plugin);
        Source::of(db, slot, streams)
    };
    ways.iter().map(source).collect()
}

fn each_row_under_its_own_table(plugin: &str) {
    for source in sources(plugin, &["parent", "child"]) {
        let first = source.tap().run();
        assert_eq!((told(&first, "parent"), told(&first, "child")), (vec![1], vec![2, 3]));
        let second = source.run_after(CHANGES, first.last_state());
        assert_eq!((told(&second, "parent"), told(&second, "child")), (vec![4, 1], vec![5, 2, 3]));
        let child = second.records("public-child");
        assert_eq!((&child[0]["extra"], &child[1]["note"]), (&json!("z"), &json!("new")));
        assert!(child[2]["_sdc_deleted_at"].is_string());
        assert_eq!(column(&second, "parent", "note"), ["p", "new"]);
        assert_eq!(source.run(second.last_state()).record_messages().count(), 0);
    }
}

fn the_parent_alone(plugin: &str) {
    for source in sources(plugin, &["parent"]) {
        let first = source.tap().run();
        assert_eq!(told(&first, "parent"), [1]);
        let second = source.run_after(CHANGES, first.last_state());
        assert_eq!(told(&second, "parent"), [4, 1]);
        assert_eq!(second.record_messages().count(), 2);
    }
}

/// A SELECT of the parent has the rows of its children, as with the reference.
#[test]
fn other_methods_read_what_a_select_reads() {
    let db = TestDb::new("inherits");
    db.psql(TABLES);
    let catalog = Tap::new(&db).discover();
    for catalog in
        [catalog.clone().select("public-parent", "FULL_TABLE"), catalog.select_incremental("public-parent", "id")]
    {
        let mut ids = told(&Tap::new(&db).catalog(&catalog).run(), "parent");
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
    }
}
