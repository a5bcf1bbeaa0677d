//! `copy_parallelism`: a large table read by several connections holds what one would read, every row once, whatever
//! happens meanwhile.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::target::{Target, row_text};
use crate::harness::{
    Catalog, Cluster, Message, Output, Role, Running, Stalled, Tap, TestDb, needs, release, until_within,
};
use crate::log_based::{Source, with_both_plugins};

with_both_plugins!(
    rows_written_meanwhile_arrive_once,
    rows_written_meanwhile_arrive_once_without_a_spare_slot,
    rows_changed_meanwhile,
    a_copy_of_a_partitioned_table_and_its_changes,
);

/// A table whose pages hold little, so that few rows are worth several ranges: some 20 MB.
const SPARSE: &str = "create table item (id integer, note text) with (fillfactor = 10);
    insert into item select i, repeat('n', 80) from generate_series(1, 15000) i;";
/// Records that fill every buffer between the server and a reader that has stopped.
const WIDE: &str = "create table item (id integer primary key, filler text);
    alter table item alter filler set storage external;
    insert into item select i, repeat('x', 1900) from generate_series(1, 20000) i;";
/// What the connections that copy are doing.
const COPIES: &str = "from pg_stat_activity where datname = current_database() and query like 'COPY%ctid%'";

fn catalog(db: &TestDb, method: &str) -> Catalog {
    Tap::new(db).discover().select("public-item", method)
}

fn tap(db: &TestDb, catalog: &Catalog, connections: u32) -> Tap {
    Tap::new(db).catalog(catalog).config("copy_parallelism", connections).timeout(Duration::from_secs(120))
}

/// The rows of the stream as text, sorted.
fn rows(output: &Output) -> Vec<String> {
    let mut rows: Vec<String> = output.records("public-item").into_iter().map(row_text).collect();
    rows.sort_unstable();
    rows
}

/// How many versions were activated.
fn activated(messages: &[Message]) -> usize {
    messages.iter().filter(|message| matches!(message, Message::ActivateVersion { .. })).count()
}

/// How many ranges the table was copied in.
fn ranges(output: &Output) -> u32 {
    let line = output.stderr.lines().find_map(|line| line.split_once(": copied in "));
    line.map_or(1, |(_, rest)| rest.split(' ').next().and_then(|n| n.parse().ok()).expect("a number of ranges"))
}

/// Asserts that a table was read by several connections, where the server can do that.
#[track_caller]
fn assert_divided(output: &Output) {
    if release() >= 14 {
        assert!(ranges(output) > 1, "{}", output.stderr);
    } else {
        assert_eq!((ranges(output), output.logged("ranges of a table are read from 14 on")), (1, 1));
    }
}

/// Asserts that a table was read by one connection, for a reason that the log has.
#[track_caller]
fn assert_one_connection(output: &Output, reason: &str) {
    assert_eq!(ranges(output), 1, "{}", output.stderr);
    let reason = if release() >= 14 { reason } else { "ranges of a table are read from 14 on" };
    assert_eq!(output.logged(&format!("copied by one connection: {reason}")), 1, "{}", output.stderr);
}

/// Several connections read what one reads.
#[track_caller]
fn assert_same_as_one(db: &TestDb) -> Output {
    let catalog = catalog(db, "FULL_TABLE");
    let one = tap(db, &catalog, 1).run();
    let many = tap(db, &catalog, 3).run();
    assert_eq!(ranges(&one), 1);
    let (expected, found) = (rows(&one), rows(&many));
    assert!(!expected.is_empty());
    assert!(expected == found, "{} rows rather than {}", found.len(), expected.len());
    assert_eq!(one.without_states().len(), many.without_states().len());
    many
}

