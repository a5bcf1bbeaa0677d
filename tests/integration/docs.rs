//! What the documentation says of the tests is so.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

const RELIABILITY: &str = include_str!("../../docs/reliability.md");

/// Each promise of docs/reliability.md names the test that holds it.
#[test]
fn every_test_that_a_promise_names_exists() {
    let list = Command::new(env::current_exe().expect("this program"))
        .args(["--list", "--format", "terse"])
        .output()
        .expect("list the tests");
    let list = String::from_utf8(list.stdout).expect("UTF-8");
    // With the plugin, as the last part of the name, or without it.
    let known: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .flat_map(|name| [Some(name), name.strip_suffix("::pgoutput"), name.strip_suffix("::wal2json")])
        .flatten()
        .collect();
    // Unit tests are of another program.
    let named: Vec<&str> =
        RELIABILITY.split('`').filter(|text| text.contains("::") && !text.contains("::tests::")).collect();
    assert!(named.len() > 50, "hardly any test is named");
    let missing: Vec<&&str> = named.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}
