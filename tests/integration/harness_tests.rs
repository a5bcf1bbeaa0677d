//! The harness itself: what the other tests take for granted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::compare::{assert_messages, canonical, difference, instant};
use crate::harness::{Catalog, Cluster, Message, Tap, TestDb, check_protocol, plugins, until_within};

fn parse(line: &Value) -> Message {
    Message::parse(&line.to_string()).expect("a message")
}

#[test]
fn a_database_is_the_tests_own_and_goes_with_it() {
    let names = {
        let (one, two) = (TestDb::new("Own Database!"), TestDb::new("Own Database!"));
        assert_ne!(one.name(), two.name());
        one.psql("create table t (a integer, b text); insert into t values (1, null), (2, E'x\\ny');");
        let row = |a: &str, b: Option<&str>| vec![Some(a.to_owned()), b.map(str::to_owned)];
        assert_eq!(one.query("select * from t order by a"), [row("1", None), row("2", Some("x\ny"))]);
        assert_eq!(one.query("select * from t where false"), Vec::<Vec<_>>::new());
        assert_eq!(one.query_one("show server_encoding"), "UTF8");
        assert_eq!(two.query_one("select to_regclass('t') is null"), "t");
        // The slot of an open session is what makes dropping hard.
        let slot = one.slot("test_decoding");
        assert!(one.confirmed_flush(&slot) <= one.lsn("pg_current_wal_lsn()"));
        [one.name().to_owned(), two.name().to_owned()]
    };
    let db = TestDb::new("after");
    for name in names {
        let left = format!(
            "select (select count(*) from pg_database where datname = '{name}')
                  + (select count(*) from pg_replication_slots where database = '{name}')"
        );
        assert_eq!(db.query_one(&left), "0", "{name}");
    }
}

#[test]
fn a_failing_statement_fails_the_test() {
    let db = TestDb::new("failing");
    let text = failure(|| db.psql("select 1/0"));
    assert!(text.contains("division by zero"), "{text}");
}

#[test]
fn the_server_decodes_with_both_plugins() {
    let db = TestDb::new("plugins");
    db.psql("create table t (id integer primary key)");
    assert_eq!(db.query_one("show wal_level"), "logical");
    db.replicate("pgoutput");
    let wal2json = format!("{}_w", db.slot_name());
    if plugins().contains(&"wal2json") {
        db.slot_named(&wal2json, "wal2json");
    }
    db.psql("insert into t values (1)");
    if plugins().contains(&"wal2json") {
        let peek = format!("pg_logical_slot_peek_changes('{wal2json}', null, null)");
        assert_eq!(db.query_one(&format!("select count(*) from {peek}")), "1");
    }
    let options = "'proto_version', '1', 'publication_names'";
    let peek = format!("pg_logical_slot_peek_binary_changes('{0}', null, null, {options}, '{0}')", db.slot_name());
    assert_eq!(db.query_one(&format!("select count(*) from {peek}")), "4", "begin, relation, insert, commit");
}

#[test]
fn a_session_keeps_its_transaction() {
    let db = TestDb::new("session");
    db.psql("create table t (id integer)");
    let mut session = db.session();
    session.run("begin; insert into t values (1);");
    assert_eq!(session.run("select count(*) from t;").trim(), "1");
    assert_eq!(db.query_one("select count(*) from t"), "0");
    session.run("commit;");
    assert_eq!(db.query_one("select count(*) from t"), "1");
}

#[test]
fn a_cluster_of_its_own_restarts_and_has_a_standby() {
    let cluster = Cluster::start("max_slot_wal_keep_size = '3MB'");
    let db = TestDb::on(&cluster, "own_cluster");
    assert_eq!(db.query_one("show max_slot_wal_keep_size"), "3MB");
    db.psql("create table t as select 7 as a");
    let standby = cluster.standby();
    let replica = db.view_of(&standby);
    assert_eq!(replica.query_one("select pg_is_in_recovery()"), "t");
    until_within(Duration::from_secs(10), "the standby replays", || {
        replica.query_one("select to_regclass('t') is not null") == "t"
    });
    cluster.stop("SIGINT");
    cluster.start_again();
    assert_eq!(db.query_one("select a from t"), "7");

    let dir = cluster.dir().to_owned();
    drop((db, cluster, standby));
    assert!(!dir.exists(), "{} is left", dir.display());
}

