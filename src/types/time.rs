//! `time` and `timetz`: `10:20:30.5`, `10:20:30+05:30`.
//!
//! A fraction of a second is written with six digits, as Python's `isoformat` does: the reference's files have it so, and
//! Python before 3.11 reads no other than of three or six.

use crate::singer::JsonBuf;

/// Seconds in a day.
pub(super) const DAY: i32 = 24 * 60 * 60;

/// Appends a `time` as printed. False if the text is no time.
pub(super) fn time(text: &[u8], out: &mut JsonBuf) -> bool {
    match Clock::read(text) {
        Some((clock, b"")) => {
            clock.write(0, out);
            true
        }
        _ => false,
    }
}

/// Appends a `timetz` moved to UTC, without the offset. False if the text is no time with an offset.
pub(super) fn timetz(text: &[u8], out: &mut JsonBuf) -> bool {
    let read = Clock::read(text).and_then(|(clock, rest)| Some((clock, offset(rest)?)));
    if let Some((clock, offset)) = &read {
        clock.write(*offset, out);
    }
    read.is_some()
}

/// Appends a `timetz` with its offset, of hours and minutes, and seconds where it has any. False if the text is no time with an offset.
pub(super) fn timetz_with_offset(text: &[u8], out: &mut JsonBuf) -> bool {
    let Some((clock, zone)) = Clock::read(text).filter(|(_, zone)| offset(zone).is_some()) else { return false };
    out.byte(b'"');
    clock.write_in(0, out);
    out.raw(zone);
    if zone.len() == "+00".len() {
        out.raw(b":00");
    }
    out.byte(b'"');
    true
}

/// Whether the time is 24:00:00, which is written as the start of the day.
pub(super) fn is_end_of_day(text: &[u8]) -> bool {
    text.starts_with(b"24:")
}

/// A time of day.
pub(super) struct Clock<'a> {
    /// Seconds since midnight; 86400 for 24:00:00.
    pub(super) seconds: i32,
    /// The text of it without a fraction: `10:20:30`.
    pub(super) text: &'a [u8],
    /// `.5`, or nothing.
    pub(super) fraction: &'a [u8],
}

impl<'a> Clock<'a> {
    /// Reads the time of day that the text starts with, and returns what follows too.
    pub(super) fn read(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let [h1, h2, b':', m1, m2, b':', s1, s2, after @ ..] = text else { return None };
        let (hour, minute, second) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, two_digits(*s1, *s2)?);
        let seconds = (hour * 60 + minute) * 60 + second;
        if minute > 59 || second > 59 || seconds > DAY {
            return None;
        }
        let fraction = match after {
            [b'.', digits @ ..] => 1 + digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => 0,
        };
        if fraction == 1 {
            return None;
        }
        let (clock, rest) = text.split_at(8 + fraction);
        let (text, fraction) = clock.split_at(8);
        Some((Clock { seconds, text, fraction }, rest))
    }

    /// Appends the time in UTC as a string, given the offset (seconds east) that it is printed in.
    fn write(&self, offset: i32, out: &mut JsonBuf) {
        out.byte(b'"');
        self.write_in(offset, out);
        out.byte(b'"');
    }

    /// The same without quotes.
    fn write_in(&self, offset: i32, out: &mut JsonBuf) {
        if offset == 0 && self.seconds < DAY {
            out.raw(self.text);
        } else {
            write_clock((self.seconds - offset).rem_euclid(DAY), out);
        }
        Fraction::IfAny.write(self.fraction, out);
    }
}

/// Appends seconds since midnight as `10:20:30`.
pub(super) fn write_clock(seconds: i32, out: &mut JsonBuf) {
    for (separator, number) in [("", seconds / 3600), (":", seconds / 60 % 60), (":", seconds % 60)] {
        out.raw(separator.as_bytes());
        write_two_digits(number, out);
    }
}

/// Whether a time has its fraction of a second, of six digits, where that is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fraction {
    /// It has not.
    IfAny,
    /// It has zeros.
    Always,
}

