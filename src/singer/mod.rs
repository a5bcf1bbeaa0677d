//! Singer messages and the writer that puts them on stdout.

pub(crate) mod json;
pub(crate) mod messages;
pub(crate) mod writer;

pub use json::JsonBuf;
pub(crate) use writer::MessageWriter;
