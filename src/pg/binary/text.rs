//! The text that PostgreSQL prints of a value, made of the binary form that it sends: with the settings of the tap's sessions (ISO
//! dates, UTC), byte for byte.

use std::sync::Arc;

use crate::pg::table::{PgType, TypeKind};

/// How a type's binary form becomes its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    /// `bool`
    Bool,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `oid`
    Oid,
    /// Types whose binary form is their text.
    Text,
    /// `jsonb`
    Jsonb,
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
    /// `numeric`
    Numeric,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    Timestamptz,
}

impl Binary {
    /// Returns the form of a type; `None` for one that the server has to print.
    pub(crate) fn of(ty: &Arc<PgType>) -> Option<Binary> {
        let (base, _) = ty.base(-1);
        if matches!(base.kind, TypeKind::Enum) {
            return Some(Binary::Text);
        }
        if base.schema != "pg_catalog" {
            return None;
        }
        Some(match base.name.as_str() {
            "bool" => Binary::Bool,
            "int2" => Binary::Int2,
            "int4" => Binary::Int4,
            "int8" => Binary::Int8,
            "oid" => Binary::Oid,
            "text" | "varchar" | "bpchar" | "name" | "json" => Binary::Text,
            "jsonb" => Binary::Jsonb,
            "uuid" => Binary::Uuid,
            "bytea" => Binary::Bytea,
            "numeric" => Binary::Numeric,
            "date" => Binary::Date,
            "time" => Binary::Time,
            "timestamp" => Binary::Timestamp,
            "timestamptz" => Binary::Timestamptz,
            _ => return None,
        })
    }

    /// Whether the server prints a value in far more time than it takes here.
    pub(crate) fn pays(self) -> bool {
        matches!(self, Binary::Numeric | Binary::Date | Binary::Time | Binary::Timestamp | Binary::Timestamptz)
    }

    /// Returns the text of a value, which may be in `scratch`, whose former content is dropped. `None` if it is no value of the type.
    #[inline]
    pub(crate) fn text<'a>(self, value: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        scratch.clear();
        match self {
            Binary::Text => return Some(value),
            Binary::Jsonb => return value.strip_prefix(&[1]),
            Binary::Bool => return Some(if fixed::<1>(value)? == [0] { b"f" } else { b"t" }),
            Binary::Int2 => integer(i64::from(i16::from_be_bytes(fixed(value)?)), scratch),
            Binary::Int4 => integer(i64::from(i32::from_be_bytes(fixed(value)?)), scratch),
            Binary::Int8 => integer(i64::from_be_bytes(fixed(value)?), scratch),
            Binary::Oid => integer(i64::from(u32::from_be_bytes(fixed(value)?)), scratch),
            Binary::Uuid => uuid(&fixed(value)?, scratch),
            Binary::Bytea => {
                scratch.extend_from_slice(b"\\x");
                hex(value, scratch);
            }
            Binary::Numeric => numeric(value, scratch)?,
            Binary::Date => match i32::from_be_bytes(fixed(value)?) {
                i32::MAX => scratch.extend_from_slice(b"infinity"),
                i32::MIN => scratch.extend_from_slice(b"-infinity"),
                days => {
                    let is_before_christ = day(days, scratch)?;
                    era(is_before_christ, scratch);
                }
            },
            Binary::Time => clock(i64::from_be_bytes(fixed(value)?), scratch)?,
            Binary::Timestamp => timestamp(i64::from_be_bytes(fixed(value)?), b"", scratch)?,
            Binary::Timestamptz => timestamp(i64::from_be_bytes(fixed(value)?), b"+00", scratch)?,
        }
        Some(scratch)
    }
}

fn fixed<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

fn uuid(bytes: &[u8; 16], out: &mut Vec<u8>) {
    for (number, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if number > 0 {
            out.push(b'-');
        }
        hex(&bytes[part], out);
    }
}