#[test]
fn ranges_hold_every_row_once() {
    let db = TestDb::new("parallel");
    db.psql(SPARSE);
    let output = assert_same_as_one(&db);
    assert_divided(&output);
    assert_eq!(activated(&output.messages), 2, "before and after the rows of a first copy");
    let times: std::collections::BTreeSet<_> = output.record_messages().map(|r| r.time_extracted.clone()).collect();
    assert_eq!(times.len(), 1, "one time of extraction");
    let value = |line: &str| line.split_once("\"value\": ")?.1.split([',', '}']).next()?.parse::<usize>().ok();
    let counted: usize = output.stderr.lines().filter(|line| line.contains("record_count")).filter_map(value).sum();
    assert_eq!(counted, 15_000, "{}", output.stderr);
}

#[test]
fn pages_without_rows() {
    let db = TestDb::new("parallel_holes");
    db.psql(SPARSE);
    db.psql("delete from item where id % 1000 > 3 or id between 3000 and 9000; vacuum item; update item set note = 'moved' where id % 2 = 0");
    assert_divided(&assert_same_as_one(&db));
    db.psql("delete from item where id > 100");
    assert_divided(&assert_same_as_one(&db));
}

/// Leaves elsewhere, in levels, of unlike sizes, with their columns in another order and some dropped.
const PARTITIONED: &str = "create schema elsewhere;
    create table item (id integer not null, note text, at integer) partition by range (id);
    create table item_1 partition of item for values from (0) to (8000) with (fillfactor = 10);
    create table elsewhere.item_2 (gone integer, at integer, id integer not null, more text, note text) with (fillfactor = 10);
    alter table elsewhere.item_2 drop column gone, drop column more;
    alter table item attach partition elsewhere.item_2 for values from (8000) to (12000);
    create table item_3 partition of item for values from (12000) to (15000) partition by list (id);
    create table item_3_odd partition of item_3 for values in (12001, 12003);
    create table elsewhere.item_3_rest partition of item_3 default;
    create table item_empty partition of item for values from (15000) to (20000);
    insert into item select i, 'note ' || i || repeat('.', 80), i % 100 from generate_series(1, 14999) i;";

#[test]
fn leaves_of_a_partitioned_table() {
    if !needs(11, "a default partition") {
        return;
    }
    let db = TestDb::new("parallel_leaves");
    db.psql(PARTITIONED);
    assert_divided(&assert_same_as_one(&db));
}

fn a_copy_of_a_partitioned_table_and_its_changes(plugin: &str) {
    if !needs(13, "a published partitioned table") {
        return;
    }
    let source = Source::new(plugin, PARTITIONED, &["item"]);
    let first = source.tap().config("copy_parallelism", 2).run();
    assert_divided(&first);
    let second =
        source.run_after("insert into item values (15001, 'new', null), (1, 'twice', null)", first.last_state());
    let mut target = Target::default();
    target.apply(&first.messages);
    target.apply(&second.messages);
    target.assert_holds(&source.db, &["item"]);
}

/// FULL_TABLE reads the rows of tables that inherit, LOG_BASED does not.
#[test]
fn tables_that_inherit() {
    let db = TestDb::new("parallel_inherits");
    db.psql(SPARSE);
    db.psql(
        "create table child (extra text) inherits (item) with (fillfactor = 10);
             insert into child select -i, repeat('c', 80), 'e' from generate_series(1, 5000) i;",
    );
    let output = assert_same_as_one(&db);
    assert_divided(&output);
    assert_eq!(rows(&output).len(), 20_000);
    db.replicate("pgoutput");
    let output = tap(&db, &catalog(&db, "LOG_BASED"), 3).run();
    assert_divided(&output);
    assert_eq!(rows(&output).len(), 15_000);
}

/// Copies a table while it is written to, and follows it.
#[track_caller]
fn converge(source: &Source, changes: &str) {
    let each = format!(
        "select format('insert into item values (%1$s, ''new''); {changes}', 20000 + i)
        from generate_series(1, 2000) i \\gexec"
    );
    let mut target = Target::default();
    thread::scope(|scope| {
        let writing = scope.spawn(|| source.db.psql(&each));
        source.db.wait_until("exists (select from item where id > 20000)");
        let mut output = source.tap().config("copy_parallelism", 3).run();
        assert_divided(&output);
        target.apply(&output.messages);
        writing.join().expect("the writer");
        for _ in 0..2 {
            output = source.run(output.last_state());
            target.apply(&output.messages);
        }
    });
    target.assert_holds(&source.db, &["item"]);
}

