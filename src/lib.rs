//! A Singer tap for PostgreSQL.
//!
//! ```text
//! config ─┐                                   ┌─ COPY … TO STDOUT (initial copy, FULL_TABLE, INCREMENTAL)
//! catalog ┼─▶ discovery ─▶ plan per stream ─▶ ┤                                                   ├─▶ types ─▶ singer ─▶ stdout
//! state ──┘                                   └─ replication: walsender stream or bulk read
//!                                                  └─▶ pgoutput | wal2json ─▶ Change<'a>
//! ```
//!
//! Text in, JSON out, nothing in between: PostgreSQL's own text of a value goes straight into the output line, and
//! whichever way a row comes it meets the same codec (`types`).
//!
//! Imports go one way, without a circle:
//!
//! ```text
//! run → check → sync → discovery, replication, types, singer, catalog, state, config → positions → pg
//! ```
//!
//! `positions` is the ledger of what may be bookmarked and acknowledged, and imports only the type of a position. `replication`
//! yields raw column bytes and knows no Singer; `types` knows only the output buffer and column descriptions. `docs/internals.md`
//! describes the way of the data through the modules, and the rules that they keep.

mod about;
mod catalog;
mod check;
pub mod cli;
mod config;
mod discovery;
pub mod error;
// `cargo fuzz` sets `fuzzing`.
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod json_file;
pub mod logging;
mod method;
mod pg;
mod positions;
mod replication;
pub mod run;
mod servers;
mod singer;
mod state;
mod sync;
mod types;

/// What `benches/codecs` measures: the way from a row of the server to its JSON.
#[doc(hidden)]
pub mod bench {
    pub use crate::pg::copy::{Field, fields, unescape};
    pub use crate::replication::pgoutput::Pgoutput;
    pub use crate::replication::wal2json::Wal2json;
    pub use crate::replication::{
        Change, Message, OldTuple, OutputPlugin, Relation, RelationColumn, RelationId, Tuple, Value,
    };
    pub use crate::singer::JsonBuf;
    pub use crate::types::{ArrayCodec, Codec};
}
