//! Whether the tables are still what they were when their bookmarks were written.

use std::collections::HashSet;

use super::bookmarks::resume;
use crate::positions::Resume;
use crate::state::State;
use crate::sync::alterations::Alterations;
use crate::sync::plan::StreamPlan;

/// Has streams copied again whose key is another one than the target knows rows by, or that nobody could tell from others in the
/// end when they were last read, and warns of columns that were altered: the
/// log does not show what that did to rows.
pub(super) fn check_definitions(
    plans: &[StreamPlan],
    state: &State,
    alterations: &Alterations,
    copy_again: &mut HashSet<String>,
) {
    for plan in plans {
        if copy_again.contains(&plan.id) || resume(plan, state) == Resume::Copy {
            continue;
        }
        let Some(altered) = alterations.of(plan.table.oid) else { continue };
        let bookmark = state.bookmark(&plan.id);
        let is_other =
            |seen| alterations.moved_after(plan.table.oid, seen) || alterations.columns_after(plan.table.oid, seen);
        if bookmark.unchecked_since().as_ref().is_some_and(is_other) {
            tracing::warn!(
                "{}: the table was renamed or altered while a run that lost its server read it by its name; copying it again",
                plan.id
            );
            copy_again.insert(plan.id.clone());
            continue;
        }
        let known = bookmark.definition();
        if altered.has_another_key(known.as_ref()) {
            tracing::warn!("{}: the key was made anew since the last run; copying the table again", plan.id);
            copy_again.insert(plan.id.clone());
            continue;
        }
        if altered.has_other_columns(known.as_ref()) {
            let columns = altered.altered_columns().join(", ");
            tracing::warn!(
                "{}: columns were added or altered since the last run{}: rows that nobody has written to since keep in the \
                 target what they had there; where that matters, remove the stream's bookmark to copy the table again",
                plan.id,
                if columns.is_empty() { String::new() } else { format!(" ({columns})") }
            );
        }
    }
}
