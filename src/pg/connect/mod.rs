//! Connections: the choice of the server, the login, and the settings that every session starts with.
//!
//! ```text
//! Params ─▶ Server ─┬▶ Endpoint ─▶ socket or tunnel ─▶ TLS ─▶ login ─┬▶ Client
//!                   └▶ Endpoint                                     └▶ Session
//! ```
//!
//! Every connection of a run goes to the server that the first one chose: a slot is on one server.

mod choice;
mod client;
mod endpoint;
mod params;
mod password;
mod server;

pub(crate) use client::Client;
pub(crate) use params::{Params, TargetSessionAttrs};
pub(crate) use server::Server;
pub(crate) use tokio_postgres::config::ChannelBinding;
