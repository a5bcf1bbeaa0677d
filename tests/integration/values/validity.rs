//! Every record is valid against its SCHEMA, in each draft that a target may read it by.

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

use super::types::Kind;
use super::{Column, STREAM};
use crate::harness::Output;
use crate::harness::compare::instant;

/// Checks the records of a run with this config.
#[track_caller]
pub(super) fn check(columns: &[Column], output: &Output, config: &Value, seed: u64) {
    let reference = config["schema_dialect"] == "reference";
    let schema = &output.schemas(STREAM)[0].schema;
    let drafts: &[Draft] =
        if reference { &[Draft::Draft4] } else { &[Draft::Draft4, Draft::Draft7, Draft::Draft202012] };
    for draft in drafts {
        let validator = validator(schema, *draft);
        for record in output.records(STREAM) {
            let record = if reference { without_known_limits(columns, record) } else { record.clone() };
            let record = Value::Object(record);
            if let Some(error) = validator.iter_errors(&record).next() {
                panic!("{config} {draft:?} row {} seed {seed}: {error} at {}", record["id"], error.instance_path());
            }
        }
    }
    if !reference {
        return;
    }
    // The limits are still there: whoever lifts one shall take it out here.
    let validator = validator(schema, drafts[drafts.len() - 1]);
    let refused = |record: &&Map<String, Value>| !validator.is_valid(&Value::Object((*record).clone()));
    assert!(output.records(STREAM).iter().any(refused), "{config}: no record is beyond the known limits");
}

fn validator(schema: &Value, draft: Draft) -> Validator {
    let options = jsonschema::options().with_draft(draft).should_validate_formats(true);
    let options = options.with_format("date-time", |text: &str| instant(text).is_some());
    // The reference's format of a time without an offset, which draft 7 and later want.
    let time = |text: &str| chrono::NaiveTime::parse_from_str(text, "%H:%M:%S%.f").is_ok();
    options.with_format("time", time).build(schema).unwrap_or_else(|error| panic!("{draft:?}: {error} in {schema}"))
}

/// The record without what the reference's schemas have no place for: JSON that is neither object nor array, and numbers beyond
/// numeric(100,38).
fn without_known_limits(columns: &[Column], record: &Map<String, Value>) -> Map<String, Value> {
    let mut record = record.clone();
    for column in columns {
        let Some(value) = record.get_mut(&column.name) else { continue };
        if column.kind == Kind::Json {
            forget(value, column.array, &|json| !json.is_object() && !json.is_array());
        } else if column.sql.trim_end_matches("[]") == "numeric" {
            forget(value, column.array, &beyond_the_reference);
        }
    }
    record
}

/// Sets to null what is `unknown`, of an array (whose elements may be arrays too) its elements.
fn forget(value: &mut Value, array: bool, unknown: &impl Fn(&Value) -> bool) {
    match value {
        Value::Array(items) if array => items.iter_mut().for_each(|item| forget(item, true, unknown)),
        _ if unknown(value) => *value = json!(null),
        _ => {}
    }
}

fn beyond_the_reference(value: &Value) -> bool {
    let text = value.to_string();
    let (whole, fraction) = text.trim_start_matches('-').split_once('.').unwrap_or((&text, ""));
    value.is_number() && (whole.len() > 62 || fraction.len() > 38)
}
