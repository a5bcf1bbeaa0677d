//! [`Limit`]: the bounds of a type, checked against the text of a value.

/// The bounds that a type sets beyond the form of its text, as in the schema of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Nothing.
    None,
    /// A signed integer of so many bits.
    Bits(u32),
    /// So many digits before the point.
    Digits(usize),
    /// So many characters.
    Characters(usize),
}

impl Limit {
    /// Whether a text is within the bounds. Text that doesn't have the type's form is.
    #[inline]
    pub(crate) fn holds(self, text: &[u8]) -> bool {
        match self {
            Limit::None => true,
            // 16, 32 and 64 bits hold any 4, 9 and 18 digits.
            Limit::Bits(bits) => text.len() <= bits as usize * 29 / 100 || in_bits(text, bits),
            Limit::Digits(digits) => text.len() <= digits || integer_digits(text) <= digits,
            Limit::Characters(characters) => text.len() <= characters || count(text) <= characters,
        }
    }
}

fn in_bits(text: &[u8], bits: u32) -> bool {
    let max = i64::MAX >> (64 - bits);
    match std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()) {
        Some(number) => (-max - 1..=max).contains(&number),
        // If all are digits, it is a number too large for 64 bits.
        None => !text.iter().skip(1).all(u8::is_ascii_digit),
    }
}

/// Counts the digits before the point, without leading zeros.
fn integer_digits(text: &[u8]) -> usize {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    digits.iter().skip_while(|byte| **byte == b'0').take_while(|byte| byte.is_ascii_digit()).count()
}

/// Counts the characters of UTF-8 text.
fn count(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_what_the_type_does() {
        for (limit, held, beyond) in [
            (Limit::Bits(16), &["9999", "32767", "-32768"][..], &["32768", "-32769", "99999999999999999999"][..]),
            (Limit::Bits(32), &["999999999", "2147483647", "-2147483648"], &["2147483648", "-2147483649"]),
            (Limit::Bits(64), &["9223372036854775807", "-9223372036854775808"], &["9223372036854775808"]),
            (Limit::Digits(3), &["999.99999", "-999.5", "0.123456", "NaN", "-Infinity"], &["1000", "-1000.5"]),
            (Limit::Digits(0), &["0.5", "-0.5", "0"], &["1.5"]),
            (Limit::Characters(3), &["", "abc", "日本語"], &["abcd", "日本語!"]),
            (Limit::None, &["anything"], &[]),
        ] {
            for text in held {
                assert!(limit.holds(text.as_bytes()), "{limit:?} of {text}");
            }
            for text in beyond {
                assert!(!limit.holds(text.as_bytes()), "{limit:?} of {text}");
            }
        }
    }
}
