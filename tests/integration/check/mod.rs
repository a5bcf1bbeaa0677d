//! `--test`: each requirement in a database where it is not met. The line that says so ends in SQL that mends it, which is
//! run as it stands there.

mod fine;
mod published;
mod rights;
mod server;
mod slots;
mod streams;

use crate::harness::{Catalog, Cluster, Output, Tap, TestDb};

/// A table with a key, and a row.
const ITEM: &str = "create table item (id integer primary key, note text); insert into item values (1, 'a');";

/// The lines of this verdict that hold all of these texts, without what comes before the verdict.
fn lines<'o>(output: &'o Output, verdict: &str, texts: &[&str]) -> Vec<&'o str> {
    let marker = format!("message={verdict}: ");
    let lines = output.stderr.lines().filter_map(|line| Some(line.split_once(&marker)?.1));
    lines.filter(|line| texts.iter().all(|text| line.contains(text))).collect()
}

/// The only line of this verdict that holds all of these texts.
#[track_caller]
fn line<'o>(output: &'o Output, verdict: &str, texts: &[&str]) -> &'o str {
    let found = lines(output, verdict, texts);
    let [line] = found.as_slice() else { panic!("not one {verdict} with {texts:?}:\n{}", output.stderr) };
    line
}

/// Checks; the exit code says whether anything failed, and every ERROR line but the sum is a failure.
#[track_caller]
fn check(tap: &Tap) -> Output {
    let output = tap.output();
    let failures = lines(&output, "failure", &[]).len();
    assert_eq!(output.status.code(), Some(i32::from(failures > 0)), "{}", output.stderr);
    assert_eq!(output.logged("level=ERROR"), failures + usize::from(failures > 0), "{}", output.stderr);
    assert_eq!(output.logged("level=WARNING"), lines(&output, "warning", &[]).len(), "{}", output.stderr);
    output.parsed()
}

/// What a line says has to be run.
#[track_caller]
fn sql(line: &str) -> &str {
    let (_, sql) = line.rsplit_once("run: ").unwrap_or_else(|| panic!("no SQL in {line}"));
    assert!(sql.ends_with(';'), "{sql}");
    sql
}

/// A line of this verdict holds these texts, and is gone once its SQL is run. Gives that SQL.
#[track_caller]
fn mended(db: &TestDb, tap: &Tap, verdict: &str, texts: &[&str]) -> String {
    let before = check(tap);
    let sql = sql(line(&before, verdict, texts)).to_owned();
    db.psql(&sql);
    let after = check(tap);
    assert!(lines(&after, verdict, texts).is_empty(), "{sql}\n{}", after.stderr);
    sql
}

/// The same where nothing else fails.
#[track_caller]
fn failure_mended(db: &TestDb, tap: &Tap, texts: &[&str]) -> String {
    let sql = mended(db, tap, "failure", texts);
    check(tap).expect_code(0);
    sql
}

/// A check of these streams of the schema public, each with its method.
#[track_caller]
fn tap(db: &TestDb, streams: &[(&str, &str)]) -> Tap {
    let catalog = Tap::new(db).discover();
    let select = |catalog: Catalog, (table, method): &(&str, &str)| catalog.select(&format!("public-{table}"), method);
    Tap::new(db).catalog(&streams.iter().fold(catalog, select)).arg("--test")
}

/// Everything on the server that a run could have made or moved.
fn belongings(db: &TestDb) -> Vec<Vec<Option<String>>> {
    db.query(
        "select slot_name::text, plugin::text, confirmed_flush_lsn::text from pg_replication_slots
           where database = current_database()
         union all select pubname::text, oid::text, null from pg_publication
         union all select 'rel', prpubid::text, prrelid::text from pg_publication_rel order by 1, 2, 3",
    )
}

/// A server where nothing is to be warned of.
fn bounded() -> std::sync::Arc<Cluster> {
    let bound = if crate::harness::release() >= 13 { "max_slot_wal_keep_size = '1GB'" } else { "" };
    Cluster::start(bound)
}