impl Fraction {
    /// Appends `.5` with six digits.
    pub(super) fn write(self, fraction: &[u8], out: &mut JsonBuf) {
        const ZEROS: &[u8] = b".000000";
        if !fraction.is_empty() || self == Fraction::Always {
            out.raw(fraction);
            out.raw(&ZEROS[fraction.len().min(ZEROS.len())..]);
        }
    }
}

/// Appends a number below 100 as two digits.
pub(super) fn write_two_digits(number: i32, out: &mut JsonBuf) {
    out.byte(b'0' + (number / 10 % 10) as u8);
    out.byte(b'0' + (number % 10) as u8);
}

/// Returns the number that two digits make.
pub(super) fn two_digits(tens: u8, ones: u8) -> Option<i32> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| ((tens - b'0') * 10 + ones - b'0') as i32)
}

/// Reads an offset from UTC in seconds east: `+00`, `-03`, `+05:30`, `+00:19:32` (from before time zones had whole
/// minutes).
pub(super) fn offset(text: &[u8]) -> Option<i32> {
    let (sign, text) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes, seconds) = match text {
        [h1, h2] => (two_digits(*h1, *h2)?, 0, 0),
        [h1, h2, b':', m1, m2] => (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, 0),
        [h1, h2, b':', m1, m2, b':', s1, s2] => (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?, two_digits(*s1, *s2)?),
        _ => return None,
    };
    Some(sign * ((hours * 60 + minutes) * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use crate::types::Codec;
    use crate::types::codec::tests::assert_encodes;

    #[test]
    fn times() {
        assert_encodes(
            &Codec::Time,
            &[
                ("10:20:30", r#""10:20:30""#),
                ("00:00:00", r#""00:00:00""#),
                ("23:59:59.999999", r#""23:59:59.999999""#),
                ("10:20:30.5", r#""10:20:30.500000""#),
                ("10:20:30.00001", r#""10:20:30.000010""#),
                ("24:00:00", r#""00:00:00""#),
            ],
        );
        assert!(Codec::Time.is_fallback(b"24:00:00"));
        assert!(!Codec::Time.is_fallback(b"23:59:59.999999"));
    }

    #[test]
    fn timetz_is_utc_without_the_offset() {
        assert_encodes(
            &Codec::Timetz,
            &[
                ("10:20:30+00", r#""10:20:30""#),
                ("12:00:00+05", r#""07:00:00""#),
                ("12:00:00.5-03", r#""15:00:00.500000""#),
                ("02:00:00+05:30", r#""20:30:00""#),
                ("23:00:00.000001-05:30:15", r#""04:30:15.000001""#),
                ("10:00:00+15:59:59", r#""18:00:01""#),
                ("24:00:00+00", r#""00:00:00""#),
                ("24:00:00-03", r#""03:00:00""#),
            ],
        );
        assert!(Codec::Timetz.is_fallback(b"24:00:00+00"));
        assert!(!Codec::Timetz.is_fallback(b"12:00:00+05"));
    }

    #[test]
    fn timetz_with_its_offset() {
        assert_encodes(
            &Codec::OffsetTime,
            &[
                ("10:20:30+00", r#""10:20:30+00:00""#),
                ("12:00:00.5-03", r#""12:00:00.500000-03:00""#),
                ("02:00:00+05:30", r#""02:00:00+05:30""#),
                ("23:00:00-05:30:15", r#""23:00:00-05:30:15""#),
                ("24:00:00+01", r#""00:00:00+01:00""#),
                ("10:20:30", r#""10:20:30""#),
            ],
        );
        assert!(Codec::OffsetTime.is_fallback(b"24:00:00+00"));
    }

    #[test]
    fn what_is_no_time_is_a_string() {
        for text in ["", "10:20", "10:20:30.", "10:20:30 ", "1:20:30", "24:00:01", "10:60:00", "10:20:30x", "aa:bb:cc"]
        {
            assert_encodes(&Codec::Time, &[(text, &format!("\"{text}\""))]);
        }
        for text in ["10:20:30", "10:20:30+", "10:20:30+5", "10:20:30+05:3", "10:20:30 +05", "10:20:30Z"] {
            assert_encodes(&Codec::Timetz, &[(text, &format!("\"{text}\""))]);
        }
    }
}
