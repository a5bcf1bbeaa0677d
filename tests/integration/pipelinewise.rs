//! The way PipelineWise calls a tap: `--config`, `--properties` and `--state` with the files that it writes, the state
//! file rewritten while the run goes on, and a log that it reads for states and for errors.

mod piped;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Cluster, Message, Output, Tap, TestDb, needs, plugins, until_within};

const LIMIT: Duration = Duration::from_secs(60);

const TABLES: &str = "create table orders (id integer primary key, note text);
    create table events (id integer primary key, at timestamptz, amount numeric(10,2));
    create table rates (currency text primary key, rate numeric);
    create table unwanted (id integer primary key);
    insert into orders values (1, 'a'), (2, 'b');
    insert into events values (1, '2024-01-01 00:00:00+00', 0.02), (2, '2024-01-02 00:00:00+00', 0.03);
    insert into rates values ('EUR', 1);
    insert into unwanted values (1);";

/// One of each method, as `(stream, method, key)`.
const SELECTED: [(&str, &str, Option<&str>); 3] = [
    ("public-events", "INCREMENTAL", Some("at")),
    ("public-orders", "LOG_BASED", None),
    ("public-rates", "FULL_TABLE", None),
];

/// A tap of PipelineWise's: its files in a directory.
struct Pipeline {
    db: TestDb,
    properties: Value,
    state: Option<String>,
}

impl Pipeline {
    fn new(test: &str) -> Pipeline {
        Pipeline::on(&Cluster::shared(), test)
    }

    fn on(cluster: &std::sync::Arc<Cluster>, test: &str) -> Pipeline {
        let db = TestDb::on(cluster, test);
        db.psql(TABLES);
        slot(&db);
        let catalog = config(Tap::new(&db), &db).discover();
        let properties = properties(catalog.as_value(), &SELECTED);
        // `pipelinewise import` leaves no state file, and some runs an empty one.
        Pipeline { db, properties, state: Some(String::new()) }
    }

    fn tap(&self) -> Tap {
        let tap = config(Tap::new(&self.db), &self.db);
        let path = tap.file("properties.json", &serde_json::to_string_pretty(&self.properties).expect("JSON"));
        let tap = tap.arg("--properties").arg(path);
        match &self.state {
            Some(text) => {
                let path = tap.file("state.json", text);
                tap.arg("--state").arg(path)
            }
            None => tap,
        }
    }

    /// A run; the target's last line becomes the state file.
    fn run(&mut self) -> Output {
        let output = self.tap().run();
        assert_quiet(&output);
        self.state = Some(format!("{}\n", output.last_state()));
        output
    }
}

/// The slot that PipelineWise's documentation has its users make; with pgoutput where the server has no other plugin.
fn slot(db: &TestDb) {
    let slot = format!("pipelinewise_{}_shop_tap", db.name());
    let plugin = plugins()[plugins().len() - 1];
    if plugin == "pgoutput" {
        db.psql(&format!("create publication {slot} for all tables"));
    }
    db.slot_named(&slot, plugin);
}

/// The keys that PipelineWise puts into config.json: those of its YAML file, its own defaults, and what it needs itself.
fn config(tap: Tap, db: &TestDb) -> Tap {
    tap.configs(&json!({
        "port": "5432", "filter_schemas": "public,Odd Schema", "tap_id": "Shop-Tap",
        "break_at_end_lsn": true, "logical_poll_total_seconds": 300, "max_run_seconds": 43200, "itersize": 20000,
        "default_replication_method": "LOG_BASED", "limit": null, "use_secondary": false,
        "id": "shop", "type": "tap-postgres", "name": "The shop", "owner": "somebody@example.com",
        "slot_name": "not_a_key_of_the_tap", "target": "warehouse", "stream_buffer_size": 0, "batch_size_rows": 20000,
        "fastsync_parallelism": 4, "send_alert": true, "sync_period": "*/5 * * * *", "db_conn": {"dbname": db.name()},
    }))
}

/// The catalog as PipelineWise keeps it: a selection, `is-new` flags and what it adds beside.
fn properties(catalog: &Value, selected: &[(&str, &str, Option<&str>)]) -> Value {
    let mut properties = catalog.clone();
    for entry in properties["streams"].as_array_mut().expect("streams") {
        let wanted = selected.iter().find(|(stream, ..)| entry["tap_stream_id"] == *stream);
        entry["is-new"] = json!(true);
        let metadata = entry["metadata"].as_array_mut().expect("metadata");
        let table = metadata.iter_mut().find(|item| item["breadcrumb"] == json!([])).expect("metadata of the table");
        table["metadata"]["selected"] = json!(wanted.is_some());
        if let Some((_, method, key)) = wanted {
            table["metadata"]["replication-method"] = json!(method);
            if let Some(key) = key {
                table["metadata"]["replication-key"] = json!(key);
            }
            entry["selected"] = json!(true);
        }
    }
    properties
}

