//! [`Codec`]: how the text of one type becomes JSON.

use super::time::Fraction;
use super::{array, datetime, hstore, json, numbers, time};
use crate::singer::JsonBuf;

/// The conversion of one type's text to JSON. Domains have the codec of their base type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The text as a string: character types, and every type without a better form.
    Text,
    /// `\x00ff`, as a string; the prefix is put back where wal2json leaves it out.
    Bytea,
    /// `bytea` without the prefix: `00ff`.
    Hex,
    /// `boolean` and `bit(1)`: true, false.
    Boolean,
    /// `smallint`, `integer`, `bigint`: every digit.
    Integer,
    /// `real`, `double precision`, `numeric`: every digit; NaN and ±Infinity are null.
    Number,
    /// `real` as servers before PostgreSQL 12 print it, with surplus digits: the fewest that identify the number; NaN
    /// and ±Infinity are null.
    Float4,
    /// `double precision` as servers before PostgreSQL 12 print it: written like [`Float4`](Codec::Float4).
    Float8,
    /// `json`, `jsonb`: the server's text on one line.
    Json,
    /// `hstore`: an object of strings and nulls.
    Hstore,
    /// `date`: midnight UTC; outside years 1–9999 `9999-12-31T00:00:00+00:00`.
    Date,
    /// `date` as the day alone; before year 1 `0001-01-01`, after 9999 `9999-12-31`.
    Day,
    /// `timestamp`: taken as UTC; outside years 1–9999 `9999-12-31T23:59:59.999000+00:00`.
    Timestamp,
    /// `timestamptz`: UTC; outside years 1–9999 `9999-12-31T23:59:59.999000+00:00`.
    Timestamptz,
    /// [`Timestamp`](Codec::Timestamp) with six digits of a second, zeros too; outside years 1–9999 their first or last microsecond.
    MicroTimestamp,
    /// [`Timestamptz`](Codec::Timestamptz) in the same way.
    MicroTimestamptz,
    /// `time`: as printed; 24:00:00 is 00:00:00.
    Time,
    /// `timetz`: UTC, without the offset.
    Timetz,
    /// `timetz` with its offset: `12:00:00+05:30`.
    OffsetTime,
    /// A string of the text, which another codec knows to read.
    Printed(Box<Codec>),
    /// A string of the JSON that another codec writes; what is a string or null already as it is.
    Quoted(Box<Codec>),
    /// An array of any depth.
    Array(Box<ArrayCodec>),
}

/// The conversion of an array's text to JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayCodec {
    /// The codec of an element.
    pub element: Codec,
    /// The delimiter between elements (`pg_type.typdelim` of the element).
    pub delimiter: u8,
}

