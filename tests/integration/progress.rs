//! What a run says of itself while it goes on and when it ends.

use std::process::{Command, Stdio};

use crate::harness::{Tap, TestDb};
use crate::log_based::Source;

const ROWS: u64 = 100_000;

fn filled(test: &str) -> TestDb {
    let db = TestDb::new(test);
    db.psql(&format!(
        "create table filled (id integer primary key, note text);
         insert into filled select g, 'note ' || g from generate_series(1, {ROWS}) g; analyze filled;
         create table empty (id integer primary key);"
    ));
    db
}

fn tap(db: &TestDb) -> Tap {
    Tap::new(db).config("default_replication_method", "FULL_TABLE")
}

/// What the tap writes to a terminal on stderr, and on stdout too if that is one.
fn on_terminal(tap: &Tap, stdout: &str) -> String {
    let command = tap.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<String> = words.map(|word| format!("'{}'", word.to_str().expect("plain words"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command"]).arg(format!("{} {stdout}", quoted.join(" "))).arg("/dev/null");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let output = script.env("TERM", "xterm").stdin(Stdio::null()).output().expect("run script, of util-linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_terminal_has_bars() {
    let db = filled("bars");
    let seen = on_terminal(&tap(&db), ">/dev/null");
    assert!(seen.contains("public-filled") && seen.contains("of about 100,000 rows"), "{seen}");
    // Lines stand by themselves, whole.
    let lines: Vec<&str> = seen.lines().filter_map(|line| Some(&line[line.find("time=")?..])).collect();
    let summary = lines.iter().filter(|line| line.contains("message=public-filled: 100,000 records, "));
    assert_eq!(summary.count(), 1, "{seen}");
    assert!(lines.iter().all(|line| line.matches("level=").count() == 1 && !line.contains("rows,")), "{seen}");
}

#[test]
fn where_the_messages_are_printed_too_there_are_no_bars() {
    let db = filled("no_bars");
    let seen = on_terminal(&tap(&db), "");
    assert!(seen.contains("\"type\":\"RECORD\"") && !seen.contains("of about"));
}

#[test]
fn a_copy_says_what_it_read() {
    let db = filled("told");
    let output = tap(&db).run();
    assert_eq!(output.logged("message=public-filled: 100,000 records, "), 1, "{}", output.stderr);
    assert_eq!(output.logged("message=public-empty: "), 1, "only that it is read: {}", output.stderr);
    let bytes: usize = output.stdout.lines().filter(|line| line.contains("RECORD")).map(|line| line.len() + 1).sum();
    let told = format!(", {:.0} MB, in ", bytes as f64 / f64::from(1 << 20));
    assert_eq!(output.logged(&told), 1, "{told}: {}", output.stderr);
    assert!(!output.stderr.contains('\u{1b}'), "no terminal, no escapes");
}

#[test]
fn a_run_says_how_far_it_read_the_log() {
    let source = Source::new("pgoutput", "create table item (id integer primary key);", &["item"]);
    let state = source.copied();
    for reader in ["bulk", "stream"] {
        source.db.psql("insert into item select coalesce(max(id), 0) + 1 from item");
        let output = source.tap().config("wal_reader", reader).state(&state).run();
        let line = output.stderr.lines().find(|line| line.contains("read the log up to")).expect("a line");
        assert!(
            line.contains("level=INFO") && line.contains("where the log ended ") && line.contains(" s ago"),
            "{line}"
        );
        assert!(line.contains(&format!("the slot {} keeps ", source.slot)) && line.contains(" of WAL"), "{line}");
        assert_eq!(output.logged("message=public-item: "), 1, "{}", output.stderr);
    }
}
