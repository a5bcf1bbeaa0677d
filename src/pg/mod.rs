//! Everything that talks to PostgreSQL or describes it: connections, TLS, the wire session that COPY and replication
//! run on, positions, quoting, descriptions of tables and types.

pub(crate) mod connect;
pub mod copy;
pub(crate) mod error;
mod lsn;
pub(crate) mod net;
pub(crate) mod quote;
pub(crate) mod row;
pub(crate) mod sqlstate;
pub(crate) mod table;
pub(crate) mod tree;
pub(crate) mod version;
pub(crate) mod wire;

pub use lsn::Lsn;
pub(crate) use version::ServerVersion;
