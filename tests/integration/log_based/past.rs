//! The log speaks of tables, columns, types and labels as they were, the tap knows them as they are: what was altered between
//! the change and the run. (`histories` draws such at random.)

use std::time::Duration;

use serde_json::{Value, json};

use super::{Source, assert_fits, assert_holds, lsn, numbers, only, with_both_plugins};
use crate::harness::target::Target;
use crate::harness::{Catalog, Cluster, Message, Tap, TestDb, needs, plugins};

with_both_plugins!(
    a_name_that_another_table_had,
    a_leaf_that_had_another_name,
    a_name_that_another_column_had,
    labels_and_parts_of_types,
    the_same_type_with_another_modifier,
    a_type_that_the_old_text_fits,
    a_key_out_of_line,
    an_identity_on_another_index,
    an_identity_that_is_no_more,
    a_key_of_another_type,
    a_key_of_another_column,
    what_no_log_shows,
    a_table_that_has_another_name_while_it_is_read,
    a_truncated_leaf_that_is_new,
    what_a_transaction_wrote_that_was_open_for_long,
    what_one_run_has_seen,
    what_one_run_has_seen_beside_an_open_transaction,
);

/// Whatever was altered, a target of the copy and of the run after these changes holds what the tables do, read in either way.
/// Returns what the runs say.
#[track_caller]
fn holds(plugin: &str, setup: &str, tables: &[&str], changes: &str) -> Vec<String> {
    let source = Source::new(plugin, setup, tables);
    let first = source.tap().run();
    source.db.psql(changes);
    let mut said = Vec::new();
    for reader in ["bulk", "stream"] {
        let output = source.tap().state(first.last_state()).config("wal_reader", reader).run();
        assert_fits(&output.messages);
        for table in tables {
            assert_holds(&source.db, table, &[&first.messages, &output.messages]);
        }
        said.push(output.stderr);
    }
    said
}

const D: &str =
    "create schema other; create table d (id int primary key, v text); insert into d values (1, 'a'), (2, 'b');";

fn a_name_that_another_table_had(plugin: &str) {
    for changes in [
        "alter table d rename to d_m; insert into d_m values (5, 'new'); delete from d_m where id = 2; alter table d_m rename to d;",
        "begin; alter table d rename to d_m; insert into d_m values (5, 'new'); update d_m set v = 'w'; alter table d_m rename to d; commit;",
        "alter table d set schema other; insert into other.d values (5, 'new'); update other.d set id = 7 where id = 1; alter table other.d set schema public;",
        "alter schema public rename to away; insert into away.d values (5, 'new'); delete from away.d where id = 1; alter schema away rename to public;",
        "begin; alter table d rename to d_keep; create table d (id int primary key, v text);
         insert into d values (1, 'of another table'), (66, 'of another table'); commit;
         begin; drop table d; alter table d_keep rename to d; commit; insert into d values (3, 'c');",
        "create table lent (id int primary key, v text); begin; alter table d rename to x; alter table lent rename to d; insert into d values (1, 'lent'), (9, 'lent');
         alter table d rename to lent; alter table x rename to d; commit;",
        "create table later (id int primary key, v text); insert into later values (1, 'in no stream');
         alter table d rename to mine; insert into mine values (8, 'h'); alter table mine rename to d;",
    ] {
        holds(plugin, D, &["d"], changes);
    }
}

fn a_leaf_that_had_another_name(plugin: &str) {
    if !needs(11, "a partitioned table's key") {
        return;
    }
    let setup = "create schema arch; create table p (id int primary key, v text) partition by range (id);
        create table p1 partition of p for values from (0) to (100); create table p2 partition of p for values from (100) to (200) partition by range (id);
        create table p2a partition of p2 for values from (100) to (150); insert into p values (1, 'a'), (101, 'b');";
    for changes in [
        "insert into p values (4, 'new'); update p set v = 'changed' where id = 101; delete from p where id = 1;
         alter table p1 rename to p1_2024; alter table p2a set schema arch; alter table p2 rename to p2_2024;",
        "create table p3 (id int primary key, v text); insert into p3 values (250, 'never in p'), (7, 'never in p'); drop table p3;
         create table p3 partition of p for values from (200) to (300); insert into p values (251, 'new');",
        "alter table p1 rename to t; insert into p values (5, 'e'); create table p1 (id int primary key, v text); insert into p1 values (1, 'not of p'), (90, 'not of p');
         drop table p1; alter table t rename to p1; insert into p values (6, 'f');",
    ] {
        holds(plugin, setup, &["p"], changes);
    }
}

