//! A bulk read prints what a streamed one prints, byte for byte but for the time of extraction.

use serde_json::Value;

use super::{Source, lsn, with_both_plugins};
use crate::harness::{Message, Output, needs};

with_both_plugins!(the_same_messages, the_measured_workload);

const STREAMS: [&str; 7] = ["item", "doc", "tracked", "keyless", "event", "altered", "parent"];

const TABLES: &str = "
    create table item (id integer primary key, note text, amount numeric, at timestamptz, tags text[], doc jsonb);
    insert into item select i, 'n' || i, i * 1.10, '2024-02-29 12:00:00+05:30', array['a', null], '{\"a\": 1.10}'
        from generate_series(1, 50) i;
    create function big(text) returns text language sql immutable as
        $$ select string_agg(md5(i::text || $1), '') from generate_series(1, 300) i $$;
    create table doc (id integer primary key, title text, body text);
    alter table doc alter body set storage external;
    insert into doc select i, 't' || i, big(i::text) from generate_series(1, 5) i;
    create table tracked (id integer primary key, title text, body text);
    alter table tracked alter body set storage external, replica identity full;
    insert into tracked select * from doc;
    create table keyless (n integer, note text);
    alter table keyless replica identity full;
    create table event (id integer, at date, note text, primary key (id, at)) partition by range (at);
    create table event_2024 partition of event for values from ('2024-01-01') to ('2025-01-01');
    create table event_2025 partition of event for values from ('2025-01-01') to ('2026-01-01');
    create table altered (id integer primary key, note text, n integer);
    create table parent (id integer primary key); create table child (primary key (id)) inherits (parent);
    create table ignored (id integer primary key);";

/// Every kind of change.
const CHANGES: &str = "
    insert into item values (100, E'tab\\t \"quoted\" \\\\ é 日本', 'NaN', 'infinity', '{}', 'null'), (101, null, null, null, null, null);
    update item set note = 'new' where id < 10; update item set id = id + 1000 where id in (3, 4); delete from item where id = 5;
    begin; update item set note = 'one'; savepoint a; update item set note = 'rolled back'; insert into keyless values (0, 'gone');
    rollback to a; insert into keyless values (1, 'kept'); savepoint b; delete from item where id = 6; release b; commit;
    begin; insert into item(id) values (9999); rollback;
    update doc set title = 'new' where id < 4; update doc set id = 40 where id = 4; update doc set body = null where id = 5;
    update tracked set title = 'new' where id < 4; update tracked set id = 40 where id = 4; delete from tracked where id = 5;
    insert into keyless values (2, 'two'), (2, 'two'); update keyless set note = 'three' where n = 2; delete from keyless where n = 1;
    insert into event values (1, '2024-05-05', 'a'), (2, '2025-05-05', 'b'); update event set at = '2025-03-03' where id = 1;
    insert into event_2024 values (3, '2024-06-06', 'c'); delete from event where id = 2; truncate event_2024;
    create table event_2026 partition of event for values from ('2026-01-01') to ('2027-01-01');
    insert into event values (4, '2026-05-05', 'd');
    insert into altered values (1, 'a', 1); alter table altered add more text default 'm'; insert into altered values (2, 'b', 2, 'x');
    begin; update altered set n = 5; alter table altered alter n type text; update altered set n = 'five';
    alter table altered drop column note; insert into altered values (3, 'three', 'y'); commit;
    insert into parent values (1); insert into child values (2); update parent set id = id + 10;
    insert into ignored select generate_series(1, 1000); truncate ignored, keyless;
    begin; insert into item(id, note) values (200, 'prepared'); update doc set title = 'prepared' where id = 1;
    prepare transaction 'PREPARED'; insert into item(id, note) values (201, 'before it commits'); commit prepared 'PREPARED';
    begin; insert into item(id) values (202); prepare transaction 'PREPARED'; rollback prepared 'PREPARED';
    insert into item(id, note) select i, repeat('x', 50) from generate_series(20001, 40000) i;
    insert into keyless values (5, 'between');
    begin; update item set note = 'y' where id between 20001 and 32000; delete from item where id between 20001 and 20100; commit;
    insert into keyless values (6, 'last');";

