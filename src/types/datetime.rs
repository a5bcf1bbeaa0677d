//! `date`, `timestamp`, `timestamptz` as RFC 3339 instants in UTC: `2020-02-29T10:20:30.500000+00:00`.
//!
//! Targets parse years 1 to 9999 and no infinity, so whatever lies outside becomes the last instant of year 9999, as in
//! the reference.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use super::time::{Clock, DAY, Fraction, offset, two_digits, write_clock, write_two_digits};
use crate::singer::JsonBuf;

const OUT_OF_RANGE_DATE: &[u8] = br#""9999-12-31T00:00:00+00:00""#;
const OUT_OF_RANGE_TIMESTAMP: &[u8] = br#""9999-12-31T23:59:59.999000+00:00""#;

/// What stands for days and instants outside the years 1–9999: Python's first and last, as in the MeltanoLabs tap.
const FIRST_DAY: &[u8] = br#""0001-01-01""#;
const LAST_DAY: &[u8] = br#""9999-12-31""#;
const FIRST_MICROSECOND: &[u8] = br#""0001-01-01T00:00:00.000000+00:00""#;
const LAST_MICROSECOND: &[u8] = br#""9999-12-31T23:59:59.999999+00:00""#;

/// Appends a `date` as its midnight in UTC. False if the text is no date.
pub(super) fn date(text: &[u8], out: &mut JsonBuf) -> bool {
    write(read(text, Form::Date), |_| OUT_OF_RANGE_DATE, Fraction::IfAny, out)
}

/// Appends a `date` as it is printed. False if the text is no date.
pub(super) fn day(text: &[u8], out: &mut JsonBuf) -> bool {
    match read(text, Form::Date) {
        None => return false,
        Some(Instant::Utc { date, .. }) => {
            out.byte(b'"');
            out.raw(date);
            out.byte(b'"');
        }
        Some(Instant::OutOfRange(Side::Before)) => out.raw(FIRST_DAY),
        Some(Instant::Moved { .. } | Instant::OutOfRange(Side::After)) => out.raw(LAST_DAY),
    }
    true
}

/// Appends a `timestamp` as if it were UTC. False if the text is no timestamp.
pub(super) fn timestamp(text: &[u8], fraction: Fraction, out: &mut JsonBuf) -> bool {
    write(read(text, Form::Timestamp), |side| timestamp_for(side, fraction), fraction, out)
}

/// Appends a `timestamptz` in UTC. False if the text is no timestamp with an offset.
pub(super) fn timestamptz(text: &[u8], fraction: Fraction, out: &mut JsonBuf) -> bool {
    write(read(text, Form::Timestamptz), |side| timestamp_for(side, fraction), fraction, out)
}

/// Returns what stands for an instant outside the years 1–9999.
fn timestamp_for(side: Side, fraction: Fraction) -> &'static [u8] {
    match (fraction, side) {
        (Fraction::IfAny, _) => OUT_OF_RANGE_TIMESTAMP,
        (Fraction::Always, Side::Before) => FIRST_MICROSECOND,
        (Fraction::Always, Side::After) => LAST_MICROSECOND,
    }
}

/// Whether this `date` is infinite or outside years 1–9999.
pub(super) fn date_is_out_of_range(text: &[u8]) -> bool {
    matches!(read(text, Form::Date), Some(Instant::OutOfRange(_)))
}

/// Whether this `timestamp` is infinite or outside years 1–9999.
pub(super) fn timestamp_is_out_of_range(text: &[u8]) -> bool {
    matches!(read(text, Form::Timestamp), Some(Instant::OutOfRange(_)))
}

/// Whether this `timestamptz` is infinite or outside years 1–9999.
pub(super) fn timestamptz_is_out_of_range(text: &[u8]) -> bool {
    matches!(read(text, Form::Timestamptz), Some(Instant::OutOfRange(_)))
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `2020-02-29`
    Date,
    /// `2020-02-29 10:20:30.5`
    Timestamp,
    /// `2020-02-29 10:20:30.5+00`
    Timestamptz,
}

enum Instant<'a> {
    /// In UTC as printed: `2020-02-29`, `10:20:30` and `.5`.
    Utc { date: &'a [u8], clock: &'a [u8], fraction: &'a [u8] },
    /// Moved to UTC, for a session that doesn't have TimeZone UTC after all; with the fraction as printed.
    Moved { to: NaiveDateTime, fraction: &'a [u8] },
    /// Infinite, or outside years 1–9999.
    OutOfRange(Side),
}

/// Where an instant lies that is outside years 1–9999.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// Reads the text of a type; `None` if it has another form.
fn read(text: &[u8], form: Form) -> Option<Instant<'_>> {
    match text {
        b"infinity" => return Some(Instant::OutOfRange(Side::After)),
        b"-infinity" => return Some(Instant::OutOfRange(Side::Before)),
        _ => {}
    }
    let (text, bc) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    // Years have four digits or more, and no sign.
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (year, rest) = text.split_at(digits);
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else { return None };
    let (month, day) = (two_digits(*m1, *m2)?, two_digits(*d1, *d2)?);
    if digits < 4 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let date = &text[..digits + 6];
    let (clock, rest) = match form {
        Form::Date => (None, rest),
        Form::Timestamp | Form::Timestamptz => {
            let (clock, rest) = Clock::read(rest.strip_prefix(b" ")?)?;
            (Some((clock.seconds < DAY).then_some(clock)?), rest)
        }
    };
    let offset = match form {
        Form::Timestamptz => offset(rest)?,
        Form::Date | Form::Timestamp => rest.is_empty().then_some(0)?,
    };
    match clock {
        Some(clock) if offset != 0 => moved(year, bc, month, day, clock, offset),
        _ if bc || year == b"0000" => Some(Instant::OutOfRange(Side::Before)),
        _ if digits > 4 => Some(Instant::OutOfRange(Side::After)),
        Some(Clock { text: clock, fraction, .. }) => Some(Instant::Utc { date, clock, fraction }),
        None => Some(Instant::Utc { date, clock: b"00:00:00", fraction: b"" }),
    }
}

