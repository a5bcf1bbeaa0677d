//! The state file of a run, which PipelineWise rewrites as the target confirms.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::pg::Lsn;
use crate::state::State;

/// How often the state file is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// Watches the state file for positions that are stored by now.
pub(crate) struct StateFile {
    path: PathBuf,
    /// Every LOG_BASED stream of the run, those that were copied in it too: all of them read from the slot next time.
    streams: Vec<String>,
    looked: Instant,
    modified: Option<SystemTime>,
    acknowledged: Lsn,
}

impl StateFile {
    /// `acknowledged`: what the server knows to be stored already.
    pub(crate) fn new(path: PathBuf, streams: Vec<String>, acknowledged: Lsn) -> Self {
        let modified = modified(&path);
        StateFile { path, streams, looked: Instant::now(), modified, acknowledged }
    }

    /// A position that may be acknowledged because a rewritten file says so, if there is a new one. Nothing past
    /// `reached`, which is how far the run has written.
    pub(crate) fn stored(&mut self, now: Instant, reached: Lsn) -> Option<Lsn> {
        if now - self.looked < INTERVAL {
            return None;
        }
        self.looked = now;
        let modified = modified(&self.path);
        if modified == self.modified {
            return None;
        }
        // A file that is being written right now is looked at again.
        let state = State::reread_lsns(&self.path)?;
        self.modified = modified;
        let lsn = self.streams.iter().map(|id| state.bookmark(id).lsn()).min().flatten()?;
        let lsn = Lsn(lsn).min(reached);
        if lsn.0 == 1 || lsn <= self.acknowledged {
            return None;
        }
        self.acknowledged = lsn;
        Some(lsn)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}
