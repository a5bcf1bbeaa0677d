//! Rows of tables, read with COPY: the copy that a LOG_BASED stream begins with, FULL_TABLE and INCREMENTAL.
//!
//! ```text
//! initial ─┬▶ table ─┬▶ parallel ─▶ several connections ─┐
//! full_table┘        └▶ query ──▶ one connection ────────┴▶ rows ─▶ RowSink: the run, a batch, a worker's lines
//! incremental ─────────▲
//! xmin ───────────────▲▲
//! ```

mod batch;
pub(crate) mod full_table;
pub(crate) mod incremental;
pub(crate) mod initial;
mod key_tracker;
mod parallel;
mod query;
pub(crate) mod rows;
mod run_sink;
pub(crate) mod sessions;
pub(crate) mod sink;
mod snapshot;
mod table;
pub(crate) mod xmin;
