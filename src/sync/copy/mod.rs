//! Rows of tables, read with COPY: the copy that a LOG_BASED stream begins with, FULL_TABLE and INCREMENTAL.

pub(crate) mod batch;
pub(crate) mod full_table;
pub(crate) mod incremental;
pub(crate) mod initial;
pub(crate) mod parallel;
pub(crate) mod rows;
