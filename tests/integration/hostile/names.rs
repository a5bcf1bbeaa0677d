//! Names that try to break out of SQL, of everything that has one.

use serde_json::json;

use super::failed;
use crate::harness::{Output, Tap, TestDb, plugins};

/// Each would do harm to `witness` if it were put into SQL or an option as it is, or end what it stands in.
const NAMES: [&str; 10] = [
    r#"x"; drop table witness; --"#,
    "x'; drop table witness; --",
    r"x\'; drop table witness; --",
    "x'); drop table witness; --",
    "$$; drop table witness; $$",
    "x\ndrop table witness;\n\\! false",
    "*, witness",
    "%s{}:1 /*",
    // The longest there is, in characters of three bytes.
    "日本語日本語日本語日本語日本語日本語日本語",
    "select",
];

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(name: &str) -> String {
    format!(" E'{}'", name.replace('\\', r"\\").replace('\'', "''"))
}

/// Its witness, and for each name a schema, a table in it and the columns, all of the same name.
fn database(test: &str) -> TestDb {
    let db = TestDb::new(test);
    db.psql("create table witness (id integer primary key); insert into witness values (1)");
    for name in NAMES {
        let name = ident(name);
        db.psql(&format!(
            "create schema {name}; create table {name}.{name} (id integer, {name} text, primary key (id, {name}));
             insert into {name}.{name} values (1, 'first')"
        ));
    }
    db
}

#[track_caller]
fn assert_unharmed(db: &TestDb) {
    assert_eq!(db.query_one("select count(*) from witness"), "1");
}

#[test]
fn of_schemas_tables_columns_and_keys() {
    for plugin in plugins() {
        let db = database(&format!("hostile_names_{plugin}"));
        db.replicate(plugin);
        let discovered = Tap::new(&db).discover();
        let id = |name: &str| format!("{name}-{name}");
        let values = |output: &Output, name: &str| -> Vec<String> {
            let records = output.records(&id(name));
            records.iter().map(|record| record[name].as_str().expect("a text").to_owned()).collect()
        };
        for method in ["FULL_TABLE", "INCREMENTAL", "LOG_BASED"] {
            let mut catalog = discovered.clone();
            for name in NAMES {
                catalog = match method {
                    "INCREMENTAL" => catalog.select_incremental(&id(name), name),
                    _ => catalog.select(&id(name), method),
                };
            }
            let mut state = json!({});
            for (round, reader) in [(1, "bulk"), (2, "bulk"), (3, "stream")] {
                let output = Tap::new(&db).catalog(&catalog).state(&state).config("wal_reader", reader).run();
                for name in NAMES {
                    let told = values(&output, name);
                    match (method, round) {
                        ("FULL_TABLE", _) | (_, 1) => assert!(told.contains(&"first".to_owned()), "{method} {name}"),
                        _ => assert_eq!(told.last(), Some(&format!("row {round}")), "{method} {name}"),
                    }
                    let name = ident(name);
                    db.psql(&format!("insert into {name}.{name} values ({round}, 'row {}')", round + 1));
                }
                state = output.last_state().clone();
            }
            for name in NAMES {
                let name = ident(name);
                db.psql(&format!("truncate {name}.{name}; insert into {name}.{name} values (1, 'first')"));
            }
        }
        assert_unharmed(&db);
    }
}

#[test]
fn of_schemas_to_filter_by() {
    let db = database("hostile_filter");
    for name in NAMES {
        let catalog = Tap::new(&db).config("filter_schemas", json!([name])).discover();
        assert_eq!(catalog.ids(), [format!("{name}-{name}")]);
    }
    let none = Tap::new(&db).config("filter_schemas", json!(["public') or true --"])).arg("--discover");
    failed(none.output());
    assert_unharmed(&db);
}

