//! Whether the log still has what comes after the bookmarks.

use std::collections::HashSet;

use crate::config::OnSlotLost;
use crate::error::Error;
use crate::positions::{Gap, Resume, Slot};
use crate::state::State;
use crate::sync::env::Env;
use crate::sync::failures::Failures;
use crate::sync::plan::StreamPlan;

/// Checks that the slot can bring everything since each bookmark (rule 3). A stream for which it can't is left out, or
/// copied again, as `on_slot_lost` says.
pub(super) fn check_bookmarks(
    env: &Env,
    slot: (&str, Slot),
    plans: &mut Vec<StreamPlan>,
    state: &State,
    copy_again: &mut HashSet<String>,
    failures: &mut Failures,
) {
    // A copy that is under way begins anew, as it does where it can't go on for another reason.
    for plan in plans.iter() {
        let place = resume(plan, state);
        if let (Resume::Copying(_), Some(gap)) = (place, gap(plan, place, slot)) {
            tracing::warn!("{gap}; copying the table anew");
            copy_again.insert(plan.id.clone());
        }
    }
    let problem = |plan: &StreamPlan, copy_again: &HashSet<String>| {
        if copy_again.contains(&plan.id) { None } else { gap(plan, resume(plan, state), slot) }
    };
    if env.config.on_slot_lost == OnSlotLost::Fail {
        failures.refuse(plans, |plan| problem(plan, copy_again));
        return;
    }
    for plan in plans {
        if let Some(problem) = problem(plan, copy_again) {
            tracing::warn!("{problem}; copying the stream again");
            copy_again.insert(plan.id.clone());
        }
    }
}

/// Returns from where on a stream is to be read.
pub(crate) fn resume(plan: &StreamPlan, state: &State) -> Resume {
    state.resume(&plan.id, Some(plan.table.oid))
}

/// Returns the error for a bookmark that the slot can't serve.
pub(crate) fn gap(plan: &StreamPlan, resume: Resume, (name, slot): (&str, Slot)) -> Option<Error> {
    let id = &plan.id;
    Some(match slot.gap(resume)? {
        Gap::PastTheLog { bookmark, wal_end } => {
            Error::stream(format!("the bookmark of \"{id}\" is at {bookmark}, but the server's log ends at {wal_end}")).hint(
                "the server was restored from a backup or is another one: remove the stream's bookmark to copy it again, or \
                 set on_slot_lost to copy_again",
            )
        }
        Gap::SlotMoved { bookmark, confirmed_flush } => Error::stream(format!(
            "replication slot \"{name}\" stands at {confirmed_flush}, past the bookmark of \"{id}\" at {bookmark}: the \
             changes between are gone"
        ))
        .hint(
            "something else moved the slot, or made it anew: remove the stream's bookmark to copy it again, or set \
             on_slot_lost to copy_again; give each tap a slot of its own",
        ),
    })
}
