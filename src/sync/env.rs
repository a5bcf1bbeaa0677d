//! What every part of a run needs: settings and servers.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::catalog::Patterns;
use crate::config::Config;
use crate::pg::connect::Server;
use crate::positions::TransactionSnapshot;
use crate::state::Bookmark;
use crate::sync::alterations::Alterations;
use crate::sync::cancel::QueryInHand;
use crate::types;

/// How long a run that was told to end looks at names once more.
const CHECK_PATIENCE: Duration = Duration::from_secs(2);

/// How a copy is divided into slices.
pub(crate) struct Slicing {
    /// About how many bytes of the table a query reads, its large values included.
    pub(crate) bytes: u64,
    /// How often a STATE says how far the copy is.
    pub(crate) state_interval: Duration,
    /// How old a snapshot gets before another replaces it. Vacuum waits for it.
    pub(crate) snapshot_age: Duration,
}

impl Slicing {
    /// What a kill costs is read again in seconds, and a query of so much costs nothing beside its rows.
    const USUAL: Slicing =
        Slicing { bytes: 8 << 20, state_interval: Duration::from_secs(2), snapshot_age: Duration::from_secs(240) };

    /// Returns the usual one. Builds for development take a smaller one, `bytes,milliseconds,milliseconds`, so that tests need no
    /// large tables.
    pub(crate) fn from_environment() -> Slicing {
        let Some(given) = std::env::var("TAP_TEST_SLICING").ok().filter(|_| cfg!(debug_assertions)) else {
            return Slicing::USUAL;
        };
        let numbers: Vec<u64> = given.split(',').filter_map(|number| number.parse().ok()).collect();
        let [bytes, state, age] = numbers.as_slice() else { return Slicing::USUAL };
        let [state_interval, snapshot_age] = [*state, *age].map(Duration::from_millis);
        Slicing { bytes: *bytes, state_interval, snapshot_age }
    }
}

/// The environment of a run: settings and servers.
pub(crate) struct Env {
    /// The settings.
    pub config: Config,
    /// The settings that concern types.
    pub types: types::Options,
    /// What is selected without a catalog.
    pub patterns: Arc<Patterns>,
    /// The server with the slot.
    pub primary: Server,
    /// Where tables are read from, if that is another server.
    pub secondary: Option<Server>,
    /// How copies are divided.
    pub(crate) slicing: Slicing,
    /// The state file, which may be rewritten while the run goes on.
    pub state_file: Option<PathBuf>,
    /// The query to cancel if the run is cut short.
    pub(crate) query_in_hand: QueryInHand,
    /// What bookmarks wait for if the run is cut short: that the tables are still called what they were, where they are read by
    /// their names.
    pub(crate) names_to_check: Mutex<Option<Alterations>>,
}

/// What is known of the names that tables were read by.
pub(crate) enum Names {
    /// They are what they were.
    Hold,
    /// Nobody can be asked any more; this was seen when the run began.
    Unknown(TransactionSnapshot),
    /// They may be others.
    Others,
    /// No table was read by its name.
    NotRead,
}

impl Env {
    /// Asks, at the end of a run that is cut short, whether the tables that were read by their names still have them. It takes no
    /// long time.
    pub(crate) async fn names_hold(&self) -> Names {
        let names = self.names_to_check.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(names) = names else { return Names::NotRead };
        let check = async { names.still_hold(&self.primary.connect().await?).await };
        match timeout(CHECK_PATIENCE, check).await {
            Ok(Ok(true)) => Names::Hold,
            Ok(Ok(false)) => Names::Others,
            Ok(Err(_)) | Err(_) => Names::Unknown(names.seen),
        }
    }

    /// Returns the server that tables are described by and read from.
    pub(crate) fn tables(&self) -> &Server {
        self.secondary.as_ref().unwrap_or(&self.primary)
    }
}

/// Returns milliseconds since 1970: a version, as the reference makes them.
pub(crate) fn version_now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// Returns a version above the one that the target holds, whichever machine's clock that came from.
pub(crate) fn next_version(bookmark: Bookmark<'_>) -> i64 {
    version_now().max(bookmark.version().map_or(0, |version| version.saturating_add(1)))
}