/// Two transactions at a time, which commit in another order than they wrote in.
fn interleaved(source: &Source) {
    let (mut one, mut two) = (source.db.session(), source.db.session());
    one.run("begin; insert into keyless values (10, 'one');");
    two.run("begin; insert into keyless values (20, 'two');");
    one.run("insert into keyless values (11, 'one');");
    two.run("insert into keyless values (21, 'two'); commit;");
    one.run("commit;");
}

/// The lines without the time of extraction, which a RECORD ends with, and without what a run has seen of the tables.
fn lines(output: &Output) -> Vec<String> {
    let line = |line: &str| match line.rsplit_once(",\"time_extracted\":\"") {
        Some((record, time)) => format!("{record}{}", time.split_once('"').expect("a string").1),
        None => {
            let mut parts = line.split(",\"definition\":[");
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |line, part| line + part.split_once("]]").expect("an array that ends with one").1)
        }
    };
    output.stdout.lines().map(line).collect()
}

fn the_same_messages(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let source = Source::new(plugin, TABLES, &STREAMS);
    let state = source.copied();
    source.db.psql(&CHANGES.replace("PREPARED", source.db.name()));
    interleaved(&source);
    for (toast, debug_lsn) in [("fetch", true), ("omit", false)] {
        assert_same(&source, &state, "item", toast, debug_lsn);
    }
}

/// What scripts/bench measures with.
fn the_measured_workload(plugin: &str) {
    if !needs(11, "a bulk read") {
        return;
    }
    let workload = include_str!("../../../fixtures/bench/workload.sql").replace(":rows", "30000");
    let own = ["create publication", "select pg_create_logical_replication_slot"];
    let workload: Vec<&str> = workload.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).collect();
    let calls = workload.iter().position(|line| line.starts_with("call ")).expect("calls after the definitions");
    let (definitions, changes) = workload.split_at(calls);
    let source = Source::new(plugin, &definitions.join("\n"), &["orders"]);
    let state = source.copied();
    source.db.psql(&changes.join("\n"));
    assert_same(&source, &state, "orders", "fetch", false);
}

/// Reads what came after this state in both ways. `stream` is one whose bookmark moves.
#[track_caller]
fn assert_same(source: &Source, state: &Value, stream: &str, toast: &str, debug_lsn: bool) {
    let read = |reader: &str| {
        let tap = source.tap().state(state).config("wal_reader", reader);
        let output = tap.config("debug_lsn", debug_lsn).config("unchanged_toast", toast).run();
        assert_eq!(output.logged(&format!("({reader}; slot")), 1, "{}", output.stderr);
        output
    };
    // The read in bulk goes first, so that it is not spared what the streamed one acknowledges.
    let (bulk, streamed) = (read("bulk"), read("stream"));
    assert!(bulk.record_messages().count() > 32_000, "a test of too few changes");
    assert!(bulk.states().len() > 3, "a test without states on the way");
    let (mut in_bulk, mut in_stream) = (lines(&bulk), lines(&streamed));
    // The last STATE is of the end of the run, which a later run sets later, and a stream may be a little past.
    let ends = (in_bulk.pop(), in_stream.pop());
    for (index, (bulk, streamed)) in in_bulk.iter().zip(&in_stream).enumerate() {
        assert_eq!(bulk, streamed, "line {index}, {toast}");
    }
    assert_eq!(in_bulk.len(), in_stream.len());
    assert_ends_alike(ends, lsn(bulk.last_state(), stream), lsn(streamed.last_state(), stream));
}

/// The last STATEs differ in nothing but their position.
#[track_caller]
fn assert_ends_alike(ends: (Option<String>, Option<String>), bulk: u64, stream: u64) {
    let end = |line: Option<String>, at: u64| {
        let line = line.expect("a last line");
        assert!(Message::parse(&line).is_ok_and(|message| message.as_state().is_some_and(Value::is_object)), "{line}");
        line.replace(&format!("\"lsn\":{at}"), "\"lsn\":0")
    };
    assert_eq!(end(ends.0, bulk), end(ends.1, stream));
    assert!(stream >= bulk, "a later run ends later");
}
