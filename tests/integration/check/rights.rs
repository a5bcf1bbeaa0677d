//! What the role may do.

use super::{ITEM, bounded, check, failure_mended, line, lines, mended, tap};
use crate::harness::{Catalog, Cluster, Role, Tap, TestDb};
use crate::log_based::with_both_plugins;

with_both_plugins!(replication, the_role_of_the_documentation);

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

/// Without a catalog what the role may not read is told where it was asked for, and nothing is said of other schemas.
#[test]
fn tables_without_a_catalog() {
    let db = TestDb::new("check_unread");
    db.psql(ITEM);
    db.psql("create table \"Other\" (id integer primary key); create schema apart; create table apart.t (id integer);");
    let role = Role::new(&db, "");
    db.psql(&format!("grant select on item to {}", role.name));
    let tap = |options: &[&str]| {
        let tap = Tap::new(&db).config("user", role.name.as_str()).config("default_replication_method", "FULL_TABLE");
        options.iter().fold(tap.arg("--test"), |tap, option| tap.arg(*option))
    };
    assert!(lines(&check(&tap(&[])), "warning", &["may not read"]).is_empty());
    let filtered = tap(&[]).config("filter_schemas", "public");
    let asked = tap(&["--select", "*", "--deselect", "public-item.note"]);
    assert_eq!(lines(&check(&filtered), "warning", &["may not read"]).len(), 1);
    assert_eq!(lines(&check(&asked), "warning", &["may not read"]).len(), 2);
    let sql = mended(&db, &asked, "warning", &["apart-t", "may not read"]);
    assert!(sql.contains("GRANT USAGE ON SCHEMA \"apart\"") && sql.contains("GRANT SELECT"), "{sql}");
    mended(&db, &filtered, "warning", &["public-Other", "may not read"]);
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

/// The role that users are told to make is enough: nothing fails and nothing is to be warned of. What the server does not show
/// it is told with the right that would show it, and is not needed.
fn the_role_of_the_documentation(plugin: &str) {
    let cluster = bounded();
    for (page, rights) in [(include_str!("../../../README.md"), 3), (include_str!("../../../docs/log-based.md"), 5)] {
        let db = TestDb::on(&cluster, "check_documented");
        db.psql(
            "create schema sales; create table sales.orders (id integer primary key); insert into sales.orders values (1);",
        );
        db.replicate(plugin);
        let sql = page.split("```").find(|block| block.contains("CREATE ROLE tap")).expect("SQL that makes the role");
        let sql: Vec<&str> = sql.lines().filter(|line| line.contains(" tap")).collect();
        assert_eq!(sql.len(), rights, "{sql:?}");
        let role = Role::made(&db, |name| {
            sql.join("\n").replace(" tap", &format!(" {name}")).replace(" shop ", &format!(" {} ", db.name()))
        });
        let tap = || {
            let tap = Tap::new(&db).config("user", role.name.as_str());
            tap.catalog(&Tap::new(&db).discover().select("sales-orders", "LOG_BASED"))
        };
        let output = check(&tap().arg("--test")).expect_code(0);
        assert!(lines(&output, "warning", &[]).is_empty(), "{}", output.stderr);
        line(&output, "ok", &["the output plugin", plugin, "is installed"]);
        if let [hidden] = lines(&output, "ok", &["output_plugin_libraries is not shown"]).as_slice() {
            db.psql(super::sql(hidden));
            let output = check(&tap().arg("--test")).expect_code(0);
            assert!(lines(&output, "ok", &["output_plugin_libraries"]).is_empty(), "{}", output.stderr);
        }
        assert_eq!(tap().run().records("sales-orders").len(), 1);
    }
}
