//! The columns that a table has now, to compare with its description.

use std::collections::HashMap;

use crate::error::Result;
use crate::pg::table::Column;
use crate::pg::wire::Session;

/// Columns by number, each with its name and type.
pub(crate) struct PresentColumns(HashMap<i16, (String, u32, i32)>);

impl PresentColumns {
    /// Reads the columns that the table with this oid has in the session's transaction, as far as the role may read them.
    pub(crate) async fn read(session: &mut Session, table: u32) -> Result<Self> {
        Ok(PresentColumns::of(session.query(&PresentColumns::sql(table)).await?))
    }

    /// Returns the query for them.
    pub(crate) fn sql(table: u32) -> String {
        format!(
            "SELECT attnum, attname, atttypid, atttypmod FROM pg_catalog.pg_attribute \
             WHERE attrelid = {table} AND attnum > 0 AND NOT attisdropped \
             AND pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT')"
        )
    }

    /// Takes what the query gave.
    pub(crate) fn of(rows: Vec<Vec<Option<String>>>) -> Self {
        let column = |row: Vec<Option<String>>| {
            let mut values = row.into_iter().flatten();
            let number = values.next()?.parse().ok()?;
            Some((number, (values.next()?, values.next()?.parse().ok()?, values.next()?.parse().ok()?)))
        };
        PresentColumns(rows.into_iter().filter_map(column).collect())
    }

    /// Returns the name that a column has now; `None` if it was dropped.
    pub(crate) fn name(&self, column: &Column) -> Option<&str> {
        self.0.get(&column.attnum).map(|(name, ..)| name.as_str())
    }

    /// Whether the table has these columns and no other, with their types.
    pub(crate) fn are(&self, columns: &[Column]) -> bool {
        self.0.len() == columns.len() && columns.iter().all(|column| self.has(column))
    }

    /// Whether a column is there, with the type that it had.
    pub(crate) fn has(&self, column: &Column) -> bool {
        self.0
            .get(&column.attnum)
            .is_some_and(|(name, ty, typmod)| (name, *ty, *typmod) == (&column.name, column.ty.oid, column.typmod))
    }
}
