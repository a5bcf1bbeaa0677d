//! What RECORD lines say of rows: their keys, and whether all of a row is in them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::singer::messages::{self, RECORD, first_value};
use crate::sync::form::{DELETED_AT, TABLE_VERSION};

/// The streams that SCHEMAs have announced.
#[derive(Default)]
pub(super) struct Streams {
    list: Vec<Stream>,
    /// Their places, by the name as it stands in a message.
    places: HashMap<Vec<u8>, usize>,
    /// The stream of the last record.
    last: usize,
}

/// A stream as its last SCHEMA has it.
pub(super) struct Stream {
    /// Its name.
    pub(super) name: String,
    /// Where the record begins in its RECORDs.
    pub(super) record: usize,
    /// What its RECORDs begin with.
    start: Vec<u8>,
    keys: Vec<String>,
    /// How many properties a record has that says all of a row.
    properties: usize,
    /// How many records of it the window has.
    count: u64,
}

#[derive(Deserialize)]
struct SchemaLine {
    stream: String,
    schema: Schema,
    key_properties: Vec<String>,
}

#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    properties: Map<String, Value>,
}

impl Streams {
    /// Takes what a SCHEMA says; any other line says nothing.
    pub(super) fn learn(&mut self, line: &[u8]) {
        let Some(name) = line.strip_prefix(messages::SCHEMA).and_then(first_value) else { return };
        let Ok(SchemaLine { stream, schema, key_properties }) = serde_json::from_slice(line) else { return };
        let start = [RECORD, name.as_bytes(), messages::OF_RECORD].concat();
        // A column of a type that is not sent has no more than a name; the version is in files only.
        let is_sent =
            |(name, schema): &(&String, &Value)| *name != TABLE_VERSION && **schema != Value::Object(Map::new());
        let properties = schema.properties.iter().filter(is_sent).count();
        let stream = Stream { name: stream, record: start.len(), start, keys: key_properties, properties, count: 0 };
        match self.places.get(name.as_bytes()) {
            Some(place) => self.list[*place] = stream,
            None => {
                self.places.insert(name.as_bytes().to_vec(), self.list.len());
                self.list.push(stream);
            }
        }
    }

    /// Returns the stream of a RECORD; `None` for any other line.
    pub(super) fn of_record(&mut self, line: &[u8]) -> Option<usize> {
        if !self.list.get(self.last).is_some_and(|stream| line.starts_with(&stream.start)) {
            let name = line.strip_prefix(RECORD).and_then(first_value)?;
            self.last = *self.places.get(name.as_bytes())?;
        }
        Some(self.last)
    }

    /// Returns a stream by its place.
    pub(super) fn get(&self, place: usize) -> &Stream {
        &self.list[place]
    }

    /// Counts a record of a stream, and returns how many there are.
    pub(super) fn count(&mut self, place: usize) -> u64 {
        self.list[place].count += 1;
        self.list[place].count
    }

    /// Begins to count a stream's records anew.
    pub(super) fn forget_count(&mut self, place: usize) {
        self.list[place].count = 0;
    }
}

/// What a record says of a row.
pub(super) struct Change {
    /// Where its key is.
    pub(super) key: Range<usize>,
    /// Whether the record has all of the row, or says that it is gone.
    pub(super) is_whole: bool,
}

/// Reads keys out of records.
#[derive(Default)]
pub(super) struct KeyReader {
    /// The places of the key's values, in the order of the key.
    values: Vec<Range<usize>>,
}

impl KeyReader {
    /// Appends the key of a line's record to `keys`: the JSON of its values, each with a line's end behind it. `None` if it has none.
    pub(super) fn read(&mut self, stream: &Stream, line: &[u8], keys: &mut Vec<u8>) -> Option<Change> {
        if stream.keys.is_empty() {
            return None;
        }
        let start = keys.len();
        self.values.clear();
        self.values.resize(stream.keys.len(), 0..0);
        let record = RecordVisitor { stream, keys, values: &mut self.values };
        let mut json = serde_json::Deserializer::from_slice(line.get(stream.record..)?);
        let read = json.deserialize_map(record);
        let Some(seen) = read.ok().filter(|_| self.values.iter().all(|value| !value.is_empty())) else {
            keys.truncate(start);
            return None;
        };
        let mut from = start;
        if !self.values.is_sorted_by_key(|value| value.start) {
            from = keys.len();
            self.values.iter().for_each(|value| keys.extend_from_within(value.clone()));
        }
        let is_whole = seen.is_deleted || seen.properties == stream.properties;
        Some(Change { key: from..keys.len(), is_whole })
    }
}

/// What was seen in a record.
struct Seen {
    properties: usize,
    is_deleted: bool,
}

struct RecordVisitor<'a> {
    stream: &'a Stream,
    keys: &'a mut Vec<u8>,
    values: &'a mut [Range<usize>],
}

impl<'de> Visitor<'de> for RecordVisitor<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut record: A) -> Result<Seen, A::Error> {
        let mut seen = Seen { properties: 0, is_deleted: false };
        while let Some(property) = record.next_key_seed(Name(&self.stream.keys))? {
            seen.properties += 1;
            match property {
                Property::Key(place) => {
                    let value: &RawValue = record.next_value()?;
                    // What has no JSON, such as NaN, is no key that leads to a row.
                    if value.get() == "null" {
                        continue;
                    }
                    let start = self.keys.len();
                    self.keys.extend_from_slice(value.get().as_bytes());
                    self.keys.push(b'\n');
                    self.values[place] = start..self.keys.len();
                }
                Property::DeletedAt => seen.is_deleted = record.next_value::<&RawValue>()?.get() != "null",
                Property::Other => {
                    record.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(seen)
    }
}

/// A property of a record.
enum Property {
    /// Of the key, at this place.
    Key(usize),
    DeletedAt,
    Other,
}

/// Tells properties by their names, among them these of the key.
struct Name<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Property;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Property, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Property;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Property, E> {
        match self.0.iter().position(|key| key == name) {
            Some(place) => Ok(Property::Key(place)),
            None if name == DELETED_AT => Ok(Property::DeletedAt),
            None => Ok(Property::Other),
        }
    }
}
