//! Databases in SQL_ASCII, which hold whatever bytes an application stored.

use serde_json::Value;

use super::{only, select, with_both_plugins};
use crate::harness::{Cluster, Output, Tap, TestDb};

with_both_plugins!(bytes_that_are_not_utf8);

/// U+FFFD stands for them and one WARNING for each column tells, however the rows are read: copied, from the log by either reader,
/// and looked up.
fn bytes_that_are_not_utf8(plugin: &str) {
    let db = TestDb::with(&Cluster::shared(), "sql_ascii", "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'");
    db.psql("create table t (id integer primary key, n integer, note text, also text)");
    db.psql("alter table t alter note set storage external");
    db.replicate(plugin);
    let catalog = select(Tap::new(&db).discover(), &["t"]);
    let long = "x".repeat(5000);
    let row =
        |id: i64, n: i64| format!("insert into t values ({id}, {n}, E'caf\\xe9' || repeat('x', 5000), E'\\xff\\xfe');");
    let holds = |output: &Output, n: i64| {
        let record = only(output, "t");
        assert_eq!((&record["note"], &record["n"]), (&Value::from(format!("caf\u{fffd}{long}")), &Value::from(n)));
        assert_eq!(record["also"], "\u{fffd}\u{fffd}");
        for column in ["note", "also"] {
            assert_eq!(
                output.logged(&format!("column \"{column}\" holds bytes that are not UTF-8")),
                1,
                "{}",
                output.stderr
            );
        }
    };
    let tap = |method: &str| {
        let catalog = catalog.clone().select("public-t", method);
        Tap::new(&db).catalog(&catalog).config("unchanged_toast", "fetch")
    };
    let mut state = tap("LOG_BASED").run().last_state().clone();
    for (n, reader) in [(0, "stream"), (2, "bulk")] {
        let log_based = |state: &Value| tap("LOG_BASED").config("wal_reader", reader).state(state);
        db.psql(&format!("delete from t; {}", row(n + 1, n)));
        let output = log_based(&state).run();
        assert!(output.records("public-t").iter().any(|record| record["id"] == n + 1));
        state = output.last_state().clone();
        db.psql(&format!("update t set n = {}", n + 1));
        let output = log_based(&state).run();
        holds(&output, n + 1);
        state = output.last_state().clone();
    }
    holds(&tap("FULL_TABLE").run(), 3);
    holds(&tap("LOG_BASED").run(), 3);
    holds(&Tap::new(&db).catalog(&catalog.clone().select_incremental("public-t", "n")).run(), 3);
}