fn a_name_that_another_column_had(plugin: &str) {
    let setup = "create table readd (id int primary key, c text); create table replaced (id int primary key, c text, c_new text);
        create table swap (id int primary key, c text, e text); create table lent (id int primary key, c int, e int);";
    holds(
        plugin,
        setup,
        &["readd", "replaced", "swap", "lent"],
        "insert into readd values (2, 'old'); alter table readd drop c; alter table readd add c text default 'new';
         insert into replaced values (2, 'old', 'new'); alter table replaced drop c; alter table replaced rename c_new to c;
         insert into swap values (2, 'C', 'E'); alter table swap rename c to x; alter table swap rename e to c; alter table swap rename x to e;
         begin; alter table lent rename c to x; alter table lent rename e to c; insert into lent values (1, 1, 2);
         alter table lent rename c to e; alter table lent rename x to c; commit;",
    );
}

fn labels_and_parts_of_types(plugin: &str) {
    holds(
        plugin,
        "create type mood as enum ('ok', 'sad'); create domain feeling as mood;
         create table d (id int primary key, c mood, l mood[], f feeling);",
        &["d"],
        "insert into d values (2, 'ok', '{ok,sad}', 'ok'); alter type mood rename value 'ok' to 'fine'; alter type mood rename value 'sad' to 'ok';",
    );
}

fn the_same_type_with_another_modifier(plugin: &str) {
    holds(
        plugin,
        "create table n (id int primary key, c numeric); create table ch (id int primary key, c char(5)); create table na (id int primary key, c numeric(12,2)[]);
         create table i (id int primary key, c int); create table vc (id int primary key, c varchar(9));",
        &["n", "ch", "na", "i", "vc"],
        "insert into n values (2, 1.239); alter table n alter c type numeric(10,2);
         insert into ch values (2, 'ab'); alter table ch alter c type char(10);
         insert into na values (2, '{1234567.89}'); alter table na alter c type numeric(3,2)[] using '{1.5}';
         insert into i values (2, 41); alter table i alter c type int using c * 100;
         insert into vc values (2, 'abcdefg'); alter table vc alter c type varchar(3) using left(c, 3);",
    );
    let source = Source::new(plugin, "create table t (id int primary key, c timestamp, e time, i interval);", &["t"]);
    let state = source.copied();
    let output = source.run_after(
        "insert into t values (2, '2024-06-01 10:00:00.6', '10:00:00.6', '1 day 10:00:00.6'); alter table t alter c type timestamp(0);
         alter table t alter e type time(0); alter table t alter i type interval(0);",
        &state,
    );
    let record = output.records("public-t")[0];
    assert!(record["c"].as_str().is_some_and(|c| c.starts_with("2024-06-01T10:00:01")), "{record:?}");
    assert_eq!((&record["e"], &record["i"]), (&json!("10:00:01"), &json!("1 day 10:00:01")));
}

fn a_type_that_the_old_text_fits(plugin: &str) {
    holds(
        plugin,
        "create type mood as enum ('sad', 'ok'); create table b (id int primary key, c boolean); create table ch (id int primary key, c char(5));
         create table i (id int primary key, c int); create table e (id int primary key, c text); create table t (id int primary key, c text);",
        &["b", "ch", "i", "e", "t"],
        "insert into b values (2, true); alter table b alter c type text; insert into ch values (2, 'ab'); alter table ch alter c type text;
         insert into i values (2, 41); alter table i alter c type bigint using c * 100; insert into e values (2, 'ok'); alter table e alter c type mood using 'sad'::mood;
         insert into t values (2, '6'); alter table t alter c type int using c::int + 100;",
    );
}

const LONG: &str = "create table d (k text primary key, n int, body text); alter table d alter k set storage external, alter body set storage external;
    insert into d select string_agg(md5(i::text || '1'), '' order by i), 1, repeat('b', 9600) from generate_series(1, 75) i;
    insert into d values ('short', 1, repeat('b', 9600));";

fn a_key_out_of_line(plugin: &str) {
    let source = Source::new(plugin, LONG, &["d"]);
    let state = source.copied();
    let output = source.run_after("update d set n = 2;", &state);
    let bodies = output.records("public-d").into_iter().map(|record| record["body"].as_str().map(str::len));
    assert_eq!(bodies.collect::<Vec<_>>(), [Some(9600), Some(9600)]);
    holds(plugin, LONG, &["d"], "update d set n = 3; alter table d add column x int default 7;");
}

fn an_identity_on_another_index(plugin: &str) {
    let setup = "create table d (url text primary key, code int not null unique, n int); alter table d alter url set storage external;
        alter table d replica identity using index d_code_key; insert into d select string_agg(md5(i::text), '' order by i), 1, 0 from generate_series(1, 75) i;";
    holds(plugin, setup, &["d"], "update d set n = 1;");
    holds(plugin, setup, &["d"], "alter table d rename to x; update x set n = 2, code = 5; alter table x rename to d;");
}

