//! Where a run ends, and what is said of it then.

use std::time::Duration;

use tokio::time::Instant;

use super::prepare::Source;
use crate::error::Result;
use crate::logging::figures::{bytes, seconds};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::positions::End;
use crate::replication::log_end::log_end;
use crate::replication::slot::Slot;

/// Reads where the log ends now. Decoding gets there (rule 5) where that is the end of a record that is flushed; where it isn't soon, a
/// record of the run's own is behind it: a logical message or, where another tap may read it or the role may not write it, an empty
/// transaction. A standby has replayed whole records.
pub(super) async fn end_of_run(client: &Client) -> Result<End> {
    // wal2json passes messages on, and the reference up to 2.1.0 fails on them, now and in every run to come.
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), EXISTS (SELECT FROM pg_catalog.pg_replication_slots \
               WHERE plugin = 'wal2json' AND database = pg_catalog.current_database())";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the replication slots", e))?;
    let (standby, others_listen): (bool, bool) = (row.field(0)?, row.field(1)?);
    if standby {
        return Ok(End { lsn: log_end(client).await?, of_record: true });
    }
    if let Some(lsn) = flushed_end(client).await? {
        return Ok(End { lsn, of_record: true });
    }
    let by_message = if others_listen { None } else { end_by_message(client).await };
    let marked = match by_message {
        Some(lsn) => Some(lsn),
        None => end_by_transaction(client).await?,
    };
    match marked {
        Some(lsn) => Ok(End { lsn, of_record: true }),
        None => Ok(End { lsn: log_end(client).await?, of_record: false }),
    }
}

/// Returns the end of the last record, if everything up to there is flushed within a moment, as it nearly always is. A run that writes
/// nothing leaves a slot nothing to decode behind what it acknowledges, so that pg_upgrade takes the slot along.
async fn flushed_end(client: &Client) -> Result<Option<Lsn>> {
    const PATIENCE: Duration = Duration::from_millis(300);
    let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text";
    let row = client.query_one(sql, &[]).await.map_err(|e| query_error("cannot read the WAL position", e))?;
    let Some(lsn) = row.field::<Option<&str>>(0)?.and_then(|lsn| lsn.parse().ok()) else { return Ok(None) };
    let started = Instant::now();
    while log_end(client).await? < lsn {
        if started.elapsed() > PATIENCE {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(Some(lsn))
}

/// Returns the end of a logical message, flushed with its transaction: the session has `synchronous_commit` local.
async fn end_by_message(client: &Client) -> Option<Lsn> {
    let sql = "BEGIN; SELECT pg_catalog.pg_logical_emit_message(true, 'tap-postgres-rs', 'end of run')::text; COMMIT";
    marked(client, sql).await
}

/// Returns the end of the last record before a transaction that changes nothing. No plugin sees it, and no COMMIT waits for
/// it: the server's WAL writer takes it to disk within three times `wal_writer_delay`, 0.6 s by default.
async fn end_by_transaction(client: &Client) -> Result<Option<Lsn>> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let sql = "BEGIN; SELECT pg_catalog.pg_current_wal_insert_lsn()::text FROM pg_catalog.txid_current(); COMMIT";
    let Some(lsn) = marked(client, sql).await else { return Ok(None) };
    let started = Instant::now();
    while log_end(client).await? <= lsn {
        if started.elapsed() > PATIENCE {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Some(lsn))
}

/// Returns the position that a transaction selects; none without the right to what it calls.
async fn marked(client: &Client, sql: &str) -> Option<Lsn> {
    match client.simple_query(sql).await {
        Ok(messages) => messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.try_get(0).ok()??.parse().ok(),
            _ => None,
        }),
        Err(error) => {
            tracing::debug!("no mark at the end of the run: {error}");
            // The failed transaction is still open.
            let _ = client.simple_query("ROLLBACK").await;
            None
        }
    }
}

/// Logs how far the run came of a log that ended at `end` when it `began`, and what the slot keeps for the next one.
pub(super) async fn log_reached(
    client: &Client,
    source: &Source,
    reached: Lsn,
    (end, began): (Lsn, Instant),
) -> Result<()> {
    let lag = match reached >= end {
        true => format!("where the log ended {} ago", seconds(began.elapsed())),
        false => format!("{} before the end that the log had when the run began", bytes(end.0 - reached.0)),
    };
    let slot = Slot::find(client, std::slice::from_ref(&source.slot)).await?;
    let kept = slot.map(|slot| {
        let status = slot.wal_status.map(|status| format!(" ({status})")).unwrap_or_default();
        format!("; the slot {} keeps {} of WAL{status}", slot.name, bytes(slot.kept))
    });
    tracing::info!("read the log up to {reached}, {lag}{}", kept.unwrap_or_default());
    Ok(())
}
