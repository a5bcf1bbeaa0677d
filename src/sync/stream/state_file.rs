//! The state file of a run, which PipelineWise rewrites as the target confirms.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::positions::Resume;
use crate::state::State;

/// How often the state file is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// Watches the state file for bookmarks that are stored by now.
pub(super) struct StateFile {
    path: PathBuf,
    /// Every LOG_BASED stream of the run, those that were copied in it too: all of them read from the slot next time.
    streams: Vec<String>,
    looked: Instant,
    modified: Option<SystemTime>,
}

impl StateFile {
    pub(super) fn new(path: PathBuf, streams: Vec<String>) -> Self {
        let modified = modified(&path);
        StateFile { path, streams, looked: Instant::now(), modified }
    }

    /// Returns the bookmarks of a file that was rewritten, if it is time to look for one.
    pub(super) fn bookmarks(&mut self, now: Instant) -> Option<Vec<Resume>> {
        if now - self.looked < INTERVAL {
            return None;
        }
        self.looked = now;
        let modified = modified(&self.path);
        if modified == self.modified {
            return None;
        }
        // A file that is being written right now is looked at again.
        let state = State::reread(&self.path)?;
        self.modified = modified;
        Some(self.streams.iter().map(|id| state.kept_from(id)).collect())
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}
