//! What the documentation says of the tests is so.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::Tap;

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

/// The README's table of settings is that of `--about`; `UPDATE_GOLDEN=1 cargo test docs` writes it.
#[test]
fn the_readme_has_every_setting() {
    let about = Tap::bare().arg("--about").arg("--format").arg("markdown").output().expect_code(0).stdout;
    let (_, table) = about.split_once("## Settings\n\n").expect("a table of settings");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).expect("read the README");
    let start = readme.find("| Setting | Required |").expect("a table of settings");
    let end = start + readme[start..].find("\n\n").expect("an end of the table") + 1;
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, [&readme[..start], table, &readme[end..]].concat()).expect("write the README");
    } else {
        assert_eq!(&readme[start..end], table, "UPDATE_GOLDEN=1 cargo test docs writes it anew");
    }
}
