//! Whether the tables are still what they were when their bookmarks were written.

use std::collections::HashSet;

use super::bookmarks::resume;
use crate::pg::table::TableKind;
use crate::positions::Resume;
use crate::state::{Bookmark, State};
use crate::sync::alterations::{Alterations, Altered};
use crate::sync::plan::StreamPlan;

/// Has streams copied again that the target does not know by the key they have now, or whose rows nobody could tell from others in
/// the end when they were last read, and those whose copy can't go on; warns of what was altered of the others: the log does not show
/// what that did to rows. `whole`: streams that are copied in one piece.
pub(super) fn check_definitions(
    plans: &[StreamPlan],
    state: &State,
    alterations: &Alterations,
    whole: &HashSet<String>,
    copy_again: &mut HashSet<String>,
) {
    for plan in plans {
        if copy_again.contains(&plan.id) || resume(plan, state) == Resume::Copy {
            continue;
        }
        let bookmark = state.bookmark(&plan.id);
        if let Some(why) = why_again(plan, bookmark, alterations) {
            tracing::warn!("{}: {why}; copying the table again", plan.id);
            copy_again.insert(plan.id.clone());
            continue;
        }
        if let (Resume::Copying(_), Some(progress)) = (resume(plan, state), bookmark.progress()) {
            let cannot_go_on = whole.contains(&plan.id).then_some("not all of its changes are published");
            if let Some(why) = cannot_go_on.or_else(|| alterations.why_copy_anew(plan.table.oid, &progress.definition))
            {
                tracing::warn!("{}: {why} while it was copied; copying the table anew", plan.id);
                copy_again.insert(plan.id.clone());
            } else if alterations.lacks_partitions(plan.table.oid, &progress.definition) {
                tracing::warn!("{}: {PARTITIONS_GONE}", plan.id);
            }
            continue;
        }
        for what in unlogged_changes(plan, bookmark, alterations) {
            tracing::warn!("{}: {what}", plan.id);
        }
    }
}

/// Returns why a table has to be copied again, if it has.
pub(crate) fn why_again(plan: &StreamPlan, bookmark: Bookmark<'_>, alterations: &Alterations) -> Option<&'static str> {
    let oid = plan.table.oid;
    let altered = alterations.of(oid)?;
    let is_other = |seen| alterations.moved_after(oid, seen) || alterations.columns_after(oid, seen);
    if bookmark.unchecked_since().as_ref().is_some_and(is_other) {
        return Some("the table was renamed or altered while a run that lost its server read it by its name");
    }
    altered.has_another_key(bookmark.definition().as_ref()).then_some("the key was made anew since the last run")
}

/// Returns warnings of what was altered since the bookmark was written and may have changed rows, or kept changes of them from the
/// log.
pub(crate) fn unlogged_changes(plan: &StreamPlan, bookmark: Bookmark<'_>, alterations: &Alterations) -> Vec<String> {
    let oid = plan.table.oid;
    let known = bookmark.definition();
    let mut changes = Vec::new();
    if let Some(altered) = alterations.of(oid).filter(|altered| altered.has_other_columns(known.as_ref())) {
        let columns = altered.altered_columns().join(", ");
        let columns = if columns.is_empty() { String::new() } else { format!(" ({columns})") };
        changes.push(format!(
            "columns were added or altered since the last run{columns}: rows that nobody has written to since keep in the target \
             what they had there{COPY_AGAIN}"
        ));
    }
    if known.is_some_and(|known| alterations.lacks_partitions(oid, &known)) {
        changes.push(PARTITIONS_GONE.to_owned());
    }
    let mut tables: Vec<&Altered> = alterations.of_stream(oid).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    if tables.iter().any(|table| table.was_published_anew()) {
        changes.push(format!(
            "its place in the publication, or what that publishes, may have been altered for a while: what was not published then \
             is not in the log{COPY_AGAIN}"
        ));
    }
    let attached: Vec<&str> =
        tables.iter().filter(|table| table.was_attached()).map(|table| table.name.as_str()).collect();
    if !attached.is_empty() {
        let names = some_of(&attached);
        changes.push(format!(
            "attached as a partition: {names}: the rows that were there before are in no log{COPY_AGAIN}"
        ));
    }
    changes
}

/// Returns a warning of tables, of a stream's, whose rows are in other files than they were in.
pub(crate) fn other_files(plan: &StreamPlan, alterations: &Alterations, is_pgoutput: bool) -> Option<String> {
    let is_other = |table: &&Altered| table.has_other_file() && !table.was_attached();
    let tables = alterations.of_stream(plan.table.oid).filter(is_other);
    let mut names: Vec<&str> = tables.map(|table| table.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    let truncated = if is_pgoutput && plan.table.kind == TableKind::Partitioned {
        ", or a TRUNCATE of a partition alone, which pgoutput does not send"
    } else {
        ""
    };
    Some(format!(
        "other files than before, as after VACUUM FULL, CLUSTER or an ALTER that rewrites a table: {}: of such the log lacks what \
         was written while it was UNLOGGED{truncated}{COPY_AGAIN}",
        some_of(&names)
    ))
}

/// Returns some of these names, and how many more there are.
fn some_of(names: &[&str]) -> String {
    const SOME: usize = 5;
    match names.split_at_checked(SOME) {
        Some((some, more)) if !more.is_empty() => format!("{} and {} more", some.join(", "), more.len()),
        _ => names.join(", "),
    }
}

/// What is told of partitions that are gone.
pub(crate) const PARTITIONS_GONE: &str = "partitions were detached or dropped: the rows that they had stay in the target; where \
                                          that matters, remove the stream's bookmark to copy the table again";

const COPY_AGAIN: &str = "; where that matters, remove the stream's bookmark to copy the table again";
