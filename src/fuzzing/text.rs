//! Values as text, and what the codecs make of them.

use serde_json::Value;

use crate::pg::copy::{Field, fields, unescape};
use crate::singer::JsonBuf;
use crate::types::{ArrayCodec, Codec};

/// Encodes a row of `COPY … TO STDOUT`. The byte before it chooses the codec of the first field (the next ones follow
/// in turn). The row has one field more than tabs, and its record is one line that any JSON parser takes.
pub fn copy_text(data: &[u8]) {
    let Some((&first, row)) = data.split_first() else { return };
    let mut out = JsonBuf::new();
    let mut scratch = Vec::new();
    out.byte(b'[');
    let mut count = 0;
    for (index, field) in fields(row).enumerate() {
        if index > 0 {
            out.byte(b',');
        }
        let codec = &Codec::SCALARS[(usize::from(first) + index) % Codec::SCALARS.len()];
        let text = match field {
            Field::Null => None,
            Field::Plain(text) => Some(text),
            Field::Escaped(text) => Some(unescape(text, &mut scratch)),
        };
        // Whether it is a text of the type's does not matter here.
        if text.map(|text| codec.encode(text, &mut out)).is_none() {
            out.raw(b"null");
        }
        count += 1;
    }
    out.byte(b']');
    assert_eq!(count, 1 + row.iter().filter(|&&byte| byte == b'\t').count());
    assert_eq!(parsed(&out).as_array().map(Vec::len), Some(count));
}

/// Encodes the text of an array. The two bytes before it choose the codec of the elements and are the delimiter. What
/// is written as an array is the same array when it is printed and read again.
pub fn array_text(data: &[u8]) {
    let [codec, delimiter, text @ ..] = data else { return };
    let of = |element: &Codec| Codec::Array(Box::new(ArrayCodec { element: element.clone(), delimiter: *delimiter }));
    let codec = of(&Codec::SCALARS[usize::from(*codec) % Codec::SCALARS.len()]);
    parsed(&encoded(&codec, text));
    codec.is_fallback(text);

    let texts = of(&Codec::Text);
    let array = parsed(&encoded(&texts, text));
    if array.is_array() && !matches!(delimiter, b'{' | b'}' | b'"' | b'\\') {
        let mut printed = String::new();
        print(&array, char::from(*delimiter), &mut printed);
        // A delimiter outside ASCII is no character of its own here.
        if delimiter.is_ascii() {
            assert_eq!(parsed(&encoded(&texts, printed.as_bytes())), array, "{printed}");
        }
    }
}

fn encoded(codec: &Codec, text: &[u8]) -> JsonBuf {
    let mut out = JsonBuf::new();
    codec.encode(text, &mut out);
    out
}

/// Parses the one line with serde_json.
fn parsed(json: &JsonBuf) -> Value {
    let line = json.as_bytes();
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "{:?}", String::from_utf8_lossy(line));
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(line)))
}

/// Prints as `array_out` does, except that it quotes every element.
fn print(value: &Value, delimiter: char, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('{');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(delimiter);
                }
                print(item, delimiter, out);
            }
            out.push('}');
        }
        Value::String(text) => {
            out.push('"');
            for char in text.chars() {
                if matches!(char, '"' | '\\') {
                    out.push('\\');
                }
                out.push(char);
            }
            out.push('"');
        }
        Value::Null => out.push_str("NULL"),
        other => panic!("{other} in an array of texts"),
    }
}
