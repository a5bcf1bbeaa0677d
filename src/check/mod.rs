//! `--test`: everything that the selected streams need, checked and reported in a line each. Nothing is changed on the
//! server.
//!
//! A failure is what a run would fail of, or leave a stream out for; a warning is what it would go on with. Checks and
//! wording are those of a sync. A line ends with what to do, SQL last.

mod log_based;
mod publication;
mod records;
mod report;
mod server;
mod slot;
mod streams;
mod toast;

use crate::catalog::Catalog;
use crate::cli::TestOutput;
use crate::error::{ErrorKind, Result};
use crate::method::ReplicationMethod;
use crate::state::State;
use crate::sync::env::Env;
use crate::sync::plan::StreamPlan;
use crate::sync::select::{LeftOut, select};
use report::Report;

/// Checks the selected streams, then prints their messages.
///
/// # Errors
/// Where a requirement is not met, and where stdout can't be written.
pub(crate) async fn check(env: &Env, catalog: Option<Catalog>, mut state: State, output: TestOutput) -> Result<()> {
    let mut report = Report::default();
    let mut plans = Vec::new();
    if let Err(error) = requirements(&mut report, env, catalog, &mut state, &mut plans).await {
        report.failure(&error);
    }
    records::write(&mut report, env, state, &mut plans, output).await?;
    report.finish()
}

/// Checks as far as it can: an error is what prevents the rest. Adds the streams that can be read to `plans`.
async fn requirements(
    report: &mut Report,
    env: &Env,
    catalog: Option<Catalog>,
    state: &mut State,
    plans: &mut Vec<StreamPlan>,
) -> Result<()> {
    let client = server::connect(report, env.tables()).await?;
    let without_catalog = catalog.is_none();
    let mut selected = select(&client, env, catalog, state).await?;
    streams::left_out(report, &selected);
    if without_catalog {
        streams::passed_over(report, env, &client).await?;
    }
    plans.append(&mut selected.plans);
    for plan in plans.iter() {
        streams::check(report, env, &client, plan).await?;
        if state.clear_on_change(&plan.id, plan.method, plan.replication_key.as_deref()) {
            report.ok(format!("{}: the replication method or key changed; a run starts the stream anew", plan.id));
        }
    }

    let is_log_based = |method| method == ReplicationMethod::LogBased;
    let others = plans.extract_if(.., |plan| !is_log_based(plan.method)).collect::<Vec<_>>();
    // A stream that the catalog asks for in vain needs no slot.
    let in_vain = |stream: &LeftOut| stream.error.kind() == ErrorKind::Usage;
    let waiting = selected.left_out.iter().any(|stream| stream.method.is_some_and(is_log_based) && !in_vain(stream));
    let checked = match plans.is_empty() && !waiting {
        true => Ok(()),
        false => log_based::check(report, env, &client, plans, state).await,
    };
    plans.extend(others);
    plans.sort_by(|a, b| a.id.cmp(&b.id));
    checked
}
