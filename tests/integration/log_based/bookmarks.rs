//! The states that a run may be given: its own, the reference's, PipelineWise FastSync's, the MeltanoLabs tap's.

use serde_json::{Value, json};

use super::{Source, bookmark, lsn, numbers, only, select, with_both_plugins};
use crate::harness::{Message, Output};

with_both_plugins!(
    fast_sync,
    meltano_labs,
    the_references,
    an_unfinished_copy_is_repeated,
    a_table_made_anew_is_copied_again,
    a_stream_added_is_copied_then_streamed,
    a_deselected_stream_is_forgotten,
    a_changed_method_starts_anew,
);

const TABLES: &str = "create table item (id integer); create table other (id integer primary key);
    insert into item values (1), (2);";

#[track_caller]
fn assert_not_copied(output: &Output) {
    let versions = output.messages.iter().filter(|message| matches!(message, Message::ActivateVersion { .. }));
    assert_eq!(versions.count(), 0, "{:?}", output.messages);
}

fn fast_sync(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let at = source.end();
    source.db.psql("insert into item values (3)");
    let state = json!({"bookmarks": {"public-item": {"lsn": at, "version": 1}}});
    let output = source.run(&state);
    assert_not_copied(&output);
    assert_eq!(numbers(&output, "item", "id"), [3]);
    assert!(output.record_messages().all(|record| record.version == Some(1)));
    let bookmark = output.bookmark("public-item");
    assert_eq!(bookmark["version"], 1);
    assert_eq!(bookmark["last_replication_method"], "LOG_BASED");
    assert!(lsn(output.last_state(), "item") > at);
    let output = source.run_after("insert into item values (4)", output.last_state());
    assert_eq!(only(&output, "item")["id"], 4);
}

fn meltano_labs(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let at = source.end();
    source.db.psql("insert into item values (3)");
    let state = json!({"bookmarks": {"public-item": {"replication_key": "_sdc_lsn", "replication_key_value": at}}});
    let output = source.run(&state);
    assert_not_copied(&output);
    assert_eq!(numbers(&output, "item", "id"), [3]);
    let bookmark = output.bookmark("public-item");
    assert_eq!(bookmark["last_replication_method"], "LOG_BASED");
    assert!(bookmark.get("replication_key").is_none(), "{bookmark}");
    let output = source.run_after("insert into item values (4)", output.last_state());
    assert_not_copied(&output);
    assert_eq!(only(&output, "item")["id"], 4);
}

fn the_references(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let at = source.end();
    source.db.psql("insert into item values (3)");
    let state = json!({
        "currently_syncing": null,
        "bookmarks": {"public-item": {
            "last_replication_method": "LOG_BASED", "lsn": at, "version": 1_700_000_000_000_u64, "xmin": null,
        }},
    });
    let output = source.run(&state);
    assert_not_copied(&output);
    assert_eq!(numbers(&output, "item", "id"), [3]);
    let bookmark = output.bookmark("public-item");
    assert_eq!(bookmark["version"], 1_700_000_000_000_u64);
    let oid = source.db.query_one("select 'item'::regclass::oid");
    assert_eq!(bookmark["table_oid"].to_string(), oid);
}

#[track_caller]
fn assert_copied(output: &Output, stream: &str, ids: &[i64], older: &Value) {
    assert_eq!(numbers(output, stream, "id"), ids);
    let stream = format!("public-{stream}");
    let version = output.bookmark(&stream)["version"].as_u64().expect("a version");
    assert!(Some(version) > older["bookmarks"][&stream]["version"].as_u64(), "a copy has a version of its own");
    assert!(output.record_messages().filter(|record| record.stream == stream).all(|r| r.version == Some(version)));
    let last = output.messages.iter().rev().find(|message| message.stream() == Some(&stream));
    assert_eq!(last, Some(&Message::ActivateVersion { stream, version }), "what older versions left goes at the end");
}