impl Codec {
    /// All codecs except arrays, for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) const SCALARS: [Codec; 19] = [
        Codec::Text,
        Codec::Bytea,
        Codec::Hex,
        Codec::Day,
        Codec::MicroTimestamp,
        Codec::MicroTimestamptz,
        Codec::OffsetTime,
        Codec::Boolean,
        Codec::Integer,
        Codec::Number,
        Codec::Json,
        Codec::Hstore,
        Codec::Date,
        Codec::Timestamp,
        Codec::Timestamptz,
        Codec::Time,
        Codec::Timetz,
        Codec::Float4,
        Codec::Float8,
    ];

    /// Appends the value as exactly one JSON value on one line, whatever the bytes are. Returns false if the text is
    /// not of the type; the value, or the array element concerned, is then a string.
    pub fn encode(&self, text: &[u8], out: &mut JsonBuf) -> bool {
        let start = out.len();
        let written = match self {
            Codec::Text => {
                out.string(text);
                true
            }
            Codec::Bytea => bytea(text, br"\\x", out),
            Codec::Hex => bytea(text, b"", out),
            Codec::Boolean => numbers::boolean(text, out),
            Codec::Integer => numbers::integer(text, out),
            Codec::Number => numbers::number(text, out),
            Codec::Float4 => numbers::shortest::<f32>(text, out),
            Codec::Float8 => numbers::shortest::<f64>(text, out),
            Codec::Json => json::compact(text, out),
            Codec::Hstore => hstore::object(text, out),
            Codec::Date => datetime::date(text, out),
            Codec::Day => datetime::day(text, out),
            Codec::Timestamp => datetime::timestamp(text, Fraction::IfAny, out),
            Codec::Timestamptz => datetime::timestamptz(text, Fraction::IfAny, out),
            Codec::MicroTimestamp => datetime::timestamp(text, Fraction::Always, out),
            Codec::MicroTimestamptz => datetime::timestamptz(text, Fraction::Always, out),
            Codec::Time => time::time(text, out),
            Codec::Timetz => time::timetz(text, out),
            Codec::OffsetTime => time::timetz_with_offset(text, out),
            Codec::Printed(codec) => {
                let of_type = codec.encode(text, out);
                out.truncate(start);
                out.string(text);
                return of_type;
            }
            Codec::Quoted(codec) => {
                let of_type = codec.encode(text, out);
                quote(start, out);
                return of_type;
            }
            Codec::Array(array) => match array::array(array, text, out) {
                Some(of_type) => return of_type,
                None => false,
            },
        };
        if !written {
            out.truncate(start);
            out.string(text);
        }
        written
    }

    /// Returns the text as PostgreSQL itself prints it, whichever plugin sent it, to compare it with a value read from
    /// the table.
    pub fn as_printed(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Codec::Bytea | Codec::Hex if is_bare_hex(text) => [br"\x", text].concat(),
            Codec::Quoted(codec) => codec.as_printed(text),
            _ => text.to_vec(),
        }
    }

    /// Whether [`encode`](Self::encode) writes a substitute for what JSON or a target can't hold: infinity, NaN, years
    /// outside 1–9999, 24:00, bytes that are not UTF-8. An INCREMENTAL bookmark must not take such a value.
    pub fn is_fallback(&self, text: &[u8]) -> bool {
        let substituted = match self {
            Codec::Number | Codec::Float4 | Codec::Float8 => numbers::not_finite(text),
            Codec::Date | Codec::Day => datetime::date_is_out_of_range(text),
            Codec::Timestamp | Codec::MicroTimestamp => datetime::timestamp_is_out_of_range(text),
            Codec::Timestamptz | Codec::MicroTimestamptz => datetime::timestamptz_is_out_of_range(text),
            Codec::Time | Codec::Timetz | Codec::OffsetTime => time::is_end_of_day(text),
            Codec::Array(array) => array::has_fallback(array, text),
            Codec::Printed(codec) | Codec::Quoted(codec) => return codec.is_fallback(text),
            Codec::Text | Codec::Bytea | Codec::Hex | Codec::Boolean | Codec::Integer | Codec::Json | Codec::Hstore => {
                false
            }
        };
        substituted || std::str::from_utf8(text).is_err()
    }
}

/// Whether a bytea lacks its prefix `\x`.
fn is_bare_hex(text: &[u8]) -> bool {
    text.len().is_multiple_of(2) && text.iter().all(u8::is_ascii_hexdigit)
}

/// Appends the hex digits of `\x00ff`, or of the same without a prefix, behind the prefix that is wanted. False if the text is neither.
fn bytea(text: &[u8], prefix: &[u8], out: &mut JsonBuf) -> bool {
    let hex = text.strip_prefix(br"\x").unwrap_or(text);
    let written = is_bare_hex(hex);
    if written {
        out.byte(b'"');
        out.raw(prefix);
        out.raw(hex);
        out.byte(b'"');
    }
    written
}

