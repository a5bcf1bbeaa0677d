//! Keys of types whose operators are on no search_path: those of extensions in a schema of their own, of users, and what is
//! made of them.

use serde_json::json;

use crate::harness::{Tap, TestDb};

const SCHEMA: &str = "create schema \"Ext .\"; \
    create extension ltree schema \"Ext .\"; create extension citext schema \"Ext .\"; create extension isn schema \"Ext .\"; \
    create extension hstore schema \"Ext .\"; create extension cube schema \"Ext .\"; \
    create domain \"Ext .\".mail as \"Ext .\".citext; create domain \"Ext .\".again as \"Ext .\".mail; \
    create type \"Ext .\".mood as enum ('z', 'a', 'm'); create domain \"Ext .\".good as \"Ext .\".mood; \
    create type \"Ext .\".pair as (a integer, b \"Ext .\".citext); create type \"Ext .\".span as range (subtype = integer); \
    create domain \"Ext .\".code as varchar(3);";

/// INCREMENTAL reads from the bookmark on in the order that an index has, whatever the type of the key.
#[test]
fn incremental() {
    // In the order of the type; the second is the bookmark of the first run.
    for (key_type, [least, kept, above, most]) in [
        (r#""Ext .".ltree"#, ["a", "a.b", "a.b.c", "b"]),
        // As text C would be less than b.
        (r#""Ext .".citext"#, ["a", "b", "C", "d"]),
        (r#""Ext .".mail"#, ["a", "b", "C", "d"]),
        (r#""Ext .".again"#, ["a", "b", "C", "d"]),
        (r#""Ext .".isbn"#, ["0-14-044913-?", "0-19-953556-?", "0-393-04002-X", "0-486-61272-?"]),
        (r#""Ext .".mood"#, ["z", "a", "m", "m"]),
        (r#""Ext .".good"#, ["z", "a", "m", "m"]),
        // As text (10,a) would be less than (9,b).
        (r#""Ext .".pair"#, ["(1,a)", "(9,b)", "(9,C)", "(10,a)"]),
        (r#""Ext .".span"#, ["[1,5)", "[9,20)", "[9,30)", "[10,11)"]),
        (r#""Ext .".code"#, ["a", "b", "ba", "c"]),
        (r#""Ext .".cube"#, ["(1)", "(9)", "(10)", "(11)"]),
        ("cidr", ["10.0.0.0/8", "10.0.0.0/9", "10.1.0.0/16", "11.0.0.0/8"]),
        ("varchar(3)", ["a", "b", "ba", "c"]),
        ("char(3)", ["a", "b", "ba", "c"]),
        ("bit(3)", ["001", "010", "011", "111"]),
        ("\"char\"", ["a", "b", "c", "d"]),
    ] {
        let db = TestDb::new("keys_incremental");
        db.psql(SCHEMA);
        db.psql(&format!(
            "create table t (id integer primary key, k {key_type}); insert into t values (1, '{least}'), (2, '{kept}');"
        ));
        let tap = || Tap::new(&db).catalog(&Tap::new(&db).discover().select_incremental("public-t", "k"));
        let first = tap().run();
        let ids = |output: &crate::harness::Output| {
            output.records("public-t").iter().map(|record| record["id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&first), [json!(1), json!(2)], "{key_type}");
        db.psql(&format!("insert into t values (5, '{most}'), (4, '{above}'), (3, '{least}')"));
        let second = tap().state(first.last_state()).run();
        let sent = ids(&second);
        assert_eq!(sent.len(), 3, "{key_type}: {sent:?}");
        assert!(sent[0] == 2 && sent.contains(&json!(4)) && (sent[2] == 5 || above == most), "{key_type}: {sent:?}");
        assert_eq!(ids(&tap().state(second.last_state()).run()).last(), sent.last(), "{key_type}");
    }
}

/// A type without an order is refused, in the first run and by `--test`.
#[test]
fn no_order() {
    let db = TestDb::new("keys_no_order");
    db.psql(
        "create table t (id integer primary key, x xid, p point, a point[]); insert into t values (1, '5', '(1,2)')",
    );
    for (key, why) in [("x", "have no order"), ("p", "have no order"), ("a", "")] {
        let tap = || Tap::new(&db).catalog(&Tap::new(&db).discover().select_incremental("public-t", key));
        for tap in [tap(), tap().arg("--test")] {
            let output = tap.output();
            assert!(!output.status.success(), "{}", output.stderr);
            let told = format!("can't be replicated by \"{key}\"");
            assert!(output.logged(&told) == 1 && output.stderr.contains(why), "{}", output.stderr);
        }
    }
}
