//! The server, and the way to it.

use super::report::Report;
use crate::error::Result;
use crate::pg::connect::{Client, Server, SslMode};
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;

/// Connects, and reports to what.
pub(super) async fn connect(report: &mut Report, server: &Server) -> Result<Client> {
    let client = server.connect().await?;
    report.ok(format_args!("connected to {server} as {}", server.user()));
    match (client.tls(), server.sslmode()) {
        (Some(tls), _) => report.ok(format_args!("the connection is encrypted: {tls}")),
        (None, SslMode::Prefer) => report.warning(
            "the connection is not encrypted, because the server has no TLS for it; turn `ssl` on there and set `sslmode` to \
             require, or set `sslmode` to disable",
        ),
        (None, _) => report.ok("the connection is not encrypted, and need not be"),
    }
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot ask the server what it is", e))?;
    let kind = if row.field(0)? { "standby" } else { "primary" };
    report.ok(format_args!("the server is PostgreSQL {}, a {kind}", client.server_version()));
    Ok(client)
}
