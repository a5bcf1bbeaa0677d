//! The standbys of `synchronized_standby_slots` (17+): a failover slot sends a change only when they have it, and what reads or moves the
//! slot over SQL waits for that inside of the query, for as long as it takes.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::error::Result;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;

/// How often the server is asked what it waits for.
const EVERY: Duration = Duration::from_secs(1);

/// Does what the session of this process waits for, and says if that waits for standbys; `None` where it still does when it is time
/// to `give_up`. A server that is at work is waited for.
pub(crate) async fn unless_held_back<T>(
    client: &Client,
    process_id: i32,
    give_up: Option<Instant>,
    mut work: impl Future<Output = T> + Unpin,
) -> Result<Option<T>> {
    if !client.server_version().waits_for_standbys() {
        return Ok(Some(work.await));
    }
    let mut told = false;
    loop {
        if let Ok(done) = timeout(EVERY, &mut work).await {
            return Ok(Some(done));
        }
        let Some(standbys) = awaited(client, process_id).await? else { continue };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                "the server holds the changes back until the standbys of synchronized_standby_slots ({standbys}) have them: start \
                 them, or take their slots out of that setting"
            );
        }
        if give_up.is_some_and(|give_up| Instant::now() >= give_up) {
            return Ok(None);
        }
    }
}

/// Returns the standbys that a process of the server waits for, if it does.
async fn awaited(client: &Client, process_id: i32) -> Result<Option<String>> {
    let sql = "SELECT pg_catalog.current_setting('synchronized_standby_slots') FROM pg_catalog.pg_stat_activity \
               WHERE pid = $1 AND wait_event = 'WaitForStandbyConfirmation'";
    let row = client.query_opt(sql, &[&process_id]).await;
    row.map_err(|e| query_error("cannot read what the server waits for", e))?.map(|row| row.field(0)).transpose()
}
