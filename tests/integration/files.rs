//! The command line and the files it names: which wins, what may be empty, what is wrong, and the exit code of each.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::tap::gather;
use crate::harness::{Message, Output, Tap, TestDb};

/// Two tables of one row.
fn database(test: &str) -> TestDb {
    let db = TestDb::new(test);
    db.psql(
        "create table a (id integer primary key); insert into a values (1);
             create table b (id integer primary key); insert into b values (2);",
    );
    db
}

fn tap(db: &TestDb) -> Tap {
    Tap::new(db).config("default_replication_method", "FULL_TABLE")
}

/// The program without a config file, its stdout and exit code.
fn bare(args: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tap-postgres-rs"));
    let output = command.args(args).stdin(Stdio::null()).output().expect("run the tap");
    (String::from_utf8(output.stdout).expect("stdout is UTF-8"), output.status.code())
}

fn streams(output: &Output) -> Vec<&str> {
    output.record_messages().map(|record| record.stream.as_str()).collect()
}

/// A run that must end with 2, nothing on stdout, and a line that holds all of `texts`.
#[track_caller]
fn unusable(tap: &Tap, texts: &[&str]) {
    let output = tap.output().expect_code(2);
    assert_eq!(output.stdout, "");
    let said = output.stderr.lines().any(|line| texts.iter().all(|text| line.contains(text)));
    assert!(said, "no line with {texts:?} in\n{}", output.stderr);
}

#[test]
fn later_config_files_win_key_by_key() {
    let db = database("files_config");
    let first = tap(&db).config("dbname", "nowhere").config("port", 1);
    let second = first.file("second.json", &json!({"dbname": db.name(), "port": "5432"}).to_string());
    let output = first.arg("-c").arg(second).run();
    assert_eq!(streams(&output), ["public-a", "public-b"]);
}

#[test]
fn the_catalog_wins_over_properties() {
    let db = database("files_catalog");
    let catalog = tap(&db).discover();
    let write = |tap: &Tap, name: &str, stream: &str| -> PathBuf {
        tap.file(name, &catalog.clone().select(stream, "FULL_TABLE").as_value().to_string())
    };

    let alone = tap(&db);
    let properties = write(&alone, "properties.json", "public-a");
    assert_eq!(streams(&alone.arg("--properties").arg(properties).run()), ["public-a"]);

    let both = tap(&db);
    let (properties, other) = (write(&both, "properties.json", "public-a"), write(&both, "other.json", "public-b"));
    let output = both.arg("--catalog").arg(other).arg("-p").arg(properties).run();
    assert_eq!(streams(&output), ["public-b"]);
}

#[test]
fn any_other_flag_may_stand_beside_discover() {
    let db = database("files_discover");
    let catalog = tap(&db).discover();
    let tap = tap(&db).catalog(&catalog).state(&json!({"bookmarks": {}}));
    let properties = tap.file("properties.json", &catalog.as_value().to_string());
    let beside = tap.arg("-p").arg(properties).discover();
    assert_eq!(beside.as_value(), catalog.as_value());
}