#[test]
fn of_roles_databases_and_publications() {
    let db = database("hostile_roles");
    let pid = std::process::id();
    for (index, name) in NAMES.iter().enumerate().filter(|(_, name)| name.len() < 50) {
        let name = &format!("{name}{pid}");
        db.psql(&format!(
            "create role {0} login superuser; create database {0} template template0 encoding 'UTF8' owner {0};",
            ident(name)
        ));
        let own = TestDb::new("hostile_own");
        own.psql("create table t (id integer primary key); create table witness (id integer)");
        // A role, with the slot and the publication of the tap's own making.
        let slot = format!("hostile_{pid}_{index}");
        let tap = || {
            let tap = Tap::new(&own).config("user", name.as_str()).config("publication_name", name.as_str());
            tap.config("replication_slot_name", slot.as_str()).config("create_replication_slot", true)
        };
        let catalog = tap().discover().select("public-t", "LOG_BASED");
        let state = tap().catalog(&catalog).run().last_state().clone();
        own.psql("insert into t values (7)");
        for reader in ["bulk", "stream"] {
            let output = tap().catalog(&catalog).state(&state).config("wal_reader", reader).run();
            assert_eq!(output.records("public-t")[0]["id"], 7, "{name}");
        }
        assert_eq!(
            own.query_one(&format!("select count(*) from pg_publication where pubname = {}", literal(name))),
            "1"
        );
        // A database, which is empty.
        let empty = failed(Tap::new(&db).config("dbname", name.as_str()).arg("--discover").output());
        assert!(empty.stderr.lines().count() < 5, "{}", empty.stderr);
        drop(own);
        db.psql(&format!("drop database {0};", ident(name)));
    }
    assert_unharmed(&db);
}

/// Slots have plain names only; the server is never asked for another.
#[test]
fn of_slots() {
    let db = database("hostile_slots");
    db.replicate("pgoutput");
    let catalog = Tap::new(&db).discover().select("public-witness", "LOG_BASED");
    for name in NAMES {
        let tap = || Tap::new(&db).catalog(&catalog).config("replication_slot_name", name);
        for create in [false, true] {
            let output = tap().config("create_replication_slot", create).output();
            let plain = name == "select";
            assert!(matches!(output.status.code(), Some(1 | 2)) || plain && create, "{name:?}: {}", output.stderr);
        }
    }
    assert_unharmed(&db);
}

/// A zero byte ends a string of the protocol, so that what follows it would be something else.
#[test]
fn with_a_zero_byte() {
    let db = database("hostile_zero");
    for key in ["user", "dbname", "password", "host"] {
        let tap = Tap::new(&db).config(key, "postgres\0user\0postgres").arg("--discover");
        let output = tap.output();
        // Nobody asks for a password here.
        if key != "password" {
            assert!(matches!(output.status.code(), Some(1 | 2)), "{key}: {}", output.stderr);
            assert_eq!(output.logged("level=ERROR"), 1, "{}", output.stderr);
        }
    }
    let zero = json!({"bookmarks": {"public-witness": {"last_replication_method": "INCREMENTAL",
        "replication_key": "id", "replication_key_value": "1\0'; drop table witness", "version": 1}}});
    let catalog = Tap::new(&db).discover().select_incremental("public-witness", "id");
    failed(Tap::new(&db).catalog(&catalog).state(&zero).output());
    assert_unharmed(&db);
}

/// A catalog may name what is not there, or what would be SQL if it were taken as such.
#[test]
fn of_a_catalog_that_somebody_wrote() {
    let db = database("hostile_catalog");
    let catalog = Tap::new(&db).discover().select("public-witness", "FULL_TABLE");
    for name in NAMES {
        let replaced = |of: &str| {
            let mut value = catalog.as_value().clone();
            let entry = value["streams"].as_array_mut().expect("streams").iter_mut();
            for entry in entry.filter(|entry| entry["tap_stream_id"] == "public-witness") {
                match of {
                    "table" => entry["table_name"] = json!(name),
                    "schema" => entry["metadata"][0]["metadata"]["schema-name"] = json!(name),
                    _ => entry["metadata"][0]["metadata"]["view-key-properties"] = json!([name]),
                }
                assert_eq!(entry["metadata"][0]["breadcrumb"], json!([]), "the table's metadata come first");
            }
            crate::harness::Catalog::new(value)
        };
        for of in ["table", "schema"] {
            failed(Tap::new(&db).catalog(&replaced(of)).output());
        }
        let key = catalog.clone().select_incremental("public-witness", name);
        let output = Tap::new(&db).catalog(&key).output();
        assert_eq!((output.status.code(), output.logged("level=ERROR")), (Some(1), 1), "{}", output.stderr);
    }
    assert_unharmed(&db);
}
