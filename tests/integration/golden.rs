//! Golden cases: fixtures/<area>/<case>/ is a database, a run, and what it printed.
//!
//! | file | meaning |
//! |---|---|
//! | setup.sql | run by psql before anything else; `:dbname` and `:slot` (the slot that the tap looks for) are set |
//! | changes.sql | optional: run after the first run, then the tap runs again with the state of the first |
//! | config.json | optional: keys over the harness's |
//! | catalog.json | optional: a catalog, or rules for the discovered one (see `Catalog::apply`); none: a run without |
//! | state.json | optional: the state of the first run |
//! | expected.jsonl | the messages; a line `{"run": n}` before each run's |
//!
//! `UPDATE_GOLDEN=1 cargo test golden` rewrites expected.jsonl; read the diff before you commit it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{env, fs, panic, thread};

use serde_json::{Value, json};

use crate::harness::compare::{messages_difference, placeholders};
use crate::harness::{Catalog, Tap, TestDb, plugins};

#[test]
fn golden_cases() {
    let cases = cases();
    assert!(!cases.is_empty(), "no case under fixtures");
    let queue = Mutex::new(cases.into_iter());
    let failures = Mutex::new(Vec::new());
    // Runs mostly wait for the server.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().expect("the queue").next() else { return };
                    if let Err(panic) = panic::catch_unwind(|| check(&case)) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.unwrap_or_else(|| "a panic without a text".to_owned());
                        failures.lock().expect("the failures").push(format!("{}: {text}", case.display()));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("the failures");
    failures.sort();
    assert!(failures.is_empty(), "{} golden cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// The directories that hold a setup.sql two levels under fixtures.
fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let children = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let mut cases: Vec<_> = children(&root).iter().flat_map(|area| children(area)).collect();
    cases.retain(|case| case.join("setup.sql").exists());
    cases.retain(|case| !case.ends_with("wal2json") || plugins().contains(&"wal2json"));
    cases.sort();
    cases
}

fn check(case: &Path) {
    let actual = run(case);
    let path = case.join("expected.jsonl");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = actual.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).expect("write expected.jsonl");
        return;
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error} reading expected.jsonl"));
    let expected: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in expected.jsonl: {line}")))
        .collect();
    if let Some(difference) = messages_difference(&actual, &expected) {
        panic!("{difference}");
    }
}

/// Runs a case and returns its messages with placeholders.
fn run(case: &Path) -> Vec<Value> {
    let name = case.file_name().expect("a case has a name").to_string_lossy();
    let db = TestDb::new(&format!("golden_{}", name.replace('-', "_")));
    db.psql_file(&case.join("setup.sql"));
    let tap = || Tap::new(&db).configs(&json_file(&case.join("config.json")).unwrap_or(json!({})));
    let catalog = json_file(&case.join("catalog.json")).map(|rules| match rules {
        Value::Object(rules) if !rules.contains_key("streams") => tap().discover().apply(&rules),
        catalog => Catalog::new(catalog),
    });
    let mut state = json_file(&case.join("state.json"));
    let mut lines = Vec::new();
    let changes = case.join("changes.sql");
    for number in 1..=if changes.exists() { 2 } else { 1 } {
        if number == 2 {
            db.psql_file(&changes);
        }
        let mut tap = tap();
        if let Some(catalog) = &catalog {
            tap = tap.catalog(catalog);
        }
        if let Some(state) = &state {
            tap = tap.state(state);
        }
        let output = tap.run();
        lines.push(json!({"run": number}));
        lines.extend(output.messages.iter().map(placeholders));
        state = Some(output.last_state().clone());
    }
    lines
}

fn json_file(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {}", path.display())))
}
