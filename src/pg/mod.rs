//! Everything that talks to PostgreSQL or describes it: connections, TLS, the wire session that COPY and replication
//! run on, positions, quoting, descriptions of tables and types.

pub mod copy;
pub mod lsn;
pub mod quote;
pub mod table;

pub use lsn::Lsn;
