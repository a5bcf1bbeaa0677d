//! What happens to a table between its description and the query that reads it by its name: hours may lie between.

use serde_json::json;

use crate::harness::{Catalog, Output, Tap, TestDb};
use crate::log_based::assert_fits;

const METHODS: [&str; 4] = ["FULL_TABLE", "INCREMENTAL", "xmin", "LOG_BASED"];
const T: &str = "public-t";

/// A run in which this happens to `t` after it was described and before it is read.
#[track_caller]
fn run(method: &str, sql: &str) -> (TestDb, Catalog, Output) {
    run_with(method, 1, sql)
}

#[track_caller]
fn run_with(method: &str, connections: u32, sql: &str) -> (TestDb, Catalog, Output) {
    let db = TestDb::new(&format!("meanwhile_{}", method.to_lowercase()));
    db.psql(
        "create table a (id integer primary key); insert into a values (1);
         create table t (id integer primary key, n integer); insert into t select i, i from generate_series(1, 5) i;",
    );
    if method == "LOG_BASED" {
        db.replicate("pgoutput");
    }
    let catalog = Tap::new(&db).discover();
    let catalog = match method {
        "INCREMENTAL" => catalog.select("public-a", "FULL_TABLE").select_incremental(T, "id"),
        "xmin" => catalog.select("public-a", "FULL_TABLE").select_incremental(T, "xmin"),
        method => catalog.select("public-a", method).select(T, method),
    };
    let mut lock = db.session();
    lock.run("begin; lock table a;");
    let running = Tap::new(&db).config("copy_parallelism", connections).catalog(&catalog).spawn();
    db.wait_until("exists (select from pg_locks where not granted and relation = 'a'::regclass)");
    db.psql(sql);
    lock.run("commit;");
    (db, catalog, running.finish())
}

#[test]
fn columns_are_altered() {
    for method in METHODS {
        let sql = "alter table t alter n type text using 'n' || n; alter table t add c integer default 7";
        let (_db, _, output) = run(method, sql);
        let output = output.expect_code(0);
        assert_fits(&output.messages);
        let records = output.records(T);
        assert_eq!(records.len(), 5, "{method}");
        assert!(records.iter().all(|row| row["n"] == json!(format!("n{}", row["id"])) && row["c"] == 7), "{records:?}");
    }
}

/// Of such, a snapshot from before shows nothing but the catalogs as they were.
#[test]
fn columns_are_renamed_and_dropped() {
    for method in METHODS {
        for connections in [1, 3] {
            let sql = "alter table t add c integer default 7; alter table t rename n to m; alter table t add d integer;
                alter table t drop d";
            let (_db, _, output) = run_with(method, connections, sql);
            let output = output.expect_code(0);
            assert_fits(&output.messages);
            let rows = output.records(T);
            assert_eq!(rows.len(), 5, "{method}");
            for row in rows {
                assert!(row["m"] == row["id"] && row["c"] == 7 && !row.contains_key("n"), "{method}: {row:?}");
            }
        }
    }
}

#[test]
fn another_table_gets_the_name() {
    for method in METHODS {
        let sql = "alter table t rename to u; create table t (id integer primary key, n text); insert into t values (9, 'another')";
        let (db, catalog, output) = run(method, sql);
        let output = output.expect_code(1);
        assert_eq!(output.logged("was renamed or dropped during the run"), 1, "{method}: {}", output.stderr);
        assert!(output.records(T).is_empty(), "{method}: {:?}", output.messages);
        assert_eq!(output.records("public-a").len(), 1, "the others are read");
        let next = Tap::new(&db).catalog(&catalog).state(output.last_state()).run();
        assert_fits(&next.messages);
        assert_eq!(next.records(T).len(), 1, "{method}");
    }
}