/// Nothing leads to a row whose key the log lacks and whose identity is another by now: the stream says so, under whatever name the
/// log has it, and no other does.
fn an_identity_that_is_no_more(plugin: &str) {
    let setup = "create table d (url text primary key, code int not null unique, n int); alter table d alter url set storage external;
        alter table d replica identity using index d_code_key; insert into d select string_agg(md5(i::text), '' order by i), 1, 0 from generate_series(1, 75) i;
        create table beside (id int primary key, n int); create table of_nobody (code int, n int); insert into of_nobody values (1, 1);";
    for renamed in [
        "",
        "alter table beside rename to other; alter table other rename to beside;",
        "alter table d rename to x; alter table x rename to d;",
    ] {
        let source = Source::new(plugin, setup, &["d", "beside"]);
        let first = source.tap().run();
        source.db.psql(&format!(
            "update d set n = 1; {renamed} insert into beside values (1); alter table d replica identity full;"
        ));
        for reader in ["bulk", "stream"] {
            let output =
                source.tap().state(first.last_state()).config("wal_reader", reader).output().expect_code(1).parsed();
            assert_eq!(output.logged("level=ERROR"), 1, "{}", output.stderr);
            assert!(
                output
                    .stderr
                    .contains("public-d: the log has a change from before the key (url) or the replica identity"),
                "{}",
                output.stderr
            );
            assert_eq!(numbers(&output, "beside", "id"), [1]);
            assert_eq!(lsn(output.last_state(), "d"), lsn(first.last_state(), "d"));
        }
    }
    // Another table's rows, though it has no column that this one has not; with names only nothing else tells them apart.
    let source = Source::new(plugin, setup, &["d"]);
    let state = source.copied();
    let changes = "insert into of_nobody values (1, 2); alter table d rename to x; alter table x rename to d;";
    source.run_after(changes, &state);
}

fn a_key_of_another_type(plugin: &str) {
    let said = holds(
        plugin,
        "create table u (id text primary key, v text); create table c (id char(4) primary key, v text); create table beside (id int primary key);
         create type mood as enum ('ok', 'sad'); create table m (id mood primary key, v text); insert into m values ('ok', 'a');
         insert into u values ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a'), ('B0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'b'); insert into c values ('1', 'a'), ('2', 'b');",
        &["u", "c", "beside", "m"],
        "insert into u values ('C0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'c'); update u set v = 'B' where id like 'B%'; alter table u alter id type uuid using id::uuid;
         insert into c values ('3', 'c'); update c set v = 'B' where id = '2'; alter table c alter id type text; insert into beside values (1);
         insert into m values ('sad', 'b'); alter type mood rename value 'ok' to 'fine';",
    );
    for stderr in said {
        for table in ["u", "c", "m"] {
            assert!(stderr.contains(&format!("public-{table}: the key was made anew")), "{stderr}");
        }
        assert!(!stderr.contains("public-beside: the key"), "{stderr}");
    }
}

fn a_key_of_another_column(plugin: &str) {
    holds(
        plugin,
        "create table a (id int primary key, v text); create table b (id int primary key); insert into a values (1, 'x'); insert into b values (1);",
        &["a", "b"],
        "insert into a values (2, 'y'); alter table a drop constraint a_pkey; alter table a add column k int generated always as identity;
         alter table a add primary key (k); insert into b values (2);",
    );
}

/// A table that is unlogged for a load, a leaf that pgoutput says nothing of, rows that come with a leaf, and what an ALTER does to
/// rows that nobody writes to.
fn what_no_log_shows(plugin: &str) {
    if !needs(13, "changes under the name of the root") {
        return;
    }
    let setup = "create table d (id int primary key); insert into d values (1); create table v (id int primary key); insert into v values (1);
        create table p (id int primary key) partition by range (id); create table p1 partition of p for values from (0) to (100);
        create table p2 partition of p for values from (100) to (200); insert into p values (1), (101);";
    let source = Source::new(plugin, setup, &["d", "v", "p"]);
    let state = source.copied();
    let output = source.run_after(
        "alter table d set unlogged; insert into d values (10); alter table d set logged; alter table v add c int default 7; truncate p1;
         create table p3 (id int primary key); insert into p3 values (201); alter table p attach partition p3 for values from (200) to (300);",
        &state,
    );
    let said = |text: &str| assert_eq!(output.logged(text), 1, "{text} in {}", output.stderr);
    said("public-d: other files than before");
    said("public-v: columns were added or altered since the last run (c)");
    said("public-p: a partition was truncated");
    said("public-p: attached as a partition: public.p3");
    assert!(!output.stderr.contains("public.p2 "), "{}", output.stderr);
    let again = source.run(output.last_state());
    assert!(!again.stderr.contains("bookmark to copy"), "said once: {}", again.stderr);
}

