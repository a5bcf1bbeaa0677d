//! Everything that talks to PostgreSQL or describes it: connections, TLS, the wire session that COPY and replication
//! run on, positions, quoting, descriptions of tables and types.

pub mod connect;
pub mod copy;
pub mod error;
pub mod lsn;
pub(crate) mod net;
pub mod quote;
pub(crate) mod row;
pub(crate) mod sqlstate;
pub mod table;
pub mod version;
pub mod wire;

pub use lsn::Lsn;
pub use version::ServerVersion;
