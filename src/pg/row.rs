//! Checked access to the fields of tokio-postgres's rows.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::error::{Context, Result};

/// Access to fields that returns an error, where tokio-postgres panics: what comes over the wire may be anything.
pub(crate) trait Fields {
    /// Returns the value of this column.
    fn field<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T>;
}

impl Fields for Row {
    fn field<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T> {
        self.try_get(column).context(|| "the server's answer to a query is not what was asked for".to_owned())
    }
}
