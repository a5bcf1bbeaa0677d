//! A sync: what is to be read, in which order, and the methods that read it.

pub(crate) mod alterations;
pub(crate) mod cancel;
pub(crate) mod copy;
pub(crate) mod env;
pub(crate) mod failures;
pub(crate) mod form;
pub(crate) mod output;
pub(crate) mod plan;
mod present_columns;
pub(crate) mod select;
pub(crate) mod stream;
mod visibility;

use std::time::Duration;

use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::method::ReplicationMethod;
use crate::pg::connect::Client;
use crate::positions::{Resume, Stored, Track};
use crate::state::State;

use copy::initial::{Copier, Origin};
use copy::sessions::Sessions;
use copy::{full_table, incremental, xmin};
use env::Env;
use failures::Failures;
use output::Output;
use plan::StreamPlan;
use select::Selected;
use stream::prepare;
use stream::prepare::Source;
use stream::prepare::bookmarks::resume;

/// Reads every selected stream; without a catalog, everything that the role can read. Returns which of them failed.
///
/// After an error or when dropped at any await, [`Output::cut_short`] makes the state right.
pub(crate) async fn sync(output: &mut Output, env: &Env, catalog: Option<Catalog>) -> Result<Failures> {
    let client = env.tables().connect().await?;
    let Selected { plans, left_out } = select::select(&client, env, catalog, &output.state).await?;
    let mut failures = Failures::default();
    for stream in &left_out {
        failures.add(&stream.id, &stream.error);
    }
    tracing::info!("selected streams: {}", plans.iter().map(|plan| plan.id.as_str()).collect::<Vec<_>>().join(", "));

    for plan in &plans {
        for warning in select::warnings(plan, env) {
            tracing::warn!("{}: {warning}", plan.id);
        }
        if output.state.clear_on_change(&plan.id, plan.method, plan.replication_key.as_deref()) {
            tracing::info!("{}: the replication method or key changed; starting anew", plan.id);
        }
    }
    // What can't be read now may be read again.
    let is_log_based = |id: &str| {
        plans.iter().any(|plan| plan.id == id && plan.method == ReplicationMethod::LogBased)
            || left_out.iter().any(|stream| stream.id == id && stream.may_be_log_based())
    };
    output.state.drop_unselected_log_based(is_log_based);

    let (log_based, others): (Vec<_>, Vec<_>) =
        plans.into_iter().partition(|plan| plan.method == ReplicationMethod::LogBased);
    let primary = match (&env.secondary, log_based.is_empty()) {
        (Some(_), false) => &env.primary.connect().await?,
        _ => &client,
    };
    let log_based = LogBased::prepare(output, env, primary, log_based, &mut failures).await?;
    run(output, env, (primary, &client), log_based, others, &mut failures).await?;
    Ok(failures)
}

/// A stream whose changes are streamed from its place on.
struct Streamed {
    plan: StreamPlan,
    track: Track,
}

/// The LOG_BASED streams of a run.
struct LogBased {
    source: Source,
    /// Those that are copied first, or of which a copy goes on.
    copies: Vec<StreamPlan>,
    /// Those whose changes are streamed.
    streamed: Vec<Streamed>,
    acknowledge: Option<Stored>,
}

impl LogBased {
    /// Checks what the streams need, and divides them; `None` where there are none.
    async fn prepare(
        output: &mut Output,
        env: &Env,
        client: &Client,
        mut plans: Vec<StreamPlan>,
        failures: &mut Failures,
    ) -> Result<Option<LogBased>> {
        if plans.is_empty() {
            return Ok(None);
        }
        let Some(mut source) = prepare::prepare(env, client, &mut plans, &output.state, failures).await? else {
            return Ok(None);
        };
        let (mut copies, mut new, mut streamed, mut given) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            let resume = resume(&plan, &output.state);
            let track = match resume {
                _ if source.copy_again.contains(&plan.id) => None,
                Resume::At(lsn) => Some(Track::From(lsn)),
                Resume::AtSlot => Some(Track::AtSlot),
                Resume::Copy | Resume::Copying(_) => None,
            };
            let goes_on = track.is_some() || matches!(resume, Resume::Copying(_));
            if goes_on && !source.copy_again.contains(&plan.id) {
                given.push(resume);
            } else {
                new.push(plan.id.clone());
            }
            match track {
                Some(track) => streamed.push(Streamed { plan, track }),
                None => copies.push(plan),
            }
        }
        for plan in copies.iter().filter(|plan| new.contains(&plan.id)) {
            let oid = output.state.bookmark(&plan.id).table_oid();
            if oid.is_some_and(|oid| oid != plan.table.oid) {
                tracing::warn!("{}: the table was dropped and made again; copying it again", plan.id);
            }
            output.state.announce_copy(&plan.id);
        }
        // A stream that failed goes on from its bookmark one day. One that is copied then needs nothing of the slot.
        for id in failures.streams() {
            let resume = output.state.resume(id, None);
            if resume != Resume::Copy {
                given.push(resume);
                source.streams.push(id.clone());
            }
        }
        let acknowledge = source.position.stored(given);
        Ok(Some(LogBased { source, copies, streamed, acknowledge }))
    }
}