/// A transaction that stays open keeps a snapshot from telling what has committed beside it: what was told of is told once all the same.
fn what_one_run_has_seen_beside_an_open_transaction(plugin: &str) {
    let cluster = Cluster::start("");
    let setup = "create table d (id int primary key); insert into d values (1); create table v (id int primary key); create table other (id int);
        create schema arch;";
    let source = Source::on(&cluster, plugin, setup, &["d", "v"]);
    let state = source.copied();
    let mut open = source.db.session();
    open.run("begin; insert into other values (1);");
    let told = source.run_after(
        "alter table d set schema arch; insert into arch.d values (2); alter table arch.d set schema public; insert into d values (3);
         alter table v add c int default 7;",
        &state,
    );
    assert_eq!(numbers(&told, "d", "id"), [2, 3]);
    assert_eq!(told.logged("public-v: columns were added"), 1, "{}", told.stderr);
    // As it is for a run that nothing had to be told.
    let quiet = source.run_after("insert into d values (4); insert into v values (1)", told.last_state());
    assert_eq!(numbers(&quiet, "d", "id"), [4]);
    assert_eq!(quiet.warnings().len(), 0, "{:?}", quiet.warnings());
    open.run("commit;");
    let last = source.run_after("insert into d values (5)", quiet.last_state());
    assert_eq!(numbers(&last, "d", "id"), [5]);
}

/// Through the root pgoutput says nothing of it.
#[test]
fn a_truncate_of_a_leaf_that_is_not_sent() {
    if !needs(13, "changes under the name of the root") {
        return;
    }
    let db = TestDb::new("truncated_leaf");
    db.psql(
        "create table p (id int primary key) partition by range (id); create table p1 partition of p for values from (0) to (100);
         create table p2 partition of p for values from (100) to (200); insert into p values (1), (101);",
    );
    db.publication("for table p with (publish_via_partition_root = true)");
    let slot = db.slot("pgoutput");
    let source = Source::of(db, slot, &["p"]);
    let state = source.copied();
    let output = source.run_after("truncate p1;", &state);
    assert_eq!(output.logged("rewrites a table: public.p1:"), 1, "{}", output.stderr);
}

fn a_table_that_has_another_name_while_it_is_read(plugin: &str) {
    let setup = "create table t (id int primary key, n int, note text); alter table t alter note set storage external;
        insert into t values (1, 0, repeat('x', 5000)), (2, 0, repeat('y', 5000));";
    let source = Source::new(plugin, setup, &["t"]);
    let first = source.tap().run();
    let mut runs = vec![first];
    let running = source.tap().state(runs[0].last_state()).config("break_at_end_lsn", false).spawn();
    running.wait_for_log("reading the changes");
    source.db.psql("alter table t rename to t_x; update t_x set n = n + 1;");
    std::thread::sleep(Duration::from_millis(1500));
    source.db.psql("alter table t_x rename to t; update t set n = n + 1 where id = 2;");
    std::thread::sleep(Duration::from_millis(500));
    running.signal(rustix::process::Signal::TERM);
    runs.push(running.finish());
    let mut state = runs[1].states().last().map_or(runs[0].last_state(), |state| *state).clone();
    for _ in 0..2 {
        let output = source.run(&state);
        state = output.last_state().clone();
        runs.push(output);
    }
    let messages: Vec<&Vec<Message>> = runs.iter().map(|run| &run.messages).collect();
    assert_holds(&source.db, "t", &messages);
}

/// The first that the log says of it names no column.
fn a_truncated_leaf_that_is_new(plugin: &str) {
    if !needs(11, "TRUNCATE in the log") {
        return;
    }
    holds(
        plugin,
        "create table p (id int primary key) partition by range (id); create table p1 partition of p for values from (1) to (100); insert into p values (1);",
        &["p"],
        "create table p3 partition of p for values from (200) to (300); truncate p3; insert into p values (201), (2);",
    );
}

