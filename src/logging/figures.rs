//! Numbers in the form that log lines show them.

use std::time::Duration;

/// Formats a number with its noun: `1 row`, `1,234,567 rows`
pub(crate) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Formats a number with separators: `1,234,567`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of bytes: `512 B`, `1.5 MB`, three digits at most, in powers of 1024 as PostgreSQL counts.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What rounds to 1000 belongs to the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 9.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Formats a duration: `0.25 s`, `12.3 s`, `5 min 12 s`, `3 h 20 min`
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match time.as_secs_f64() {
        short if short < 9.995 => format!("{short:.2} s"),
        short if short < 59.95 => format!("{short:.1} s"),
        long if long < 3600.0 => format!("{} min {} s", whole.max(60) / 60, whole.max(60) % 60),
        _ if whole < 48 * 3600 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let shown = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!([0, 1, 2000].map(|n| counted(n, "row")), ["0 rows", "1 row", "2,000 rows"]);
    }

    #[test]
    fn bytes_have_the_unit_that_fits() {
        let shown = [0, 999, 1000, 1536, 10 << 20, 1023 << 20, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.5 kB", "10 MB", "1.0 GB", "5.0 GB", "16777216 TB"]);
    }

    #[test]
    fn times_are_as_exact_as_they_are_short() {
        let shown = [250, 9_990, 9_996, 59_960, 61_000, 3_599_000, 3_660_000, 200_000_000]
            .map(|millis| seconds(Duration::from_millis(millis)));
        assert_eq!(
            shown,
            ["0.25 s", "9.99 s", "10.0 s", "1 min 0 s", "1 min 1 s", "59 min 59 s", "1 h 1 min", "2 days"]
        );
    }
}