/// Writes a numeric: groups of four decimal digits, the weight of the first as a power of 10,000, a sign, and how many decimals to show.
fn numeric(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (header, groups) = value.split_first_chunk::<8>()?;
    let part = |at: usize| [header[at], header[at + 1]];
    let (count, weight) = (u16::from_be_bytes(part(0)), i16::from_be_bytes(part(2)));
    let (sign, decimals) = (u16::from_be_bytes(part(4)), u16::from_be_bytes(part(6)));
    match sign {
        0x0000 => {}
        0x4000 => out.push(b'-'),
        0xc000 => out.extend_from_slice(b"NaN"),
        0xd000 => out.extend_from_slice(b"Infinity"),
        0xf000 => out.extend_from_slice(b"-Infinity"),
        _ => return None,
    }
    if sign >= 0xc000 {
        return Some(());
    }
    let (groups, []) = groups.as_chunks::<2>() else { return None };
    if groups.len() != usize::from(count) {
        return None;
    }
    // Those before the first and behind the last are zero.
    let group = |place: i32| -> Option<u32> {
        let group = usize::try_from(place).ok().and_then(|place| groups.get(place));
        group.map_or(Some(0), |group| Some(u32::from(u16::from_be_bytes(*group))).filter(|group| *group < 10_000))
    };
    let weight = i32::from(weight);
    if weight < 0 {
        out.push(b'0');
    } else {
        integer(i64::from(group(0)?), out);
        for place in 1..=weight {
            out.extend_from_slice(&four(group(place)?));
        }
    }
    if decimals > 0 {
        out.push(b'.');
        let end = out.len() + usize::from(decimals);
        let mut place = weight + 1;
        while out.len() < end {
            out.extend_from_slice(&four(group(place)?));
            place += 1;
        }
        out.truncate(end);
    }
    Some(())
}

/// Returns the four digits of a number below 10,000.
fn four(number: u32) -> [u8; 4] {
    let ([a, b], [c, d]) = (two(number / 100), two(number % 100));
    [a, b, c, d]
}

/// Returns the two digits of a number below 100.
fn two(number: u32) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Writes microseconds since 2000.
fn timestamp(micros: i64, zone: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match micros {
        i64::MAX => out.extend_from_slice(b"infinity"),
        i64::MIN => out.extend_from_slice(b"-infinity"),
        _ => {
            let is_before_christ = day(i32::try_from(micros.div_euclid(MICROS_A_DAY)).ok()?, out)?;
            out.push(b' ');
            clock(micros.rem_euclid(MICROS_A_DAY), out)?;
            out.extend_from_slice(zone);
            era(is_before_christ, out);
        }
    }
    Some(())
}

/// Writes the day that is so many after 2000-01-01. Returns whether it is before Christ; `None` if there is no such day.
fn day(days: i32, out: &mut Vec<u8>) -> Option<bool> {
    // Of the Gregorian calendar in cycles of 400 years that begin on the first of March: "chrono-Compatible Low-Level Date Algorithms",
    // Howard Hinnant, civil_from_days.
    let since_march_of_0 = days.checked_add(730_425)?;
    let (cycle, day_of_cycle) =
        (since_march_of_0.div_euclid(146_097), since_march_of_0.rem_euclid(146_097).unsigned_abs());
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_cycle.cast_signed() + cycle * 400 + i32::from(month <= 2);
    // There is no year 0: it is 1 BC.
    let is_before_christ = year <= 0;
    let shown = if is_before_christ { 1 - year } else { year }.unsigned_abs();
    if shown < 10_000 {
        out.extend_from_slice(&four(shown));
    } else {
        integer(i64::from(shown), out);
    }
    let ([m, n], [d, e]) = (two(month), two(day));
    out.extend_from_slice(&[b'-', m, n, b'-', d, e]);
    Some(is_before_christ)
}

