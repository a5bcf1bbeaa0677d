//! Values of every type, extremes and random ones: whichever way a row comes, the tap prints the same JSON, it is what
//! Postgres says, and it is valid against the SCHEMA.
//!
//! `TAP_TEST_SEED=n` repeats a run that failed.

mod binary;
mod oracle;
mod types;
mod validity;

use std::collections::BTreeMap;
use std::env;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::harness::compare::difference;
use crate::harness::{Catalog, Output, Tap, TestDb, needs, plugins};
use types::Kind;

const STREAM: &str = "public-t";
const RANDOM_ROWS: usize = 150;

/// A column of the table.
struct Column {
    name: String,
    sql: String,
    kind: Kind,
    array: bool,
    extremes: Vec<String>,
    random: BoxedStrategy<String>,
}

/// A column for each type and one for its arrays.
fn columns() -> Vec<Column> {
    let mut columns = Vec::new();
    for (index, ty) in types::types().into_iter().enumerate() {
        let sql = format!("{}[]", ty.sql);
        // These are compared element by element, which knows no dimensions.
        let flat = ty.kind == Kind::Hstore || ty.sql == "box";
        let (extremes, random) = arrays(&ty, flat);
        if !types::DOMAINS.contains(&ty.sql) || needs(11, "an array of a domain") {
            columns.push(Column { name: format!("a{index:02}"), sql, kind: ty.kind, array: true, extremes, random });
        }
        let (sql, kind, extremes, random) = (ty.sql.to_owned(), ty.kind, ty.extremes, ty.random);
        columns.push(Column { name: format!("c{index:02}"), sql, kind, array: false, extremes, random });
    }
    let domain = ["{}", "{1,NULL}", "{{1},{2}}"].map(str::to_owned);
    columns.push(Column {
        name: "of_array".to_owned(),
        sql: "list".to_owned(),
        kind: Kind::Number,
        array: true,
        extremes: domain.to_vec(),
        random: prop::sample::select(domain.to_vec()).boxed(),
    });
    columns
}

/// Input texts of arrays of a type, in every shape.
fn arrays(ty: &types::Type, flat: bool) -> (Vec<String>, BoxedStrategy<String>) {
    let delimiter = if ty.sql == "box" { ";" } else { "," };
    let join = move |items: &[String]| format!("{{{}}}", items.join(delimiter));
    let quote = |text: &String| format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#));
    let mut all: Vec<String> = ty.extremes.iter().map(quote).collect();
    all.push("NULL".to_owned());
    let one = quote(&ty.extremes[ty.extremes.len() - 1]);
    let row = format!("{{{one}{delimiter}NULL}}");
    let mut extremes = vec!["{}".to_owned(), join(&all), "{NULL}".to_owned()];
    let element = prop::option::weighted(0.85, ty.random.clone());
    let element = element.prop_map(move |text| text.map_or("NULL".to_owned(), |text| quote(&text)));
    let vector = |size| prop::collection::vec(element.clone(), size);
    let one_dimension = vector(0..5).prop_map(move |items| join(&items));
    if flat {
        return (extremes, one_dimension.boxed());
    }
    extremes.extend([
        format!("{{{row}{delimiter}{row}}}"),
        format!("[0:1]={row}"),
        format!("[-1:0][5:6]={{{row}{delimiter}{row}}}"),
        format!("{{{{{{{one}}}}}}}"),
    ]);
    let two = vector(4..5).prop_map(move |v| join(&[join(&v[..2]), join(&v[2..])]));
    let three = vector(4..5).prop_map(move |v| join(&[join(&[join(&v[..2])]), join(&[join(&v[2..])])]));
    let bounds = vector(3..4).prop_map(move |v| format!("[7:9]={}", join(&v)));
    (extremes, prop_oneof![4 => one_dimension, 1 => two, 1 => three, 1 => bounds].boxed())
}

/// The rows: the extremes of every column side by side, a row of NULLs, then random ones.
fn rows(columns: &[Column], seed: u64) -> Vec<Vec<Option<String>>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let longest = columns.iter().map(|column| column.extremes.len()).max().expect("columns");
    // The last one is all NULLs.
    let mut rows: Vec<Vec<Option<String>>> =
        (0..=longest).map(|n| columns.iter().map(|column| column.extremes.get(n).cloned()).collect()).collect();
    for _ in 0..RANDOM_ROWS {
        let mut value = |column: &Column| {
            let text = prop::option::weighted(0.85, column.random.clone());
            text.new_tree(&mut runner).expect("a value").current()
        };
        rows.push(columns.iter().map(&mut value).collect());
    }
    rows
}

fn insert(db: &TestDb, rows: &[Vec<Option<String>>]) {
    let literal = |text: &Option<String>| match text {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "null".to_owned(),
    };
    for batch in rows.chunks(25) {
        let values: Vec<String> =
            batch.iter().map(|row| format!("({})", row.iter().map(literal).collect::<Vec<_>>().join(","))).collect();
        db.psql(&format!("insert into t values {}", values.join(",")));
    }
}