/// Run by `nothing_is_left_after_a_kill` in a process of its own: starts the shared server, says where, and waits.
#[test]
fn wait_to_be_killed() {
    if let Some(file) = env::var_os("TAP_TEST_WAIT_TO_BE_KILLED") {
        fs::write(file, Cluster::shared().dir().to_str().expect("a UTF-8 path")).expect("write the directory's name");
        thread::sleep(Duration::from_secs(60));
        panic!("nobody killed this process");
    }
}

#[test]
fn nothing_is_left_after_a_kill() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = scratch.path().join("dir");
    let mut child = Command::new(env::current_exe().expect("the test binary"))
        .args(["--exact", "harness_tests::wait_to_be_killed"])
        .env("TAP_TEST_WAIT_TO_BE_KILLED", &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("run the test binary");
    let mut dir = String::new();
    until_within(Duration::from_secs(30), "the server starts", || {
        dir = fs::read_to_string(&file).unwrap_or_default();
        !dir.is_empty()
    });
    let pid = fs::read_to_string(Path::new(&dir).join("data/postmaster.pid")).expect("a running server");
    let pid: i32 = pid.lines().next().and_then(|line| line.parse().ok()).expect("a pid");
    child.kill().expect("kill -9");
    child.wait().expect("wait for the killed process");

    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    until_within(Duration::from_secs(10), format!("server {pid:?} and {dir} are gone"), || {
        !Path::new(&dir).exists() && rustix::process::test_kill_process(pid).is_err()
    });
    let error = fs::metadata(&dir).expect_err("the directory is gone");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// The stand-in for the tap, printing these lines.
fn stub(stdout: &str) -> Tap {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/harness/stub");
    Tap::bare().program(program).env("STUB_STDOUT", stdout)
}

const STATE: &str = r#"{"type":"STATE","value":{"bookmarks":{"s":{"lsn":1}}}}"#;

/// What a test that fails says.
fn failure<T>(test: impl FnOnce() -> T) -> String {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)) {
        Ok(_) => panic!("no failure"),
        Err(panic) => panic.downcast_ref::<String>().cloned().expect("a text"),
    }
}

