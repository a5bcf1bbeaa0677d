//! The byte stream to a server: sockets, SSH tunnels, TLS. The protocol on it is in [`wire`](super::wire).
//!
//! ```text
//! Target ─┬▶ TCP or Unix socket ─┬▶ TLS ─▶ Stream
//!         └▶ SSH tunnel ─────────┘
//! ```

pub(crate) mod failure;
pub(crate) mod pem;
pub(crate) mod socket;
pub(crate) mod ssh;
pub(crate) mod stream;
pub(crate) mod target;
pub(crate) mod tls;
