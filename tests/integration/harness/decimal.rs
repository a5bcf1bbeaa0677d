//! Numbers by their exact decimal value: 1.10, 1.1 and 11e-1 are the same, 0.1 and its nearest double are not.

/// The one way to write the value of a JSON number: plain digits, or with an exponent where those would be many zeros.
pub(crate) fn canonical(number: &str) -> String {
    let (negative, unsigned) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().expect("a JSON number's exponent")),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    // The value is `significant` × 10^scale.
    let scale = exponent - fraction.len() as i64 + trailing as i64;
    let sign = if negative { "-" } else { "" };
    match scale {
        0..=40 => format!("{sign}{significant}{}", "0".repeat(scale as usize)),
        -80..0 => {
            let places = scale.unsigned_abs() as usize;
            let padded = format!("{significant:0>width$}", width = places + 1);
            let (whole, fraction) = padded.split_at(padded.len() - places);
            format!("{sign}{whole}.{fraction}")
        }
        _ => format!("{sign}{significant}e{scale}"),
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn equal_values_have_one_spelling() {
        for (spellings, expected) in [
            (&["1.1", "1.10", "11e-1", "0.11E+1", "110e-2"][..], "1.1"),
            (&["0", "-0", "0.000", "0e99", "-0.0E-7"], "0"),
            (&["100", "1e2", "1.00E+2", "100.0"], "100"),
            (&["-0.00001", "-1e-5", "-0.1e-4"], "-0.00001"),
            (&["5e-324", "0.5e-323", "5E-324"], "5e-324"),
            (&["1.7976931348623157e+308", "17976931348623157e292"], "17976931348623157e292"),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling), expected, "{spelling}");
            }
        }
    }

    #[test]
    fn different_values_differ() {
        assert_ne!(canonical("0.02"), canonical("0.0200000000000000004163336342344337026588618755340576171875"));
        assert_ne!(canonical("12345678901234567890123"), canonical("12345678901234567890124"));
        assert_ne!(canonical("-1"), canonical("1"));
    }
}
