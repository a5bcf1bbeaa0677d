//! What the role may do.

use super::{ITEM, check, failure_mended, line, lines, mended, tap};
use crate::harness::{Catalog, Cluster, Role, Tap, TestDb};
use crate::log_based::with_both_plugins;

with_both_plugins!(replication);

fn replication(plugin: &str) {
    let db = TestDb::new("check_replication");
    db.psql(ITEM);
    db.replicate(plugin);
    let role = Role::new(&db, "");
    let tap = tap(&db, &[("item", "LOG_BASED")]).config("user", role.name.as_str());
    // What it lacks is told at once, though no stream is left to read.
    line(&check(&tap), "failure", &["cannot connect", "ALTER ROLE"]);
    mended(&db, &tap, "failure", &["public-item", "may not read"]);
    failure_mended(&db, &tap, &["cannot connect", "ALTER ROLE", "rds_replication"]);
    line(&check(&tap), "ok", &["the role may replicate"]);
    db.psql(&format!("revoke select on item from {}", role.name));
    let output = check(&tap);
    assert_eq!(lines(&output, "failure", &[]), lines(&output, "failure", &["public-item", "may not read"]));
}

/// Each GRANT that is missing, of the schema and of the table; the streams that can be read are told too.
#[test]
fn tables() {
    let db = TestDb::new("check_tables");
    db.psql(ITEM);
    db.psql("create schema \"Apart\"; create table \"Apart\".\"A b\" (id integer primary key);");
    let catalog = Tap::new(&db).discover().select("public-item", "FULL_TABLE").select("Apart-A b", "FULL_TABLE");
    let role = Role::new(&db, "");
    db.psql(&format!("grant select on item to {}", role.name));
    let tap = Tap::new(&db).catalog(&catalog).config("user", role.name.as_str()).arg("--test");
    line(&check(&tap), "ok", &["public-item", "may read"]);
    let sql = failure_mended(&db, &tap, &["Apart-A b", "may not read"]);
    assert!(sql.contains("GRANT USAGE ON SCHEMA \"Apart\"") && sql.contains("GRANT SELECT"), "{sql}");
    db.psql(&format!("revoke select on \"Apart\".\"A b\" from {}", role.name));
    let sql = failure_mended(&db, &tap, &["Apart-A b", "may not read"]);
    assert!(!sql.contains("USAGE"), "{sql}");
    db.psql("drop table \"Apart\".\"A b\"");
    line(&check(&tap), "failure", &["Apart-A b", "no such table"]);
}

#[test]
fn columns_and_rows() {
    let db = TestDb::new("check_columns");
    db.psql(
        "create table item (id integer primary key, note text, \"O d\" text); insert into item values (1, 'a', 'b');",
    );
    let catalog = Tap::new(&db).discover().select("public-item", "FULL_TABLE");
    let role = Role::new(&db, "");
    db.psql(&format!("grant select (id) on item to {}", role.name));
    let tap = |catalog: &Catalog| Tap::new(&db).catalog(catalog).config("user", role.name.as_str()).arg("--test");
    let output = check(&tap(&catalog.clone().column("public-item", "note", false))).expect_code(0);
    assert!(!line(&output, "warning", &["public-item", "may not read O d"]).contains("note"), "nobody wants it");
    assert_eq!(output.records("public-item")[0].len(), 1);
    mended(&db, &tap(&catalog), "warning", &["may not read note, O d"]);
    db.psql("alter table item enable row level security");
    mended(&db, &tap(&catalog), "warning", &["public-item", "row-level security"]);
}

/// A run that has to make a publication needs to own the tables.
#[test]
fn publications() {
    let db = TestDb::on(&Cluster::start(""), "check_owner");
    db.psql(ITEM);
    db.psql("create table plain (n integer)");
    let role = Role::reader(&db, "replication");
    let tap = tap(&db, &[("item", "LOG_BASED"), ("plain", "LOG_BASED")])
        .config("user", role.name.as_str())
        .config("create_replication_slot", true);
    line(&check(&tap), "failure", &["can't set up the publication", "CREATE on the database"]);
    db.psql(&format!("grant create on database {} to {}", db.name(), role.name));
    failure_mended(&db, &tap, &["can't set up the publication", "not the owner", "as the owner of the tables"]);
    let ran = check(&tap);
    line(&ran, "ok", &["whether the output plugin pgoutput is installed", "superuser"]);
    line(&ran, "ok", &["public-item", "published"]);
    line(&ran, "ok", &["public-plain", "published"]);
    assert_eq!(lines(&ran, "ok", &["sets up"]).len(), 0);
}