/// What PipelineWise looks for in the log of a run, to tell what went wrong.
fn alarms(log: &str) -> Vec<&str> {
    let words = ["CRITICAL", "EXCEPTION", "ERROR", ".exception", ".Exception", ".error", ".Error"];
    log.lines().filter(|line| words.iter().any(|word| line.contains(word))).collect()
}

#[track_caller]
fn assert_quiet(output: &Output) {
    assert_eq!(alarms(&output.stderr), Vec::<&str>::new());
}

fn ids(output: &Output, stream: &str) -> Vec<i64> {
    output.records(stream).iter().map(|record| record["id"].as_i64().expect("an integer")).collect()
}

fn lsn(state: &Value) -> u64 {
    state["bookmarks"]["public-orders"]["lsn"].as_u64().expect("a position")
}

#[test]
fn a_first_run_and_the_next() {
    let mut pipeline = Pipeline::new("ppw_runs");
    let first = pipeline.run();
    assert_eq!(ids(&first, "public-orders"), [1, 2]);
    assert_eq!(ids(&first, "public-events"), [1, 2]);
    assert_eq!(first.records("public-rates").len(), 1);
    assert_eq!(first.records("public-unwanted").len(), 0);
    assert!(first.schemas("public-unwanted").is_empty(), "an unselected stream");
    pipeline.db.psql(
        "insert into orders values (3, 'c'); delete from orders where id = 1; insert into unwanted values (2);
         insert into events values (3, '2024-01-03 00:00:00+00', 0.04); insert into rates values ('CHF', 0.9);",
    );
    let second = pipeline.run();
    assert_eq!(ids(&second, "public-orders"), [3, 1]);
    assert_eq!(ids(&second, "public-events"), [2, 3]);
    assert_eq!(second.records("public-rates").len(), 2);
    assert_eq!(ids(&pipeline.run(), "public-orders"), [0; 0]);
}

/// The sample for PipelineWise's project has no setting that the tap would ignore.
#[test]
fn the_sample_names_settings() {
    let sample = include_str!("../../docs/pipelinewise/tap_shop.yml");
    let (_, settings) = sample.split_once("\ndb_conn:\n").expect("the settings");
    let indented = settings.lines().take_while(|line| line.starts_with("  "));
    let names: Vec<&str> =
        indented.filter_map(|line| Some(line.trim_start_matches([' ', '#']).split_once(": ")?.0)).collect();
    assert!(names.len() > 10, "hardly any setting: {names:?}");
    let about = Tap::bare().arg("--about").arg("--format").arg("json").output().expect_code(0);
    let about: Value = serde_json::from_str(&about.stdout).expect("JSON");
    // One of PipelineWise's own is among them.
    let known = |name: &str| about["settings"]["properties"].get(name).is_some() || name == "fastsync_parallelism";
    let unknown: Vec<&&str> = names.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "the tap has no settings {unknown:?}");
}

#[test]
fn without_a_state_file() {
    let mut pipeline = Pipeline::new("ppw_no_state");
    pipeline.state = None;
    assert_eq!(ids(&pipeline.run(), "public-orders"), [1, 2]);
}

/// `"ssl": "true"` is sslmode require; over a socket there is nothing to encrypt, as libpq sees it.
#[test]
fn ssl_as_a_text() {
    let pipeline = Pipeline::new("ppw_ssl");
    assert_quiet(&pipeline.tap().config("ssl", "true").run());
    assert_quiet(&pipeline.tap().config("ssl", "false").run());
}