/// Returns the instant in UTC of a time that is printed `offset` seconds east of it; `None` if there is no such day.
fn moved<'a>(year: &[u8], bc: bool, month: i32, day: i32, clock: Clock<'a>, offset: i32) -> Option<Instant<'a>> {
    if year.len() > 5 {
        return Some(Instant::OutOfRange(if bc { Side::Before } else { Side::After }));
    }
    let year = year.iter().fold(0, |year, digit| year * 10 + i32::from(digit - b'0'));
    let year = if bc { 1 - year } else { year };
    let day = NaiveDate::from_ymd_opt(year, month as u32, day as u32)?;
    let to = day.and_time(NaiveTime::MIN) + TimeDelta::seconds((clock.seconds - offset).into());
    Some(match to.year() {
        1..=9999 => Instant::Moved { to, fraction: clock.fraction },
        ..1 => Instant::OutOfRange(Side::Before),
        _ => Instant::OutOfRange(Side::After),
    })
}

fn write(
    instant: Option<Instant<'_>>,
    out_of_range: impl FnOnce(Side) -> &'static [u8],
    digits: Fraction,
    out: &mut JsonBuf,
) -> bool {
    match instant {
        None => return false,
        Some(Instant::OutOfRange(side)) => out.raw(out_of_range(side)),
        Some(Instant::Utc { date, clock, fraction }) => {
            out.byte(b'"');
            out.raw(date);
            out.byte(b'T');
            out.raw(clock);
            digits.write(fraction, out);
            out.raw(b"+00:00\"");
        }
        Some(Instant::Moved { to, fraction }) => {
            out.byte(b'"');
            write_two_digits(to.year() / 100, out);
            write_two_digits(to.year() % 100, out);
            for part in [to.month(), to.day()] {
                out.byte(b'-');
                write_two_digits(part as i32, out);
            }
            out.byte(b'T');
            write_clock(to.num_seconds_from_midnight() as i32, out);
            digits.write(fraction, out);
            out.raw(b"+00:00\"");
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use crate::types::Codec;
    use crate::types::codec::tests::{assert_encodes, encoded};

    const LAST_DATE: &str = r#""9999-12-31T00:00:00+00:00""#;
    const LAST_TIMESTAMP: &str = r#""9999-12-31T23:59:59.999000+00:00""#;

    #[test]
    fn dates() {
        assert_encodes(
            &Codec::Date,
            &[
                ("2020-02-29", r#""2020-02-29T00:00:00+00:00""#),
                ("0001-01-01", r#""0001-01-01T00:00:00+00:00""#),
                ("9999-12-31", LAST_DATE),
            ],
        );
        assert!(!Codec::Date.is_fallback(b"9999-12-31"));
        for text in ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01", "5874897-12-31"] {
            assert_encodes(&Codec::Date, &[(text, LAST_DATE)]);
            assert!(Codec::Date.is_fallback(text.as_bytes()));
        }
    }

    #[test]
    fn days() {
        assert_encodes(
            &Codec::Day,
            &[
                ("2020-02-29", r#""2020-02-29""#),
                ("infinity", r#""9999-12-31""#),
                ("20000-01-01", r#""9999-12-31""#),
                ("-infinity", r#""0001-01-01""#),
                ("0044-03-15 BC", r#""0001-01-01""#),
            ],
        );
        assert_encodes(&Codec::Day, &[("2020-02-29 10:20:30", r#""2020-02-29 10:20:30""#)]);
        assert!(Codec::Day.is_fallback(b"infinity") && !Codec::Day.is_fallback(b"9999-12-31"));
    }

    #[test]
    fn six_digits_whatever_they_are() {
        assert_encodes(
            &Codec::MicroTimestamp,
            &[
                ("2020-02-29 10:20:30", r#""2020-02-29T10:20:30.000000+00:00""#),
                ("2020-02-29 10:20:30.5", r#""2020-02-29T10:20:30.500000+00:00""#),
                ("infinity", r#""9999-12-31T23:59:59.999999+00:00""#),
                ("20000-01-01 00:00:00", r#""9999-12-31T23:59:59.999999+00:00""#),
                ("-infinity", r#""0001-01-01T00:00:00.000000+00:00""#),
                ("0044-03-15 00:00:00 BC", r#""0001-01-01T00:00:00.000000+00:00""#),
            ],
        );
        assert_encodes(
            &Codec::MicroTimestamptz,
            &[
                ("2020-02-29 10:20:30+00", r#""2020-02-29T10:20:30.000000+00:00""#),
                ("2020-02-29 23:00:00-03", r#""2020-03-01T02:00:00.000000+00:00""#),
                ("0001-01-01 00:00:00+01", r#""0001-01-01T00:00:00.000000+00:00""#),
                ("9999-12-31 23:00:00-01", r#""9999-12-31T23:59:59.999999+00:00""#),
                ("294276-12-31 23:59:59.999999+05", r#""9999-12-31T23:59:59.999999+00:00""#),
            ],
        );
        assert!(Codec::MicroTimestamp.is_fallback(b"infinity") && Codec::MicroTimestamptz.is_fallback(b"infinity"));
    }

    #[test]
    fn timestamps_are_taken_as_utc() {
        assert_encodes(
            &Codec::Timestamp,
            &[
                ("2020-02-29 10:20:30", r#""2020-02-29T10:20:30+00:00""#),
                ("9999-12-31 23:59:59.999", r#""9999-12-31T23:59:59.999000+00:00""#),
                ("9999-12-31 23:59:59.999999", r#""9999-12-31T23:59:59.999999+00:00""#),
                ("0001-01-01 00:00:00", r#""0001-01-01T00:00:00+00:00""#),
            ],
        );
        assert!(!Codec::Timestamp.is_fallback(b"9999-12-31 23:59:59.999"));
        for text in
            ["infinity", "-infinity", "0044-03-15 00:00:00 BC", "10000-01-01 00:00:00", "294276-12-31 23:59:59.999999"]
        {
            assert_encodes(&Codec::Timestamp, &[(text, LAST_TIMESTAMP)]);
            assert!(Codec::Timestamp.is_fallback(text.as_bytes()));
        }
    }

    #[test]
    fn timestamptz_is_utc() {
        assert_encodes(
            &Codec::Timestamptz,
            &[
                ("2020-02-29 10:20:30+00", r#""2020-02-29T10:20:30+00:00""#),
                ("2020-07-01 06:30:00.123456+00", r#""2020-07-01T06:30:00.123456+00:00""#),
                ("2020-07-01 12:00:00.5+05:30", r#""2020-07-01T06:30:00.500000+00:00""#),
                ("2020-02-29 23:00:00-03", r#""2020-03-01T02:00:00+00:00""#),
                ("1800-01-01 00:00:00+00:19:32", r#""1799-12-31T23:40:28+00:00""#),
                ("10000-01-01 02:00:00+05", r#""9999-12-31T21:00:00+00:00""#),
                ("0001-12-31 23:00:00-05 BC", r#""0001-01-01T04:00:00+00:00""#),
            ],
        );
        for text in [
            "infinity",
            "-infinity",
            "0044-03-15 00:00:00+00 BC",
            "10000-01-01 00:00:00+00",
            "294276-12-31 23:59:59.999999+00",
            "294276-12-31 23:59:59.999999+05",
            "0001-01-01 00:00:00+01",
            "9999-12-31 23:00:00-01",
        ] {
            assert_encodes(&Codec::Timestamptz, &[(text, LAST_TIMESTAMP)]);
            assert!(Codec::Timestamptz.is_fallback(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_a_string() {
        for text in ["", "2020-02", "2020-13-01", "2020-02-29 ", "202-02-29", "Infinity", "BC", " BC", "02/29/2020"] {
            assert_encodes(&Codec::Date, &[(text, &format!("\"{text}\""))]);
        }
        for text in
            ["2020-02-29", "2020-02-29 10:20", "2020-02-29 10:20:30+00", "2020-02-29T10:20:30", "2020-02-29 24:00:00"]
        {
            assert_encodes(&Codec::Timestamp, &[(text, &format!("\"{text}\""))]);
        }
        for text in ["2020-02-29 10:20:30", "2020-02-29 10:20:30 UTC", "2021-02-29 10:20:30+01"] {
            assert_encodes(&Codec::Timestamptz, &[(text, &format!("\"{text}\""))]);
        }
    }

    proptest! {
        #[test]
        fn the_instant_stays_the_same(seconds in -62_000_000_000_i64..253_000_000_000, minutes in -15 * 60..15 * 60_i32) {
            let zone = chrono::FixedOffset::east_opt(minutes * 60).unwrap();
            let instant = DateTime::from_timestamp(seconds, 250_000_000).unwrap();
            let text = instant.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S.25%:z").to_string();
            let json = encoded(&Codec::Timestamptz, text.as_bytes());
            prop_assert!(json.ends_with("+00:00\""));
            prop_assert_eq!(DateTime::parse_from_rfc3339(json.trim_matches('"')).unwrap(), instant);
        }
    }
}
