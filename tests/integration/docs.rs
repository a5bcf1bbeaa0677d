//! What the documentation says of the tests is so.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

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
    let mut pages =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(|page| root.join(page)).to_vec();
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

/// container/pipeline with its settings: the tap's config, a catalog, and a target that prints the values of the STATEs that it takes, as
/// targets do, and keeps all lines.
struct Pipeline {
    tap: Tap,
    path: OsString,
}

impl Pipeline {
    fn new(tap: Tap) -> Pipeline {
        const TARGET: &str = "#!/bin/sh\ntee -a lines | sed -un 's/^{\"type\":\"STATE\",\"value\":\\(.*\\)}$/\\1/p'\n";
        const SCRIPTS: [(&str, &str); 3] = [
            ("target-postgres", TARGET),
            ("pipeline", include_str!("../../container/pipeline")),
            ("pipeline-part", include_str!("../../container/pipeline-part")),
        ];
        // Which writes the config.
        let command = tap.command();
        tap.file("target.json", "{}");
        for (name, text) in SCRIPTS {
            fs::set_permissions(tap.file(name, text), Permissions::from_mode(0o755)).expect("make it executable");
        }
        symlink(command.get_program(), tap.dir().join("tap-postgres-rs")).expect("a link to the tap");
        let paths = env::var_os("PATH").expect("a PATH");
        let path = env::join_paths([tap.dir().to_owned()].into_iter().chain(env::split_paths(&paths)));
        Pipeline { path: path.expect("a PATH"), tap }
    }

    /// Starts one of the scripts, its state in a folder; its log is there, too.
    fn start(&self, script: &str, args: &[&str], state: &Path) -> Child {
        fs::create_dir_all(state).expect("a folder for the state");
        Command::new(self.tap.dir().join(script))
            .args(args)
            .env("PATH", &self.path)
            .env("SETTINGS", self.tap.dir())
            .env("STATE", state)
            .stderr(File::create(state.join("log")).expect("a file for the log"))
            .spawn()
            .expect("run the script")
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn state(folder: &Path) -> Value {
    serde_json::from_str(&read(&folder.join("state.json"))).expect("a state")
}

/// A signal that comes to the script of docs/scheduling.md ends the tap with a last STATE, the target takes all of that, and the
/// state of the next run is the target's last that is whole.
#[test]
fn the_script_of_a_scheduler_passes_signals_on() {
    const PAGE: &str = include_str!("../../docs/scheduling.md");
    const SCRIPT: &str = include_str!("../../container/pipeline");
    assert!(
        PAGE.contains(&format!("```bash\n{SCRIPT}```")),
        "docs/scheduling.md has another script than container/pipeline"
    );
    let db = TestDb::new("scheduled");
    db.psql("create table item (id integer primary key); insert into item values (1)");
    db.replicate("pgoutput");
    let catalog = Tap::new(&db).discover().select("public-item", "LOG_BASED");
    let copied = Tap::new(&db).catalog(&catalog).run();
    let pipeline = Pipeline::new(Tap::new(&db).catalog(&catalog).config("break_at_end_lsn", false));
    let folder = pipeline.tap.dir().join("state");
    fs::create_dir(&folder).expect("a folder");
    // What a run left that was killed: a state, and half of one.
    fs::write(folder.join("states"), format!("{}\n{{\"bookmarks\": {{}}", copied.last_state())).expect("write a file");
    let log = || read(&folder.join("log"));
    let mut script = pipeline.start("pipeline", &[], &folder);
    until("the tap streams", || log().contains("reading the changes of"));
    db.psql("insert into item values (2)");
    kill_process(Pid::from_child(&script), Signal::TERM).expect("send a signal");
    let status = wait(&mut script, Duration::from_secs(60)).expect("an end of the script");
    assert_eq!(status.code(), Some(143), "{}", log());
    assert!(log().contains("ending on signal 15"), "{}", log());
    assert!(!log().contains("copying the table"), "it did not take the state of the run before: {}", log());
    assert!(!folder.join("states").exists());
    // It goes on from there.
    let next = Tap::new(&db).catalog(&catalog).state(&state(&folder)).run();
    assert!(next.record_messages().count() <= 1);
}

/// container/pipeline-part: each stream is in one part, those of the slot in the first, and with other parts each goes on from its bookmark.
#[test]
fn a_divided_pipeline_reads_each_stream_once() {
    const LOGGED: [&str; 2] = ["public-a", "public-b"];
    let db = TestDb::new("divided");
    for table in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        db.psql(&format!("create table {table} (id integer primary key); insert into {table} values (1), (2)"));
    }
    db.replicate("pgoutput");
    let mut catalog = Tap::new(&db).discover();
    let all: BTreeSet<String> = catalog.ids().into_iter().map(str::to_owned).collect();
    for id in &all {
        let is_logged = LOGGED.contains(&id.as_str());
        catalog = if is_logged { catalog.select(id, "LOG_BASED") } else { catalog.select_incremental(id, "id") };
    }
    let pipeline = Pipeline::new(Tap::new(&db).catalog(&catalog));
    // Runs all parts, and returns how many records came of each stream, and the states.
    let run = |folder: &Path, parts: usize| {
        let mut records: BTreeMap<String, usize> = BTreeMap::new();
        let mut bookmarks = Map::new();
        for part in 0..parts {
            let state_of_part = folder.join(part.to_string());
            let args = [part.to_string(), parts.to_string()];
            let mut script = pipeline.start("pipeline-part", &args.each_ref().map(String::as_str), folder);
            let status = wait(&mut script, Duration::from_secs(60)).expect("an end of the script");
            assert!(status.success(), "part {part}: {}", read(&folder.join("log")));
            for line in read(&state_of_part.join("lines")).lines() {
                let message: Value = serde_json::from_str(line).expect("a message");
                let Some(stream) = message["stream"].as_str() else { continue };
                assert_eq!(LOGGED.contains(&stream), part == 0, "{stream} is in part {part}");
                let count = records.entry(stream.to_owned()).or_default();
                *count += usize::from(message["type"] == "RECORD");
            }
            for (stream, bookmark) in state(&state_of_part)["bookmarks"].as_object().expect("bookmarks") {
                assert!(bookmarks.insert(stream.clone(), bookmark.clone()).is_none(), "{stream} is in two parts");
            }
        }
        (records, bookmarks)
    };
    let (records, bookmarks) = run(&pipeline.tap.dir().join("three"), 3);
    assert_eq!(records, all.iter().map(|stream| (stream.clone(), 2)).collect());
    assert_eq!(bookmarks.keys().cloned().collect::<BTreeSet<_>>(), all);
    let five = pipeline.tap.dir().join("five");
    for part in 0..5 {
        fs::create_dir_all(five.join(part.to_string())).expect("a folder");
        let merged = json!({"bookmarks": bookmarks}).to_string();
        fs::write(five.join(part.to_string()).join("state.json"), merged).expect("write a state");
    }
    db.psql("insert into a values (3)");
    let (records, _) = run(&five, 5);
    // INCREMENTAL has the row of its bookmark again.
    let expected = |stream: &String| usize::from(stream != "public-b");
    assert_eq!(records, all.iter().map(|stream| (stream.clone(), expected(stream))).collect());
}
