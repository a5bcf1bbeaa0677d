//! Sessions of our own on the frontend/backend protocol, for the two hot paths: `COPY … TO STDOUT`, and replication,
//! which tokio-postgres does not support.
//!
//! ```text
//! Stream (socket, TLS) ─▶ Frames (one buffer, read in place) ─▶ startup ─▶ Session ─┬▶ query
//!                                                                                   ├▶ CopyOut
//!                                                                                   └▶ ReplicationReader, ReplicationWriter
//! ```
//!
//! A payload is borrowed from the read buffer until the next one is asked for: no allocation and no copy per row.

mod cancel;
mod copy;
pub(crate) mod frame;
pub(crate) mod guard;
pub(crate) mod message;
mod notice;
mod session;
pub(crate) mod startup;
#[cfg(all(test, unix))]
mod tests;

pub(crate) use cancel::CancelToken;
pub(crate) use copy::{CopyOut, ReplicationReader, ReplicationWriter};
pub(crate) use notice::{OnWarning, warn_once};
pub(crate) use session::Session;
