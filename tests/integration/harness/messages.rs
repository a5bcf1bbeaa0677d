//! Singer messages, parsed strictly: one JSON object a line, of a known type, with no key that Singer doesn't have.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::compare;

/// One line of the tap's stdout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Schema(Schema),
    Record(Record),
    State(Value),
    ActivateVersion { stream: String, version: u64 },
    Batch(Batch),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schema {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) stream: String,
    pub(crate) schema: Value,
    pub(crate) key_properties: Vec<String>,
    pub(crate) bookmark_properties: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) stream: String,
    #[serde(deserialize_with = "unique_keys")]
    pub(crate) record: Map<String, Value>,
    pub(crate) version: Option<u64>,
    pub(crate) time_extracted: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) stream: String,
    pub(crate) encoding: Value,
    pub(crate) manifest: Vec<String>,
}

impl Batch {
    /// The records in its files.
    #[track_caller]
    pub(crate) fn records(&self) -> Vec<Map<String, Value>> {
        assert_eq!(self.encoding["format"], "jsonl");
        let mut text = String::new();
        for url in &self.manifest {
            let mut file = File::open(url.strip_prefix("file://").expect("a file's URL")).expect("open the batch");
            match self.encoding["compression"].as_str() {
                Some("gzip") => MultiGzDecoder::new(file).read_to_string(&mut text),
                Some("none") => file.read_to_string(&mut text),
                other => panic!("{other:?} is no compression"),
            }
            .expect("read the batch");
        }
        assert!(text.ends_with('\n'), "whole lines");
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateLine {
    #[serde(rename = "type")]
    _kind: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivateVersionLine {
    #[serde(rename = "type")]
    _kind: String,
    stream: String,
    version: u64,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

impl Message {
    /// Parses a line. Each type from the text itself: serde's tagged enums would buffer and lose exact numbers.
    pub(crate) fn parse(line: &str) -> Result<Message, String> {
        fn of<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
            serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))
        }
        match of::<Kind>(line)?.kind.as_str() {
            "SCHEMA" => Ok(Message::Schema(of(line)?)),
            "RECORD" => Ok(Message::Record(of(line)?)),
            "STATE" => Ok(Message::State(of::<StateLine>(line)?.value)),
            "ACTIVATE_VERSION" => {
                let ActivateVersionLine { stream, version, .. } = of(line)?;
                Ok(Message::ActivateVersion { stream, version })
            }
            "BATCH" => Ok(Message::Batch(of(line)?)),
            kind => Err(format!("unknown message type {kind} in {line}")),
        }
    }

    /// Parses the lines of an expected file.
    #[track_caller]
    pub(crate) fn parse_lines(text: &str) -> Vec<Message> {
        let parse = |line| Message::parse(line).unwrap_or_else(|error| panic!("{error}"));
        text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }

    /// The stream it belongs to; none for a STATE.
    pub(crate) fn stream(&self) -> Option<&str> {
        match self {
            Message::Schema(Schema { stream, .. })
            | Message::Record(Record { stream, .. })
            | Message::Batch(Batch { stream, .. })
            | Message::ActivateVersion { stream, .. } => Some(stream),
            Message::State(_) => None,
        }
    }

    pub(crate) fn is_state(&self) -> bool {
        matches!(self, Message::State(_))
    }

    pub(crate) fn as_record(&self) -> Option<&Record> {
        match self {
            Message::Record(record) => Some(record),
            _ => None,
        }
    }

    pub(crate) fn as_state(&self) -> Option<&Value> {
        match self {
            Message::State(value) => Some(value),
            _ => None,
        }
    }
}

/// An object whose keys differ; serde_json alone would keep the last of two equal ones in silence.
fn unique_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = Map<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object without duplicate keys")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = Map::new();
            while let Some((key, value)) = access.next_entry::<String, Value>()? {
                if map.insert(key.clone(), value).is_some() {
                    return Err(serde::de::Error::custom(format!("duplicate key {key:?}")));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

/// What a target relies on: a stream's SCHEMA before anything else of it, no column that the SCHEMA lacks, every key
/// column in every record, instants that are instants, and a STATE that can be stored.
#[track_caller]
pub(crate) fn check_protocol(messages: &[Message]) {
    if let Err(problem) = protocol(messages) {
        panic!("{problem}");
    }
}

fn protocol(messages: &[Message]) -> Result<(), String> {
    let mut schemas: HashMap<&str, &Schema> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        let at = |problem: String| format!("message {index}: {problem}: {message:?}");
        if let Some(stream) = message.stream()
            && !matches!(message, Message::Schema(_))
            && !schemas.contains_key(stream)
        {
            return Err(at(format!("no SCHEMA of {stream} before it")));
        }
        match message {
            Message::Schema(schema) => {
                let properties = schema.schema["properties"].as_object();
                let properties = properties.ok_or_else(|| at("a schema without properties".into()))?;
                if let Some(key) = schema.key_properties.iter().find(|key| !properties.contains_key(*key)) {
                    return Err(at(format!("key property {key} is no property")));
                }
                schemas.insert(&schema.stream, schema);
            }
            Message::Record(record) => {
                let schema = schemas[record.stream.as_str()];
                let properties = schema.schema["properties"].as_object().expect("checked with its SCHEMA");
                if let Some(column) = record.record.keys().find(|column| !properties.contains_key(*column)) {
                    return Err(at(format!("{column} is not in the SCHEMA")));
                }
                if let Some(key) = schema.key_properties.iter().find(|key| !record.record.contains_key(*key)) {
                    return Err(at(format!("key column {key} is absent")));
                }
                if let Some(time) = &record.time_extracted
                    && compare::instant(time).is_none()
                {
                    return Err(at("time_extracted is no instant".into()));
                }
            }
            Message::State(value) => {
                let bookmarks = value.get("bookmarks").and_then(Value::as_object);
                let bookmarks = bookmarks.ok_or_else(|| at("a STATE without bookmarks".into()))?;
                if let Some((stream, _)) = bookmarks.iter().find(|(_, bookmark)| !bookmark.is_object()) {
                    return Err(at(format!("the bookmark of {stream} is no object")));
                }
            }
            Message::ActivateVersion { .. } | Message::Batch(_) => {}
        }
    }
    Ok(())
}