/// Without a key, so that a row which came twice is there twice.
fn rows_written_meanwhile_arrive_once(plugin: &str) {
    converge(&Source::new(plugin, SPARSE, &["item"]), "");
}

fn rows_written_meanwhile_arrive_once_without_a_spare_slot(plugin: &str) {
    let cluster = Cluster::start("max_replication_slots = 1");
    converge(&Source::on(&cluster, plugin, SPARSE, &["item"]), "");
}

/// Rows move to other pages.
fn rows_changed_meanwhile(plugin: &str) {
    let keyed = SPARSE.replace("id integer", "id integer primary key");
    let changes =
        "update item set note = ''changed'' where id = %1$s - 20000; delete from item where id = %1$s - 15000";
    converge(&Source::new(plugin, &keyed, &["item"]), changes);
}

#[test]
fn a_copy_from_a_standby() {
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "parallel_standby");
    db.psql(&SPARSE.replace("id integer", "id integer primary key"));
    db.replicate("pgoutput");
    let standby = cluster.standby();
    let output = tap(&db, &catalog(&db, "LOG_BASED"), 3)
        .configs(&json!({"use_secondary": true, "secondary_host": standby.dir(), "secondary_port": standby.port()}))
        .run();
    assert_divided(&output);
    assert_eq!(rows(&output).len(), 15_000);
}

#[test]
fn a_materialized_view_is_divided_and_a_view_is_not() {
    let db = TestDb::new("parallel_views");
    db.psql(&SPARSE.replace("item", "base"));
    db.psql("create materialized view item as select id, repeat(note, 10) note from base");
    assert_divided(&assert_same_as_one(&db));
    db.psql("drop materialized view item; create view item as select * from base");
    assert_one_connection(&assert_same_as_one(&db), "it is a view");
}

/// A small table is not worth it, and an empty one is activated all the same.
#[test]
fn small_tables() {
    let db = TestDb::new("parallel_small");
    db.psql("create table item (id integer primary key); create table root (id integer) partition by list (id);");
    let catalog = catalog(&db, "FULL_TABLE").select("public-root", "FULL_TABLE");
    let empty = tap(&db, &catalog, 4).run();
    assert_eq!((ranges(&empty), rows(&empty).len()), (1, 0));
    assert_eq!(activated(&empty.messages), 4);
    db.psql("insert into item select generate_series(1, 1000)");
    let small = tap(&db, &catalog, 4).run();
    assert_eq!((ranges(&small), rows(&small).len()), (1, 1000));
}

#[test]
fn a_role_that_may_read_some_columns() {
    let db = TestDb::new("parallel_columns");
    db.psql(SPARSE);
    let role = Role::new(&db, "");
    db.psql(&format!("grant select (id) on item to {}", role.name));
    let tap = || Tap::new(&db).config("user", role.name.as_str());
    let catalog = tap().discover().select("public-item", "FULL_TABLE");
    let output = tap().catalog(&catalog).config("copy_parallelism", 3).run();
    assert_one_connection(&output, "the role may not read all columns");
    assert_eq!(rows(&output).len(), 15_000);
}

/// Rows of another server's have no place that stays.
#[test]
fn a_foreign_leaf() {
    let db = TestDb::new("parallel_foreign");
    if db.query("select 1 from pg_available_extensions where name = 'postgres_fdw'").is_empty() {
        return;
    }
    db.psql(PARTITIONED);
    db.psql(&format!(
        "create extension postgres_fdw;
         create server here foreign data wrapper postgres_fdw options (host '{}', port '{}', dbname '{}');
         create user mapping for current_user server here options (user 'postgres');
         create table far (id integer not null, note text, at integer); insert into far values (30001, 'far', null);
         create foreign table far_leaf (id integer not null, note text, at integer) server here options (table_name 'far');
         alter table item attach partition far_leaf for values from (30000) to (40000);",
        db.cluster().dir().display(),
        db.cluster().port(),
        db.name()
    ));
    assert_one_connection(&assert_same_as_one(&db), "some of its rows are in no heap");
}