#[test]
fn an_empty_state_is_a_first_run() {
    let db = database("files_state");
    for text in ["", " \n", "{}", r#"{"bookmarks": {}}"#, r#"{"bookmarks": {}, "currently_syncing": null}"#] {
        let tap = tap(&db);
        let path = tap.file("state.json", text);
        let output = tap.arg("-s").arg(path).run();
        assert_eq!(streams(&output), ["public-a", "public-b"], "state {text:?}");
        // Nobody wrote that there is none yet: a target that did not start may have left it.
        assert_eq!(
            output.logged("is empty: everything is read"),
            usize::from(text.trim().is_empty()),
            "state {text:?}"
        );
        // ACTIVATE_VERSION also before the rows: only a first run of FULL_TABLE has that.
        let activations = output.messages.iter().filter(|m| matches!(m, Message::ActivateVersion { .. })).count();
        assert_eq!(activations, 4, "state {text:?}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_json_is_named() {
    let db = database("files_broken");
    for flag in ["--config", "--state", "--catalog", "--properties"] {
        unusable(&tap(&db).arg(flag).arg("/nonexistent/file.json"), &["/nonexistent/file.json", "No such file"]);

        let broken = tap(&db);
        let path = broken.file("broken.json", "{\n  \"a\": 1,\n  oops\n}");
        unusable(&broken.arg(flag).arg(path), &["broken.json", "line 3", "column 3"]);

        let list = tap(&db);
        let path = list.file("list.json", "[]");
        unusable(&list.arg(flag).arg(path), &["list.json"]);
    }
    // Cut off, as a full disk leaves it.
    let cut = tap(&db);
    let path = cut.file("cut.json", r#"{"bookmarks": {"public-a": {"#);
    unusable(&cut.arg("--state").arg(path), &["cut.json", "line 1"]);
}

#[test]
fn settings_that_are_missing_or_wrong_are_named() {
    let db = database("files_settings");
    for key in ["host", "user", "dbname"] {
        unusable(&tap(&db).without(key), &[key]);
    }
    for (key, value) in [
        ("port", json!("many")),
        ("port", json!(70000)),
        ("sslmode", json!("sometimes")),
        ("default_replication_method", json!("SOMETIMES")),
        ("break_at_end_lsn", json!("perhaps")),
        ("wal_reader", json!("neither")),
        ("limit", json!(-1)),
    ] {
        unusable(&tap(&db).config(key, value), &[key]);
    }
}

#[test]
fn booleans_and_integers_may_be_texts_and_unknown_keys_are_allowed() {
    let db = database("files_texts");
    let tap = tap(&db)
        .configs(&json!({
            "port": "5432", "break_at_end_lsn": "true", "debug_lsn": "true", "use_secondary": "false", "limit": "5",
            "logical_poll_total_seconds": "60", "max_run_seconds": "100", "ssl": "false", "itersize": "20000",
            "password": "a-secret-value", "stream_buffer_size": 20, "id": "of PipelineWise", "type": "tap-postgres",
        }))
        .env("LOG_LEVEL", "debug");
    let output = tap.run();
    assert_eq!(streams(&output), ["public-a", "public-b"]);
    let unknown: Vec<&str> = output.stderr.lines().filter(|line| line.contains("stream_buffer_size")).collect();
    assert!(matches!(unknown.as_slice(), [line] if line.contains("level=DEBUG")), "{unknown:?}");
    assert!(!output.stderr.contains("a-secret-value"), "{}", output.stderr);
}

#[test]
fn the_database_may_be_called_database() {
    let db = database("files_database");
    let tap = tap(&db).without("dbname").config("database", db.name());
    assert_eq!(streams(&tap.run()), ["public-a", "public-b"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let db = database("files_usage");
    for args in [&["--nonsense"][..], &["--state"], &["--test", "everything"], &["stray"]] {
        let tap = args.iter().fold(tap(&db), |tap, arg| tap.arg(*arg));
        assert_eq!(tap.output().expect_code(2).stdout, "", "{args:?}");
    }
    for args in [&[][..], &["--discover"], &["--about", "--format", "xml"]] {
        assert_eq!(bare(args), (String::new(), Some(2)), "{args:?}");
    }
}

#[test]
fn about_tells_settings_and_capabilities() {
    let (text, code) = bare(&["--about", "--format", "json"]);
    assert_eq!(code, Some(0));
    let about: Value = serde_json::from_str(&text).expect("--about --format json prints JSON");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let capabilities: Vec<&str> =
        about["capabilities"].as_array().expect("capabilities").iter().filter_map(Value::as_str).collect();
    for capability in ["catalog", "discover", "state"] {
        assert!(capabilities.contains(&capability), "{capability} in {capabilities:?}");
    }
    let settings = about["settings"]["properties"].as_object().expect("the settings as a JSON schema");
    for key in [
        "host",
        "port",
        "user",
        "password",
        "dbname",
        "filter_schemas",
        "ssl",
        "logical_poll_total_seconds",
        "break_at_end_lsn",
        "max_run_seconds",
        "debug_lsn",
        "tap_id",
        "itersize",
        "default_replication_method",
        "use_secondary",
        "secondary_host",
        "secondary_port",
        "copy_parallelism",
        "limit",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "replication_slot_name",
        "publication_name",
        "create_replication_slot",
        "output_plugin",
        "wal_reader",
        "bulk_max_wal_mb",
        "unchanged_toast",
        "on_slot_lost",
        "extended_types",
        "schema_dialect",
    ] {
        assert!(settings.contains_key(key), "{key} is not among the settings");
        for format in ["text", "markdown"] {
            let (text, code) = bare(&["--about", "--format", format]);
            assert!(code == Some(0) && text.contains(key), "{key} in --about --format {format}");
        }
    }
    let defaults = |key: &str| &settings[key]["default"];
    assert_eq!((defaults("logical_poll_total_seconds"), defaults("max_run_seconds")), (&json!(10800), &json!(43200)));
}

#[test]
fn version_and_help() {
    let (text, code) = bare(&["--version"]);
    assert!(code == Some(0) && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    let (text, code) = bare(&["--help"]);
    assert_eq!(code, Some(0));
    for flag in ["--config", "--state", "--catalog", "--properties", "--discover", "--about", "--version"] {
        assert!(text.contains(flag), "{flag} in {text}");
    }
}

#[test]
fn log_lines_have_the_references_form() {
    let db = database("files_logs");
    let output = tap(&db).env("LOG_LEVEL", "debug").run();
    assert!(output.logged("METRIC: ") > 0 && output.logged(r#""metric": "record_count""#) > 0, "{}", output.stderr);
    for line in output.stderr.lines() {
        let time = line.strip_prefix("time=").and_then(|rest| rest.split_once(" name=tap_postgres level="));
        let Some((time, rest)) = time else { panic!("{line}") };
        chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").unwrap_or_else(|e| panic!("{e}: {line}"));
        let level = rest.split_once(" message=").expect("a message").0;
        assert!(["DEBUG", "INFO", "WARNING"].contains(&level), "{line}");
    }
    let failed = tap(&db).config("dbname", "nowhere").output().expect_code(1);
    assert_eq!(failed.logged("level=ERROR"), 1, "{}", failed.stderr);
    assert!(failed.parsed().messages.iter().all(Message::is_state));
}

#[test]
fn a_signal_ends_a_run_with_a_valid_state() {
    let db = database("files_signal");
    db.psql("create table large as select generate_series(1, 2000000) as id, repeat('x', 100) as filler");
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut running = tap(&db).spawn();
        running.wait_for(Duration::from_secs(30), |m| m.stream() == Some("public-large") && m.as_record().is_some());
        running.signal(signal);
        let output = running.finish().expect_code(code);
        let last = output.messages.last().expect("messages");
        let state = last.as_state().unwrap_or_else(|| panic!("the last message is no STATE: {last:?}"));
        // FULL_TABLE cut short: not what a finished one leaves behind.
        assert!(state["bookmarks"]["public-a"].is_object(), "{state}");
        assert_eq!(state["currently_syncing"], "public-large");
    }
}

/// Where stdout is a file.
#[test]
fn a_full_disk_is_one_line() {
    let db = database("files_full");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("open /dev/full");
    let tap = tap(&db);
    let mut child = tap.command().stdout(full).spawn().expect("run the tap");
    let stderr = gather(child.stderr.take().expect("a piped stderr"));
    assert_eq!(child.wait().expect("wait for the tap").code(), Some(1));
    let stderr = stderr.join().expect("the thread that reads stderr");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("No space left on device"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_one_line() {
    let db = database("files_epipe");
    db.psql("insert into a select generate_series(2, 300000)");
    let tap = tap(&db);
    let mut child = tap.command().spawn().expect("run the tap");
    drop(child.stdout.take());
    let stderr = gather(child.stderr.take().expect("a piped stderr"));
    assert_eq!(child.wait().expect("wait for the tap").code(), Some(1));
    let stderr = stderr.join().expect("the thread that reads stderr");
    assert_eq!(stderr.lines().filter(|line| line.contains("level=ERROR")).count(), 1, "{stderr}");
}
