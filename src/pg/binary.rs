//! Rows of `COPY … TO STDOUT (FORMAT binary)`. What the server does not have to print is read faster: of numbers with decimals and of
//! times the printing is most of its work.

pub(crate) mod text;

use crate::error::{Error, Result};

/// What the data begins with; flags and an extension of the header, of which there are none, follow.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const HEADER: usize = SIGNATURE.len() + 8;

/// Finds the rows in the pieces of data.
#[derive(Default)]
pub(crate) struct Rows {
    /// Whether the header has come, which stands before the first row in one piece with it.
    begun: bool,
}

impl Rows {
    /// Returns the row of a piece of data; `None` for the trailer.
    ///
    /// # Errors
    /// It is no such piece.
    pub(crate) fn row<'a>(&mut self, piece: &'a [u8]) -> Result<Option<Row<'a>>> {
        let row = match std::mem::replace(&mut self.begun, true) {
            true => Some(piece),
            false if piece.starts_with(SIGNATURE) => piece.get(HEADER..),
            false => None,
        };
        match row.and_then(|row| row.split_first_chunk()) {
            Some(([0xff, 0xff], [])) => Ok(None),
            Some((columns, rest)) => Ok(Some(Row { columns: u16::from_be_bytes(*columns), rest })),
            None => Err(malformed()),
        }
    }
}

/// The rest of a row.
pub(crate) struct Row<'a> {
    columns: u16,
    rest: &'a [u8],
}

impl<'a> Row<'a> {
    /// Returns how many fields are left.
    pub(crate) fn columns(&self) -> u16 {
        self.columns
    }

    /// Takes the next field; `None` for NULL.
    ///
    /// # Errors
    /// There is none, or the row has another length than its fields.
    #[inline]
    pub(crate) fn field(&mut self) -> Result<Option<&'a [u8]>> {
        let field = self.columns.checked_sub(1).and_then(|left| {
            let (length, rest) = self.rest.split_first_chunk()?;
            let (value, rest) = match i32::from_be_bytes(*length) {
                -1 => (None, rest),
                length => {
                    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                    (Some(value), rest)
                }
            };
            if left == 0 && !rest.is_empty() {
                return None;
            }
            (self.columns, self.rest) = (left, rest);
            Some(value)
        });
        field.ok_or_else(malformed)
    }
}

/// Returns the error for data that is no binary COPY, or a value that is not of its type.
pub(crate) fn malformed() -> Error {
    Error::run("the server's binary COPY is malformed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        [SIGNATURE, &[0; 8]].concat()
    }

    #[test]
    fn rows_are_read_and_truncations_refused() {
        let row = [&[0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 3][..], b"abc"].concat();
        let read = |piece: &[u8]| -> Result<Vec<Option<Vec<u8>>>> {
            let mut row = Rows { begun: true }.row(piece)?.ok_or_else(malformed)?;
            (0..2).map(|_| Ok(row.field()?.map(<[u8]>::to_vec))).collect()
        };
        assert_eq!(read(&row).unwrap(), [None, Some(b"abc".to_vec())]);
        for len in 0..row.len() {
            assert!(read(&row[..len]).is_err(), "{len}");
        }
        assert!(read(&[row.as_slice(), &[0]].concat()).is_err(), "more than a row");
        // A length below that of NULL.
        assert!(read(&[0, 1, 0xff, 0xff, 0xff, 0xfe]).is_err());
    }

    #[test]
    fn the_header_stands_before_the_first_row_or_the_trailer() {
        let mut rows = Rows::default();
        let first = [header(), vec![0, 0]].concat();
        assert!(rows.row(&first).unwrap().is_some());
        assert!(rows.row(&[0, 0]).unwrap().is_some());
        assert!(rows.row(&[0xff, 0xff]).unwrap().is_none());
        assert!(Rows::default().row(&[header(), vec![0xff, 0xff]].concat()).unwrap().is_none());
        assert!(Rows::default().row(&[0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), begun in any::<bool>()) {
            let piece = if begun { bytes } else { [header(), bytes].concat() };
            if let Ok(Some(mut row)) = (Rows { begun }).row(&piece) {
                while row.field().is_ok() {}
            }
        }
    }
}
