//! Partitions, tables that are altered or replaced, and what can't be read by `xmin`.

use serde_json::{Map, Value, json};

use super::{NONE, T, TABLE, from, ids, server, tap};
use crate::harness::{Role, Tap, TestDb, release};

/// Rows of every leaf, such as move to another one, and those that a leaf had before it was attached.
#[test]
fn partitions() {
    let db = server(
        "xmin_partitions",
        "create table t (id integer, note text) partition by range (id);
         create table low partition of t for values from (0) to (100);
         create table high partition of t for values from (100) to (200) partition by range (id);
         create table high_1 partition of high for values from (100) to (150);
         insert into t values (1, 'old'), (2, 'old'), (101, 'old'), (102, 'old');
         create table later (id integer, note text); insert into later values (201, 'older than its partition');
         create table last (id integer, note text) partition by range (id);
         create table last_1 partition of last for values from (300) to (400); insert into last values (301, 'older');",
    );
    let mut output = tap(&db).run();
    assert_eq!(ids(&output), [1, 2, 101, 102]);
    let mut after = |sql: &str| {
        db.psql(sql);
        output = from(&db, output.last_state());
        assert_eq!(ids(&from(&db, output.last_state())), NONE, "{sql}: once");
        ids(&output)
    };
    assert_eq!(after("update t set note = 'new' where id in (2, 101)"), [2, 101]);
    if release() >= 11 {
        assert_eq!(after("update t set id = 103 where id = 1"), [103], "moved to another leaf");
    }
    assert_eq!(after("alter table t attach partition later for values from (200) to (300)"), [201]);
    assert_eq!(after("alter table t attach partition last for values from (300) to (400)"), [301], "and what is below");
    assert_eq!(after("update t set note = 'new' where id = 201; alter table t detach partition low"), [201]);
    let high =
        "create table high_2 partition of high for values from (150) to (200); insert into t values (151, 'new')";
    assert_eq!(after(high), [151]);
}

#[test]
fn tables_that_inherit() {
    let db = server("xmin_inherits", TABLE);
    db.psql("create table child (id integer, note text); insert into child values (10, 'old')");
    db.psql("alter table child alter id set not null");
    let first = tap(&db).run();
    db.psql("alter table child inherit t");
    let second = from(&db, first.last_state());
    assert_eq!(ids(&second), [10]);
    db.psql("update child set note = 'new'; update only t set note = 'new' where id = 1");
    assert_eq!(ids(&from(&db, second.last_state())), [1, 10]);
}

/// A column that is new, or called otherwise, has values in rows that nobody has written to.
#[test]
fn columns_that_are_altered() {
    let db = server("xmin_columns", TABLE);
    let mut output = tap(&db).run();
    for (sql, whole) in [
        ("alter table t add column more integer default 7", true),
        ("alter table t rename column note to remark", true),
        ("alter table t drop column more", false),
        ("create index on t (remark); analyze t", false),
        ("alter table t alter remark type varchar(10)", true),
    ] {
        db.psql(sql);
        output = from(&db, output.last_state());
        assert_eq!(output.records(T).len(), if whole { 5 } else { 0 }, "{sql}");
    }
}

/// A table that is altered between its description and its snapshot is described again; what is altered after its snapshot, the next
/// run finds.
#[test]
fn columns_that_are_altered_during_the_run() {
    let db = server("xmin_meanwhile", TABLE);
    db.psql("create table a (id integer)");
    let catalog = Tap::new(&db).discover().select_incremental(T, "xmin").select("public-a", "FULL_TABLE");
    // The stream of `a` comes first.
    for (locked, column) in [("a", "before"), ("t", "after")] {
        let mut lock = db.session();
        lock.run(&format!("begin; lock table {locked};"));
        let run = Tap::new(&db).catalog(&catalog).spawn();
        db.wait_until("exists (select from pg_locks where not granted)");
        let alter = format!("alter table t add column \"{column}\" integer default 7");
        match locked {
            "t" => drop(lock.run(&format!("{alter};"))),
            _ => drop(db.psql(&alter)),
        }
        lock.run("commit;");
        let first = run.finish().expect_code(0);
        let second = Tap::new(&db).catalog(&catalog).state(first.last_state()).run();
        let has =
            |rows: &[&Map<String, Value>]| rows.len() == 5 && rows.iter().all(|row| row.get(column) == Some(&json!(7)));
        assert!(has(&first.records(T)) || has(&second.records(T)), "{column}");
        assert_eq!(second.records(T).len(), if locked == "t" { 5 } else { 0 }, "{column}");
    }
}

