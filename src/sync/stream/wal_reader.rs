//! Which of the two ways to read the log serves a run.

use std::fmt;

use super::live::Live;
use super::prepare::Source;
use crate::config;
use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::positions::End;
use crate::sync::env::Env;

/// How the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalReader {
    /// As a walsender sends it.
    Stream,
    /// In one go, over SQL.
    Bulk,
}

impl fmt::Display for WalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WalReader::Stream => "stream",
            WalReader::Bulk => "bulk",
        })
    }
}

/// Returns the way that `wal_reader` names, as far as the server and the run allow it.
pub(crate) async fn choose(
    env: &Env,
    client: &Client,
    source: &Source,
    streams: &[Live],
    end: &End,
) -> Result<WalReader> {
    let wanted = env.config.wal_reader;
    if wanted == config::WalReader::Stream {
        return Ok(WalReader::Stream);
    }
    let obstacle = match obstacle(env, client, end) {
        None if wanted == config::WalReader::Auto => unfit(env, client, source, streams, end).await?,
        obstacle => obstacle,
    };
    match obstacle {
        None => Ok(WalReader::Bulk),
        Some(why) => {
            tracing::info!("not reading in bulk: {why}");
            Ok(WalReader::Stream)
        }
    }
}

/// Returns why a bulk read is impossible, if it is.
fn obstacle(env: &Env, client: &Client, end: &End) -> Option<String> {
    if !env.config.break_at_end_lsn {
        Some("break_at_end_lsn is false, so the run has no end to read to".to_owned())
    } else if !client.server_version().has_slot_advance() {
        Some("the server is older than PostgreSQL 11".to_owned())
    } else if !end.of_record {
        Some("the end of the log is not known to be the end of a record".to_owned())
    } else {
        None
    }
}

/// Returns why a bulk read would be slower or cost more than a stream, if it would: the server keeps the whole result before the first row leaves.
async fn unfit(env: &Env, client: &Client, source: &Source, streams: &[Live], end: &End) -> Result<Option<String>> {
    const MB: u64 = 1 << 20;
    let wal = end.lsn.0.saturating_sub(source.restart_lsn.0);
    if wal > env.config.bulk_max_wal_mb.saturating_mul(MB) {
        return Ok(Some(format!("{} MB of WAL to read are more than bulk_max_wal_mb", wal / MB)));
    }
    // Compressed values are small in the log and large in what the plugin prints.
    let sql = "WITH RECURSIVE tree(oid) AS (SELECT pg_catalog.unnest($1::oid[]) UNION \
               SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid) \
               SELECT coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::int8, \
               coalesce(sum(pg_catalog.pg_relation_size(c.reltoastrelid)) FILTER (WHERE c.reltoastrelid <> 0), 0)::int8 \
               FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r'";
    let oids: Vec<u32> = streams.iter().map(|live| live.plan.table.oid).collect();
    let row =
        client.query_one(sql, &[&oids]).await.map_err(|e| query_error("cannot read the sizes of the tables", e))?;
    let (heap, toast): (i64, i64) = (row.field(0)?, row.field(1)?);
    Ok((toast > 0 && toast >= heap).then(|| "the tables keep most of their data in TOAST".to_owned()))
}
