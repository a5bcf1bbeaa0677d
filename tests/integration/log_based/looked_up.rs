//! Rows whose values are read from the table, because the log leaves them out: a target holds in the end what the table
//! does, whatever happened to the rows meanwhile.

use super::{Source, assert_fits, assert_holds, follow, numbers, with_both_plugins};
use crate::harness::release;

with_both_plugins!(
    keys_that_are_equal_and_spelt_otherwise,
    rows_that_change_and_go_meanwhile,
    rows_that_change_and_go_while_the_tap_reads,
    keys_of_every_kind,
);

const BIG: &str = "create function big(text) returns text language sql immutable as
        $$ select string_agg(md5(i::text || $1), '') from generate_series(1, 200) i $$;";

/// `1.10` and `1.1` are one key: the log has the one, the table the other.
fn keys_that_are_equal_and_spelt_otherwise(plugin: &str) {
    // Before 12 no text is equal to another.
    let (collation, word) = match release() {
        ..12 => ("lc_collate = 'C', lc_ctype = 'C'", "Word"),
        _ => ("provider = icu, locale = 'und-u-ks-level2', deterministic = false", "wORD"),
    };
    let sql = format!(
        "{BIG} create collation anycase ({collation});
         create table doc (id numeric, word text collate anycase, title text, body text, primary key (id, word));
         alter table doc alter body set storage external;
         insert into doc values (1.10, 'Word', 't', big('1')), (2.00, 'b', 't', big('2')), (3, 'c', 't', big('3'));"
    );
    let source = Source::new(plugin, &sql, &["doc"]);
    let first = source.tap().run();
    let output = source.run_after(
        &format!(
            "update doc set title = 'new' where id = 1.1; update doc set id = 1.1, word = '{word}' where id = 1.10;
             update doc set id = 2.0000 where id = 2; update doc set title = 'newer' where id < 3;"
        ),
        first.last_state(),
    );
    assert_fits(&output.messages);
    let live = output.records("public-doc").into_iter().filter(|record| record["_sdc_deleted_at"].is_null());
    for record in live {
        let of = record["id"].to_string();
        let body = source.db.query_one(&format!("select big('{}')", &of[..1]));
        assert_eq!(record["body"], body, "{of}");
    }
    assert_eq!(
        output
            .record_messages()
            .filter(|record| record.record.get("title").is_some_and(|title| title == "newer"))
            .count(),
        2
    );
}

const DOC: &str = "create table doc (id integer primary key, n integer, body text, more text);
    alter table doc alter body set storage external, alter more set storage external;
    insert into doc select i, i, big('b' || i), big('m' || i) from generate_series(1, 20) i;";

const CHANGES: &str = "update doc set n = 100 where id = 1; update doc set body = big('x'), n = 101 where id = 1; update doc set n = 102 where id = 1;
    update doc set n = 100 where id = 2; delete from doc where id = 2; insert into doc values (2, 2, big('again'), null);
    update doc set n = 100, more = null where id = 3; update doc set more = 'm', n = 3 where id = 3; delete from doc where id = 4;
    begin; update doc set id = 50 where id = 5; update doc set n = 100 where id = 50; update doc set id = 5 where id = 50; commit;
    update doc set id = 60 where id = 6; update doc set n = 100 where id = 60; delete from doc where id = 60;
    update doc set id = 80 where id = 7; update doc set id = 7 where id = 8; update doc set id = 8 where id = 80; update doc set n = 5 where id in (7, 8);
    begin; update doc set n = 9 where id = 9; savepoint a; update doc set body = 'rolled back' where id = 9; rollback to a; commit;
    update doc set n = n + 1 where id > 10; delete from doc where id in (11, 13); update doc set body = body || '' where id > 15;";

fn rows_that_change_and_go_meanwhile(plugin: &str) {
    for identity in ["default", "full"] {
        let sql = format!("{BIG} {DOC} alter table doc replica identity {identity};");
        let source = Source::new(plugin, &sql, &["doc"]);
        let first = source.tap().run();
        source.db.psql(CHANGES);
        for reader in ["bulk", "stream"] {
            let output = source.tap().state(first.last_state()).config("wal_reader", reader).run();
            assert_fits(&output.messages);
            assert_holds(&source.db, "doc", &[&first.messages, &output.messages]);
            // `omit` leaves out no more than what did not change.
            let omitted = source
                .tap()
                .state(first.last_state())
                .config("wal_reader", reader)
                .config("unchanged_toast", "omit")
                .run();
            let (with, without) = (output.records("public-doc"), omitted.records("public-doc"));
            assert_eq!(with.len(), without.len());
            for (with, without) in with.iter().zip(without) {
                assert!(without.iter().all(|(name, value)| with.get(name) == Some(value)), "{without:?} of {with:?}");
                assert!(identity == "default" || without.len() == with.len());
            }
        }
    }
}

fn rows_that_change_and_go_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, &format!("{BIG} {DOC}"), &["doc"]);
    let first = source.tap().run();
    let output = follow(&source, "doc", first.last_state(), |running| {
        for (id, change) in (100..).zip(CHANGES.split_inclusive('\n')) {
            running.after(&format!("{change} insert into doc values ({id}, 0, 'end', null);"), id);
        }
    });
    assert_fits(&output.messages);
    assert_holds(&source.db, "doc", &[&first.messages, &output.messages]);
}

/// Keys are compared by their types: each of these is found.
fn keys_of_every_kind(plugin: &str) {
    let kinds = [
        "1::smallint",
        "1::bigint",
        "1.5::real",
        "1e300::float8",
        "-0.00::numeric",
        "'x'::text",
        "''::varchar(5)",
        "'ab'::char(4)",
        "'x'::name",
        "'x'::\"char\"",
        "true",
        "'2024-02-29'::date",
        "'infinity'::timestamp",
        "'2024-02-29 12:00:00.123456+05:30'::timestamptz",
        "'24:00'::time",
        "'12:00+05:30'::timetz",
        "'1 day'::interval",
        "'\\x00ff'::bytea",
        "B'101'::bit(3)",
        "B'1'::varbit",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        "'10.0.0.1/8'::inet",
        "'{1,2}'::integer[]",
        "'{a,\"b c\"}'::text[]",
        "'[1,5)'::int4range",
        "'ok'::mood",
        "'five5'::short",
        "'{\"a\": 1.10}'::jsonb",
        "12::oid",
        "'1'::money",
    ];
    let tables: String = kinds
        .iter()
        .enumerate()
        .map(|(at, kind)| {
            format!(
                "create table doc{at} as select {kind} as id, 1 as n, big('x') as body; alter table doc{at} add primary key (id),
                 alter body set storage external; insert into doc{at} select id, n, body from doc{at} where false; update doc{at} set body = big('y');"
            )
        })
        .collect();
    let names: Vec<String> = (0..kinds.len()).map(|at| format!("doc{at}")).collect();
    let streams: Vec<&str> = names.iter().map(String::as_str).collect();
    let sql = format!(
        "{BIG} create type mood as enum ('ok'); create domain short as varchar(5) check (value <> ''); {tables}"
    );
    let source = Source::new(plugin, &sql, &streams);
    let first = source.tap().run();
    let update: String = names.iter().map(|name| format!("update {name} set n = 2;")).collect();
    let output = source.run_after(&update, first.last_state());
    let body = source.db.query_one("select big('y')");
    for (name, kind) in names.iter().zip(kinds) {
        assert_eq!(numbers(&output, name, "n"), [2], "{kind}");
        assert_eq!(super::column(&output, name, "body"), [body.as_str()], "{kind}");
    }
}