/// What was altered before the run before is no reason to look anything up, whatever holds the slot back.
fn what_one_run_has_seen(plugin: &str) {
    let source =
        Source::new(plugin, "create table d (id int primary key, v int); insert into d values (1, 1);", &["d"]);
    let state = source.copied();
    let altered = source.run_after("alter table d add c int; insert into d values (2, 2, 2);", &state);
    let state: Value = altered.last_state().clone();
    assert!(state["bookmarks"]["public-d"]["definition"].is_array());
    // A look-up would bring the last value twice.
    let output = source.run_after("update d set c = 3 where id = 2; update d set c = 4 where id = 2;", &state);
    assert_eq!(numbers(&output, "d", "c"), [3, 4]);
    assert_eq!(output.logged("WARNING"), 0, "{}", output.stderr);
}

/// A table is renamed after a run has read what was altered and before it looks up the names of the log: what was written under the name
/// that it had is not lost. An earlier rename has the run ask for the changes of all tables.
#[test]
fn a_name_that_goes_while_the_run_goes_on() {
    if !plugins().contains(&"wal2json") {
        return;
    }
    for reader in ["stream", "bulk"] {
        for renamed in [
            "alter table leaf rename to leaf_away",
            "alter table leaf rename to leaf_away; create table leaf (id integer, n integer)",
            "alter table t rename to t_away; alter table u rename to t",
        ] {
            let db = TestDb::new("past_while_it_runs");
            db.psql(
                "create table parted (id integer primary key, n integer) partition by list (id);
                 create table leaf partition of parted for values in (1, 2); insert into parted values (1, 1);
                 create table t (id integer primary key, n integer); create table u (like t including all);
                 insert into t values (1, 1); insert into u values (1, 100); create table a (id integer primary key);",
            );
            db.replicate("wal2json");
            let discovered = Tap::new(&db).config("wal_reader", reader).discover();
            let catalog = ["parted", "t", "u"]
                .iter()
                .fold(discovered, |c, table| c.select(&format!("public-{table}"), "LOG_BASED"));
            let tap = |catalog: &Catalog, state: &Value| {
                Tap::new(&db).config("wal_reader", reader).catalog(catalog).state(state)
            };
            let mut target = Target::default();
            let first = tap(&catalog, &json!({})).run();
            target.apply(&first.messages);
            db.psql("alter table a rename to b; alter table b rename to a; update parted set n = 2; insert into parted values (2, 2); update t set n = 2");
            // The copy of another table waits behind a lock.
            let mut lock = db.session();
            lock.run("begin; lock table a;");
            let catalog = catalog.select("public-a", "LOG_BASED");
            let running = tap(&catalog, first.last_state()).spawn();
            db.wait_until("exists (select from pg_locks where not granted and relation = 'a'::regclass)");
            db.psql(renamed);
            lock.run("commit;");
            let second = running.finish();
            let told = second.status.code() != Some(0);
            let second = second.parsed();
            target.apply(&second.messages);
            if told {
                // Nothing is passed over: the next run has it.
                let state = second.states().last().copied().unwrap_or(first.last_state());
                target.apply(&tap(&catalog, state).output().parsed().messages);
            }
            let rows = target.rows("public-parted");
            assert_eq!(rows, [r#"{"id":1,"n":2}"#, r#"{"id":2,"n":2}"#], "{reader} {renamed}: {}", second.stderr);
            // The row of the one did not become the other's.
            let other = target.rows("public-u");
            assert_eq!(other, [r#"{"id":1,"n":100}"#], "{reader} {renamed}: {}", second.stderr);
        }
    }
}

/// A transaction that was open while a label was renamed, and while a run has read and told of that, brings the label as it was; nobody
/// waits for it, since no lock does.
fn what_a_transaction_wrote_that_was_open_for_long(plugin: &str) {
    let cluster = Cluster::start("");
    let source = Source::on(
        &cluster,
        plugin,
        "create type mood as enum ('sad', 'ok'); create table t (id integer primary key, feeling mood); insert into t values (1, 'ok');",
        &["t"],
    );
    let mut open = source.db.session();
    let mut state = source.copied();
    for (id, (old, new)) in (2..).zip([("ok", "fine"), ("fine", "good")]) {
        open.run(&format!("begin; insert into t values ({id}, '{old}');"));
        source.db.psql(&format!("alter type mood rename value '{old}' to '{new}'"));
        let told = source.run(&state);
        assert_eq!(told.logged("added or altered since the last run (feeling)"), 1, "{}", told.stderr);
        // Told once, however long the transaction is open.
        let again = source.run(told.last_state());
        assert_eq!(again.logged("added or altered"), 0, "{}", again.stderr);
        open.run("commit;");
        let output = source.run(again.last_state());
        assert_eq!(only(&output, "t")["feeling"], new, "{}", output.stderr);
        assert_eq!(output.logged("added or altered"), 0, "{}", output.stderr);
        state = output.last_state().clone();
    }
}