/// A role that may open the two connections which every run has, and so many more.
#[track_caller]
fn with_spare_connections(spare: u32) -> Output {
    let db = TestDb::new("parallel_spare");
    db.psql(SPARSE);
    let role = Role::reader(&db, &format!("connection limit {}", 2 + spare));
    let catalog = catalog(&db, "FULL_TABLE");
    let output = tap(&db, &catalog, 4).config("user", role.name.as_str()).run();
    assert_eq!(rows(&output).len(), 15_000);
    assert_divided(&output);
    output
}

#[test]
fn connections_that_are_refused() {
    for spare in [3, 1, 0] {
        let output = with_spare_connections(spare);
        let refused = output.logged("one connection less copies: cannot connect");
        // One that has read what was left gives its place to the next.
        assert!(refused <= 4 - spare as usize, "{}", output.stderr);
        assert!(spare > 0 || release() < 14 || refused == 4, "{}", output.stderr);
    }
}

/// A copy of wide rows that stands still: nobody reads, every buffer is full and the server waits.
#[track_caller]
fn stalled(db: &TestDb, catalog: &Catalog) -> Stalled {
    let stalled = tap(db, catalog, 3).stall();
    db.wait_until(&format!("(select count(*) {COPIES} and wait_event = 'ClientWrite') = 3"));
    stalled
}

#[test]
fn a_signal_ends_a_copy() {
    if !needs(14, "ranges of a table") {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let source = Source::new("pgoutput", WIDE, &["item"]);
        let stalled = stalled(&source.db, &source.catalog);
        stalled.signal(signal);
        // Its last lines still wait for a reader.
        source.db.wait_until(&format!("not exists (select {COPIES} and state = 'active')"));
        let output = stalled.finish().expect_code(128 + signal.as_raw());
        assert!(output.messages.last().is_some_and(Message::is_state), "whole lines, then a STATE");
        assert_eq!(output.bookmark("public-item")["xmin"], 1, "an unfinished copy");
        assert_eq!(activated(&output.messages), 1, "only what a first copy begins with");
        let mut target = Target::default();
        target.apply(&output.messages);
        let next = source.tap().state(output.last_state()).config("copy_parallelism", 2).run();
        target.apply(&next.messages);
        assert_eq!(target.rows("public-item").len(), 20_000);
        assert!(next.bookmark("public-item")["xmin"].is_null());
    }
}

/// Queries that have nothing to send notice no closed connection.
#[test]
fn a_signal_cancels_the_queries() {
    if !needs(14, "ranges of a table") {
        return;
    }
    let db = TestDb::new("parallel_cancel");
    db.psql(SPARSE);
    db.psql(
        "create function slow(integer) returns boolean language sql volatile as
           'select pg_sleep(600) is not null or $1 is null';
         alter table item enable row level security; create policy p on item using (slow(id));",
    );
    let role = Role::reader(&db, "");
    let running = tap(&db, &catalog(&db, "FULL_TABLE"), 2).config("user", role.name.as_str()).spawn();
    db.wait_until(&format!("(select count(*) {COPIES} and wait_event = 'PgSleep') = 2"));
    running.signal(Signal::TERM);
    running.finish().expect_code(143);
    db.wait_until(&format!("not exists (select {COPIES} and state = 'active')"));
}

