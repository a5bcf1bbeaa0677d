//! What the tests of copies and slots share: a model target beside the source, and runs that are killed.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::harness::{Message, Tap, check_protocol};

/// A table with a key and one without, of so many rows. Their lines fill a pipe, so that a run that is killed is where its
/// reader is.
pub(super) fn tables(rows: u32) -> String {
    format!(
        "create table keyed (id integer primary key, filler text);
         insert into keyed select i, repeat('x', 40000) from generate_series(1, {rows}) i;
         create table plain (id integer, filler text); alter table plain replica identity full;
         insert into plain select i, repeat('y', 40000) from generate_series(1, {rows}) i;"
    )
}
pub(super) const STREAMS: [&str; 2] = ["keyed", "plain"];

/// Runs the tap and kills it when so many lines were read. Lines are best longer than a pipe's buffer, so that the tap is
/// not far ahead of its reader. Returns the lines, fewer if there are not so many.
#[track_caller]
pub(super) fn killed_after(tap: &Tap, lines: usize) -> Vec<Message> {
    let mut child = tap.command().spawn().expect("run the tap");
    let mut stdout = BufReader::new(child.stdout.take().expect("a piped stdout")).lines();
    let parse = |line: std::io::Result<String>| {
        Message::parse(&line.expect("a line")).unwrap_or_else(|error| panic!("{error}"))
    };
    // The pipe stays open until then: a reader that goes away is another end.
    let messages: Vec<Message> = stdout.by_ref().take(lines).map(parse).collect();
    child.kill().expect("kill the tap");
    let stderr = std::io::read_to_string(child.stderr.take().expect("a piped stderr")).expect("its stderr");
    child.wait().expect("wait for the tap");
    assert!(!stderr.contains("level=ERROR") && !stderr.contains("panicked"), "{stderr}");
    check_protocol(&messages);
    messages
}

/// The version of a stream's bookmark.
#[track_caller]
pub(super) fn version(state: &Value, table: &str) -> u64 {
    let version = &state["bookmarks"][format!("public-{table}")]["version"];
    version.as_u64().unwrap_or_else(|| panic!("no version of {table} in {state}"))
}

/// An ACTIVATE_VERSION of a stream that the target has rows of stands behind all the records of its version.
#[track_caller]
pub(super) fn assert_activated_last(messages: &[Message], given: &Value) {
    for (at, message) in messages.iter().enumerate() {
        let Message::ActivateVersion { stream, version } = message else { continue };
        if !given["bookmarks"][stream]["version"].is_u64() {
            continue;
        }
        let later = messages[at..].iter().filter_map(Message::as_record);
        let early = later.filter(|record| record.stream == *stream && record.version == Some(*version));
        let copied = early.filter(|record| !record.record.contains_key("_sdc_deleted_at")).count();
        assert_eq!(copied, 0, "records of {stream} after its version {version} was activated");
    }
}
