//! Rows of tables, read with COPY: the copy that a LOG_BASED stream begins with, FULL_TABLE and INCREMENTAL.
//!
//! ```text
//! initial, full_table (table), xmin ─▶ Reading ─▶ query ─┬▶ parallel ─▶ several connections ─┐
//! incremental ───────────────────────────────────▲       └▶ one connection ─────────────────┴▶ rows ─▶ RowSink: the run, …
//! ```

pub(crate) mod full_table;
mod held;
pub(crate) mod incremental;
pub(crate) mod initial;
mod key_tracker;
mod parallel;
mod query;
mod ranges;
mod reading;
pub(crate) mod rows;
mod run_sink;
pub(crate) mod sessions;
pub(crate) mod sink;
mod snapshot;
mod table;
mod watermark;
pub(crate) mod xmin;
