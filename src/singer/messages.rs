//! Singer's messages: each function appends a whole line, or begins a RECORD, which is written column by column.

use std::io;

use serde_json::Value;
use serde_json::value::RawValue;

use super::JsonBuf;

/// What a RECORD begins with; the stream follows.
pub(crate) const RECORD: &[u8] = br#"{"type":"RECORD","stream":"#;
/// What a SCHEMA begins with; the stream follows.
pub(crate) const SCHEMA: &[u8] = br#"{"type":"SCHEMA","stream":"#;
/// What stands between a RECORD's stream and its record.
pub(crate) const OF_RECORD: &[u8] = br#","record":"#;

/// Begins a RECORD: everything before its first property.
pub(crate) fn begin_record(out: &mut JsonBuf, stream: &str) {
    out.raw(RECORD);
    out.string(stream.as_bytes());
    out.raw(OF_RECORD);
    out.byte(b'{');
}

/// Returns the record of a RECORD line, which begins at this place, and the digits of its version, if it has one.
///
/// # Errors
/// It is no such line.
pub(crate) fn record_and_version(line: &[u8], at: usize) -> io::Result<(&[u8], Option<&str>)> {
    let rest = line.get(at..).unwrap_or_default();
    let record = first_value(rest).ok_or(io::ErrorKind::InvalidData)?.as_bytes();
    let version = rest[record.len()..].strip_prefix(br#","version":"#).and_then(first_value);
    Ok((record, version))
}

/// Returns the JSON value that a text begins with.
pub(crate) fn first_value(text: &[u8]) -> Option<&str> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    values.next()?.ok().map(RawValue::get)
}

/// Appends a SCHEMA message.
pub(crate) fn schema(out: &mut JsonBuf, stream: &str, schema: &Value, keys: &[String], bookmark: &[&str]) {
    out.raw(SCHEMA);
    out.string(stream.as_bytes());
    out.raw(br#","schema":"#);
    // A Value always has text: its keys are strings.
    out.raw(schema.to_string().as_bytes());
    out.raw(br#","key_properties":"#);
    strings(out, keys);
    out.raw(br#","bookmark_properties":"#);
    strings(out, bookmark);
    out.raw(b"}\n");
}

/// Appends an ACTIVATE_VERSION message: rows of other versions no longer belong to the stream.
pub(crate) fn activate_version(out: &mut JsonBuf, stream: &str, version: i64) {
    out.raw(br#"{"type":"ACTIVATE_VERSION","stream":"#);
    out.string(stream.as_bytes());
    out.raw(br#","version":"#);
    out.raw(itoa::Buffer::new().format(version).as_bytes());
    out.raw(b"}\n");
}

/// Appends a BATCH message: a file with rows of a stream.
pub(crate) fn batch(out: &mut JsonBuf, stream: &str, format: &str, compression: &str, url: &str) {
    out.raw(br#"{"type":"BATCH","stream":"#);
    out.string(stream.as_bytes());
    out.raw(br#","encoding":{"format":"#);
    out.string(format.as_bytes());
    out.raw(br#","compression":"#);
    out.string(compression.as_bytes());
    out.raw(br#"},"manifest":["#);
    out.string(url.as_bytes());
    out.raw(b"]}\n");
}

/// Returns a STATE message with this value, a JSON text.
pub(crate) fn state(value: &[u8]) -> Vec<u8> {
    [br#"{"type":"STATE","value":"#, value, b"}\n"].concat()
}

fn strings(out: &mut JsonBuf, items: &[impl AsRef<str>]) {
    out.byte(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.byte(b',');
        }
        out.string(item.as_ref().as_bytes());
    }
    out.byte(b']');
}
