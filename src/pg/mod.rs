//! Everything that talks to PostgreSQL or describes it.
//!
//! [`net`] is the way to a server, [`wire`] the protocol sessions on it, and [`connect`] puts both together; each
//! imports only what is below it. Errors, SQLSTATEs, versions, WAL positions, quoting, rows and the descriptions of
//! tables and types are at the bottom and import none of the three.

pub(crate) mod binary;
pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod error;
mod lsn;
pub(crate) mod net;
pub(crate) mod order;
pub(crate) mod quote;
pub(crate) mod row;
pub(crate) mod sqlstate;
pub(crate) mod table;
pub(crate) mod tree;
pub(crate) mod version;
pub(crate) mod wire;

pub(crate) use lsn::Lsn;
pub(crate) use version::ServerVersion;