#[test]
fn a_run_is_parsed_and_checked() {
    let output = stub(STATE).env("STUB_STDERR", "time=now level=INFO message=hello").run();
    assert_eq!((output.messages.len(), output.bookmark("s")), (1, &json!({"lsn": 1})));
    assert_eq!(output.logged("message=hello"), 1);

    let text = failure(|| stub("").run());
    assert!(text.contains("the last message is no STATE"), "{text}");
    let text = failure(|| stub(&format!("hello\n{STATE}")).run());
    assert!(text.contains("in hello"), "{text}");
    let text = failure(|| stub(STATE).env("STUB_STDERR", r#"{"bookmarks": {}}"#).run());
    assert!(text.contains("PipelineWise would take for state"), "{text}");
    let text = failure(|| stub(STATE).env("STUB_STDERR", "a reason").run_failing(1));
    assert!(text.contains("a reason"), "{text}");
}

#[test]
fn a_run_that_hangs_is_killed_and_its_log_shown() {
    let started = Instant::now();
    let hanging =
        stub(STATE).env("STUB_WAIT", "1").env("STUB_STDERR", "stuck here").timeout(Duration::from_millis(300));
    let text = failure(|| hanging.run());
    assert!(text.contains("did not end within 300ms") && text.contains("stuck here"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_running_tap_is_read_along_and_gets_signals() {
    let mut running = stub(STATE).env("STUB_WAIT", "1").spawn();
    let state = running.wait_for(Duration::from_secs(10), Message::is_state);
    assert_eq!(state.as_state().expect("a state")["bookmarks"]["s"]["lsn"], 1);
    running.signal(Signal::TERM);
    let output = running.finish().expect_code(3);
    assert_eq!(output.states().len(), 2);
    assert_eq!(output.last_state(), &json!({"bookmarks": {}}));
}

#[test]
fn messages_are_parsed_strictly() {
    for (line, problem) in [
        (r#"{"type": "RECORD", "stream": "s", "record": {}, "sequence": 1}"#, "unknown field `sequence`"),
        (r#"{"type": "STATE", "value": {}, "more": 1}"#, "unknown field `more`"),
        (r#"{"type": "SCHEMA", "stream": "s", "schema": {}, "key_properties": []}"#, "missing field"),
        (r#"{"type": "EVENT"}"#, "unknown message type EVENT"),
        (r#"{"type": "BATCH", "stream": "s", "encoding": {}}"#, "missing field `manifest`"),
        (r#"{"type": "RECORD", "stream": "s", "record": {"a": 1, "a": 1}}"#, "duplicate key \"a\""),
        (r#"{"type": "STATE", "value": {}} {}"#, "trailing characters"),
        ("INFO hello", "expected value"),
    ] {
        let error = Message::parse(line).expect_err(line);
        assert!(error.contains(problem), "{error}");
    }
    let line = r#"{"type": "RECORD", "stream": "s", "record": {"a": 123456789012345678901.10}}"#;
    let message = Message::parse(line).expect("a record");
    assert_eq!(message.as_record().expect("a record").record["a"].to_string(), "123456789012345678901.10");
}

#[test]
fn the_protocol_is_checked() {
    let schema = |properties: Value| {
        let schema = json!({"type": "object", "properties": properties});
        parse(
            &json!({"type": "SCHEMA", "stream": "s", "schema": schema, "key_properties": ["id"], "bookmark_properties": []}),
        )
    };
    let record = |record: Value| parse(&json!({"type": "RECORD", "stream": "s", "record": record, "version": 1}));
    check_protocol(&[schema(json!({"id": {}, "a": {}})), record(json!({"id": 1}))]);
    for (messages, problem) in [
        (vec![record(json!({"id": 1}))], "no SCHEMA of s"),
        (vec![schema(json!({"id": {}})), record(json!({"id": 1, "b": 2}))], "b is not in the SCHEMA"),
        (vec![schema(json!({"id": {}, "a": {}})), record(json!({"a": 1}))], "key column id is absent"),
        (vec![schema(json!({"a": {}}))], "key property id"),
        (vec![parse(&json!({"type": "STATE", "value": {}}))], "a STATE without bookmarks"),
    ] {
        let text = failure(|| check_protocol(&messages));
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn comparison_is_by_value() {
    let number = |text: &str| serde_json::from_str::<Value>(text).expect("a number");
    assert_eq!(canonical(&number("1.10")), canonical(&number("11e-1")));
    assert_eq!(canonical(&json!("2020-07-01T12:00:00.500+05:30")), canonical(&json!("2020-07-01T06:30:00.5Z")));
    assert_eq!(instant("2020-07-01 12:00:00+00:00"), None);
    assert_eq!(canonical(&json!("2020-07-01")), json!("2020-07-01"));
    assert_eq!(difference(&json!({"a": [1, {"b": 2}]}), &json!({"a": [1.0, {"b": 2}]})), None);
    let difference = difference(&json!({"a": [1, {"b": 2}]}), &json!({"a": [1, {"b": 3}]}));
    assert_eq!(difference.as_deref(), Some("a[1].b: 2, expected 3"));

    let record = |version: Value, time: &str| {
        parse(
            &json!({"type": "RECORD", "stream": "s", "record": {"version": 1}, "version": version, "time_extracted": time}),
        )
    };
    let time = "2020-01-01T00:00:00Z";
    assert_messages("versions vary", &[record(json!(1), time)], &[record(json!(2), "2021-01-01T00:00:00Z")]);
    let text = failure(|| assert_messages("absent", &[record(Value::Null, time)], &[record(json!(2), time)]));
    assert!(text.contains("version: absent, expected"), "{text}");
}

#[test]
fn rules_select_in_a_catalog() {
    let entry =
        |id: &str| json!({"tap_stream_id": id, "metadata": [{"breadcrumb": [], "metadata": {"is-view": false}}]});
    let catalog = Catalog::new(json!({"streams": [entry("a"), entry("b")]}));
    let rules = json!({
        "*": {"replication-method": "FULL_TABLE"},
        "b": {"replication-method": "INCREMENTAL", "columns": {"c": {"selected": false}}},
    });
    let catalog = catalog.apply(rules.as_object().expect("an object"));
    let full = json!({"is-view": false, "replication-method": "FULL_TABLE", "selected": true});
    assert_eq!(catalog.metadata("a", None), &full);
    assert_eq!(catalog.metadata("b", None)["replication-method"], "INCREMENTAL");
    assert_eq!(catalog.metadata("b", Some("c")), &json!({"selected": false}));
}
