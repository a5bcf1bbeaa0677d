//! Where STATE stands and what it claims.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Source, bookmark, content, lsn, numbers, with_both_plugins};
use crate::harness::{Message, Output};

with_both_plugins!(
    the_first_state_claims_nothing,
    a_copy_begins_as_unfinished,
    a_run_without_records_has_one_state,
    other_tables_alone_move_the_position,
    no_state_inside_a_transaction,
    a_long_run_has_states_in_between,
    any_state_can_be_resumed_from,
    the_same_state_gives_the_same_records,
    positions_never_decrease,
    a_stream_skips_what_it_has,
    interleaved_transactions_arrive_once,
);

const TABLES: &str = "create table item (id integer primary key, tx bigint default txid_current());
    create table other (id integer primary key);
    create table ignored (id integer primary key);";

fn fill(table: &str, from: i64, to: i64) -> String {
    format!("insert into {table} select generate_series({from}, {to});")
}

/// The first STATE has to be the message before the first RECORD.
#[track_caller]
fn first_state(output: &Output) -> &Value {
    let index = output.messages.iter().position(Message::is_state).expect("a STATE");
    let next = &output.messages[index + 1];
    assert!(next.as_record().is_some(), "after the first STATE: {next:?}");
    assert!(output.messages[..index].iter().all(|message| message.as_record().is_none()), "a RECORD before any STATE");
    output.messages[index].as_state().expect("a STATE")
}

fn the_first_state_claims_nothing(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let state = source.copied();
    source.db.psql(&fill("other", 1, 3));
    let output = source.run(&state);
    assert_eq!(first_state(&output)["bookmarks"], state["bookmarks"]);
    for table in ["item", "other"] {
        assert!(lsn(output.last_state(), table) > lsn(&state, table), "an idle stream moves on too: {table}");
    }
}

fn a_copy_begins_as_unfinished(plugin: &str) {
    let source =
        Source::new(plugin, &format!("{TABLES}{}{}", fill("item", 1, 3), fill("other", 1, 3)), &["item", "other"]);
    let output = source.tap().run();
    let first = first_state(&output);
    for table in ["item", "other"] {
        // The reference refuses an xmin without a position, and copies a stream that has neither.
        let bookmark = &first["bookmarks"][format!("public-{table}")];
        assert!(bookmark["xmin"] == 1 || bookmark.get("lsn").is_none(), "{first}");
    }
    // In between, whatever is not finished says so; at the end nothing is left unfinished.
    let mut activated = Vec::new();
    for message in &output.messages {
        match message {
            Message::ActivateVersion { stream, .. } => activated.push(stream.clone()),
            Message::State(state) => {
                for stream in ["public-item", "public-other"] {
                    let activations = activated.iter().filter(|of| *of == stream).count();
                    let bookmark = &state["bookmarks"][stream];
                    if bookmark["xmin"].is_null() && bookmark.get("lsn").is_some() {
                        assert!(activations > 0, "{stream} is done before its ACTIVATE_VERSION: {state}");
                    }
                }
            }
            _ => {}
        }
    }
    for stream in ["public-item", "public-other"] {
        let bookmark = output.bookmark(stream);
        assert_eq!(bookmark.get("xmin"), Some(&Value::Null));
        assert_eq!(bookmark["last_replication_method"], "LOG_BASED");
        assert!(bookmark["table_oid"].is_u64() && bookmark["version"].is_u64() && bookmark["lsn"].is_u64());
    }
    assert_eq!(output.last_state()["currently_syncing"], Value::Null);
}

fn a_run_without_records_has_one_state(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let mut state = source.copied();
    for round in 0..3 {
        let started = Instant::now();
        let output = source.run(&state);
        let took = started.elapsed();
        assert_eq!(output.states().len(), 1, "round {round}: {output:?}");
        assert_eq!(output.record_messages().count(), 0);
        // The limit of an idle run is 2 s; a machine under load gets some more.
        assert!(took < Duration::from_secs(5), "an idle run took {took:?}");
        assert!(lsn(output.last_state(), "item") >= lsn(&state, "item"));
        state = output.last_state().clone();
    }
}

/// Else the slot would hold back log for as long as the selected tables stay as they are.
fn other_tables_alone_move_the_position(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    source.db.psql(&fill("ignored", 1, 5000));
    let end = source.end();
    let output = source.run(&state);
    assert_eq!(output.states().len(), 1);
    assert!(lsn(output.last_state(), "item") >= end, "{} is below {end}", output.last_state());
}

/// Between two records of one transaction there is no STATE, wherever else there may be one.
#[track_caller]
fn assert_no_state_inside(output: &Output) {
    let mut last: Option<&Value> = None;
    let mut state_since = false;
    for message in &output.messages {
        match message {
            Message::State(_) => state_since = true,
            Message::Record(record) => {
                let transaction = &record.record["tx"];
                assert!(!(state_since && last == Some(transaction)), "a STATE inside transaction {transaction}");
                (last, state_since) = (Some(transaction), false);
            }
            _ => {}
        }
    }
}

