//! The search_path of the tap's sessions, and what had another.

use crate::harness::{Tap, TestDb};

/// A function of a view that looks for a table on the search_path fails with the statement that mends it.
#[test]
fn a_view_whose_function_searches() {
    let db = TestDb::new("paths_view");
    db.psql(
        "create table t (id integer primary key); insert into t values (7);
         create function last() returns integer stable language plpgsql as $$ begin return (select max(id) from t); end $$;
         create view v as select last() as n;",
    );
    let tap = || Tap::new(&db).catalog(&Tap::new(&db).discover().select("public-v", "FULL_TABLE"));
    let failed = tap().run_failing(1);
    assert!(failed.logged("ALTER FUNCTION … SET search_path") > 0, "{}", failed.stderr);
    db.psql("alter function last() set search_path = public");
    assert_eq!(tap().run().records("public-v")[0]["n"], 7);
}

/// The catalog spells types as a session with the role's own search_path does, and values of reg… types in full.
#[test]
fn types_are_spelt_as_before() {
    let db = TestDb::new("paths_types");
    db.psql(
        "create schema \"A b\"; create type \"A b\".mood as enum ('a'); create type mood as enum ('a'); create type \"date\" as enum ('a');
         create domain \"A b\".\"O d\" as text;
         create table t (id integer primary key, m mood, l mood[], d \"date\", o \"A b\".mood, e \"A b\".\"O d\", a \"A b\".\"O d\"[],
           r regclass);
         insert into t (id, r) values (1, 't');",
    );
    let spelt = |setting: &str| {
        db.psql(setting);
        let sql = "select string_agg(format_type(atttypid, null), ' ' order by attnum) from pg_attribute \
                           where attrelid = 'public.t'::regclass and attnum > 0";
        let catalog = Tap::new(&db).discover();
        let columns = ["id", "m", "l", "d", "o", "e", "a", "r"];
        let of = |column: &&str| {
            catalog.metadata("public-t", Some(column))["sql-datatype"].as_str().expect("a type").to_owned()
        };
        assert_eq!(columns.iter().map(of).collect::<Vec<_>>().join(" "), db.query_one(sql), "{setting}");
    };
    let name = db.name();
    spelt("");
    spelt(&format!("alter database {name} set search_path = \"A b\", public"));
    spelt(&format!("alter database {name} set search_path = public, \"A b\""));
    spelt(&format!("alter database {name} set search_path = ''"));
    let spelt = Tap::new(&db).discover();
    db.psql(&format!("alter database {name} set quote_all_identifiers = on"));
    assert_eq!(Tap::new(&db).discover().as_value(), spelt.as_value());
    assert_eq!(Tap::new(&db).run().records("public-t")[0]["r"], "public.t");
}
