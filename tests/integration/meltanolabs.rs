//! Pipelines that were made for the MeltanoLabs tap: `schema_dialect: meltanolabs`, its settings, and the states that it writes.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Catalog, Message, Output, Tap, TestDb, check_protocol};

const TYPES: &str = "create domain positive as integer check (value > 0);
    create type mood as enum ('sad', 'ok');
    create table types (id integer primary key, n numeric(12,2), f double precision, yes boolean, bits bit(1), name varchar(10) not null,
        doc jsonb, at timestamp, atz timestamptz, day date, clock time, zoned timetz, bin bytea, span interval, many integer[],
        days date[], whole positive, feeling mood);
    insert into types values (1, 1.50, 2.5, true, '1', 'a', '{\"k\": [1.10]}', '2020-02-29 10:20:30', '2020-07-01 12:00:00.123456+05:30',
        '2020-02-29', '10:20:30.5', '12:00:00+05', '\\x00ff', '1 day', '{1,NULL}', '{2020-02-29}', 7, 'ok');";

/// The row of [`TYPES`], as that tap prints it from a table; a domain as the string that it says it is.
fn row() -> Value {
    json!({"id": 1, "n": "1.50", "f": 2.5, "yes": true, "bits": "1", "name": "a", "doc": {"k": ["1.10"]}, "at": "2020-02-29T10:20:30.000000+00:00",
        "atz": "2020-07-01T06:30:00.123456+00:00", "day": "2020-02-29", "clock": "10:20:30.500000", "zoned": "12:00:00+05:00",
        "bin": "00ff", "span": "1 day", "many": [1, null], "days": ["2020-02-29"], "whole": "7", "feeling": "ok"})
}

/// A record with those of its numbers as texts that doubles would not hold.
fn as_texts(record: &serde_json::Map<String, Value>) -> Value {
    let mut record = Value::Object(record.clone());
    record["n"] = json!(record["n"].to_string());
    record["doc"]["k"][0] = json!(record["doc"]["k"][0].to_string());
    record
}

/// The tap in its stead. Its slot is one of this database.
fn tap(db: &TestDb) -> Tap {
    let database = db.name().to_owned();
    let tap = Tap::new(db).without("dbname").config("database", database);
    tap.config("schema_dialect", "meltanolabs").config("replication_slot_name", slot(db))
}

fn slot(db: &TestDb) -> String {
    format!("of_{}", db.name())
}

fn log_based(db: &TestDb, plugin: &str) -> Catalog {
    db.slot_named(&slot(db), plugin);
    db.psql(&format!("create publication {} for all tables", slot(db)));
    tap(db).discover().select("public-types", "LOG_BASED")
}

/// The types in a SCHEMA, column by column.
fn kinds(output: &Output, stream: &str) -> Value {
    output.schemas(stream)[0].schema["properties"].clone()
}

