//! Singer messages and the writer that puts them on stdout.

pub mod json;

pub use json::JsonBuf;
