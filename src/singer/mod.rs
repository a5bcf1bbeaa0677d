//! Singer messages and the writer that puts them on stdout.

pub mod json;
pub(crate) mod messages;
pub mod writer;

pub use json::JsonBuf;
pub use writer::MessageWriter;
