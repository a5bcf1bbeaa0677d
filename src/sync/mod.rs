//! A sync: what is to be read, in which order, and the methods that read it.

pub(crate) mod cancel;
pub(crate) mod copy;
pub(crate) mod env;
pub(crate) mod output;
pub(crate) mod plan;
mod present_columns;
pub(crate) mod select;
pub(crate) mod stream;
mod visibility;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::method::ReplicationMethod;
use crate::pg::connect::Client;
use crate::positions::{Resume, Stored, Track};

use copy::initial::Copier;
use copy::sessions::Sessions;
use copy::{full_table, incremental};
use env::Env;
use output::Output;
use plan::StreamPlan;
use stream::prepare;
use stream::prepare::Source;
use stream::prepare::bookmarks::resume;

/// Reads every selected stream; without a catalog, everything that the role can read.
///
/// After an error or when dropped at any await, [`Output::cut_short`] makes the state right.
pub async fn sync(output: &mut Output, env: &Env, catalog: Option<Catalog>) -> Result<()> {
    let client = env.tables().connect().await?;
    let mut selected = select::select(&client, env, catalog).await?;
    if !selected.refused.is_empty() {
        return Err(selected.refused.swap_remove(0));
    }
    let plans = std::mem::take(&mut selected.plans);
    tracing::info!("selected streams: {}", plans.iter().map(|plan| plan.id.as_str()).collect::<Vec<_>>().join(", "));

    let unreadable = selected.unreadable_ids();
    for plan in &plans {
        if let Some(warning) = select::hidden_rows(plan, env) {
            tracing::warn!("{}: {warning}", plan.id);
        }
        if output.state.clear_on_change(&plan.id, plan.method, plan.replication_key.as_deref()) {
            tracing::info!("{}: the replication method or key changed; starting anew", plan.id);
        }
    }
    // What the role may not read now, it may read again.
    let is_log_based = |id: &str| {
        plans.iter().any(|p| p.id == id && p.method == ReplicationMethod::LogBased)
            || unreadable.iter().any(|unreadable| unreadable == id)
    };
    output.state.drop_unselected_log_based(is_log_based);

    let (log_based, others): (Vec<_>, Vec<_>) =
        plans.into_iter().partition(|plan| plan.method == ReplicationMethod::LogBased);
    let primary = match (&env.secondary, log_based.is_empty()) {
        (Some(_), false) => &env.primary.connect().await?,
        _ => &client,
    };
    let log_based = LogBased::prepare(output, env, primary, log_based, &unreadable).await?;
    run(output, env, primary, log_based, others).await?;

    selected.left_out()
}

/// The LOG_BASED streams of a run: those to be copied first, and those whose changes are streamed.
struct LogBased {
    source: Option<Source>,
    copies: Vec<StreamPlan>,
    streamed: Vec<StreamPlan>,
    acknowledge: Option<Stored>,
}

impl LogBased {
    /// `unreadable`: streams that are left out of this run; their bookmarks are to be served later.
    async fn prepare(
        output: &mut Output,
        env: &Env,
        client: &Client,
        mut plans: Vec<StreamPlan>,
        unreadable: &[String],
    ) -> Result<LogBased> {
        if plans.is_empty() {
            return Ok(LogBased { source: None, copies: plans, streamed: Vec::new(), acknowledge: None });
        }
        let mut source = prepare::prepare(env, client, &mut plans, &output.state).await?;
        let (streamed, copies): (Vec<_>, Vec<_>) = plans
            .into_iter()
            .partition(|plan| resume(plan, &output.state) != Resume::Copy && !source.copy_again.contains(&plan.id));
        for plan in &copies {
            let oid = output.state.bookmark(&plan.id).table_oid();
            if oid.is_some_and(|oid| oid != plan.table.oid) {
                tracing::warn!("{}: the table was dropped and made again; copying it again", plan.id);
            }
            output.state.announce_copy(&plan.id);
        }
        // What the given state says is stored; no stream that has to be copied waits for anything.
        let of_unreadable = unreadable.iter().map(|id| (id.clone(), output.state.resume(id, None)));
        let left_out: Vec<_> = of_unreadable.filter(|(_, resume)| *resume != Resume::Copy).collect();
        let given = streamed.iter().map(|plan| resume(plan, &output.state));
        let acknowledge = source.position.stored(given.chain(left_out.iter().map(|(_, resume)| *resume)));
        source.streams.extend(left_out.into_iter().map(|(id, _)| id));
        Ok(LogBased { source: Some(source), copies, streamed, acknowledge })
    }
}

async fn run(
    output: &mut Output,
    env: &Env,
    client: &Client,
    log_based: LogBased,
    others: Vec<StreamPlan>,
) -> Result<()> {
    let LogBased { mut source, copies, streamed, acknowledge } = log_based;
    let mut copier = source.as_mut().map(|source| {
        let floor = source.position.floor(acknowledge);
        Copier::new(env, source.exported.take(), floor, source.publications.clone())
    });
    let mut sessions = Sessions::new(env.tables());
    let mut streamed: Vec<(StreamPlan, Track)> = streamed
        .into_iter()
        .map(|plan| match resume(&plan, &output.state) {
            Resume::At(lsn) => (plan, Track::From(lsn)),
            Resume::AtSlot | Resume::Copy => (plan, Track::AtSlot),
        })
        .collect();

    // Copies first: a snapshot holds back vacuum, and a new slot's waits for the first of them.
    let mut queue: Vec<StreamPlan> = copies.into_iter().chain(others).collect();
    let interrupted = output.state.currently_syncing().map(str::to_owned);
    queue.sort_by(|a, b| {
        let rank = |plan: &StreamPlan| match plan.method {
            _ if interrupted.as_deref() == Some(plan.id.as_str()) => 0,
            ReplicationMethod::LogBased => 1,
            ReplicationMethod::FullTable | ReplicationMethod::Incremental => 2,
        };
        rank(a).cmp(&rank(b)).then_with(|| a.id.cmp(&b.id))
    });
    let mut copies_left = queue.iter().filter(|plan| plan.method == ReplicationMethod::LogBased).count();
    for mut plan in queue {
        output.state.set_currently_syncing(Some(&plan.id));
        match plan.method {
            ReplicationMethod::LogBased => {
                let Some(copying) = &mut copier else { continue };
                if let Some(copied) = copying.copy(output, &mut plan).await? {
                    streamed.push((plan, Track::AfterCopy(copied)));
                }
                copies_left -= 1;
                if copies_left == 0
                    && let Some(copier) = copier.take()
                {
                    copier.close().await;
                }
            }
            ReplicationMethod::FullTable => full_table::sync(output, env, &mut sessions, &mut plan).await?,
            ReplicationMethod::Incremental => incremental::sync(output, env, &mut sessions, &mut plan).await?,
        }
        output.state.set_currently_syncing(None);
        output.write_state_between_streams().await?;
    }
    env.query_in_hand.clear();
    output.state.set_currently_syncing(None);
    output.write_state().await?;
    output.hand_over().await?;
    sessions.close().await;
    if let Some(source) = &mut source
        && !streamed.is_empty()
    {
        stream::stream(output, env, client, source, streamed, acknowledge).await?;
    }
    Ok(())
}
