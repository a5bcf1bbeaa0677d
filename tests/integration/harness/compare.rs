//! Comparison by the contract: JSON with numbers by exact value and instants as instants; what varies from run to run
//! becomes a placeholder, so that its presence still counts.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::decimal;
use super::messages::{Message, Record, Schema};

/// An instant written as RFC 3339 with an offset, in UTC.
pub(crate) fn instant(text: &str) -> Option<DateTime<Utc>> {
    // chrono takes a blank for the T; a target's parser need not.
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// The value in one spelling: equal values become the same `Value`.
pub(crate) fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let text = decimal::canonical(&number.to_string());
            Value::Number(text.parse().expect("a canonical decimal is a JSON number"))
        }
        Value::String(text) => match instant(text) {
            Some(time) => json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(map) => {
            let mut map: Vec<_> = map.iter().map(|(key, value)| (key.clone(), canonical(value))).collect();
            map.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(map.into_iter().collect())
        }
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

/// A message as JSON in one spelling, `version`, `time_extracted`, `lsn` and `row-count` as placeholders.
pub(crate) fn normalized(message: &Message) -> Value {
    canonical(&placeholders(message))
}

/// A message as JSON with placeholders, values and order as they came: what a golden file holds.
pub(crate) fn placeholders(message: &Message) -> Value {
    match message {
        Message::Schema(Schema { stream, schema, key_properties, bookmark_properties, .. }) => json!({
            "type": "SCHEMA", "stream": stream, "schema": schema,
            "key_properties": key_properties, "bookmark_properties": bookmark_properties,
        }),
        Message::Record(Record { stream, record, version, time_extracted, .. }) => {
            let mut record = record.clone();
            if let Some(time) = record.get_mut("_sdc_deleted_at") {
                replace(time, |time| time.as_str().and_then(instant).is_some(), "<instant>");
            }
            if let Some(lsn) = record.get_mut("_sdc_lsn") {
                replace(lsn, |lsn| !lsn.is_null(), "<lsn>");
            }
            let mut message = json!({"type": "RECORD", "stream": stream, "record": record});
            if version.is_some() {
                message["version"] = json!("<version>");
            }
            if time_extracted.is_some() {
                message["time_extracted"] = json!("<instant>");
            }
            message
        }
        Message::State(value) => json!({"type": "STATE", "value": state_placeholders(value)}),
        Message::ActivateVersion { stream, .. } => {
            json!({"type": "ACTIVATE_VERSION", "stream": stream, "version": "<version>"})
        }
        Message::Batch(batch) => {
            json!({"type": "BATCH", "stream": batch.stream, "encoding": batch.encoding, "manifest": "<files>"})
        }
    }
}

/// A state whose positions, versions and oids are placeholders.
pub(crate) fn state_placeholders(state: &Value) -> Value {
    let mut state = state.clone();
    let bookmarks = state.get_mut("bookmarks").and_then(Value::as_object_mut);
    for bookmark in bookmarks.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        for (key, placeholder) in [("lsn", "<lsn>"), ("version", "<version>"), ("table_oid", "<oid>")] {
            if let Some(value) = bookmark.get_mut(key) {
                replace(value, Value::is_u64, placeholder);
            }
        }
        if let Some(value) = bookmark.get_mut("definition") {
            replace(value, |value| value.as_array().is_some_and(|numbers| numbers.len() == 6), "<definition>");
        }
        // 1 marks an unfinished copy and means something; any other number is a transaction's.
        if let Some(xmin) = bookmark.get_mut("xmin") {
            replace(xmin, |xmin| xmin.as_u64().is_some_and(|xmin| xmin > 1), "<xmin>");
        }
    }
    state
}

fn replace(value: &mut Value, valid: impl Fn(&Value) -> bool, placeholder: &str) {
    if valid(value) {
        *value = json!(placeholder);
    }
}

/// Where two values differ first, and how: `record.amount: 1.1, expected 1.2`.
pub(crate) fn difference(actual: &Value, expected: &Value) -> Option<String> {
    fn walk(path: &str, actual: &Value, expected: &Value) -> Option<String> {
        match (actual, expected) {
            (Value::Object(a), Value::Object(e)) => {
                let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                let missing = e.iter().find(|(key, _)| !a.contains_key(*key));
                let added = a.iter().find(|(key, _)| !e.contains_key(*key));
                None.or_else(|| {
                    missing.map(|(key, value)| format!("{}: absent, expected {}", child(key), short(value)))
                })
                .or_else(|| added.map(|(key, value)| format!("{}: {}, expected absent", child(key), short(value))))
                .or_else(|| e.iter().find_map(|(key, value)| walk(&child(key), &a[key], value)))
            }
            (Value::Array(a), Value::Array(e)) if a.len() == e.len() => {
                a.iter().zip(e).enumerate().find_map(|(index, (a, e))| walk(&format!("{path}[{index}]"), a, e))
            }
            _ if actual == expected => None,
            _ => Some(format!("{path}: {}, expected {}", short(actual), short(expected))),
        }
    }
    walk("", &canonical(actual), &canonical(expected))
}

/// The first difference of two lists of messages, in order, or nothing.
pub(crate) fn messages_difference(actual: &[Value], expected: &[Value]) -> Option<String> {
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        if let Some(difference) = difference(a, e) {
            return Some(format!("message {index}: {difference}\n  actual:   {}\n  expected: {}", short(a), short(e)));
        }
    }
    let more = |name: &str, rest: &[Value]| format!("{} more {name}, the first: {}", rest.len(), short(&rest[0]));
    match actual.len().cmp(&expected.len()) {
        std::cmp::Ordering::Less => Some(more("expected", &expected[actual.len()..])),
        std::cmp::Ordering::Greater => Some(more("than expected", &actual[expected.len()..])),
        std::cmp::Ordering::Equal => None,
    }
}

/// Fails with the first difference of two lists of messages.
#[track_caller]
pub(crate) fn assert_messages<'a, A, E>(what: &str, actual: A, expected: E)
where
    A: IntoIterator<Item = &'a Message>,
    E: IntoIterator<Item = &'a Message>,
{
    let actual: Vec<Value> = actual.into_iter().map(normalized).collect();
    let expected: Vec<Value> = expected.into_iter().map(normalized).collect();
    if let Some(difference) = messages_difference(&actual, &expected) {
        panic!("{what}: {difference}");
    }
}

/// Fails where two values differ by the contract's comparison.
#[track_caller]
pub(crate) fn assert_same(what: &str, actual: &Value, expected: &Value) {
    if let Some(difference) = difference(actual, expected) {
        panic!("{what}: {difference}");
    }
}

fn short(value: &Value) -> String {
    const LIMIT: usize = 600;
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}