fn era(is_before_christ: bool, out: &mut Vec<u8>) {
    if is_before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// Writes a time of day: hours, minutes and seconds, with a fraction that ends with its last digit. `None` if it is more than a day.
fn clock(micros: i64, out: &mut Vec<u8>) -> Option<()> {
    let micros = u64::try_from(micros).ok().filter(|micros| *micros <= MICROS_A_DAY.unsigned_abs())?;
    let (seconds, fraction) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
    let ([h, i], [m, n], [s, t]) = (two(seconds / 3600), two(seconds / 60 % 60), two(seconds % 60));
    out.extend_from_slice(&[h, i, b':', m, n, b':', s, t]);
    if fraction > 0 {
        let ([a, b], [c, d, e, f]) = (two(fraction / 10_000), four(fraction % 10_000));
        let digits = [b'.', a, b, c, d, e, f];
        let end = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        out.extend_from_slice(&digits[..end]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Binary; 14] = [
        Binary::Bool,
        Binary::Int2,
        Binary::Int4,
        Binary::Int8,
        Binary::Oid,
        Binary::Text,
        Binary::Jsonb,
        Binary::Uuid,
        Binary::Bytea,
        Binary::Numeric,
        Binary::Date,
        Binary::Time,
        Binary::Timestamp,
        Binary::Timestamptz,
    ];

    fn shown(binary: Binary, value: &[u8]) -> String {
        String::from_utf8(binary.text(value, &mut Vec::new()).expect("a value").to_vec()).unwrap()
    }

    fn numeric(weight: i16, sign: u16, decimals: u16, groups: &[u16]) -> String {
        let parts = [groups.len() as u16, weight as u16, sign, decimals];
        let value: Vec<u8> = parts.iter().chain(groups).flat_map(|part| part.to_be_bytes()).collect();
        shown(Binary::Numeric, &value)
    }

    #[test]
    fn numerics() {
        assert_eq!(numeric(0, 0, 0, &[]), "0");
        assert_eq!(numeric(0, 0, 2, &[]), "0.00");
        assert_eq!(numeric(0, 0x4000, 2, &[12, 3400]), "-12.34");
        assert_eq!(numeric(2, 0, 0, &[1]), "100000000");
        assert_eq!(numeric(-2, 0, 8, &[1]), "0.00000001");
        assert_eq!(numeric(1, 0, 6, &[7, 89, 1234, 5600]), "70089.123456");
        assert_eq!(numeric(0, 0, 5, &[1, 2345, 6000]), "1.23456");
        assert_eq!([0xc000, 0xd000, 0xf000].map(|sign| numeric(0, sign, 0, &[])), ["NaN", "Infinity", "-Infinity"]);
    }

    #[test]
    fn times() {
        let stamp = |micros: i64| shown(Binary::Timestamptz, &micros.to_be_bytes());
        assert_eq!(stamp(0), "2000-01-01 00:00:00+00");
        assert_eq!(stamp(-1), "1999-12-31 23:59:59.999999+00");
        assert_eq!(stamp(1_500_000), "2000-01-01 00:00:01.5+00");
        assert_eq!([i64::MAX, i64::MIN].map(stamp), ["infinity", "-infinity"]);
        let day = |days: i32| shown(Binary::Date, &days.to_be_bytes());
        assert_eq!([0, 59, 60, 365].map(day), ["2000-01-01", "2000-02-29", "2000-03-01", "2000-12-31"]);
        assert_eq!([-730_119, -730_120, -730_485].map(day), ["0001-01-01", "0001-12-31 BC", "0001-01-01 BC"]);
        assert_eq!([2_921_940, i32::MAX, i32::MIN].map(day), ["10000-01-01", "infinity", "-infinity"]);
        assert_eq!(shown(Binary::Time, &86_400_000_000_i64.to_be_bytes()), "24:00:00");
    }

    #[test]
    fn others() {
        assert_eq!(shown(Binary::Bytea, b"\x00\xff"), "\\x00ff");
        assert_eq!(shown(Binary::Jsonb, b"\x01{}"), "{}");
        assert_eq!(shown(Binary::Oid, &u32::MAX.to_be_bytes()), "4294967295");
        assert_eq!(shown(Binary::Uuid, &[0xa1; 16]), "a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1");
        for (binary, value) in
            [(Binary::Int4, &b"abc"[..]), (Binary::Jsonb, b"\x02{}"), (Binary::Numeric, b"\0\x01\0\0\0\0\0\0")]
        {
            assert_eq!(binary.text(value, &mut Vec::new()), None);
        }
    }

    proptest! {
        /// Whatever a server sends.
        #[test]
        fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..20)) {
            for binary in ALL {
                let _ = binary.text(&value, &mut Vec::new());
            }
        }

        #[test]
        fn no_number_of_its_length_makes_it_panic(value in any::<i64>()) {
            for binary in ALL {
                let _ = binary.text(&value.to_be_bytes(), &mut Vec::new());
                let _ = binary.text(&(value as i32).to_be_bytes(), &mut Vec::new());
            }
        }
    }
}
