//! `create_replication_slot`: the tap sets up what it reads from.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{column, numbers, select, with_both_plugins};
use crate::harness::{Tap, TestDb};

with_both_plugins!(
    slot_and_publication_are_made,
    a_table_added_later_is_copied,
    a_table_that_gets_an_identity,
    what_is_there_is_left_alone,
    odd_names_in_a_publication,
    leaves_without_an_identity,
);

const TABLES: &str = "create table item (id integer primary key, note text); create table plain (n integer);
    create table tracked (n integer); alter table tracked replica identity full;
    create table later (id integer primary key); create table untouched (n integer);
    insert into item values (1, 'a'); insert into plain values (1); insert into tracked values (1);
    insert into later values (1);";

struct Fresh {
    db: TestDb,
    plugin: &'static str,
}

impl Fresh {
    fn new(plugin: &str) -> Fresh {
        let db = TestDb::new("log_create");
        db.psql(TABLES);
        Fresh { db, plugin: if plugin == "pgoutput" { "pgoutput" } else { "wal2json" } }
    }

    fn tap(&self, tables: &[&str], state: &Value) -> Tap {
        let catalog = select(Tap::new(&self.db).discover(), tables);
        let tap = Tap::new(&self.db).catalog(&catalog).state(state);
        tap.config("create_replication_slot", true).config("output_plugin", self.plugin)
    }

    fn published(&self, publication: &str) -> BTreeSet<String> {
        let sql = format!("select tablename from pg_publication_tables where pubname = '{publication}'");
        self.db.query(&sql).into_iter().map(|row| row[0].clone().expect("a name")).collect()
    }
}

fn slot_and_publication_are_made(plugin: &str) {
    let fresh = Fresh::new(plugin);
    let (db, slot) = (&fresh.db, fresh.db.slot_name());
    let tables = ["item", "plain", "tracked"];
    let first = fresh.tap(&tables, &json!({})).run();
    assert_eq!(first.record_messages().count(), 3);
    let made =
        db.query(&format!("select plugin, temporary::text from pg_replication_slots where slot_name = '{slot}'"));
    assert_eq!(made, [[Some(plugin.to_owned()), Some("false".to_owned())]]);
    if plugin == "pgoutput" {
        assert_eq!(fresh.published(&slot), ["item", "tracked"].map(str::to_owned).into());
        assert_eq!(fresh.published(&format!("{slot}_inserts")), ["plain".to_owned()].into());
        let inserts = "select pubinsert, pubupdate, pubdelete, coalesce((to_jsonb(p) ->> 'pubtruncate')::bool, true)
            from pg_publication p where pubname like '%_inserts' and pubname like '%' || current_database() || '%'";
        assert_eq!(db.query(inserts)[0].iter().flatten().collect::<Vec<_>>(), ["t", "f", "f", "t"]);
        assert_eq!(db.query_one("select count(*) from pg_publication where puballtables"), "0");
    } else {
        assert_eq!(db.query_one("select count(*) from pg_publication"), "0");
    }
    // The application can go on to update a table without an identity, selected or not.
    db.psql(
        "update plain set n = 2; delete from untouched; update item set note = 'b'; insert into plain values (3);
        delete from tracked; delete from plain;",
    );
    let second = fresh.tap(&tables, first.last_state()).run();
    assert_eq!(column(&second, "item", "note"), ["b"]);
    assert_eq!(numbers(&second, "plain", "n"), [3], "the only change of a table without identity that the log tells");
    assert_eq!(numbers(&second, "tracked", "n"), [1]);
    assert_eq!(fresh.tap(&tables, second.last_state()).run().record_messages().count(), 0);
}

fn a_table_added_later_is_copied(plugin: &str) {
    let fresh = Fresh::new(plugin);
    let first = fresh.tap(&["item"], &json!({})).run();
    fresh.db.psql("insert into later values (2); insert into item values (2, 'x'); insert into plain values (2);");
    let tables = ["item", "later", "plain"];
    let second = fresh.tap(&tables, first.last_state()).run();
    assert_eq!(numbers(&second, "later", "id"), [1, 2]);
    assert_eq!(numbers(&second, "plain", "n"), [1, 2]);
    assert_eq!(numbers(&second, "item", "id"), [2]);
    fresh.db.psql("insert into later values (3); insert into plain values (3);");
    let third = fresh.tap(&tables, second.last_state()).run();
    assert_eq!(numbers(&third, "later", "id"), [3]);
    assert_eq!(numbers(&third, "plain", "n"), [3]);
    if plugin == "pgoutput" {
        assert_eq!(fresh.published(&fresh.db.slot_name()), ["item", "later"].map(str::to_owned).into());
    }
}

