//! How far a copy in slices is, and what is told of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::logging::figures::bytes;
use crate::pg::Lsn;
use crate::positions::{CopyPosition, CopySnapshot, Resume, Slices};
use crate::state::{Definition, Progress, State};
use crate::sync::alterations::Alterations;
use crate::sync::copy::ranges::Heaps;
use crate::sync::env::next_version;
use crate::sync::plan::StreamPlan;

/// How long a commit that waits for a synchronous standby may keep a copy in slices waiting.
const HELD_PATIENCE: Duration = Duration::from_secs(60);

/// The copy of a table as it goes on in this run.
pub(super) struct Copying {
    /// What was sent; `None` before it begins.
    pub(super) copied: Option<Copied>,
    /// The version of its records.
    pub(super) version: i64,
    /// Whether the target has no version yet that it could take for the current one.
    pub(super) first_run: bool,
    /// Whether this run has sent the SCHEMA.
    pub(super) announced: bool,
    /// The page that this run began with.
    pub(super) began: u64,
    /// Since when it waits for a commit.
    pub(super) waits: Option<Instant>,
    /// The first snapshot of this run that the log decides about.
    first: Option<CopySnapshot>,
}

impl Copying {
    /// Returns what this run does for a stream: it goes on with the copy, or begins it under a new version.
    pub(super) fn of(plan: &StreamPlan, state: &State) -> Copying {
        let bookmark = state.bookmark(&plan.id);
        let copied = Copied::of(plan, state);
        Copying {
            version: bookmark.version().filter(|_| copied.is_some()).unwrap_or_else(|| next_version(bookmark)),
            first_run: bookmark.is_new(),
            announced: false,
            began: copied.as_ref().map_or(0, |copied| copied.progress.page),
            waits: None,
            first: None,
            copied,
        }
    }

    /// Returns the page to go on with.
    pub(super) fn page(&self) -> u64 {
        self.copied.as_ref().map_or(0, |copied| copied.progress.page)
    }

    /// Returns from where on the log is read; `None` before it begins.
    pub(super) fn from(&self) -> Option<Lsn> {
        self.copied.as_ref().map(|copied| copied.slices.start())
    }

    /// Returns how the table was defined when the copy began, or is, as far as these know it.
    pub(super) fn definition(&self, id: &str, alterations: &Alterations, table: u32) -> Result<Definition> {
        let definition = match &self.copied {
            Some(copied) => Some(&copied.progress.definition),
            None => alterations.of(table).map(|altered| &altered.definition),
        };
        definition
            .cloned()
            .ok_or_else(|| Error::stream(format!("the catalogs do not say how the table of \"{id}\" is defined")))
    }

    /// Leaves out of a position what can't be missed: what began after the first snapshot of this run commits behind all that earlier
    /// runs have read of the log.
    pub(super) fn narrow(&mut self, position: &mut CopyPosition) {
        let CopyPosition::Visible(copy) = position else { return };
        match &self.first {
            Some(first) => copy.forget_younger(first),
            None => self.first = Some(copy.clone()),
        }
    }

    /// Has the copy begin anew if rows are not in the pages that they were in.
    pub(super) fn check(&mut self, id: &str, heaps: Option<&Heaps>, state: &State) {
        let Some(copied) = &self.copied else { return };
        if !heaps.is_some_and(|heaps| heaps.hold(&copied.progress)) {
            self.begin_anew(id, "its rows are not where they were when its copy began", state);
        }
    }

    /// Has the copy begin anew, under a new version.
    pub(super) fn begin_anew(&mut self, id: &str, why: &str, state: &State) {
        tracing::warn!("{id}: {why}; copying it anew");
        let version = next_version(state.bookmark(id));
        (self.copied, self.version) = (None, version);
        (self.first_run, self.announced, self.began) = (false, false, 0);
    }

    /// Waits a moment for a commit that the log has and that no snapshot sees.
    pub(super) async fn wait(&mut self, id: &str) -> Result<()> {
        if self.waits.is_none() {
            tracing::info!("{id}: waiting for a commit that waits for a synchronous standby");
        }
        let waited = self.waits.get_or_insert_with(Instant::now).elapsed();
        if waited >= HELD_PATIENCE {
            return Err(Error::stream(format!(
                "the copy of \"{id}\" waits for a commit that waits for a synchronous standby"
            ))
            .hint(
                "run again when the standby answers; a role in pg_monitor tells such a commit from what is only open",
            ));
        }
        // Each attempt asks for a slot.
        tokio::time::sleep((waited / 2).clamp(Duration::from_millis(100), Duration::from_secs(5))).await;
        Ok(())
    }
}

/// What was sent of a copy, in this run and before.
pub(super) struct Copied {
    pub(super) slices: Slices,
    pub(super) progress: Progress,
    /// Whether all of it was read in one snapshot.
    pub(super) is_of_one_snapshot: bool,
    snapshots: usize,
}

impl Copied {
    /// Returns what earlier runs have sent; `None` if a copy has to begin.
    pub(super) fn of(plan: &StreamPlan, state: &State) -> Option<Copied> {
        let Resume::Copying(lsn) = state.resume(&plan.id, Some(plan.table.oid)) else { return None };
        let progress = state.bookmark(&plan.id).progress()?;
        Some(Copied { slices: Slices::from(lsn), progress, is_of_one_snapshot: false, snapshots: 1 })
    }

    /// Begins a copy whose bookmark is at this position, of a table with this definition.
    pub(super) fn begin(lsn: Lsn, definition: Definition) -> Copied {
        let progress = Progress { page: 0, files: Vec::new(), definition };
        Copied { slices: Slices::from(lsn), progress, is_of_one_snapshot: true, snapshots: 0 }
    }

    /// Takes note of what was read in a snapshot of this position.
    pub(super) fn add(&mut self, position: &CopyPosition) {
        self.slices.add(position);
        self.snapshots += 1;
        self.is_of_one_snapshot = self.snapshots == 1;
    }
}

/// Logs how far a copy is that began this run at a page; `ends`: there is no time for more.
pub(super) fn tell(id: &str, heaps: &Heaps, progress: &Progress, began: u64, ends: bool) {
    let (sent, all) = heaps.bytes(progress.page);
    let (before, _) = heaps.bytes(began);
    let percent = if all == 0 { 100 } else { u128::from(sent) * 100 / u128::from(all) };
    let runs = match sent.saturating_sub(before) {
        _ if !ends => String::new(),
        0 => "; the next run goes on there".to_owned(),
        in_run => format!("; about {} more runs like this one", (all.saturating_sub(sent)).div_ceil(in_run).max(1)),
    };
    tracing::info!("{id}: {percent} % of its pages are copied ({} of {}){runs}", bytes(sent), bytes(all));
}
