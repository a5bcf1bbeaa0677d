//! A whole pipeline as PipelineWise runs it (`run_tap_singer` and `run_command` in its sources): discovery by `--config`
//! alone, then one line for bash, tap and target in a pipe, stdout and stderr read as one, and every line of them that is a
//! state put into the state file.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, pipe};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{SELECTED, TABLES, alarms, config, properties, slot};
use crate::harness::{Message, Tap, TestDb, check_protocol};

/// Stores each line and says which states are stored.
const TARGET: &str = r#"#!/bin/sh
tee "${2%/*}/stored.jsonl" | sed -u -nE 's/^\{"type": ?"STATE", ?"value": ?(.*)\}$/\1/p'
"#;

#[test]
fn by_its_command_line() {
    let db = TestDb::new("ppw_piped");
    db.psql(TABLES);
    slot(&db);
    let catalog = config(Tap::new(&db), &db).discover();
    let mut properties = properties(catalog.as_value(), &SELECTED);
    properties.sort_all_objects();
    // The path that it calls ends in this name.
    let tap = config(Tap::new(&db), &db).program(env!("CARGO_BIN_EXE_tap-postgres"));
    tap.file("properties.json", &format!("{properties:#}"));
    let target = tap.file("target-postgres", TARGET);
    fs::set_permissions(&target, Permissions::from_mode(0o755)).expect("make the target executable");
    tap.file("target.json", "{}");

    assert_eq!(run(&tap), [("public-events", 2), ("public-orders", 2), ("public-rates", 1)]);
    db.psql(
        "insert into orders values (3, 'c'); delete from orders where id = 1; insert into rates values ('CHF', 0.9)",
    );
    assert_eq!(run(&tap), [("public-events", 1), ("public-orders", 2), ("public-rates", 2)]);
    assert_eq!(run(&tap), [("public-events", 1), ("public-orders", 0), ("public-rates", 2)]);
}

/// One run; how many records of each stream the target got.
#[track_caller]
fn run(tap: &Tap) -> [(&'static str, usize); 3] {
    let command = tap.command();
    let (program, dir) = (command.get_program().display(), tap.dir().display());
    let state = tap.dir().join("state.json");
    // Only a state file that exists is named.
    let state_argument = if state.exists() { format!("--state {dir}/state.json") } else { String::new() };
    let line = format!(
        "{program} --config {dir}/config.json --properties {dir}/properties.json {state_argument} | \
         {dir}/target-postgres --config {dir}/target.json"
    );
    let mut shell = Command::new("timeout");
    shell.args(["60", "/bin/bash", "-o", "pipefail", "-c", &line]).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let (output, both) = pipe().expect("a pipe");
    shell.stdout(both.try_clone().expect("its end once more")).stderr(both);
    let mut child = shell.spawn().expect("run bash");
    // It holds the ends that are written to.
    drop(shell);
    let mut log = String::new();
    for line in BufReader::new(output).lines() {
        let line = line.expect("a line of UTF-8") + "\n";
        if serde_json::from_str(&line).is_ok_and(|value: Value| value.get("bookmarks").is_some()) {
            fs::write(&state, &line).expect("write the state file");
        }
        log += &line;
    }
    let status = child.wait().expect("wait for bash");
    assert!(status.success(), "{status}: {log}");
    assert_eq!(alarms(&log), Vec::<&str>::new());

    let stored = fs::read_to_string(tap.dir().join("stored.jsonl")).expect("what the target stored");
    let messages: Vec<Message> = stored.lines().map(|line| Message::parse(line).expect("a message")).collect();
    check_protocol(&messages);
    let state: Value = serde_json::from_str(&fs::read_to_string(&state).expect("a state file")).expect("JSON");
    assert_eq!(messages.last().and_then(Message::as_state), Some(&state));
    assert_eq!(state["currently_syncing"], json!(null));
    SELECTED.map(|(wanted, ..)| {
        let of = |message: &&Message| matches!(message, Message::Record(record) if record.stream == wanted);
        (wanted, messages.iter().filter(of).count())
    })
}
