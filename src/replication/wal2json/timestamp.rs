//! The commit time as wal2json prints it: always in ISO form, in the session's time zone.

/// Microseconds since 1970-01-01 UTC of `2026-11-22 05:13:44.202951+00`, the offset `+hh[:mm[:ss]]`, after it ` BC` for
/// the years before 1. Saturates; a replication origin may set any commit time, infinity too.
pub(super) fn unix_micros(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let mut rest = Rest(text);
    let year = rest.number(4, 7)?;
    let month = rest.field(b'-', 1, 12)?;
    let day = rest.field(b'-', 1, 31)?;
    let clock = rest.field(b' ', 0, 24)? * 3600 + rest.field(b':', 0, 59)? * 60 + rest.field(b':', 0, 60)?;
    let micros = if rest.eat(b".") { rest.fraction()? } else { 0 };
    let west = rest.eat(b"-");
    if !west && !rest.eat(b"+") {
        return None;
    }
    let mut offset = rest.number(2, 2)? * 3600;
    for unit in [60, 1] {
        if rest.0.first() == Some(&b':') {
            offset += rest.field(b':', 0, 59)? * unit;
        }
    }
    let year = if rest.eat(b" BC") { 1 - year } else { year };
    if !rest.0.is_empty() {
        return None;
    }
    let seconds = days(year, month, day) * 86400 + clock - if west { -offset } else { offset };
    Some(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// Returns the days since 1970-01-01 in the proleptic Gregorian calendar. Years count from March, which puts the leap day last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn eat(&mut self, text: &[u8]) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn number(&mut self, min_digits: usize, max_digits: usize) -> Option<i64> {
        let len = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(len);
        self.0 = rest;
        (min_digits..=max_digits)
            .contains(&len)
            .then(|| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn field(&mut self, before: u8, min: i64, max: i64) -> Option<i64> {
        self.eat(&[before]).then(|| self.number(2, 2)).flatten().filter(|number| (min..=max).contains(number))
    }

    fn fraction(&mut self) -> Option<i64> {
        let before = self.0.len();
        let number = self.number(1, 6)?;
        Some((before - self.0.len()..6).fold(number, |number, _| number * 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postgres_prints() {
        for (text, micros) in [
            ("1970-01-01 00:00:00+00", 0),
            ("2026-11-22 05:13:44.202951+00", 1_795_324_424_202_951),
            ("2026-11-22 07:04:19.287807+00", 1_795_331_059_287_807),
            ("2026-11-22 12:34:19.287807+05:30", 1_795_331_059_287_807),
            ("2026-11-22 08:04:19.287807+01", 1_795_331_059_287_807),
            ("2026-11-22 07:04:19.29+00", 1_795_331_059_290_000),
            ("1969-12-31 18:59:59.5-05", -500_000),
            ("2024-02-29 23:59:59+00", 1_709_251_199_000_000),
            ("1900-01-01 00:19:32+00:19:32", -2_208_988_800_000_000),
            ("14000-01-01 00:00:00.5+01", 379_630_105_200_500_000),
            ("4000-01-01 00:00:00.5+00:19:32 BC", -188_363_405_971_500_000),
            ("infinity", i64::MAX),
            ("-infinity", i64::MIN),
            ("294276-12-31 23:59:59.999999+00", i64::MAX),
            ("9999999-12-31 00:00:00+00", i64::MAX),
        ] {
            assert_eq!(unix_micros(text.as_bytes()), Some(micros), "{text}");
        }
    }

    #[test]
    fn refuses_anything_else() {
        let whole = b"2026-11-22 05:13:44.202951+05:30:01 BC";
        let readable = [b"+05".len(), b"+05:30".len(), b"+05:30:01".len(), b"+05:30:01 BC".len()].map(|len| 26 + len);
        for len in 0..=whole.len() {
            assert_eq!(unix_micros(&whole[..len]).is_some(), readable.contains(&len), "{len}");
        }
        for text in [
            "2026-11-22T05:13:44+00",
            "2026-13-22 05:13:44+00",
            "2026-11-00 05:13:44+00",
            "2026-11-22 25:13:44+00",
            "2026-11-22 05:13:44.2029511+00",
            "2026-11-22 05:13:44 UTC",
            "22.11.2026 05:13:44+00",
            "-2026-11-22 05:13:44+00",
            "Infinity",
        ] {
            assert_eq!(unix_micros(text.as_bytes()), None, "{text}");
        }
    }
}