/// The records by id, as the text that the tap wrote, without the column that only the stream phase has.
fn texts(output: &Output) -> BTreeMap<i64, String> {
    let lines = output.stdout.lines().filter(|line| line.starts_with(r#"{"type":"RECORD""#));
    let texts = lines.map(|line| {
        let start = line.find(r#""record":"#).expect("a record");
        let end = line.rfind(r#","version":"#).expect("a version");
        line[start..end].replace(r#","_sdc_deleted_at":null}"#, "}")
    });
    let ids = output.records(STREAM).into_iter().map(|record| record["id"].as_i64().expect("an id"));
    ids.zip(texts).collect()
}

#[test]
fn every_type_every_way() {
    let seed = env::var("TAP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| chrono::Utc::now().timestamp_millis().unsigned_abs());
    let columns = columns();
    let db = TestDb::new("values");
    db.psql(types::SETUP);
    let definitions: Vec<String> = columns.iter().map(|column| format!("{} {}", column.name, column.sql)).collect();
    db.psql(&format!("create table t ({}, id serial primary key)", definitions.join(", ")));

    let catalog = |method| Tap::new(&db).discover().select(STREAM, method);
    let log_based = catalog("LOG_BASED");
    db.replicate("pgoutput");
    let mut slots = vec![db.slot_name()];
    if plugins().contains(&"wal2json") {
        slots.push(db.slot_named(&format!("{}_w", db.slot_name()), "wal2json"));
    }
    let tap = |slot: &str, reader: &str| {
        Tap::new(&db).config("replication_slot_name", slot).config("wal_reader", reader).catalog(&log_based)
    };
    let states: Vec<Value> = slots.iter().map(|slot| tap(slot, "auto").run().last_state().clone()).collect();
    let rows = rows(&columns, seed);
    insert(&db, &rows);

    let copied = Tap::new(&db).catalog(&catalog("FULL_TABLE")).run();
    assert_eq!(copied.records(STREAM).len(), rows.len());
    as_postgres_says(&db, &columns, &copied, seed);
    validity::check(&columns, &copied, &json!({}), seed);
    for config in [
        json!({"schema_dialect": "reference"}),
        json!({"schema_dialect": "reference", "extended_types": false}),
        json!({"extended_types": false}),
    ] {
        let discovered: Catalog = Tap::new(&db).configs(&config).discover().select(STREAM, "FULL_TABLE");
        let output = Tap::new(&db).configs(&config).catalog(&discovered).run();
        validity::check(&columns, &output, &config, seed);
    }

    let expected = texts(&copied);
    for (slot, state) in slots.iter().zip(&states) {
        for reader in ["stream", "bulk"] {
            let output = tap(slot, reader).state(state).run();
            let texts = texts(&output);
            assert_eq!(texts.len(), expected.len(), "{slot} {reader}, seed {seed}");
            if let Some(id) = expected.keys().find(|id| texts[id] != expected[id]) {
                let find = |output: &Output| -> Value {
                    output.records(STREAM).into_iter().find(|r| r["id"] == *id).cloned().unwrap_or_default().into()
                };
                let mut streamed = find(&output);
                streamed.as_object_mut().expect("a record").shift_remove("_sdc_deleted_at");
                let by_value = difference(&streamed, &find(&copied));
                panic!("{slot} {reader}, row {id}, seed {seed}: {by_value:?}\n{}\n{}", texts[id], expected[id]);
            }
        }
    }
}

/// Every value of a copy is what the server prints of it, as the contract writes it.
fn as_postgres_says(db: &TestDb, columns: &[Column], output: &Output, seed: u64) {
    let expressions: Vec<String> =
        columns.iter().map(|column| format!("{} as {}", oracle::expression(column), column.name)).collect();
    let query = format!("select to_json(q) from (select id, {} from t) q", expressions.join(", "));
    // By COPY: psql leaves out characters that it can't show. The quotes are ones that no JSON holds.
    let copy = format!(
        r"set timezone = 'UTC'; set extra_float_digits = 3; copy ({query}) to stdout (format csv, delimiter e'\x01', quote e'\x02')"
    );
    let mut printed: BTreeMap<i64, Map<String, Value>> = BTreeMap::new();
    for line in db.psql(&copy).lines() {
        let row: Map<String, Value> = serde_json::from_str(line).expect("a row as JSON");
        printed.insert(row["id"].as_i64().expect("an id"), row);
    }
    assert_eq!(printed.len(), output.records(STREAM).len());
    for record in output.records(STREAM) {
        let printed = &printed[&record["id"].as_i64().expect("an id")];
        for column in columns {
            let (value, printed) = (&record[&column.name], &printed[&column.name]);
            let expected = oracle::expected(column.kind, printed);
            // JSON keeps its own spelling of a number: 1.10 is not 1.1.
            let same =
                if column.kind == Kind::Json { *value == expected } else { difference(value, &expected).is_none() };
            assert!(
                same,
                "{} {}, row {}, seed {seed}: {value}, expected {expected}; Postgres prints {printed}",
                column.sql, column.name, record["id"]
            );
        }
    }
}
