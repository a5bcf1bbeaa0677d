//! How far the server's log goes.

use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;

/// The expression for the end of the log: flushed, or replayed on a standby.
pub(crate) const LOG_END: &str = "(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
                                  ELSE pg_catalog.pg_current_wal_flush_lsn() END)";

/// Reads the end of the log.
pub(crate) async fn log_end(client: &Client) -> Result<Lsn> {
    let sql = format!("SELECT {LOG_END}::text");
    let row = client.query_one(&sql, &[]).await.map_err(|e| query_error("cannot read the WAL position", e))?;
    row.field::<Option<&str>>(0)?
        .and_then(|lsn| lsn.parse().ok())
        .ok_or_else(|| Error::run("the server does not say where its WAL ends"))
}
