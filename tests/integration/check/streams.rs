//! Tables, their identities and large values, and replication keys.

use super::{ITEM, check, line, lines, mended, tap};
use crate::harness::{Tap, TestDb, release};
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(identities, large_values);

fn identities(plugin: &str) {
    let tables =
        "create table plain (n integer); create table item (id integer primary key, other integer not null unique);
        alter table item replica identity using index item_other_key;";
    let source = Source::new(plugin, tables, &["plain", "item"]);
    let tap = tap(&source.db, &[("plain", "LOG_BASED"), ("item", "LOG_BASED")]);
    mended(&source.db, &tap, "warning", &["public-plain", "no replica identity"]);
    mended(&source.db, &tap, "warning", &["public-item", "not all of the key columns"]);
    let output = check(&tap);
    line(&output, "ok", &["public-plain", "the replica identity is the whole row"]);
    line(&output, "ok", &["public-item", "the replica identity is id"]);
}

/// What becomes of a value that an update leaves alone, with each identity and setting.
fn large_values(plugin: &str) {
    let tables = "create table plain (id integer not null unique, note text, n integer);
        alter table plain replica identity using index plain_id_key;";
    let source = Source::new(plugin, &format!("{ITEM}{tables}"), &["item", "plain"]);
    let tap = || tap(&source.db, &[("plain", "LOG_BASED"), ("item", "LOG_BASED")]);
    line(&check(&tap()), "ok", &["public-item", "large values of note", "by key"]);
    mended(&source.db, &tap(), "warning", &["public-plain", "large values of note that", "no key"]);
    line(&check(&tap()), "ok", &["public-plain", "large values of note", "with the old row"]);
    let omit = tap().config("unchanged_toast", "omit");
    mended(&source.db, &omit, "warning", &["public-item", "large values of note", "unchanged_toast to fetch"]);
    // Of a column that is not read there is nothing to say.
    let catalog =
        Tap::new(&source.db).discover().select("public-item", "LOG_BASED").column("public-item", "note", false);
    let output = check(&Tap::new(&source.db).catalog(&catalog).arg("--test"));
    assert_eq!(lines(&output, "ok", &["large values"]).len(), 0, "{}", output.stderr);
}

#[test]
fn replication_keys() {
    let db = TestDb::new("check_keys");
    db.psql("create table item (id integer primary key, at timestamp, tags text[]); create view shown as select * from item;");
    let catalog = || Tap::new(&db).discover();
    let tap = |catalog| Tap::new(&db).catalog(&catalog).arg("--test");
    for (catalog, texts) in [
        (catalog().select("public-item", "INCREMENTAL"), &["public-item", "no replication key"][..]),
        (catalog().select_incremental("public-item", "gone"), &["public-item", "\"gone\""]),
        (catalog().select_incremental("public-item", "tags"), &["public-item", "can't be replicated by \"tags\""]),
        (catalog().select("public-shown", "LOG_BASED"), &["public-shown", "can't be LOG_BASED", "a view"]),
    ] {
        line(&check(&tap(catalog)).expect_code(1), "failure", texts);
    }
    for stream in ["public-item", "public-shown"] {
        let output = check(&tap(catalog().select_incremental(stream, "at"))).expect_code(0);
        line(&output, "ok", &[stream, "the replication key is at"]);
    }
    // All that is wrong is told at once.
    let many = catalog().select("public-item", "INCREMENTAL").select("public-shown", "LOG_BASED");
    assert_eq!(lines(&check(&tap(many)), "failure", &[]).len(), 2);
}

/// A large table wants an index that begins with the key: not one that only holds it, or only some rows.
#[test]
fn a_large_table_without_an_index() {
    let db = TestDb::new("check_index");
    db.psql(
        "create table item (id integer, at timestamp, filler char(2000)) partition by range (id);
         alter table item alter filler set storage plain;
         create table low partition of item for values from (0) to (9000);
         create table high partition of item for values from (9000) to (18000);
         create table alone (id integer, at timestamp, filler char(2000)); alter table alone alter filler set storage plain;
         create index on alone (id, at); create index on alone (at) where id > 5; create index on alone using hash (at);
         insert into alone select n, now(), '' from generate_series(1, 9000) n;
         insert into item select n, now(), '' from generate_series(1, 17000) n;",
    );
    let large = ["no index begins with the replication key at", "MB"];
    for (stream, concurrently) in [("public-alone", true), ("public-item", release() < 11)] {
        let catalog = Tap::new(&db).discover().select_incremental(stream, "at");
        let tap = Tap::new(&db).catalog(&catalog).arg("--test");
        if stream == "public-item" {
            // What one partition lacks is worth a word as well.
            db.psql("create index on low (at)");
        }
        let sql = mended(&db, &tap, "warning", &[&[stream][..], &large].concat());
        assert_eq!(sql.contains("CONCURRENTLY"), concurrently, "{sql}");
        line(&check(&tap).expect_code(0), "ok", &[stream, "the replication key is at"]);
    }
}

/// A stream whose rows can't be read fails by itself.
#[test]
fn a_view_that_fails() {
    let db = TestDb::new("check_view");
    db.psql(ITEM);
    db.psql("create view broken as select 1 / (id - 1) as n from item");
    let output = check(&tap(&db, &[("broken", "FULL_TABLE"), ("item", "FULL_TABLE")])).expect_code(1);
    line(&output, "failure", &["public-broken: cannot read a row", "division by zero"]);
    assert_eq!((output.records("public-item").len(), output.schemas("public-broken").len()), (1, 1));
}
