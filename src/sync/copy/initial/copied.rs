//! How far a copy in slices is, and what is told of it.

use crate::logging::figures::bytes;
use crate::pg::Lsn;
use crate::positions::{CopyPosition, Resume, Slices};
use crate::state::{Progress, State};
use crate::sync::copy::ranges::Heaps;
use crate::sync::plan::StreamPlan;

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

    /// Begins a copy whose bookmark is at this position.
    pub(super) fn begin(lsn: Lsn) -> Copied {
        let progress = Progress { page: 0, files: Vec::new() };
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