fn no_state_inside_a_transaction(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let output = source.run_after(&fill("item", 1, 35_000), &source.copied());
    assert_eq!(output.records("public-item").len(), 35_000);
    assert_no_state_inside(&output);
}

fn a_long_run_has_states_in_between(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    let changes: String = (0..12).map(|n| fill("item", n * 4000 + 1, n * 4000 + 4000)).collect();
    let output = source.run_after(&changes, &state);
    assert_eq!(output.records("public-item").len(), 48_000);
    assert_no_state_inside(&output);
    assert!(output.states().len() >= 4, "{} states for 48,000 changes", output.states().len());
    let positions: Vec<u64> = output.states().iter().map(|state| lsn(state, "item")).collect();
    assert!(positions.is_sorted(), "{positions:?}");
}

/// Whatever STATE a target has stored: the records before it and those of a run from it are all there are.
fn any_state_can_be_resumed_from(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let changes: String = (0..5).map(|n| fill("item", n * 6000 + 1, n * 6000 + 6000)).collect();
    let output = source.run_after(&changes, &source.copied());
    let states: Vec<(usize, &Value)> =
        output.messages.iter().enumerate().filter_map(|(at, message)| Some((at, message.as_state()?))).collect();
    assert!(states.len() > 2);
    for (at, state) in states {
        let before = output.messages[..at].iter().filter(|message| message.as_record().is_some()).count() as i64;
        let rest = numbers(&source.tap().state(state).run(), "item", "id");
        assert_eq!(rest, (before + 1..=30_000).collect::<Vec<_>>(), "from the STATE after {before} records");
        // Resuming acknowledges the state that was given; going back before it is another test's matter.
    }
}

fn the_same_state_gives_the_same_records(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let state = source.copied();
    let changes = "insert into item values (1), (2); update item set id = 3 where id = 1; insert into other values (1);
        delete from item;";
    let first = source.run_after(changes, &state);
    assert_eq!(first.record_messages().count(), 7);
    let second = source.run(&state);
    assert_eq!(content(&first), content(&second));
    // Nor does a later change make a difference to what came before it.
    let third = source.run_after("insert into other values (2)", &state);
    assert_eq!(content(&third)[..7], content(&first)[..]);
}

fn positions_never_decrease(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let older = source.copied();
    source.db.psql(&format!("{}{}", fill("item", 1, 3), fill("other", 1, 3)));
    // One stream is far ahead of the other.
    let mut state = source.run(&older).last_state().clone();
    bookmark(&mut state, "other")["lsn"] = json!(lsn(&older, "other"));
    let before: String = (4..8).map(|n| fill("other", n, n)).collect();
    source.db.psql(&before);
    let output = source.run(&state);
    assert_eq!(numbers(&output, "other", "id"), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(numbers(&output, "item", "id"), [0; 0]);
    for table in ["item", "other"] {
        let given = [lsn(&state, table)].into_iter();
        let positions: Vec<u64> = given.chain(output.states().iter().map(|state| lsn(state, table))).collect();
        assert!(positions.is_sorted(), "{table}: {positions:?}");
    }
}

fn a_stream_skips_what_it_has(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let start = source.copied();
    let both = |n: i64| format!("begin; {} {} commit;", fill("item", n, n), fill("other", n, n));
    source.db.psql(&format!("{}{}", both(1), both(2)));
    let mut mixed = start.clone();
    bookmark(&mut mixed, "item")["lsn"] = json!(lsn(source.run(&start).last_state(), "item"));
    source.db.psql(&format!("{}{}", both(3), both(4)));
    let output = source.run(&mixed);
    assert_eq!(numbers(&output, "other", "id"), [1, 2, 3, 4]);
    assert_eq!(numbers(&output, "item", "id"), [3, 4]);
}

/// Transactions that overlap: the log holds their changes mixed, the one that began last commits first.
fn interleaved_transactions_arrive_once(plugin: &str) {
    let cluster = crate::harness::Cluster::start("");
    let source = Source::on(&cluster, plugin, TABLES, &["item", "other"]);
    let mut state = source.copied();
    let (mut one, mut two) = (source.db.session(), source.db.session());
    one.run("begin; insert into item (id) values (1);");
    two.run("begin; insert into item (id) values (2);");
    one.run("insert into other values (1);");
    two.run("insert into other values (2); commit;");
    let mut items = Vec::new();
    let mut others = Vec::new();
    for step in 0..4 {
        let output = source.run(&state);
        items.push(numbers(&output, "item", "id"));
        others.push(numbers(&output, "other", "id"));
        state = output.last_state().clone();
        match step {
            0 => drop(source.db.psql("insert into item values (10)")),
            1 => drop(one.run("insert into item (id) values (3); commit;")),
            _ => {}
        }
    }
    assert_eq!(items, [vec![2], vec![10], vec![1, 3], vec![]]);
    assert_eq!(others, [vec![2], vec![], vec![1], vec![]]);
}