/// Reads the streams: copies first, since a snapshot holds back vacuum, and a new slot's waits for the first of them. `clients`: the
/// connections to the primary, and to where tables are read.
async fn run(
    output: &mut Output,
    env: &Env,
    clients: (&Client, &Client),
    mut log_based: Option<LogBased>,
    others: Vec<StreamPlan>,
    failures: &mut Failures,
) -> Result<()> {
    let copies = log_based.as_mut().map(|log_based| std::mem::take(&mut log_based.copies)).unwrap_or_default();
    let mut copies_left = copies.len();
    let mut copier = log_based.as_mut().filter(|_| copies_left > 0).map(|LogBased { source, acknowledge, .. }| {
        let origin = Origin {
            floor: source.position.floor(*acknowledge),
            publications: source.publications.clone(),
            alterations: source.alterations.clone(),
            whole: source.whole.clone(),
        };
        Copier::new(env, source.exported.take(), origin, clients)
    });
    let mut copying = Duration::ZERO;
    let mut sessions = Sessions::new(env.tables(), clients.1);
    for mut plan in in_order(copies, others, &output.state) {
        output.state.set_currently_syncing(Some(&plan.id));
        let mut track = None;
        let worked = match (plan.method, &mut copier) {
            (ReplicationMethod::LogBased, Some(copier)) => {
                copies_left -= 1;
                let began = Instant::now();
                let worked = copier.copy(output, &mut plan).await.map(|copied| track = copied);
                copying += began.elapsed();
                worked
            }
            (ReplicationMethod::LogBased, None) => Ok(()),
            (ReplicationMethod::FullTable, _) => full_table::sync(output, env, &mut sessions, &mut plan).await,
            (ReplicationMethod::Incremental, _) if plan.is_by_xmin() => {
                xmin::sync(output, env, &mut sessions, &mut plan).await
            }
            (ReplicationMethod::Incremental, _) => incremental::sync(output, env, &mut sessions, &mut plan).await,
        };
        failures.take(&plan.id, worked)?;
        if let Some(log_based) = &mut log_based {
            if resume(&plan, &output.state) == Resume::Copy && track.is_none() {
                // It is copied anew, whatever the log keeps for it.
                log_based.source.streams.retain(|id| *id != plan.id);
            }
            log_based.streamed.extend(track.map(|track| Streamed { plan, track }));
        }
        if copies_left == 0
            && let Some(copier) = copier.take()
        {
            copier.close().await;
        }
        output.state.set_currently_syncing(None);
        output.write_state_between_streams().await?;
    }
    env.query_in_hand.clear();
    output.state.set_currently_syncing(None);
    output.write_state().await?;
    output.hand_over().await?;
    sessions.close().await;
    match log_based {
        Some(LogBased { mut source, streamed, acknowledge, .. }) if !streamed.is_empty() => {
            stream::stream(output, env, clients.0, &mut source, streamed, (acknowledge, copying), failures).await
        }
        _ => Ok(()),
    }
}

/// Puts the tables to be read in order: the one that a run was interrupted in, LOG_BASED copies that are under way, those that are
/// to begin, the others; by id.
fn in_order(copies: Vec<StreamPlan>, others: Vec<StreamPlan>, state: &State) -> Vec<StreamPlan> {
    let mut queue: Vec<StreamPlan> = copies.into_iter().chain(others).collect();
    queue.sort_by(|a, b| {
        let rank = |plan: &StreamPlan| match plan.method {
            _ if state.currently_syncing() == Some(plan.id.as_str()) => 0,
            ReplicationMethod::LogBased if matches!(resume(plan, state), Resume::Copying(_)) => 1,
            ReplicationMethod::LogBased => 2,
            ReplicationMethod::FullTable | ReplicationMethod::Incremental => 3,
        };
        rank(a).cmp(&rank(b)).then_with(|| a.id.cmp(&b.id))
    });
    queue
}