fn a_table_that_gets_an_identity(plugin: &str) {
    let fresh = Fresh::new(plugin);
    let first = fresh.tap(&["plain"], &json!({})).run();
    fresh.db.psql("alter table plain replica identity full; insert into plain values (2);");
    let second = fresh.tap(&["plain"], first.last_state()).run();
    fresh.db.psql("update plain set n = 20 where n = 2; delete from plain where n = 1;");
    let third = fresh.tap(&["plain"], second.last_state()).run();
    if plugin == "wal2json" {
        assert_eq!(numbers(&third, "plain", "n"), [20, 1]);
    } else {
        // It stays in the publication of inserts, which a user has to know.
        let warned = second.stderr.lines().any(|line| {
            line.contains("WARNING") && line.contains("public-plain") && line.contains("update and delete")
        });
        assert!(warned, "{}", second.stderr);
    }
}

/// A slot can't see a publication that is younger than what it has still to decode.
#[test]
fn a_publication_that_would_come_too_late() {
    let fresh = Fresh::new("pgoutput");
    fresh.db.publication("for table item");
    let slot = fresh.db.slot("pgoutput");
    let first = fresh.tap(&["item"], &json!({})).run();
    fresh.db.psql("insert into item values (2, 'b')");
    let failed = fresh.tap(&["item", "plain"], first.last_state()).run_failing(1);
    assert!(failed.stderr.contains(&format!("{slot}_inserts")), "{}", failed.stderr);
    assert_eq!((numbers(&failed, "item", "id"), failed.records("public-plain").len()), (vec![2], 0));
    // Nothing was made that would stop the slot for good; a table with an identity needs nothing new.
    let next = fresh.tap(&["item", "later"], first.last_state()).run();
    assert_eq!((numbers(&next, "item", "id"), numbers(&next, "later", "id")), (vec![2], vec![1]));
}

/// A slot and a publication that are there are used as they are.
fn what_is_there_is_left_alone(plugin: &str) {
    let fresh = Fresh::new(plugin);
    fresh.db.replicate(plugin);
    let before = fresh.db.confirmed_flush(&fresh.db.slot_name());
    let other = if plugin == "pgoutput" { "wal2json" } else { "pgoutput" };
    let first = fresh.tap(&["item"], &json!({})).config("output_plugin", other).run();
    assert_eq!(fresh.db.confirmed_flush(&fresh.db.slot_name()), before);
    fresh.db.psql("insert into item values (2, 'b')");
    let second = fresh.tap(&["item"], first.last_state()).config("output_plugin", other).run();
    assert_eq!(numbers(&second, "item", "id"), [2]);
    let publications = if plugin == "pgoutput" { "1" } else { "0" };
    assert_eq!(fresh.db.query_one("select count(*) from pg_publication"), publications);
}

fn odd_names_in_a_publication(plugin: &str) {
    let fresh = Fresh::new(plugin);
    fresh.db.psql(r#"create table "a, ""b'c" ("I d" integer primary key);"#);
    let table = "a, \"b'c";
    let tap = |state: &Value| fresh.tap(&[table], state).config("publication_name", "An odd, \"name\" it's");
    let first = tap(&json!({})).run();
    fresh.db.psql(r#"insert into "a, ""b'c" values (5);"#);
    assert_eq!(numbers(&tap(first.last_state()).run(), table, "I d"), [5]);
}

/// The identity of a root is not that of its leaves, which is the one that lets the application update them.
fn leaves_without_an_identity(plugin: &str) {
    let fresh = Fresh::new(plugin);
    fresh.db.psql(
        "create table event (id integer, at date) partition by range (at); alter table event replica identity full;
         create table event_1 partition of event for values from ('2024-01-01') to ('2025-01-01');
         insert into event values (1, '2024-02-02');",
    );
    let first = fresh.tap(&["event"], &json!({})).run();
    fresh
        .db
        .psql("update event set id = 2; insert into event values (3, '2024-03-03'); delete from event where id = 2;");
    let second = fresh.tap(&["event"], first.last_state()).run();
    // wal2json has the new row of an update all the same, and leaves out what it can't identify.
    let ids = numbers(&second, "event", "id");
    assert!(ids == [3] || plugin == "wal2json" && ids == [2, 3], "{ids:?}");
    assert_eq!(second.logged("partitions without a replica identity"), 1);
}
