//! What Postgres says that a value is, as the contract writes it in JSON.

use serde_json::{Value, json};

use super::Column;
use super::types::Kind;
use crate::harness::release;

/// The expression whose value, as JSON of texts, is handed to [`expected`].
pub(super) fn expression(column: &Column) -> String {
    let name = &column.name;
    match (column.kind, column.array) {
        (Kind::Hstore, false) => format!("hstore_to_json({name})"),
        (Kind::Hstore, true) => format!(
            "case when {name} is not null then (select coalesce(json_agg(hstore_to_json(e) order by n), '[]')
             from unnest({name}) with ordinality as u (e, n)) end"
        ),
        // What the type's output function prints; a cast to text may be another thing, as for char(n) and inet.
        // And `(,) is null` holds of a composite.
        (_, false) => format!("case when num_nulls({name}) = 0 then format('%s', {name}) end"),
        (_, true) if column.sql == "box[]" => {
            format!("to_json(string_to_array(trim(both '{{}}' from {name}::text), ';', 'NULL'))")
        }
        // The elements as the array prints them: read as an array of texts.
        (_, true) => format!("to_json({name}::text::text[])"),
    }
}

/// The JSON of a value, given the texts that Postgres printed.
pub(super) fn expected(kind: Kind, printed: &Value) -> Value {
    match printed {
        Value::Null => Value::Null,
        Value::Array(items) => items.iter().map(|item| expected(kind, item)).collect(),
        Value::String(text) => leaf(kind, text),
        // hstore is JSON already.
        other => other.clone(),
    }
}

fn number(text: &str) -> Value {
    Value::Number(text.parse().expect("a number"))
}

fn leaf(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Text | Kind::Hstore => json!(text),
        Kind::Number | Kind::Real | Kind::Double if ["NaN", "Infinity", "-Infinity"].contains(&text) => Value::Null,
        // The fewest digits that tell the number.
        Kind::Real if release() < 12 => number(&format!("{:e}", text.parse::<f32>().expect("a number"))),
        Kind::Double if release() < 12 => number(&format!("{:e}", text.parse::<f64>().expect("a number"))),
        Kind::Number | Kind::Real | Kind::Double => number(text),
        Kind::Boolean => json!(text == "t" || text == "1"),
        Kind::Json => serde_json::from_str(&whole_surrogates(text)).expect("JSON"),
        Kind::Date if in_range(text) => json!(format!("{text}T00:00:00+00:00")),
        Kind::Date => json!("9999-12-31T00:00:00+00:00"),
        Kind::Timestamp | Kind::Timestamptz if in_range(text) => {
            json!(format!("{}+00:00", six_digits(&text.trim_end_matches("+00").replace(' ', "T"))))
        }
        Kind::Timestamp | Kind::Timestamptz => json!("9999-12-31T23:59:59.999000+00:00"),
        Kind::Time => json!(if text == "24:00:00" { "00:00:00".to_owned() } else { six_digits(text) }),
        Kind::Timetz => json!(six_digits(&utc(text))),
    }
}

/// A time whose fraction, if it has one, has six digits.
fn six_digits(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{fraction:0<6}"),
        None => text.to_owned(),
    }
}

/// Whether a date is in the years 1–9999.
fn in_range(text: &str) -> bool {
    text.as_bytes().get(4) == Some(&b'-') && !text.ends_with(" BC")
}

/// A time with an offset in UTC: `12:00:00.5+05:30` is `06:30:00.5`.
fn utc(text: &str) -> String {
    let sign = text.rfind(['+', '-']).expect("an offset");
    let seconds = |text: &str| {
        text.split(':')
            .zip([3600, 60, 1])
            .map(|(part, unit)| part.parse::<i64>().expect("a number") * unit)
            .sum::<i64>()
    };
    let (time, fraction) = match text[..sign].split_once('.') {
        Some((time, fraction)) => (time, format!(".{fraction}")),
        None => (&text[..sign], String::new()),
    };
    let offset = seconds(&text[sign + 1..]) * if text.as_bytes()[sign] == b'-' { -1 } else { 1 };
    let time = (seconds(time) - offset).rem_euclid(86400);
    format!("{:02}:{:02}:{:02}{fraction}", time / 3600, time / 60 % 60, time % 60)
}

/// Halves of surrogate pairs, which no UTF-8 can hold, as U+FFFD.
fn whole_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(r"\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut whole = String::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                whole.push_str(r"\ufffd");
                at += 6;
                continue;
            }
            _ if c == '\\' => 2,
            _ => c.len_utf8(),
        };
        whole.push_str(&text[at..at + length]);
        at += length;
    }
    whole
}
