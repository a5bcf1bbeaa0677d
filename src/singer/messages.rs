//! Singer's messages except RECORD, which is written column by column: each function appends a whole line.

use serde_json::Value;

use super::JsonBuf;

/// Appends a SCHEMA message.
pub(crate) fn schema(out: &mut JsonBuf, stream: &str, schema: &Value, keys: &[String], bookmark: &[&str]) {
    out.raw(br#"{"type":"SCHEMA","stream":"#);
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
