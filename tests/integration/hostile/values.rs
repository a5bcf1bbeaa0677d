//! Values: bookmarks that try to break out of SQL, and values of rows that an error would carry into the log.

use serde_json::{Value, json};

use super::{failed, integers};
use crate::harness::{Tap, TestDb};

const TEXTS: [&str; 9] = [
    "'; drop table witness; --",
    r"\'; drop table witness; --",
    r"\\'; drop table witness; --",
    r"\",
    "'",
    "''; --",
    "$$; drop table witness; $$",
    "E'\\x27; drop table witness; --",
    "x\n\\.\n'; drop table witness; --",
];

fn database(test: &str) -> TestDb {
    let db = TestDb::new(test);
    db.psql("create table witness (id integer); insert into witness values (1)");
    db
}

fn bookmark(stream: &str, value: &Value) -> Value {
    json!({"bookmarks": {stream: {"last_replication_method": "INCREMENTAL", "replication_key": "k",
        "replication_key_value": value, "version": 1}}})
}

/// A text is found again by its bookmark, whatever it is, however the database reads backslashes.
#[test]
fn a_bookmark_is_a_literal() {
    for conforming in ["on", "off"] {
        let db = database(&format!("hostile_literal_{conforming}"));
        db.psql(&format!(
            "alter database {0} set standard_conforming_strings = {conforming};
             alter database {0} set backslash_quote = on; alter database {0} set escape_string_warning = on;
             create table t (id integer primary key, k text collate \"C\")",
            db.name()
        ));
        let catalog = Tap::new(&db).discover().select_incremental("public-t", "k");
        for (id, text) in (1..).zip(TEXTS) {
            let written = text.replace('\\', r"\\").replace('\'', r"\'");
            db.psql(&format!("truncate t; insert into t values ({id}, E'{written}')"));
            let first = Tap::new(&db).catalog(&catalog).run();
            assert_eq!(first.bookmark("public-t")["replication_key_value"], text);
            db.psql(&format!("insert into t values (99, E'{written}~'), (100, '')"));
            let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
            assert_eq!(integers(&second.messages, "public-t", "id"), [id, 99], "{text}");
        }
        assert_eq!(db.query_one("select count(*) from witness"), "1");
    }
}

/// A bookmark that is no value of the key's type is an error, which does not show it.
#[test]
fn a_bookmark_of_another_type_is_refused_and_not_shown() {
    let db = database("hostile_type");
    for ty in ["integer", "timestamp", "date", "numeric", "uuid", "boolean", "double precision"] {
        db.psql(&format!("create table t (id integer primary key, k {ty})"));
        let catalog = Tap::new(&db).discover().select_incremental("public-t", "k");
        for text in ["0; drop table witness; -- hunter2", "'::text; drop table witness; -- hunter2", "hunter2"] {
            let state = bookmark("public-t", &json!(text));
            let tap = Tap::new(&db).catalog(&catalog).state(&state).env("LOG_LEVEL", "debug");
            let output = failed(tap.output());
            assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
        }
        db.psql("drop table t");
    }
    assert_eq!(db.query_one("select count(*) from witness"), "1");
}

/// At no level: neither what a server's error quotes, nor its DETAIL, nor what a function says, nor a bookmark.
#[test]
fn values_of_rows_stay_out_of_the_log() {
    let db = database("hostile_values");
    db.psql(
        "create table t (id integer primary key, k text); insert into t values (1, 'hunter2');
         create view cast_to_integer as select k::integer from t;
         create view cast_to_json as select k::json from t;
         create view cast_to_time as select k::timestamptz from t;
         create view out_of_range as select ('99999999999999' || id)::integer from t;
         create function raise(text) returns text language plpgsql as
         $$ begin raise exception 'bad row: %', $1 using detail = $1, hint = $1, errcode = '42000'; end $$;
         create view raised as select raise(k) from t;
         create function notice(text) returns text language plpgsql as
         $$ begin raise notice 'row: %', $1 using hint = $1; raise warning 'row: %', $1; return 'x'; end $$;
         create view noticed as select notice(k) from t;
         set lc_messages = 'C'",
    );
    let catalog = Tap::new(&db).discover();
    for view in ["cast_to_integer", "cast_to_json", "cast_to_time", "out_of_range", "raised", "noticed"] {
        let catalog = catalog.clone().select(&format!("public-{view}"), "FULL_TABLE");
        for level in ["info", "debug"] {
            let tap = Tap::new(&db).catalog(&catalog).env("LOG_LEVEL", level);
            let output = if view == "noticed" { tap.run() } else { failed(tap.output()) };
            for value in ["hunter2", "99999999999999"] {
                assert!(!output.stderr.contains(value), "{view}: {}", output.stderr);
            }
        }
    }

    let catalog = catalog.select_incremental("public-t", "k");
    let first = Tap::new(&db).catalog(&catalog).env("LOG_LEVEL", "debug").run();
    let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).env("LOG_LEVEL", "debug").run();
    assert_eq!(first.bookmark("public-t")["replication_key_value"], "hunter2");
    for output in [&first, &second] {
        assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    }
}