/// Makes a string of the JSON value from `start` on, unless it is one or null.
fn quote(start: usize, out: &mut JsonBuf) {
    let value = &out.as_bytes()[start..];
    if value.starts_with(b"\"") || value == b"null" {
        return;
    }
    let mut json = out.take_scratch();
    json.extend_from_slice(&out.as_bytes()[start..]);
    out.truncate(start);
    out.string(&json);
    out.return_scratch(json);
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns what a codec writes for a text.
    pub(in crate::types) fn encoded(codec: &Codec, text: &[u8]) -> String {
        let mut out = JsonBuf::new();
        codec.encode(text, &mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    /// Asserts what a codec writes for each of the texts.
    #[track_caller]
    pub(in crate::types) fn assert_encodes(codec: &Codec, cases: &[(&str, &str)]) {
        for (text, json) in cases {
            assert_eq!(encoded(codec, text.as_bytes()), *json, "{codec:?} of {text:?}");
        }
    }

    pub(in crate::types) fn array_of(element: Codec) -> Codec {
        Codec::Array(Box::new(ArrayCodec { element, delimiter: b',' }))
    }

    #[test]
    fn texts() {
        assert_encodes(&Codec::Text, &[("", r#""""#), ("日本   ", "\"日本   \""), ("a\"b", r#""a\"b""#)]);
        assert!(Codec::Text.is_fallback(b"\xff"));
        assert!(!Codec::Text.is_fallback("é".as_bytes()));
    }

    #[test]
    fn bytea_has_its_prefix_whoever_sends_it() {
        assert_encodes(
            &Codec::Bytea,
            &[
                (r"\x00ff10", r#""\\x00ff10""#),
                ("00ff10", r#""\\x00ff10""#),
                (r"\x", r#""\\x""#),
                ("", r#""\\x""#),
                ("abc", r#""abc""#),
                (r"\000abc", r#""\\000abc""#),
            ],
        );
        assert_eq!(Codec::Bytea.as_printed(b"00ff"), br"\x00ff");
        assert_eq!(Codec::Bytea.as_printed(br"\x00ff"), br"\x00ff");
        assert_eq!(Codec::Text.as_printed(b"00ff"), b"00ff");
    }

    #[test]
    fn hex_has_no_prefix_whoever_sends_it() {
        assert_encodes(&Codec::Hex, &[(r"\x00ff10", r#""00ff10""#), ("00ff10", r#""00ff10""#), ("", r#""""#)]);
        assert_eq!(Codec::Hex.as_printed(b"00ff"), br"\x00ff");
        assert_eq!(Codec::Quoted(Box::new(Codec::Hex)).as_printed(b"00ff"), br"\x00ff");
    }

    #[test]
    fn strings_of_what_another_codec_reads() {
        let printed = Codec::Printed(Box::new(Codec::Timestamp));
        assert_encodes(&printed, &[("2020-02-29 10:20:30", r#""2020-02-29 10:20:30""#), ("infinity", r#""infinity""#)]);
        assert!(printed.is_fallback(b"infinity") && !printed.is_fallback(b"2020-02-29 10:20:30"));
        assert!(!printed.encode(b"x", &mut JsonBuf::new()));
        let quoted = |codec| Codec::Quoted(Box::new(codec));
        assert_encodes(&quoted(Codec::Integer), &[("7", r#""7""#), ("x", r#""x""#)]);
        // Both plugins' booleans.
        assert_encodes(&quoted(Codec::Boolean), &[("t", r#""true""#), ("true", r#""true""#)]);
        assert_encodes(&quoted(Codec::Number), &[("1.50", r#""1.50""#), ("NaN", "null")]);
        assert_encodes(&quoted(Codec::Date), &[("2020-02-29", r#""2020-02-29T00:00:00+00:00""#)]);
        assert_encodes(&quoted(array_of(Codec::Text)), &[(r#"{a,"b c"}"#, r#""[\"a\",\"b c\"]""#)]);
        assert!(quoted(Codec::Number).is_fallback(b"NaN"));
    }

    /// Asserts that a codec appends exactly one JSON value, on one line.
    fn assert_one_value(codec: &Codec, text: &[u8]) -> Result<(), TestCaseError> {
        let mut out = JsonBuf::new();
        out.raw(b"before");
        codec.encode(text, &mut out);
        let json = out.as_bytes().strip_prefix(b"before");
        prop_assert!(json.is_some());
        let json = json.unwrap();
        prop_assert!(!json.contains(&b'\n') && !json.contains(&b'\r'), "{:?}", json);
        let parsed = serde_json::from_slice::<serde_json::Value>(json);
        prop_assert!(parsed.is_ok(), "{:?} of {:?}: {:?}", codec, text, String::from_utf8_lossy(json));
        codec.is_fallback(text);
        Ok(())
    }

    /// Returns bytes that get further into a parser than random ones: the alphabet of the text forms, and valid values
    /// cut and spliced.
    fn near_misses() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ";",
            ":",
            "\"",
            "\\",
            "\\u",
            "\\ud83d",
            "\\ude00",
            "=>",
            "=",
            ", ",
            "NULL",
            "null",
            "true",
            "t",
            "-",
            "+",
            ".",
            "e",
            "0",
            "1",
            "25",
            "2020",
            "-02-29",
            " 10:20:30",
            "10:20:30",
            ".5",
            "+05:30",
            "+00",
            " BC",
            "infinity",
            "NaN",
            "\\x",
            "ff",
            "a",
            "é",
            "\n",
            "\t",
            " ",
            "\u{1}",
            "[1:2]=",
            "\"a\"",
            "24:00:00",
        ]);
        prop_oneof![
            prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_make_one_json_value(text in near_misses()) {
            for codec in Codec::SCALARS {
                assert_one_value(&codec, &text)?;
                assert_one_value(&array_of(codec.clone()), &text)?;
                assert_one_value(&array_of(array_of(codec)), &text)?;
            }
        }
    }
}
