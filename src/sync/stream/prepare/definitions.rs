//! Whether the tables are still what they were when their bookmarks were written, and what of that no log shows.

use std::collections::HashSet;

use super::bookmarks::resume;
use crate::config::OutputPluginName;
use crate::pg::table::TableKind;
use crate::positions::Resume;
use crate::state::State;
use crate::sync::plan::StreamPlan;
use crate::sync::stream::alterations::{Alterations, Altered};

/// Has streams copied again whose key is another one than the target knows rows by, and warns of what was altered and does not
/// show in the log.
pub(super) fn check_definitions(
    plans: &[StreamPlan],
    state: &State,
    alterations: &Alterations,
    plugin: OutputPluginName,
    copy_again: &mut HashSet<String>,
) {
    for plan in plans {
        if copy_again.contains(&plan.id) || resume(plan, state) == Resume::Copy {
            continue;
        }
        let Some(altered) = alterations.of(plan.table.oid) else { continue };
        let known = state.bookmark(&plan.id).definition();
        if altered.has_another_key(known) {
            tracing::warn!("{}: the key was made anew since the last run; copying the table again", plan.id);
            copy_again.insert(plan.id.clone());
            continue;
        }
        if altered.has_other_columns(known) {
            tracing::warn!(
                "{}: columns were added or altered since the last run{}: rows that nobody has written to since keep in the \
                 target what they had there; where that matters, remove the stream's bookmark to copy the table again",
                plan.id,
                altered.columns.first().map(|_| format!(" ({})", altered.columns.join(", "))).unwrap_or_default()
            );
        }
        let mut tables: Vec<&Altered> = alterations.of_stream(plan.table.oid).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        for table in tables {
            if let Some(warning) = not_in_the_log(plan, table, plugin) {
                tracing::warn!(
                    "{}: {warning}; where that may be, remove the stream's bookmark to copy the table again",
                    plan.id
                );
            }
        }
    }
}

/// Returns a warning of what became of a table's rows without the log.
fn not_in_the_log(plan: &StreamPlan, table: &Altered, plugin: OutputPluginName) -> Option<String> {
    let name = &table.name;
    if table.attached {
        return Some(format!("{name} was attached as a partition: the rows that it had before are in no log"));
    }
    // What rewrites a table for another type was told of already.
    if !table.other_file || !table.columns.is_empty() {
        return None;
    }
    let is_root = plan.table.kind == TableKind::Partitioned;
    let truncated = if is_root && plugin == OutputPluginName::Pgoutput {
        ", or a TRUNCATE of the partition alone, which pgoutput does not send"
    } else {
        ""
    };
    Some(format!(
        "{name} has other files than it had, as after VACUUM FULL, CLUSTER, TRUNCATE or an ALTER that rewrites it: of such the log \
         lacks what was written while it was UNLOGGED{truncated}"
    ))
}
