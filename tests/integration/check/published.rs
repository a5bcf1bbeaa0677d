//! What a publication sends of the streams.

use super::{ITEM, check, failure_mended, line, lines, mended, tap};
use crate::harness::{TestDb, needs, release};

const STREAM: [(&str, &str); 1] = [("item", "LOG_BASED")];

/// A slot can't see a publication that is younger: both are made anew.
#[test]
fn no_publication() {
    let db = TestDb::new("check_unpublished");
    db.psql(ITEM);
    db.slot("pgoutput");
    let sql = failure_mended(&db, &tap(&db, &STREAM), &["the publication", "the slot is there already"]);
    assert!(sql.find("pg_drop") < sql.find("CREATE PUBLICATION"), "{sql}");
    assert!(sql.find("CREATE PUBLICATION") < sql.find("pg_create_logical"), "{sql}");
}

#[test]
fn a_table_that_is_not_published() {
    let db = TestDb::new("check_added");
    db.psql(ITEM);
    db.psql("create table other (id integer primary key)");
    db.publication("for table item");
    db.slot("pgoutput");
    let tap = tap(&db, &[("item", "LOG_BASED"), ("other", "LOG_BASED")]);
    line(&check(&tap), "ok", &["public-item", "published"]);
    failure_mended(&db, &tap, &["does not publish the selected streams public-other", "create_replication_slot"]);
    line(&check(&tap), "ok", &["public-other", "published"]);
}

#[test]
fn operations() {
    let db = TestDb::new("check_operations");
    db.psql(ITEM);
    db.publication("for table item with (publish = 'insert')");
    db.slot("pgoutput");
    let sql = mended(&db, &tap(&db, &STREAM), "warning", &["public-item", "does not publish update and delete"]);
    assert_eq!(sql.contains("truncate"), release() >= 11, "{sql}");
}

/// A table without an identity gets one, and then a place in the publication of every operation.
#[test]
fn a_table_that_gets_an_identity() {
    let db = TestDb::new("check_moved");
    db.psql(ITEM);
    db.psql("create table plain (n integer)");
    let tap = tap(&db, &[("item", "LOG_BASED"), ("plain", "LOG_BASED")]);
    failure_mended(&db, &tap, &["does not exist"]);
    mended(&db, &tap, "warning", &["public-plain", "no replica identity"]);
    let sql = mended(&db, &tap, "warning", &["public-plain", "does not publish update and delete"]);
    assert!(sql.contains("DROP TABLE") && !sql.contains("SET"), "the others there must stay without updates: {sql}");
    db.psql("update plain set n = 1; delete from plain;");
}

#[test]
fn rows_and_columns() {
    if !needs(15, "a publication's column lists and row filters") {
        return;
    }
    let db = TestDb::new("check_lists");
    db.psql(ITEM);
    db.psql("create table other (id integer primary key, note text); create table third (id integer primary key, n integer);");
    let name = db.publication("for table item (id), other where (id > 5)");
    db.psql(&format!("create publication {name}_inserts for table third (n) with (publish = 'insert')"));
    db.slot("pgoutput");
    let tap = tap(&db, &[("item", "LOG_BASED"), ("other", "LOG_BASED"), ("third", "LOG_BASED")]);
    let output = check(&tap);
    assert!(output.records("public-item")[0].get("note").is_none(), "as a run leaves it out");
    mended(&db, &tap, "warning", &["public-item", "does not publish note", "column list"]);
    mended(&db, &tap, "warning", &["public-other", "row filter", "WHERE"]);
    // Records without a key can't be sent at all.
    failure_mended(&db, &tap, &["the key column \"id\" of \"public-third\""]);
    assert_eq!(check(&tap).records("public-item")[0]["note"], "a");
}

#[test]
fn generated_columns() {
    if !needs(12, "a generated column") {
        return;
    }
    let db = TestDb::new("check_generated");
    db.psql("create table item (id integer primary key, twice integer generated always as (id * 2) stored)");
    db.replicate("pgoutput");
    let texts = ["public-item", "does not publish twice"];
    if release() >= 18 {
        mended(&db, &tap(&db, &STREAM), "warning", &texts);
        // A column list is in the way first.
        let name = db.slot_name();
        db.psql(&format!("drop publication {name}; create publication {name} for table item (id);"));
        let tap = tap(&db, &STREAM);
        db.psql(super::sql(line(&check(&tap), "warning", &texts)));
        mended(&db, &tap, "warning", &texts);
    } else {
        let output = check(&tap(&db, &STREAM));
        let told = line(&output, "warning", &texts);
        // There is nothing to be done: this release takes none in a column list either.
        assert!(!told.contains("run: ") && !told.contains("column list") && told.contains("PostgreSQL 18"), "{told}");
    }
}

const PARTITIONED: &str = "create table item (id integer primary key, note text) partition by range (id);
    create table item_low partition of item for values from (0) to (10);
    create table item_high partition of item for values from (10) to (20);
    insert into item values (1, 'a'), (11, 'b');";

#[test]
fn partitions() {
    if !needs(13, "publish_via_partition_root") {
        return;
    }
    for published in ["for table item", "for all tables", "for table item_low, item_high"] {
        let db = TestDb::new("check_partitions");
        db.psql(PARTITIONED);
        db.publication(published);
        db.slot("pgoutput");
        let detached = ["public-item", "names of its partitions", "detached"];
        // Where one is selected by itself, it has to keep its name.
        let both = tap(&db, &[("item", "LOG_BASED"), ("item_low", "LOG_BASED")]);
        assert_eq!(lines(&check(&both).expect_code(0), "warning", &detached).len(), 0, "{published}");
        mended(&db, &tap(&db, &STREAM), "warning", &detached);
        line(&check(&both), "failure", &["public-item_low", "is a partition", "the name of its root"]);
    }
}

/// An identity is each partition's own.
#[test]
fn partitions_without_an_identity() {
    if !needs(13, "a publication of partitioned tables") {
        return;
    }
    let db = TestDb::new("check_leaves");
    db.psql(&PARTITIONED.replace(" primary key", ""));
    db.publication("for table item with (publish_via_partition_root = true)");
    db.slot("pgoutput");
    let sql = mended(&db, &tap(&db, &STREAM), "warning", &["public-item", "partitions without a replica identity"]);
    assert!(["item", "item_low", "item_high"].iter().all(|table| sql.contains(&format!("\"{table}\""))), "{sql}");
}
