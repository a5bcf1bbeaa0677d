//! Checked access to the fields of tokio-postgres's rows.

use postgres_protocol::types::array_from_sql;
use tokio_postgres::Row;
use tokio_postgres::fallible_iterator::FallibleIterator as _;
use tokio_postgres::types::{FromSql, Kind, Type};

use crate::error::{Context, Error, Result};

/// Access to fields that returns an error, where tokio-postgres panics: what comes over the wire may be anything.
pub(crate) trait Fields {
    /// Returns the value of this column.
    fn field<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T>;
}

impl Fields for Row {
    fn field<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T> {
        let unexpected = || "the server's answer to a query is not what was asked for".to_owned();
        let is_array = self.columns().get(column).is_some_and(|column| matches!(column.type_().kind(), Kind::Array(_)));
        if is_array
            && !self.try_get::<_, Option<Raw<'_>>>(column).context(unexpected)?.is_none_or(|raw| raw.is_whole_array())
        {
            return Err(Error::run(unexpected()));
        }
        self.try_get(column).context(unexpected)
    }
}

/// A value as it came.
struct Raw<'a>(&'a [u8]);

impl Raw<'_> {
    /// Whether an array has no more elements than it has room for: as many as it claims are reserved before they are read.
    fn is_whole_array(&self) -> bool {
        let Ok(array) = array_from_sql(self.0) else { return false };
        let lengths = array.dimensions().map(|dimension| Ok(usize::try_from(dimension.len).unwrap_or(usize::MAX)));
        let elements = lengths.fold(1_usize, |product, length| Ok(product.saturating_mul(length)));
        // Each has its length in front.
        elements.is_ok_and(|elements| elements.saturating_mul(4) <= self.0.len())
    }
}

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_that_claims_more_than_it_has_is_refused() {
        let array = |elements: i32| {
            let header = [1, 0, 25, elements, 1].map(i32::to_be_bytes).concat();
            [header.as_slice(), &1_i32.to_be_bytes(), b"a"].concat()
        };
        assert!(Raw(&array(1)).is_whole_array());
        assert!(!Raw(&array(i32::MAX)).is_whole_array());
        assert!(!Raw(&array(-1)).is_whole_array() && !Raw(b"\0\0").is_whole_array());
    }
}
