//! A Singer tap for PostgreSQL.
//!
//! ```text
//! config ─┐                                   ┌─ COPY … TO STDOUT (initial copy, FULL_TABLE, INCREMENTAL)
//! catalog ┼─▶ discovery ─▶ plan per stream ─▶ ┤                                                   ├─▶ types ─▶ singer ─▶ stdout
//! state ──┘                                   └─ replication: walsender stream
//!                                                  └─▶ pgoutput | wal2json ─▶ Change<'a>
//! ```
//!
//! Text in, JSON out, nothing in between: PostgreSQL's own text of a value goes straight into the output line, and
//! whichever way a row comes it meets the same codec ([`types`]).
//!
//! Imports go one way: run → check → discovery, sync → replication, types, singer, catalog, state → pg. `replication`
//! yields raw column bytes and knows no Singer; `types` knows only the output buffer and column descriptions; config,
//! catalog and state import nothing of the project but errors.

// Until every module but those of the executable and the benchmarks is the crate's own, as `pg` is.
#![allow(private_interfaces)]

pub mod about;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod error;
// `cargo fuzz` sets `fuzzing`.
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod json_file;
pub mod logging;
mod method;
pub mod pg;
pub mod replication;
pub mod run;
mod servers;
pub mod singer;
pub mod state;
pub mod sync;
pub mod types;
