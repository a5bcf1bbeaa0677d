//! Rows of `COPY … TO STDOUT` in text format, split in place.
//!
//! The server escapes every tab, newline and backslash of a value, so a raw tab always ends a field, and a field
//! without a backslash is the value itself. Most rows hold none: one scan for backslashes and one for tabs do.

use memchr::{Memchr, memchr, memchr_iter};

/// One field of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// `\N`.
    Null,
    /// The value as it stands.
    Plain(&'a [u8]),
    /// The value with backslash escapes, to be passed to [`unescape`].
    Escaped(&'a [u8]),
}

/// Iterator over the fields of one row, in order.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    row: &'a [u8],
    tabs: Memchr<'a>,
    backslashes: Memchr<'a>,
    /// The first backslash that lies at or behind `start`.
    backslash: Option<usize>,
    /// Where the next field starts; behind the end of the row when there is none.
    start: usize,
}

/// Splits one row, with or without its newline. A row of a table without columns is one empty field.
pub fn fields(row: &[u8]) -> Fields<'_> {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    let mut backslashes = memchr_iter(b'\\', row);
    Fields { row, tabs: memchr_iter(b'\t', row), backslash: backslashes.next(), backslashes, start: 0 }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        if self.start > self.row.len() {
            return None;
        }
        let end = self.tabs.next().unwrap_or(self.row.len());
        let field = &self.row[self.start..end];
        self.start = end + 1;
        if self.backslash.is_none_or(|at| at >= end) {
            return Some(Field::Plain(field));
        }
        while self.backslash.is_some_and(|at| at < end) {
            self.backslash = self.backslashes.next();
        }
        Some(if field == br"\N" { Field::Null } else { Field::Escaped(field) })
    }
}

/// Resolves the escapes of a [`Field::Escaped`] into `scratch`, whose former content is dropped.
pub fn unescape<'b>(escaped: &[u8], scratch: &'b mut Vec<u8>) -> &'b [u8] {
    scratch.clear();
    let mut rest = escaped;
    while let Some(at) = memchr(b'\\', rest) {
        scratch.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(&kind) = rest.first() else {
            scratch.push(b'\\');
            break;
        };
        let (byte, taken) = match kind {
            b'b' => (0x08, 1),
            b'f' => (0x0c, 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'v' => (0x0b, 1),
            b'0'..=b'7' => digits(rest, 8, 3),
            b'x' => match digits(&rest[1..], 16, 2) {
                (_, 0) => (b'x', 1),
                (byte, taken) => (byte, taken + 1),
            },
            other => (other, 1),
        };
        scratch.push(byte);
        rest = &rest[taken..];
    }
    scratch.extend_from_slice(rest);
    scratch
}

/// Parses the number of at most `limit` digits that `text` starts with; returns its low byte and how many digits it
/// has.
fn digits(text: &[u8], radix: u32, limit: usize) -> (u8, usize) {
    let values = text.iter().take(limit).map_while(|&c| char::from(c).to_digit(radix));
    let (number, taken) = values.fold((0, 0), |(number, taken), digit| (number * radix + digit, taken + 1));
    ((number & 0xff) as u8, taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(row: &[u8]) -> Vec<Field<'_>> {
        fields(row).collect()
    }

    fn unescaped(text: &[u8]) -> Vec<u8> {
        unescape(text, &mut b"left over".to_vec()).to_vec()
    }

    #[test]
    fn nulls_plain_and_escaped_fields_are_told_apart() {
        use Field::{Escaped, Null, Plain};
        assert_eq!(split(b"1\t\\N\ta b\n"), [Plain(b"1"), Null, Plain(b"a b")]);
        assert_eq!(split(b"\\N"), [Null]);
        assert_eq!(split(b"\\\\N\t\\N"), [Escaped(br"\\N"), Null]);
        assert_eq!(split(b"\\NN\tN"), [Escaped(br"\NN"), Plain(b"N")]);
        assert_eq!(split(b"a\\tb\\n\tc\td\\\\\t"), [Escaped(br"a\tb\n"), Plain(b"c"), Escaped(br"d\\"), Plain(b"")]);
    }

    #[test]
    fn empty_fields_are_kept() {
        assert_eq!(split(b"\n"), [Field::Plain(b"")]);
        assert_eq!(split(b""), [Field::Plain(b"")]);
        assert_eq!(split(b"\t\t\n"), [Field::Plain(b""); 3]);
    }

    #[test]
    fn every_escape_is_resolved() {
        assert_eq!(unescaped(br"\b\f\n\r\t\v\\"), b"\x08\x0c\n\r\t\x0b\\");
        assert_eq!(unescaped(br"\0\12\101\1011\778\777"), b"\0\nAA1\x3f8\xff");
        assert_eq!(unescaped(br"\x41\x4g\xag\x\xz\xFFF"), b"A\x04g\x0agxxz\xffF");
        assert_eq!(unescaped("\\q\\.\\8é\\".as_bytes()), "q.8é\\".as_bytes());
        assert_eq!(unescaped(b"plain"), b"plain");
        assert_eq!(unescaped(b""), b"");
    }

    /// A value as the server writes it (CopyAttributeOutText).
    fn escape(value: &[u8], row: &mut Vec<u8>) {
        for &byte in value {
            match byte {
                0x08 => row.extend(br"\b"),
                0x0c => row.extend(br"\f"),
                b'\n' => row.extend(br"\n"),
                b'\r' => row.extend(br"\r"),
                b'\t' => row.extend(br"\t"),
                0x0b => row.extend(br"\v"),
                b'\\' => row.extend(br"\\"),
                other => row.push(other),
            }
        }
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        let troublesome = prop::sample::select(b"\\N\t\n\r\x08\x0b\x0cnx1a".to_vec());
        proptest::option::of(prop_oneof![
            prop::collection::vec(troublesome, 0..12),
            prop::collection::vec(any::<u8>(), 0..40),
        ])
    }

    proptest! {
        #[test]
        fn what_the_server_escapes_comes_back(values in prop::collection::vec(value(), 1..10)) {
            let mut row = Vec::new();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    row.push(b'\t');
                }
                match value {
                    None => row.extend(br"\N"),
                    Some(value) => escape(value, &mut row),
                }
            }
            row.push(b'\n');
            let mut scratch = Vec::new();
            let back: Vec<_> = fields(&row)
                .map(|field| match field {
                    Field::Null => None,
                    Field::Plain(bytes) => Some(bytes.to_vec()),
                    Field::Escaped(bytes) => Some(unescape(bytes, &mut scratch).to_vec()),
                })
                .collect();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn no_input_panics(row in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut scratch = Vec::new();
            for field in fields(&row) {
                if let Field::Escaped(bytes) = field {
                    unescape(bytes, &mut scratch);
                }
            }
        }
    }
}
