//! What the documentation says of the tests is so.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::tap::wait;
use crate::harness::{Tap, TestDb, until};

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

/// The table of docs/settings.md is that of `--about`; `UPDATE_GOLDEN=1 cargo test docs` writes it.
#[test]
fn the_page_of_settings_has_every_one() {
    let about = Tap::bare().arg("--about").arg("--format").arg("markdown").output().expect_code(0).stdout;
    let (_, table) = about.split_once("## Settings\n\n").expect("a table of settings");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = fs::read_to_string(&path).expect("read the page");
    let start = page.find("| Setting | Required |").expect("a table of settings");
    let end = start + page[start..].find("\n\n").expect("an end of the table") + 1;
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, [&page[..start], table, &page[end..]].concat()).expect("write the page");
    } else {
        assert_eq!(&page[start..end], table, "UPDATE_GOLDEN=1 cargo test docs writes it anew");
    }
}

/// Files that the documentation links to.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|page| root.join(page)).to_vec();
    let docs = fs::read_dir(root.join("docs")).expect("the directory of the documentation");
    pages
        .extend(docs.map(|page| page.expect("an entry").path()).filter(|page| page.extension() == Some("md".as_ref())));
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("read the page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if link.is_empty() || link.contains("://") {
                continue;
            }
            links += 1;
            assert!(page.with_file_name(link).exists(), "{} links to {link}", page.display());
        }
    }
    assert!(links > 40, "hardly any link: {links}");
}

/// Sources and folders that docs/internals.md names, from the repository's root or from `src` on.
#[test]
fn the_internals_name_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/internals.md")).expect("read docs/internals.md");
    // Every other part stands between backticks; that of a block of code is no word.
    let words = text.split('`').skip(1).step_by(2).filter(|part| !part.contains(char::is_whitespace));
    let named: BTreeSet<&str> =
        words.filter(|word| word.contains('/') && (word.ends_with(".rs") || word.ends_with('/'))).collect();
    assert!(named.len() > 10, "hardly any source is named: {named:?}");
    let exists = |name: &str| root.join(name).exists() || root.join("src").join(name).exists();
    let missing: Vec<&&str> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "docs/internals.md names what does not exist: {missing:#?}");
}

/// The script of docs/scheduling.md: a signal that comes to it ends the tap with a last STATE, the target takes all of that, and the
/// state of the next run is the target's last that is whole.
#[test]
fn the_script_of_a_scheduler_passes_signals_on() {
    const PAGE: &str = include_str!("../../docs/scheduling.md");
    const SCRIPT: &str = include_str!("../../container/pipeline");
    assert!(PAGE.contains(&format!("```bash\n{SCRIPT}```")), "docs/scheduling.md has another script than container/pipeline");
    let db = TestDb::new("scheduled");
    db.psql("create table item (id integer primary key); insert into item values (1)");
    db.replicate("pgoutput");
    let catalog = Tap::new(&db).discover().select("public-item", "LOG_BASED");
    let tap = Tap::new(&db).catalog(&catalog).config("break_at_end_lsn", false);
    let copied = Tap::new(&db).catalog(&catalog).run();
    let command = tap.command();
    let folder = tap.dir();
    tap.file("state.json", "{}");
    tap.file("target.json", "{}");
    // What a run left that was killed: a state, and half of one.
    tap.file("states", &format!("{}\n{{\"bookmarks\": {{}}", copied.last_state()));
    // Prints the values of the STATEs that it takes, as targets do.
    let target = "#!/bin/sh\nsed -un 's/^{\"type\":\"STATE\",\"value\":\\(.*\\)}$/\\1/p'\n";
    for (name, text) in [("target-postgres", target), ("pipeline", SCRIPT)] {
        fs::set_permissions(tap.file(name, text), Permissions::from_mode(0o755)).expect("make it executable");
    }
    symlink(command.get_program(), folder.join("tap-postgres-rs")).expect("a link to the tap");
    let path =
        env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&env::var_os("PATH").expect("a PATH"))));
    let log = || fs::read_to_string(folder.join("tap.log")).unwrap_or_default();
    let log_file = File::create(folder.join("tap.log")).expect("a file for the log");
    let mut script = Command::new(folder.join("pipeline"))
        .env("PATH", path.expect("a PATH"))
        .env("SETTINGS", folder)
        .env("STATE", folder)
        .stderr(log_file)
        .spawn()
        .expect("run the script");
    until("the tap streams", || log().contains("reading the changes of"));
    db.psql("insert into item values (2)");
    kill_process(Pid::from_child(&script), Signal::TERM).expect("send a signal");
    let status = wait(&mut script, Duration::from_secs(60)).expect("an end of the script");
    assert_eq!(status.code(), Some(143), "{}", log());
    assert!(log().contains("ending on signal 15"), "{}", log());
    assert!(!log().contains("copying the table"), "it did not take the state of the run before: {}", log());
    let state: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("state.json")).expect("a state")).expect("JSON");
    assert!(state["bookmarks"]["public-item"]["lsn"].is_u64(), "{state}");
    assert!(!folder.join("states").exists());
    // It goes on from there.
    let next = Tap::new(&db).catalog(&catalog).state(&state).run();
    assert!(next.record_messages().count() <= 1);
}
