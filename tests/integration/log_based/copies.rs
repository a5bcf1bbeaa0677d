//! The initial copy: every row exactly once, whatever is written meanwhile. The tables have no key, so a row that came
//! twice is there twice and one that was lost is missing.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Source, lsn, numbers, select, with_both_plugins};
use crate::harness::{Cluster, Output, Role, Tap, TestDb, plugins};

with_both_plugins!(
    rows_written_meanwhile_arrive_once,
    a_copy_without_a_spare_slot,
    a_copy_beside_a_transaction_that_stays_open,
    several_tables_under_one_writer,
    an_empty_table,
    a_role_that_may_read_some_columns,
);

const TABLES: &str = "create table item (n integer, filler text); create table other (n integer);";

/// Inserts 1..=count into a table, a transaction a row.
fn writer(table: &str, count: u32) -> String {
    format!("select format('insert into {table}(n) values (%s)', i) from generate_series(1, {count}) i \\gexec")
}

/// All that runs told of a table, sorted.
fn told(outputs: &[Output], table: &str) -> Vec<i64> {
    let mut all: Vec<i64> = outputs.iter().flat_map(|output| numbers(output, table, "n")).collect();
    all.sort_unstable();
    all
}

fn rows_written_meanwhile_arrive_once(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    source.db.psql("insert into item select -i, repeat('x', 200) from generate_series(1, 20000) i");
    let outputs: Vec<Output> = thread::scope(|scope| {
        let writing = scope.spawn(|| source.db.psql(&writer("item", 6000)));
        let mut outputs = vec![source.tap().run()];
        for _ in 0..2 {
            outputs.push(source.run(outputs[outputs.len() - 1].last_state()));
        }
        writing.join().expect("the writer");
        outputs.push(source.run(outputs[2].last_state()));
        outputs
    });
    let expected: Vec<i64> = (-20_000..=-1).chain(1..=6000).collect();
    assert_eq!(told(&outputs, "item"), expected);
}

fn several_tables_under_one_writer(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let sql = "select format('with i as (insert into item(n) values (%1$s)) insert into other values (%1$s)', i)
        from generate_series(1, 4000) i \\gexec";
    let outputs: Vec<Output> = thread::scope(|scope| {
        let writing = scope.spawn(|| source.db.psql(sql));
        thread::sleep(Duration::from_millis(50));
        let first = source.tap().run();
        let second = source.run(first.last_state());
        writing.join().expect("the writer");
        let third = source.run(second.last_state());
        vec![first, second, third]
    });
    for table in ["item", "other"] {
        assert_eq!(told(&outputs, table), (1..=4000).collect::<Vec<_>>(), "{table}");
    }
}

/// The only slot is the tap's own: the copy's place in the log can't come from a temporary one.
fn a_copy_without_a_spare_slot(plugin: &str) {
    let cluster = Cluster::start("max_replication_slots = 1");
    let source = Source::on(&cluster, plugin, TABLES, &["item", "other"]);
    source.db.psql("insert into item values (-1), (-2), (-3);  insert into other values (-1);");
    let outputs: Vec<Output> = thread::scope(|scope| {
        let writing = scope.spawn(|| source.db.psql(&writer("item", 4000)));
        thread::sleep(Duration::from_millis(50));
        let first = source.tap().run();
        let second = source.run(first.last_state());
        writing.join().expect("the writer");
        let third = source.run_after("insert into other values (1)", second.last_state());
        vec![first, second, third]
    });
    assert_eq!(told(&outputs, "item"), (-3..=-1).chain(1..=4000).collect::<Vec<_>>());
    assert_eq!(told(&outputs, "other"), [-1, 1]);
    assert!(outputs[0].last_state()["bookmarks"]["public-item"]["xmin"].is_null());
    assert_eq!(source.db.query_one("select count(*) from pg_replication_slots"), "1");
}