#[test]
fn rows_of_a_table() {
    let db = TestDb::new("meltanolabs_rows");
    db.psql(TYPES);
    let output = tap(&db).run();
    assert_eq!(as_texts(output.records("public-types")[0]), row());
    let text = || json!({"type": ["string", "null"]});
    let any = ["string", "number", "integer", "array", "object", "boolean", "null"];
    assert_eq!(
        kinds(&output, "public-types"),
        json!({
            "id": {"type": ["integer"]}, "n": {"type": ["number", "null"]}, "f": {"type": ["number", "null"]},
            "yes": {"type": ["boolean", "null"]}, "bits": text(), "name": {"type": ["string", "null"], "maxLength": 10},
            "doc": {"type": any, "additionalProperties": true},
            "at": {"type": ["string", "null"], "format": "date-time"}, "atz": {"type": ["string", "null"], "format": "date-time"},
            "day": {"type": ["string", "null"], "format": "date"}, "clock": {"type": ["string", "null"], "format": "time"},
            "zoned": {"type": ["string", "null"], "format": "time"}, "bin": text(), "span": text(),
            "many": {"type": ["array", "null"], "items": {"type": ["integer", "null"]}},
            "days": {"type": ["array", "null"], "items": {"type": ["string", "null"], "format": "date"}},
            "whole": text(), "feeling": text(),
        })
    );
    // No versions, which that tap has not.
    assert!(output.record_messages().all(|record| record.version.is_none()));
    assert!(!output.messages.iter().any(|message| matches!(message, Message::ActivateVersion { .. })));
    let versioned = tap(&db).config("activate_version", true).run();
    assert!(versioned.record_messages().all(|record| record.version.is_some()));

    let output = tap(&db).config("dates_as_string", true).config("json_as_object", true).run();
    let record = output.records("public-types")[0];
    for (column, value) in [
        ("at", "2020-02-29 10:20:30"),
        ("atz", "2020-07-01 06:30:00.123456+00"),
        ("day", "2020-02-29"),
        ("clock", "10:20:30.500000"),
    ] {
        assert_eq!(record[column], value);
    }
    let kinds = kinds(&output, "public-types");
    assert_eq!((&kinds["at"], &kinds["day"]), (&text(), &text()));
    assert_eq!(kinds["doc"], json!({"type": ["object", "null"], "additionalProperties": true}));
}

#[test]
fn changes_with_pgoutput() {
    changes("pgoutput");
}

#[test]
fn changes_with_wal2json() {
    if crate::harness::plugins().contains(&"wal2json") {
        changes("wal2json");
    }
}