/// A properties file that discovery of the reference made, so that the swap needs no new one.
#[test]
fn the_references_properties() {
    if !needs(12, "generated columns") {
        return;
    }
    let fixture =
        |file: &str| -> PathBuf { Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/reference").join(file) };
    let db = TestDb::new("ppw_reference");
    db.psql_file(&fixture("setup.sql"));
    db.psql_file(&fixture("rows.sql"));
    slot(&db);
    let catalog = fs::read_to_string(fixture("expected-catalog.json")).expect("read the catalog");
    let catalog = catalog.replace(r#""database-name": "ref""#, &format!(r#""database-name": "{}""#, db.name()));
    let selected = [
        ("public-scalars", "LOG_BASED", None),
        ("Odd Schema-Quoted \"Table\"", "LOG_BASED", None),
        ("public-events", "INCREMENTAL", Some("updated_at")),
        ("public-arrays", "FULL_TABLE", None),
    ];
    let properties = properties(&serde_json::from_str(&catalog).expect("JSON"), &selected);
    let mut pipeline = Pipeline { db, properties, state: Some(String::new()) };
    let first = pipeline.run();
    for ((stream, ..), count) in selected.iter().zip([4, 2, 4, 3]) {
        assert_eq!(first.records(stream).len(), count, "{stream}");
    }
    pipeline.db.psql(r#"update "Odd Schema"."Quoted ""Table""" set "sp ace" = 'new' where "Id" = 1"#);
    let second = pipeline.run();
    assert_eq!(second.records("Odd Schema-Quoted \"Table\"")[0]["sp ace"], "new");
    assert_eq!(second.records("public-scalars").len(), 0);
}

/// FastSync copies the tables itself and leaves bookmarks without a method.
#[test]
fn a_state_of_fast_sync() {
    let mut pipeline = Pipeline::new("ppw_fast_sync");
    let at = pipeline.db.lsn("pg_current_wal_lsn()");
    pipeline.state = Some(
        json!({"currently_syncing": null, "bookmarks": {
            "public-orders": {"lsn": at, "version": 1},
            "public-events": {"replication_key": "at", "replication_key_value": "2024-01-02T00:00:00+00:00", "version": 1},
            "public-rates": {},
        }})
        .to_string(),
    );
    pipeline.db.psql("insert into orders values (3, 'c')");
    let output = pipeline.run();
    assert_eq!(ids(&output, "public-orders"), [3]);
    assert_eq!(ids(&output, "public-events"), [2]);
    let copied = output
        .messages
        .iter()
        .any(|message| matches!(message, Message::ActivateVersion { stream, .. } if stream == "public-orders"));
    assert!(!copied, "{:?}", output.messages);
    assert!(output.records("public-rates").len() == 1, "FULL_TABLE needs no bookmark");
    pipeline.db.psql("insert into orders values (4, 'd')");
    assert_eq!(ids(&pipeline.run(), "public-orders"), [4]);
}

/// `reset_state` sets every position to 1, after a switch to another server.
#[test]
fn a_state_reset_to_one() {
    let mut pipeline = Pipeline::new("ppw_reset");
    pipeline.run();
    pipeline.db.psql("insert into orders values (3, 'c')");
    let mut state: Value = serde_json::from_str(pipeline.state.as_deref().expect("a state")).expect("JSON");
    state["bookmarks"]["public-orders"]["lsn"] = json!(1);
    pipeline.state = Some(state.to_string());
    let output = pipeline.run();
    assert_eq!(ids(&output, "public-orders"), [3]);
    assert!(lsn(output.last_state()) > 1);
}

/// The state file is emptied and written again, in place, with each state that the target has stored.
#[test]
fn a_state_file_rewritten_during_the_run() {
    let cluster = Cluster::start("");
    let mut pipeline = Pipeline::on(&cluster, "ppw_rewritten");
    pipeline.run();
    let slot = format!("pipelinewise_{}_shop_tap", pipeline.db.name());
    let tap = pipeline.tap().config("break_at_end_lsn", false);
    let path = tap.dir().join("state.json");
    let mut running = tap.spawn();
    pipeline.db.psql("insert into orders values (3, 'c')");
    let at = pipeline.db.lsn("pg_current_wal_lsn()");
    let stored = running.wait_for(LIMIT, |message| message.as_state().is_some_and(|state| lsn(state) >= at));
    fs::write(&path, "").expect("empty the state file");
    std::thread::sleep(Duration::from_secs(11));
    let stored = stored.as_state().expect("a STATE").clone();
    fs::write(&path, format!("{stored}\n")).expect("write the state file");
    until_within(LIMIT, "the position that the target has stored is acknowledged", || {
        pipeline.db.confirmed_flush(&slot) >= lsn(&stored)
    });
    assert_eq!(pipeline.db.confirmed_flush(&slot), lsn(&stored));
    running.signal(Signal::TERM);
    assert_quiet(&running.finish().expect_code(143));
}

/// PipelineWise tells its users of lines with certain words; a failed run has to have one, and no more.
#[test]
fn a_failed_run_is_told_in_one_line() {
    let pipeline = Pipeline::new("ppw_failed");
    pipeline.db.psql(&format!("select pg_drop_replication_slot('pipelinewise_{}_shop_tap')", pipeline.db.name()));
    let output = pipeline.tap().output().expect_code(1);
    assert_eq!(alarms(&output.stderr).len(), 1, "{}", output.stderr);
    assert!(alarms(&output.stderr)[0].contains("does not exist"), "{}", output.stderr);
}