#[test]
fn a_table_that_is_made_again() {
    let db = server("xmin_again", TABLE);
    db.psql("create table other as select * from t where id > 2");
    let first = tap(&db).run();
    db.psql("alter table t rename to gone; alter table other rename to t");
    let second = from(&db, first.last_state());
    assert_eq!(ids(&second), [3, 4, 5]);
    assert_ne!(second.bookmark(T)["version"], first.bookmark(T)["version"]);
    assert_eq!(second.logged("dropped and made again"), 1, "{}", second.stderr);
    assert_eq!(ids(&from(&db, second.last_state())), NONE);
}

#[test]
fn what_has_no_xmin() {
    let db = TestDb::new("xmin_refused");
    db.psql(TABLE);
    db.psql(
        "create view v as select id, note from t; create materialized view m as select id, note from t;
         create view named as select id, note, id * 2 as xmin from t;
         create table parent (id integer) partition by range (id);
         create foreign data wrapper nothing; create server nowhere foreign data wrapper nothing;
         create foreign table \"Far\" partition of parent for values from (0) to (9) server nowhere;",
    );
    for (stream, reason) in [
        ("public-v", "it is a view"),
        ("public-m", "it is a view"),
        ("public-parent", "rows of public.\"Far\" have none"),
    ] {
        let catalog = Tap::new(&db).discover().select_incremental(stream, "xmin").select(T, "FULL_TABLE");
        for test in [false, true] {
            let tap = Tap::new(&db).catalog(&catalog);
            let output = if test { tap.arg("--test").output().expect_code(1).parsed() } else { tap.run_failing(1) };
            let text = format!("stream \"{stream}\" can't be replicated by xmin: {reason}");
            assert_eq!(output.logged(&text), 1, "{}", output.stderr);
            assert_eq!(output.logged("set its replication-key to a column"), 1, "{}", output.stderr);
            assert_eq!(output.records(T).len(), if test { 1 } else { 5 }, "the other stream is read");
        }
    }
    // A column of this name, which only a view can have, is a column.
    let catalog = Tap::new(&db).discover().select_incremental("public-named", "xmin");
    let output = Tap::new(&db).catalog(&catalog).run();
    assert_eq!(output.bookmark("public-named")["replication_key_value"], 10);
    assert_eq!(output.schemas("public-named")[0].bookmark_properties, ["xmin"]);
}

/// A role that may read some columns has to be granted this one too; the SQL for it is told.
#[test]
fn a_role_with_some_columns() {
    let db = TestDb::new("xmin_role");
    db.psql(TABLE);
    let role = Role::new(&db, "");
    db.psql(&format!("grant usage on schema public to {0}; grant select (id) on t to {0}", role.name));
    let tap = || tap(&db).config("user", &*role.name);
    let output = tap().run_failing(1);
    let (_, sql) = output.stderr.split_once("run: ").unwrap_or_else(|| panic!("no SQL in {}", output.stderr));
    let sql = sql.lines().next().expect("SQL").trim_end_matches(')');
    assert_eq!(sql, format!("GRANT SELECT (xmin) ON \"public\".\"t\" TO \"{}\";", role.name));
    db.psql(sql);
    assert_eq!(ids(&tap().run()), [1, 2, 3, 4, 5]);
}

#[test]
fn a_check_says_what_it_costs() {
    let db = TestDb::new("xmin_check");
    db.psql(
        "create table t (id integer primary key, filler text) with (fillfactor = 10);
         insert into t select n, repeat('x', 500) from generate_series(1, 3000) n",
    );
    let output = tap(&db).config("limit", 5).arg("--test").output().expect_code(0).parsed();
    let size = db.query_one("select pg_relation_size('t') >> 20");
    assert_ne!(size, "0");
    let costs = format!("public-t: the replication key is xmin: each run has the server read all {size} MB of it");
    assert_eq!(output.logged(&format!("message=ok: {costs}")), 1, "{}", output.stderr);
    assert_eq!(output.logged("message=warning: public-t: `limit` does not count"), 1, "{}", output.stderr);
    assert_eq!(output.schemas(T)[0].bookmark_properties, Vec::<String>::new());
}