fn an_unfinished_copy_is_repeated(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let state = source.copied();
    source.db.psql("insert into item values (3)");
    for xmin in [1_u64, 745, 4_000_000_000] {
        let mut unfinished = state.clone();
        bookmark(&mut unfinished, "item")["xmin"] = json!(xmin);
        unfinished["currently_syncing"] = json!("public-item");
        let output = source.run(&unfinished);
        assert_copied(&output, "item", &[1, 2, 3], &unfinished);
        assert_eq!(output.bookmark("public-item")["xmin"], Value::Null);
        // What the copy has is not streamed again.
        assert_eq!(source.run(output.last_state()).record_messages().count(), 0);
    }
    // The reference dies before it has written an xmin: lsn without that key, and currently_syncing on the stream.
    let mut unfinished = state.clone();
    bookmark(&mut unfinished, "item").shift_remove("xmin");
    unfinished["currently_syncing"] = json!("public-item");
    assert_copied(&source.run(&unfinished), "item", &[1, 2, 3], &unfinished);
}

fn a_table_made_anew_is_copied_again(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item", "other"]);
    let state = source.copied();
    source.db.psql(
        "insert into item values (3); insert into other values (1); drop table item;
        create table item (id integer); insert into item values (7), (8);",
    );
    let output = source.run(&state);
    assert_copied(&output, "item", &[7, 8], &state);
    assert_eq!(numbers(&output, "other", "id"), [1]);
    let next = source.run_after("insert into item values (9)", output.last_state());
    assert_eq!(numbers(&next, "item", "id"), [9]);
    assert_not_copied(&next);
}

/// The copied table has no key: a row that came twice would be there twice.
fn a_stream_added_is_copied_then_streamed(plugin: &str) {
    let mut source = Source::new(plugin, TABLES, &["other"]);
    let state = source.copied();
    source.db.psql("insert into item values (3); insert into other values (1);");
    source.catalog = select(source.catalog.clone(), &["item"]);
    let output = source.run(&state);
    assert_copied(&output, "item", &[1, 2, 3], &state);
    assert_eq!(numbers(&output, "other", "id"), [1]);
    let next = source.run_after("insert into item values (4); insert into other values (2);", output.last_state());
    assert_eq!((numbers(&next, "item", "id"), numbers(&next, "other", "id")), (vec![4], vec![2]));
    let last = source.run(next.last_state());
    assert_eq!(last.record_messages().count(), 0);
}

fn a_deselected_stream_is_forgotten(plugin: &str) {
    let mut source = Source::new(plugin, TABLES, &["item", "other"]);
    let mut state = source.copied();
    let kept = json!({"last_replication_method": "FULL_TABLE", "version": 5, "xmin": null});
    state["bookmarks"]["public-gone"] = kept.clone();
    let both = source.catalog.clone();
    source.catalog = both.clone().set("public-item", None, &json!({"selected": false}));
    let output = source.run_after("insert into item values (3); insert into other values (1);", &state);
    assert_eq!(numbers(&output, "other", "id"), [1]);
    assert_eq!(output.records("public-item").len(), 0);
    for state in output.states() {
        assert_eq!(state["bookmarks"].get("public-item"), None, "{state}");
        assert_eq!(state["bookmarks"]["public-gone"], kept);
    }
    // Selected again, its gap can't be filled from the log.
    source.catalog = both;
    let again = source.run(output.last_state());
    assert_copied(&again, "item", &[1, 2, 3], output.last_state());
}

fn a_changed_method_starts_anew(plugin: &str) {
    let source = Source::new(plugin, TABLES, &["item"]);
    let full = source.catalog.clone().select("public-item", "FULL_TABLE");
    let state = crate::harness::Tap::new(&source.db).catalog(&full).run().last_state().clone();
    let output = source.run(&state);
    assert_copied(&output, "item", &[1, 2], &state);
    assert_eq!(output.bookmark("public-item")["last_replication_method"], "LOG_BASED");
}