/// What the log brings is what the copy does, and both have the two columns.
fn changes(plugin: &str) {
    let db = TestDb::new("meltanolabs_changes");
    db.psql(TYPES);
    let catalog = log_based(&db, plugin);
    let run = |state: &Value| tap(&db).catalog(&catalog).state(state).run();
    let with = |id: u64, deleted_at: Value, lsn: Value| {
        let mut row = row();
        row["id"] = json!(id);
        row["_sdc_deleted_at"] = deleted_at;
        row["_sdc_lsn"] = lsn;
        row
    };
    let copied = run(&json!({}));
    assert_eq!(as_texts(copied.records("public-types")[0]), with(1, Value::Null, Value::Null));
    for schema in copied.schemas("public-types") {
        let properties = &schema.schema["properties"];
        assert_eq!(properties["_sdc_deleted_at"], json!({"type": ["string", "null"]}));
        assert_eq!(properties["_sdc_lsn"], json!({"type": ["integer", "null"]}));
        assert!(schema.bookmark_properties.is_empty());
    }
    db.psql("insert into types select 2, n, f, yes, bits, name, doc, at, atz, day, clock, zoned, bin, span, many, days, whole, feeling from types; delete from types where id = 1;");
    let output = run(copied.last_state());
    let [inserted, deleted] = output.records("public-types").try_into().expect("two records");
    let lsn = |record: &serde_json::Map<String, Value>| record["_sdc_lsn"].as_u64().expect("a position");
    assert_eq!(as_texts(inserted), with(2, Value::Null, json!(lsn(inserted))));
    assert_eq!(deleted.keys().collect::<Vec<_>>(), ["id", "_sdc_deleted_at", "_sdc_lsn"]);
    let time = deleted["_sdc_deleted_at"].as_str().expect("a time");
    assert!(chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%SZ").is_ok(), "{time}");
    assert!(lsn(inserted) < lsn(deleted));
    // The bookmark, as either tap reads it.
    let bookmark = output.bookmark("public-types");
    assert_eq!(bookmark["replication_key"], "_sdc_lsn");
    assert_eq!(bookmark["replication_key_value"], bookmark["lsn"]);
}

/// What that tap leaves behind is gone on from.
#[test]
fn states_of_that_tap() {
    let db = TestDb::new("meltanolabs_states");
    db.psql(TYPES);
    let catalog = log_based(&db, "pgoutput");
    let forms: [fn(u64) -> Value; 3] = [
        |lsn| json!({"replication_key": null, "replication_key_value": lsn, "starting_replication_value": null}),
        |lsn| json!({"replication_key": "_sdc_lsn", "replication_key_value": lsn}),
        |lsn| json!({"replication_key_value": lsn}),
    ];
    for form in forms {
        let lsn: u64 = db.query_one("select pg_current_wal_flush_lsn() - '0/0'").parse().expect("a position");
        db.psql("update types set n = 2 where id = 1");
        let output = tap(&db).catalog(&catalog).state(&json!({"bookmarks": {"public-types": form(lsn)}})).run();
        let records = output.records("public-types");
        assert_eq!(records.len(), 1, "the change, and no copy");
        assert!(records[0]["_sdc_lsn"].as_u64() >= Some(lsn), "{lsn} {records:?}");
        // That tap went on from ours, and left what it does not know.
        let mut state = output.last_state().clone();
        state["bookmarks"]["public-types"]["lsn"] = json!(lsn);
        assert!(tap(&db).catalog(&catalog).state(&state).run().records("public-types").is_empty());
    }
    let incremental = tap(&db).discover().select("public-types", "INCREMENTAL");
    let incremental = incremental.set("public-types", None, &json!({"replication-key": "atz"}));
    for (value, rows) in [("2020-07-01T06:30:00.123456+00:00", 1), ("2020-07-01T06:30:00.123457+00:00", 0)] {
        let bookmark = json!({"replication_key": "atz", "replication_key_value": value});
        let output = tap(&db).catalog(&incremental).state(&json!({"bookmarks": {"public-types": bookmark}})).run();
        assert_eq!(output.records("public-types").len(), rows);
        assert_eq!(output.bookmark("public-types")["replication_key_value"], value);
    }
}

/// A bookmark of a text that PostgreSQL prints is no later than what comes.
#[test]
fn an_infinite_key_is_no_bookmark() {
    let db = TestDb::new("meltanolabs_infinity");
    db.psql(
        "create table t (id integer primary key, day date); insert into t values (1, '2020-01-01'), (2, 'infinity')",
    );
    let catalog = tap(&db).discover().select("public-t", "INCREMENTAL");
    let catalog = catalog.set("public-t", None, &json!({"replication-key": "day"}));
    let run = |state: &Value| tap(&db).config("dates_as_string", true).catalog(&catalog).state(state).run();
    let first = run(&json!({}));
    assert_eq!(
        first.records("public-t").iter().map(|record| &record["day"]).collect::<Vec<_>>(),
        ["2020-01-01", "infinity"]
    );
    assert_eq!(first.bookmark("public-t")["replication_key_value"], "2020-01-01");
    db.psql("insert into t values (3, '2021-01-01')");
    assert_eq!(run(first.last_state()).records("public-t").len(), 3);
}

/// A bookmark of hex digits is the value that they stand for, and no text.
#[test]
fn a_key_of_bytes() {
    let db = TestDb::new("meltanolabs_bytes");
    db.psql(
        "create domain bytes as bytea; create table t (id integer primary key, k bytea, d bytes);
         insert into t select i, decode(lpad(to_hex(i), 8, '0'), 'hex'), decode(lpad(to_hex(i), 8, '0'), 'hex') from generate_series(48, 52) i;",
    );
    for key in ["k", "d"] {
        let catalog = tap(&db).discover().select("public-t", "INCREMENTAL");
        let catalog = catalog.set("public-t", None, &json!({"replication-key": key}));
        let first = tap(&db).catalog(&catalog).run();
        assert_eq!(first.bookmark("public-t")["replication_key_value"], "00000034");
        db.psql("insert into t values (53, '\\x00000035', '\\x00000035')");
        let second = tap(&db).catalog(&catalog).state(first.last_state()).run();
        assert_eq!(
            second.records("public-t").iter().map(|row| row["id"].as_u64()).collect::<Vec<_>>(),
            [Some(52), Some(53)]
        );
        db.psql("delete from t where id = 53");
    }
}

const NUMBERS: &str = "create table n (id integer primary key, even boolean); insert into n select i, i % 2 = 0 from generate_series(1, 2000) i";

fn ids(output: &Output) -> Vec<u64> {
    let mut ids: Vec<u64> =
        output.records("public-n").iter().map(|record| record["id"].as_u64().expect("a number")).collect();
    ids.sort_unstable();
    ids
}

/// Conditions leave rows out, of whatever dialect the schemas are and however they are read.
#[test]
fn conditions_of_rows() {
    let db = TestDb::new("meltanolabs_conditions");
    db.psql(NUMBERS);
    let options = |clauses: Value| json!({"public-n": {"custom_where_clauses": clauses}});
    let expected: Vec<u64> = (1..=1000).filter(|id| id % 2 == 0).collect();
    let clauses = options(json!(["id <= 500 or id <= 1000 -- the first", "even"]));
    let base = || Tap::new(&db).config("stream_options", clauses.clone());
    let by = |key: &str| {
        base().discover().select("public-n", "INCREMENTAL").set("public-n", None, &json!({"replication-key": key}))
    };
    for tap in [
        base().config("default_replication_method", "FULL_TABLE"),
        base().config("default_replication_method", "FULL_TABLE").config("copy_parallelism", 3),
        // Nobody asked for the log.
        base(),
        base().catalog(&by("id")),
        base().catalog(&by("xmin")),
    ] {
        assert_eq!(ids(&tap.run()), expected);
    }
    let first = base().config("limit", 10).catalog(&by("id")).run();
    assert_eq!(ids(&first), expected[..10]);
    let second = base().config("limit", 10).catalog(&by("id")).state(first.last_state()).run();
    assert_eq!(ids(&second), expected[9..20]);

    // The log has every row.
    let log = base().discover().select("public-n", "LOG_BASED");
    let output = base().catalog(&log).run_failing(1);
    assert_eq!(output.logged("can't be LOG_BASED with `custom_where_clauses`"), 1, "{}", output.stderr);
    assert!(output.records("public-n").is_empty());
    let output = base().config("default_replication_method", "LOG_BASED").run_failing(1);
    assert_eq!(output.logged("can't be LOG_BASED with `custom_where_clauses`"), 1, "{}", output.stderr);
    // A condition that is none is its stream's failure alone.
    db.psql("create table other (id integer primary key); insert into other values (1)");
    let wrong = Tap::new(&db).config("stream_options", options(json!(["no_such_column > 1"])));
    let output = wrong.config("default_replication_method", "FULL_TABLE").run_failing(1);
    assert_eq!(output.records("public-other").len(), 1);
    assert!(output.records("public-n").is_empty());
    assert!(output.stderr.contains("public-n") && output.stderr.contains("no_such_column"), "{}", output.stderr);
    let misspelt = Tap::new(&db).config("stream_options", json!({"public-m": {"custom_where_clauses": ["even"]}}));
    let output = misspelt.config("default_replication_method", "FULL_TABLE").run();
    assert_eq!(output.logged("\"public-m\", which is no selected stream"), 1, "{}", output.stderr);
}

/// A trial reads some rows, and does not have the target drop the others.
#[test]
fn a_trial_of_some_rows() {
    let db = TestDb::new("meltanolabs_trial");
    db.psql(NUMBERS);
    let full = |tap: Tap| tap.config("default_replication_method", "FULL_TABLE").config("max_record_count", 7);
    assert_eq!(full(tap(&db)).run().records("public-n").len(), 7);
    for parallelism in [1, 3] {
        let before = Tap::new(&db).config("default_replication_method", "FULL_TABLE").run();
        let output = full(Tap::new(&db)).config("copy_parallelism", parallelism).state(before.last_state()).run();
        assert_eq!(output.records("public-n").len(), 7);
        assert!(!output.messages.iter().any(|message| matches!(message, Message::ActivateVersion { .. })));
    }
    let by_id =
        tap(&db).discover().select("public-n", "INCREMENTAL").set("public-n", None, &json!({"replication-key": "id"}));
    let first = tap(&db).config("max_record_count", 7).catalog(&by_id).run();
    assert_eq!(ids(&first), (1..=7).collect::<Vec<_>>());
    let second = tap(&db).config("max_record_count", 7).catalog(&by_id).state(first.last_state()).run();
    assert_eq!(ids(&second), (7..=14).collect::<Vec<_>>());
}

/// `--config ENV`: no file, and Meltano's variables.
#[test]
fn settings_in_the_environment() {
    let db = TestDb::new("meltanolabs_env");
    db.psql("create table t (id integer primary key); insert into t values (1); create schema other; create table other.u (id integer primary key);");
    let run = |variables: &[(&str, &str)]| {
        let (host, port) = (db.cluster().dir().to_str().expect("a path").to_owned(), db.cluster().port().to_string());
        let mut all = vec![
            ("HOST", host.as_str()),
            ("PORT", &port),
            ("USER", "postgres"),
            ("PASSWORD", "x"),
            ("DATABASE", db.name()),
        ];
        all.extend_from_slice(variables);
        let tap = all.iter().fold(Tap::new(&db), |tap, (name, value)| tap.env(&format!("TAP_POSTGRES_{name}"), value));
        let mut command = tap.command();
        let arguments: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
        assert!(Path::new(&arguments[1]).ends_with("config.json"));
        let mut other = std::process::Command::new(command.get_program());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(["--config", "ENV"]);
        command = other;
        let output = command.output().expect("run the tap");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("UTF-8"),
            String::from_utf8(output.stderr).expect("UTF-8"),
        )
    };
    let streams = |stdout: &str| {
        let messages: Vec<Message> = stdout.lines().map(|line| Message::parse(line).expect("a message")).collect();
        check_protocol(&messages);
        let schemas = messages.iter().filter_map(|message| {
            if let Message::Schema(schema) = message { Some(schema.stream.clone()) } else { None }
        });
        schemas.collect::<Vec<_>>()
    };
    let (code, stdout, stderr) = run(&[("SCHEMA_DIALECT", "meltanolabs")]);
    assert_eq!((code, streams(&stdout)), (Some(0), vec!["other-u".to_owned(), "public-t".to_owned()]), "{stderr}");
    let (code, stdout, stderr) =
        run(&[("FILTER_SCHEMAS", r#"["public"]"#), ("DEFAULT_REPLICATION_METHOD", "FULL_TABLE")]);
    assert_eq!((code, streams(&stdout)), (Some(0), vec!["public-t".to_owned()]), "{stderr}");
    assert!(stdout.contains("ACTIVATE_VERSION"));
    let (code, _, stderr) = run(&[("LIMIT", "many")]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains(r#"the environment (TAP_POSTGRES_…): key "limit": "many" is not a whole number"#),
        "{stderr}"
    );
    let tunnel = r#"{"enable": true, "host": "b", "port": 22, "username": "u"}"#;
    let (code, _, stderr) = run(&[("SSH_TUNNEL", tunnel)]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains(r#"required key "ssh_tunnel.private_key" is missing"#), "{stderr}");
}

/// The digits are those of the table, whatever the way; what was discovered before the setting is nobody's edit.
#[test]
fn decimals_as_texts() {
    let db = TestDb::new("meltanolabs_decimals");
    db.psql("create table types (id integer primary key, n numeric(30,10), plain numeric); insert into types values (1, 12345678901234567890.0000000001, 1.10), (2, 'NaN', null)");
    let discovered = log_based(&db, "pgoutput");
    for dialect in ["portable", "meltanolabs"] {
        let run = |state: &Value| {
            tap(&db)
                .config("schema_dialect", dialect)
                .config("use_singer_decimal", true)
                .catalog(&discovered)
                .state(state)
                .run()
        };
        let copied = run(&json!({}));
        let row = |output: &Output, id: u64| {
            let records = output.records("public-types");
            records.into_iter().find(|row| row["id"] == id).cloned().expect("the row")
        };
        assert_eq!(row(&copied, 1)["n"], "12345678901234567890.0000000001");
        assert_eq!(row(&copied, 1)["plain"].to_string(), "1.10");
        assert_eq!(row(&copied, 2)["n"], Value::Null);
        let schema = json!({"type": ["string", "null"], "format": "x-singer.decimal", "precision": 30, "scale": 10});
        assert_eq!(kinds(&copied, "public-types")["n"], schema);
        db.psql("update types set n = n where id = 1");
        assert_eq!(row(&run(copied.last_state()), 1)["n"], "12345678901234567890.0000000001");
    }
}

/// What another dialect discovered is nobody's edit; an edit is kept.
#[test]
fn a_catalog_of_another_dialect() {
    let db = TestDb::new("meltanolabs_catalog");
    db.psql(TYPES);
    let fresh = tap(&db).run();
    for dialect in ["portable", "reference"] {
        let catalog = Tap::new(&db).config("schema_dialect", dialect).discover().select("public-types", "FULL_TABLE");
        let output = tap(&db).catalog(&catalog).run();
        assert_eq!(kinds(&output, "public-types"), kinds(&fresh, "public-types"), "{dialect}");
        let mut edited = catalog.as_value().clone();
        edited["streams"][0]["schema"]["properties"]["day"] =
            json!({"type": ["null", "string"], "format": "date-time", "pattern": "x"});
        let output = tap(&db).catalog(&Catalog::new(edited)).run();
        assert_eq!(kinds(&output, "public-types")["day"]["pattern"], "x");
    }
}

/// A project of the Hub's default variant says nothing of dialects.
#[test]
fn the_variant_that_meltano_runs() {
    let db = TestDb::new("meltanolabs_variant");
    db.psql("create table t (id integer primary key, day date); insert into t values (1, '2020-02-29')");
    let day = |variant: &str, more: Value| {
        let output = Tap::new(&db).configs(&more).env("MELTANO_EXTRACTOR_VARIANT", variant).run();
        output.records("public-t")[0]["day"].clone()
    };
    assert_eq!(day("meltanolabs", json!({})), "2020-02-29");
    assert_eq!(day("meltanolabs", json!({"schema_dialect": "portable"})), "2020-02-29T00:00:00+00:00");
    for variant in ["transferwise", "", "tap-postgres-rs"] {
        assert_eq!(day(variant, json!({})), "2020-02-29T00:00:00+00:00");
    }
}

/// Rows in files have what rows in messages have.
#[test]
fn rows_in_batches() {
    let db = TestDb::new("meltanolabs_batches");
    db.psql(TYPES);
    let catalog = log_based(&db, "pgoutput");
    for versions in [false, true] {
        let tap = tap(&db).config("activate_version", versions);
        let root = format!("file://{}", tap.dir().join("batches").display());
        let tap = tap.config("batch_config", json!({"storage": {"root": root}})).catalog(&catalog);
        let output = tap.run();
        let batch = output
            .messages
            .iter()
            .find_map(|message| if let Message::Batch(batch) = message { Some(batch) } else { None });
        let record = &batch.expect("a batch").records()[0];
        assert_eq!((&record["_sdc_deleted_at"], &record["_sdc_lsn"]), (&Value::Null, &Value::Null));
        assert_eq!(record.contains_key("_sdc_table_version"), versions);
        assert_eq!(record["day"], "2020-02-29");
    }
}
