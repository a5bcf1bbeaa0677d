//! The registry of types: PostgreSQL type → JSON schema, and PostgreSQL text → JSON.
//!
//! ```text
//! Column ─▶ resolve ─▶ ColumnType { schema, codec, … }      once per stream
//! text   ─▶ Codec::encode ─▶ JsonBuf                        once per value
//! ```
//!
//! A value enters as the text that PostgreSQL's output function prints under the session settings of
//! [`crate::pg`] (DateStyle ISO, IntervalStyle postgres, TimeZone UTC, bytea_output hex) and leaves as JSON appended to
//! the output line. There is one way through, whichever way the row came.
//!
//! A codec never fails: text that the type's output function doesn't print is written as a JSON string, so that a
//! surprise neither loses the value nor breaks the line. To add a type, add a line to `registry.rs`; to add a
//! way of writing, add a [`Codec`] and the arm the compiler then demands.

mod array;
mod codec;
mod datetime;
mod hstore;
mod json;
mod limit;
mod numbers;
mod registry;
mod schema;
mod time;

pub use codec::{ArrayCodec, Codec};
pub(crate) use limit::Limit;
pub(crate) use registry::{ColumnType, Options, resolve};
pub(crate) use schema::{Dialect, base_definitions, integer, string};