/// A temporary slot would wait for it; after a while the copy goes without.
fn a_copy_beside_a_transaction_that_stays_open(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(&cluster, plugin, TABLES, &["item"]);
    source.db.psql("insert into item values (1)");
    let mut open = source.db.session();
    open.run("begin; insert into item values (2);");
    source.db.psql("insert into item values (3)");
    let first = source.tap().run();
    open.run("insert into item values (4); commit;");
    let second = source.run_after("insert into item values (5)", first.last_state());
    assert_eq!(told(&[first], "item"), [1, 3]);
    assert_eq!(told(&[second], "item"), [2, 4, 5]);
}

fn an_empty_table(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let output = source.tap().run();
    assert_eq!(output.states().len(), 1, "a run without records");
    let version = output.bookmark("public-item")["version"].as_u64().expect("a version");
    let activated = output.messages.iter().any(
        |message| matches!(message, crate::harness::Message::ActivateVersion { version: of, .. } if *of == version),
    );
    assert!(activated, "a table that was emptied before a copy is to be emptied in the target: {output:?}");
    let next = source.run_after("insert into item values (1)", output.last_state());
    assert_eq!(numbers(&next, "item", "n"), [1]);
    assert_eq!(next.bookmark("public-item")["version"], version);
}

fn a_role_that_may_read_some_columns(plugin: &str) {
    let tables =
        "create table item (n integer primary key, note text, secret text); insert into item values (1, 'a', 'x');";
    let source = Source::new(plugin, tables, &["item"]);
    let role = Role::new(&source.db, "replication");
    source.db.psql(&format!("grant select (n, note) on item to {}", role.name));
    let tap = || source.tap().config("user", role.name.as_str());
    let first = tap().run();
    source.db.psql("insert into item values (2, 'b', 'y'); update item set secret = 'z' where n = 1;");
    let second = tap().state(first.last_state()).run();
    assert!(!format!("{first:?} {second:?}").contains("secret"));
    assert_eq!(told(&[first, second], "item"), [1, 1, 2]);
}

/// A run that is killed while it makes the slot leaves the server making it: for the next run there is none yet.
#[test]
fn a_slot_that_a_killed_run_was_making() {
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "log_making");
    db.psql(TABLES);
    let catalog = select(Tap::new(&db).discover(), &["item"]);
    let tap = || Tap::new(&db).catalog(&catalog).config("create_replication_slot", true);
    let mut open = db.session();
    open.run("begin; insert into item values (1);");
    let killed = tap().spawn();
    db.wait_until("exists (select from pg_replication_slots)");
    drop(killed);
    let next = tap().spawn();
    thread::sleep(Duration::from_millis(500));
    open.run("commit;");
    let output = next.finish().expect_code(0);
    db.psql("insert into item values (2)");
    let last = tap().state(output.last_state()).run();
    assert_eq!(told(&[output, last], "item"), [1, 2]);
}

/// Where the slot is made by the same run, its own snapshot serves.
#[test]
fn rows_written_while_the_slot_is_made() {
    let cluster = Cluster::start("");
    for &plugin in plugins() {
        let db = TestDb::on(&cluster, "log_made");
        db.psql(TABLES);
        let catalog = select(Tap::new(&db).discover(), &["item"]);
        let tap = |state: &Value| {
            let tap = Tap::new(&db).catalog(&catalog).state(state);
            tap.config("create_replication_slot", true).config("output_plugin", plugin)
        };
        let outputs: Vec<Output> = thread::scope(|scope| {
            let writing = scope.spawn(|| db.psql(&writer("item", 4000)));
            thread::sleep(Duration::from_millis(50));
            let first = tap(&json!({})).run();
            writing.join().expect("the writer");
            let second = tap(first.last_state()).run();
            vec![first, second]
        });
        assert_eq!(told(&outputs, "item"), (1..=4000).collect::<Vec<_>>(), "{plugin}");
        assert!(lsn(outputs[1].last_state(), "item") >= lsn(outputs[0].last_state(), "item"));
    }
}