#[test]
fn one_connection_that_is_lost_fails_the_run() {
    if !needs(14, "ranges of a table") {
        return;
    }
    let source = Source::new("pgoutput", WIDE, &["item"]);
    let stalled = stalled(&source.db, &source.catalog);
    source.db.psql(&format!("select pg_terminate_backend(pid) from (select pid {COPIES} limit 1) one"));
    let output = stalled.finish().expect_code(1);
    assert_eq!(output.logged("level=CRITICAL") + output.logged("level=ERROR"), 1, "{}", output.stderr);
    assert_eq!(activated(&output.messages), 1, "only what a first copy begins with");
    assert_eq!(output.bookmark("public-item")["xmin"], 1, "an unfinished copy");
    source.db.wait_until(&format!("not exists (select {COPIES})"));
    let next = source.run(output.last_state());
    assert_eq!(rows(&next).len(), 20_000);
}

/// Its rows are in all ranges or in none: here in none, as it came after the copy began.
#[test]
fn a_leaf_attached_meanwhile() {
    if !needs(14, "ranges of a table") {
        return;
    }
    let db = TestDb::new("parallel_attached");
    db.psql(&WIDE.replace("item", "early"));
    db.psql(
        "create table late (like early including storage); insert into late select 30000 + id, filler from early;
         create table item (like early) partition by range (id);
         alter table item attach partition early for values from (0) to (30000);",
    );
    let stalled = stalled(&db, &catalog(&db, "FULL_TABLE"));
    let mut session = db.session();
    session.run("set lock_timeout = '5s'; alter table item attach partition late for values from (30000) to (60000);");
    let output = stalled.finish().expect_code(0);
    assert_eq!(db.query_one("select count(*) from item"), "40000");
    assert_eq!(output.records("public-item").len(), 20_000);
}

/// Who waits to alter the table waits for the copy, and would have its connections wait in turn.
#[test]
fn a_lock_that_is_waited_for_does_not_hold_up_a_copy() {
    if !needs(14, "ranges of a table") {
        return;
    }
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "parallel_lock");
    db.psql(SPARSE);
    let catalog = catalog(&db, "FULL_TABLE");
    let (mut altering, mut watching) = (db.session(), db.session());
    // Time between the copy's lock and those of its connections.
    watching.run("alter system set post_auth_delay = 3; select pg_reload_conf();");
    let running: Running = tap(&db, &catalog, 2).spawn();
    until_within(Duration::from_secs(60), "the copy locks its table", || {
        watching.run("select count(*) from pg_locks where relation = 'item'::regclass;").trim() == "1"
    });
    let output = thread::scope(|scope| {
        scope.spawn(|| altering.run("alter table item add added integer;"));
        running.finish().expect_code(0)
    });
    assert_eq!(output.logged("one connection less copies"), 2, "{}", output.stderr);
    assert_eq!(rows(&output).len(), 15_000);
}

/// What is rewritten after a snapshot was taken looks empty to it.
#[test]
fn a_table_that_is_rewritten_when_the_copy_begins() {
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "parallel_rewritten");
    db.psql(SPARSE);
    let catalog = catalog(&db, "FULL_TABLE");
    let mut altering = db.session();
    for (connections, ty) in [(1, "bigint"), (3, "numeric")] {
        altering.run(&format!("begin; alter table item alter id type {ty};"));
        let running = tap(&db, &catalog, connections).spawn();
        db.wait_until("exists (select from pg_locks where not granted)");
        altering.run("commit;");
        let output = running.finish().expect_code(0);
        assert_eq!(rows(&output).len(), 15_000, "{connections} connections");
    }
}

#[test]
fn what_is_no_unicode_text_is_told_of_once() {
    let db = TestDb::new("parallel_text");
    db.psql(&SPARSE.replace("note text", "note text, doc json"));
    db.psql(r#"update item set doc = '"\ud800"' where id % 10 = 0"#);
    let output = assert_same_as_one(&db);
    assert_divided(&output);
    assert_eq!(output.logged("not UTF-8"), 1);
    let replaced = output.records("public-item").into_iter().filter(|record| record["doc"] == "\u{fffd}");
    assert_eq!(replaced.count(), 1500);
}
