//! Numbers and booleans: PostgreSQL's text of them is JSON already, or one of a few words.

use std::fmt::{Display, LowerExp};
use std::str::FromStr;

use crate::singer::JsonBuf;

/// Appends a `smallint`, `integer` or `bigint`: `-42`. False if the text is no integer.
pub(super) fn integer(text: &[u8], out: &mut JsonBuf) -> bool {
    let is_integer = integer_len(text) == Some(text.len());
    if is_integer {
        out.raw(text);
    }
    is_integer
}

/// Appends a `real`, `double precision` or `numeric`: every digit as printed, null for what JSON has no number for.
/// False if the text is no number.
pub(super) fn number(text: &[u8], out: &mut JsonBuf) -> bool {
    if not_finite(text) {
        out.raw(b"null");
        return true;
    }
    let is_number = number_len(text) == Some(text.len());
    if is_number {
        out.raw(text);
    }
    is_number
}

/// Appends a float that is printed with surplus digits with the fewest that identify it: `0.1` for
/// `0.100000000000000006`, as PostgreSQL 12 and later print it. False if the text is no number.
pub(super) fn shortest<F>(text: &[u8], out: &mut JsonBuf) -> bool
where
    F: FromStr + Display + LowerExp + Into<f64> + Copy,
{
    let digits = std::str::from_utf8(text).ok().filter(|_| number_len(text) == Some(text.len()));
    match digits.and_then(|digits| digits.parse::<F>().ok()) {
        Some(value) if (1e-4..1e15).contains(&value.into().abs()) || value.into() == 0.0 => {
            out.display(format_args!("{value}"));
        }
        Some(value) if value.into().is_finite() => out.display(format_args!("{value:e}")),
        _ => return number(text, out),
    }
    true
}

/// Appends a `boolean` (`t` from the output function, `true` from a cast) or a `bit(1)`. False if the text is neither
/// truth value.
pub(super) fn boolean(text: &[u8], out: &mut JsonBuf) -> bool {
    match text {
        b"t" | b"1" | b"true" => out.raw(b"true"),
        b"f" | b"0" | b"false" => out.raw(b"false"),
        _ => return false,
    }
    true
}

/// Whether this is one of the values that `numeric` and the floats have and JSON doesn't.
pub(super) fn not_finite(text: &[u8]) -> bool {
    matches!(text, b"NaN" | b"Infinity" | b"-Infinity")
}

/// Returns the length of the JSON number that the text starts with, if it does (RFC 8259, section 6).
pub(super) fn number_len(text: &[u8]) -> Option<usize> {
    let mut len = integer_len(text)?;
    if text.get(len) == Some(&b'.') {
        len += 1 + some_digits(&text[len + 1..])?;
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = matches!(text.get(len + 1), Some(b'+' | b'-')) as usize;
        len += 1 + sign + some_digits(&text[len + 1 + sign..])?;
    }
    Some(len)
}

/// Returns the length of the integer that the text starts with: no plus sign, no leading zeros.
fn integer_len(text: &[u8]) -> Option<usize> {
    let sign = (text.first() == Some(&b'-')) as usize;
    let digits = some_digits(&text[sign..])?;
    (text[sign] != b'0' || digits == 1).then_some(sign + digits)
}

fn some_digits(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then_some(digits)
}

#[cfg(test)]
mod tests {
    use crate::types::codec::tests::assert_encodes;
    use crate::types::{Codec, codec::tests::encoded};

    #[test]
    fn integers() {
        assert_encodes(
            &Codec::Integer,
            &[
                ("0", "0"),
                ("-32768", "-32768"),
                ("-9223372036854775808", "-9223372036854775808"),
                ("9223372036854775807", "9223372036854775807"),
                ("abc", r#""abc""#),
                ("", r#""""#),
                ("-", r#""-""#),
                ("+1", r#""+1""#),
                ("007", r#""007""#),
                ("1.5", r#""1.5""#),
                ("1 ", r#""1 ""#),
            ],
        );
    }

    #[test]
    fn numbers_keep_every_digit() {
        for text in [
            "0",
            "-0",
            "1.50",
            "0.00000000000000000000000000000000000001",
            "-9999999999.99",
            "123456789012345678901234567890.123456789012345678901234567890",
            "1e-30",
            "1e+30",
            "5e-324",
            "-3.4028235e+38",
            "1.7976931348623157e+308",
        ] {
            assert_eq!(encoded(&Codec::Number, text.as_bytes()), text);
            assert!(!Codec::Number.is_fallback(text.as_bytes()));
        }
    }

    #[test]
    fn what_json_has_no_number_for_is_null() {
        for codec in [Codec::Number, Codec::Float4, Codec::Float8] {
            for text in ["NaN", "Infinity", "-Infinity"] {
                assert_eq!(encoded(&codec, text.as_bytes()), "null");
                assert!(codec.is_fallback(text.as_bytes()));
            }
        }
    }

    /// What PostgreSQL 10 prints, and what it means.
    #[test]
    fn a_float_has_no_more_digits_than_tell_it() {
        let singles = [
            ("0.100000001", "0.1"),
            ("-0", "-0"),
            ("0.5", "0.5"),
            ("16777216", "16777216"),
            ("3.40282347e+38", "3.4028235e38"),
            ("1.17549435e-38", "1.1754944e-38"),
            ("1.40129846e-45", "1e-45"),
        ];
        assert_encodes(&Codec::Float4, &singles);
        let doubles = [
            ("0.100000000000000006", "0.1"),
            ("-0.299999999999999989", "-0.3"),
            ("1.79769313486231571e+308", "1.7976931348623157e308"),
            ("4.94065645841246544e-324", "5e-324"),
            ("1000000000000000", "1e15"),
            ("9.99999999999999955e-08", "1e-7"),
            ("12345.6700000000001", "12345.67"),
            ("one", r#""one""#),
            ("", r#""""#),
        ];
        assert_encodes(&Codec::Float8, &doubles);
    }

    #[test]
    fn what_is_no_number_is_a_string() {
        for text in ["", "-", ".5", "+1", "1.", "1e", "1e+", "1.e5", "00", "01.5", "0x10", "1_000", "nan", "1 2"] {
            assert_eq!(encoded(&Codec::Number, text.as_bytes()), format!("\"{text}\""));
        }
    }

    #[test]
    fn booleans() {
        assert_encodes(
            &Codec::Boolean,
            &[
                ("t", "true"),
                ("f", "false"),
                ("true", "true"),
                ("false", "false"),
                ("1", "true"),
                ("0", "false"),
                ("", r#""""#),
                ("101", r#""101""#),
            ],
        );
    }
}
