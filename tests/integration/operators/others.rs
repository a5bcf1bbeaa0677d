//! Objects of another role, in a schema that the tap's role searches before all others: none of them is called.

use serde_json::{Value, json};

use crate::harness::{Catalog, Cluster, Output, Tap, TestDb};
use crate::log_based::with_both_plugins;

with_both_plugins!(nothing_of_others_is_called);

/// What the tap reads; the role of its config owns it. The extension's schema is one where others create too.
const TABLES: &str = "
create extension citext schema public;
create domain public.mail as public.citext;
set role tap;
create table public.d (k pg_catalog.varchar(20) primary key, n integer, big pg_catalog.text);
alter table public.d alter big set storage external;
create table public.m (k public.mail primary key, n integer, big pg_catalog.text);
alter table public.m alter big set storage external;
create table public.j (id integer primary key, j pg_catalog.jsonb, a pg_catalog.text[]);
create table public.p (id integer primary key, n integer) partition by range (id);
create table public.p1 partition of public.p for values from (0) to (1000000);
create view public.v as select id from public.j;
insert into public.d select g, g, repeat('x', 5000) from generate_series(1, 1000) g;
insert into public.m values ('a', 1, repeat('x', 5000)), ('b', 2, repeat('x', 5000));
insert into public.j values (1, '{\"a\": 1}', '{a,b}');
insert into public.p select g, g from generate_series(1, 100) g;";

/// What is made for the extension's types: it would fit better than the extension's own.
const FOR_MAIL: &str = "set search_path = pg_catalog; set role mallory;
create function public.mail_op(a public.mail, b public.mail) returns boolean language plpgsql as $$ begin
  return public.loot('mail'); end $$;
create function public.mail_op(a public.mail, b public.citext) returns boolean language plpgsql as $$ begin
  return public.loot('mail'); end $$;
create operator public.= (leftarg = public.mail, rightarg = public.mail, procedure = public.mail_op);
create operator public.>= (leftarg = public.mail, rightarg = public.mail, procedure = public.mail_op);
create operator public.= (leftarg = public.mail, rightarg = public.citext, procedure = public.mail_op);
create operator public.>= (leftarg = public.mail, rightarg = public.citext, procedure = public.mail_op);";

/// What was called so far.
fn loot(db: &TestDb) -> Vec<String> {
    db.cluster().log().lines().filter(|line| line.contains("LOOT")).map(str::to_owned).collect()
}

fn nothing_of_others_is_called(plugin: &str) {
    let db = TestDb::on(&Cluster::start(""), "operators_of_others");
    let name = db.name().to_owned();
    db.psql(&format!(
        "create role tap login replication; create role mallory;
         grant create on database {name} to tap; grant usage, create on schema public to tap, mallory;
         alter role tap set search_path = public, pg_catalog;"
    ));
    db.psql(TABLES);
    db.psql(&format!("set role mallory; {}", include_str!("others.sql")));
    db.psql(FOR_MAIL);

    // They are in the way of whoever searches public.
    let session = db.cluster().psql(&format!("dbname={name} user=tap")).args(["-qc", "select 1 = 1"]).output();
    assert!(session.expect("run psql").status.success());
    let before = loot(&db);
    assert!(!before.is_empty(), "{}", db.cluster().log());
    assert_eq!(before.iter().filter(|line| line.contains("LOOT of tap by")).count(), before.len(), "{before:?}");
    let unharmed = |what: &str| {
        let now = loot(&db);
        assert!(now.len() == before.len(), "{what}: {:?}", &now[before.len()..]);
    };

    let tap = || Tap::new(&db).config("user", "tap").config("output_plugin", plugin).config("debug_lsn", true);
    let discovered = tap().discover();
    unharmed("discovery");
    tap().config("default_replication_method", "FULL_TABLE").config("target_session_attrs", "read-write").run();
    unharmed("runs without a catalog");

    let select = |catalog: Catalog, method| {
        ["d", "m", "j", "p"].iter().fold(catalog, |catalog, table| catalog.select(&format!("public-{table}"), method))
    };
    let log_based = || {
        let tap = tap().catalog(&select(discovered.clone(), "LOG_BASED"));
        tap.config("create_replication_slot", true).config("copy_parallelism", 2)
    };
    checked(log_based(), &json!({}));
    unharmed("--test before the first run");
    let mut state = log_based().run().last_state().clone();
    unharmed("the copies");
    for reader in ["stream", "bulk"] {
        db.psql(
            "set search_path = pg_catalog; update public.d set n = n + 1 where n > 997; update public.m set n = n + 1;
             update public.j set j = '{}'; insert into public.p select max(id) + 1 from public.p;",
        );
        checked(log_based(), &state);
        let output = log_based().config("wal_reader", reader).state(&state).run();
        unharmed(&format!("the log, by {reader}"));
        for (stream, count) in [("public-d", 3), ("public-m", 2)] {
            let records = output.records(stream);
            assert_eq!(records.len(), count, "{}", output.stderr);
            assert!(records.iter().all(|record| record.contains_key("big")), "large values are looked up: {records:?}");
        }
        state = output.last_state().clone();
    }

    let incremental =
        || tap().catalog(&discovered.clone().select_incremental("public-d", "k").select_incremental("public-m", "k"));
    let first = incremental().run();
    let second = incremental().state(first.last_state()).run();
    unharmed("INCREMENTAL");
    assert_eq!((second.records("public-d").len(), second.records("public-m").len()), (1, 1));
    checked(incremental(), second.last_state());
    unharmed("--test");
}

fn checked(tap: Tap, state: &Value) -> Output {
    tap.arg("--test").state(state).output().expect_code(0)
}
