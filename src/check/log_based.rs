//! What LOG_BASED streams need beside a table that can be read.

use super::report::Report;
use super::{publication, server, slot, toast};
use crate::config::{OnSlotLost, OutputPluginName};
use crate::error::Result;
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::table::{ReplicaIdentity, TableKind};
use crate::positions::{Resume, Slot};
use crate::replication::log_end::log_end;
use crate::state::State;
use crate::sync::alterations::Alterations;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;
use crate::sync::stream::prepare::bookmarks::{gap, resume};
use crate::sync::stream::prepare::definitions::{other_files, unlogged_changes, why_again};
use crate::sync::stream::prepare::slot::{SlotChoice, check_server};
use crate::sync::stream::prepare::warn;

/// Checks the server, the slot, and what these streams need of both. Leaves columns out that are not published.
pub(super) async fn check(
    report: &mut Report,
    env: &Env,
    tables: &Client,
    plans: &mut [StreamPlan],
    state: &State,
) -> Result<()> {
    let primary;
    let client = match &env.secondary {
        Some(_) => {
            primary = server::connect(report, &env.primary).await?;
            &primary
        }
        None => tables,
    };
    if !report.is_failure(check_server(client).await) {
        report.ok("wal_level is logical");
    }
    if let Some(choice) = slot::check(report, env, client, plans, state).await? {
        let mut published = Vec::new();
        if choice.plugin == OutputPluginName::Pgoutput {
            published = publication::check(report, env, client, &choice, plans).await?;
        }
        let stands = choice.slot.as_ref().map(|slot| slot.confirmed_flush);
        bookmarks(report, env, client, &choice.name, stands, plans, state).await?;
        if choice.slot.is_some() {
            alterations(report, client, &choice, &published, plans, state).await?;
        }
    }
    for plan in plans.iter() {
        identity(report, client, plan).await?;
        if let Some(warning) = warn::of_virtual_columns(plan) {
            report.warning(format_args!("{}: {warning}", plan.id));
        }
        toast::check(report, env, client, plan).await?;
    }
    Ok(())
}

/// Checks that the slot has what comes after the bookmarks. `stands`: the slot's position, if it exists.
async fn bookmarks(
    report: &mut Report,
    env: &Env,
    client: &Client,
    slot: &str,
    stands: Option<Lsn>,
    plans: &[StreamPlan],
    state: &State,
) -> Result<()> {
    let wal_end = log_end(client).await?;
    for plan in plans {
        let id = &plan.id;
        let resume = stands.map_or(Resume::Copy, |_| resume(plan, state));
        let stands = Slot { confirmed_flush: stands.unwrap_or_default(), wal_end };
        match (gap(plan, resume, (slot, stands)), resume) {
            (Some(_), Resume::Copying(_)) => report.ok(format_args!("{id}: a run begins with a copy of the table")),
            (Some(error), _) if env.config.on_slot_lost == OnSlotLost::CopyAgain => {
                report.warning_of(&error, "a run copies the stream again");
            }
            (Some(error), _) => report.failure(&error),
            (None, Resume::Copy) => report.ok(format_args!("{id}: a run begins with a copy of the table")),
            (None, Resume::Copying(_)) => report.ok(format_args!("{id}: a run goes on with the copy of the table")),
            (None, Resume::AtSlot) => report.ok(format_args!("{id}: a run goes on where the slot stands")),
            (None, Resume::At(lsn)) => {
                report.ok(format_args!("{id}: the slot has everything since the bookmark at {lsn}"));
            }
        }
    }
    Ok(())
}

/// Checks what was altered since the bookmarks were written.
async fn alterations(
    report: &mut Report,
    client: &Client,
    choice: &SlotChoice,
    published: &[String],
    plans: &[StreamPlan],
    state: &State,
) -> Result<()> {
    let plans: Vec<&StreamPlan> = plans.iter().filter(|plan| resume(plan, state) != Resume::Copy).collect();
    let known = |plan: &&StreamPlan| (plan.table.oid, state.bookmark(&plan.id).definition());
    let tables: Vec<_> = plans.iter().map(known).collect();
    let alterations = Alterations::since_slot(client, &choice.name, &tables, published).await?;
    for plan in plans {
        let (id, bookmark) = (&plan.id, state.bookmark(&plan.id));
        if let Some(why) = why_again(plan, bookmark, &alterations) {
            report.warning(format_args!("{id}: {why}: a run copies the stream again"));
            continue;
        }
        let is_pgoutput = choice.plugin == OutputPluginName::Pgoutput;
        let mut warnings = unlogged_changes(plan, bookmark, &alterations);
        warnings.extend(other_files(plan, &alterations, is_pgoutput));
        for warning in warnings {
            report.warning(format_args!("{id}: {warning}"));
        }
    }
    Ok(())
}

/// Checks what the log holds of old rows.
async fn identity(report: &mut Report, client: &Client, plan: &StreamPlan) -> Result<()> {
    let id = &plan.id;
    match warn::of_identity(plan) {
        // The advice names its partitions one by one.
        Some(warning) if plan.table.kind == TableKind::Partitioned => {
            let advice = toast::full_identity(client, plan).await?;
            report.warning(format_args!("{id}: {warning}; {advice}"));
        }
        Some(warning) => report.warning(format_args!("{id}: {warning}")),
        None => match &plan.table.replica_identity {
            ReplicaIdentity::Columns(columns) => {
                report.ok(format_args!("{id}: the replica identity is {}", columns.join(", ")));
            }
            _ => report.ok(format_args!("{id}: the replica identity is the whole row")),
        },
    }
    Ok(())
}
