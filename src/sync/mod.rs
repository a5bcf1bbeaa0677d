//! A sync: what is to be read, in which order, and the methods that read it.

pub(crate) mod copy;
pub(crate) mod env;
pub(crate) mod output;
pub(crate) mod plan;
mod present_columns;
pub(crate) mod select;
pub(crate) mod stream;
mod transaction_snapshot;

use crate::catalog::Catalog;
use crate::error::Result;
use crate::method::ReplicationMethod;
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::wire::Session;

use copy::initial::Copier;
use copy::{full_table, incremental};
use env::Env;
use output::Context;
use plan::StreamPlan;
use stream::live::Start;
use stream::prepare;
use stream::prepare::Source;
use stream::prepare::bookmarks::is_streamed;

/// Reads every selected stream; without a catalog, everything that the role can read.
///
/// After an error or when dropped at any await, [`Context::cut_short`] makes the state right.
pub async fn sync(ctx: &mut Context, env: &Env, catalog: Option<Catalog>) -> Result<()> {
    ctx.batches = env.config.batch_config.clone();
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
        if ctx.state.clear_on_change(&plan.id, plan.method, plan.replication_key.as_deref()) {
            tracing::info!("{}: the replication method or key changed; starting anew", plan.id);
        }
    }
    // What the role may not read now, it may read again.
    let is_log_based = |id: &str| {
        plans.iter().any(|p| p.id == id && p.method == ReplicationMethod::LogBased)
            || unreadable.iter().any(|unreadable| unreadable == id)
    };
    ctx.state.drop_unselected_log_based(is_log_based);

    let (log_based, others): (Vec<_>, Vec<_>) =
        plans.into_iter().partition(|plan| plan.method == ReplicationMethod::LogBased);
    let primary = match (&env.secondary, log_based.is_empty()) {
        (Some(_), false) => &env.primary.connect().await?,
        _ => &client,
    };
    let log_based = LogBased::prepare(ctx, env, primary, log_based, &unreadable).await?;
    run(ctx, env, primary, log_based, others).await?;

    selected.left_out()
}

/// The LOG_BASED streams of a run: those to be copied first, and those whose changes are streamed.
struct LogBased {
    source: Option<Source>,
    copies: Vec<StreamPlan>,
    streamed: Vec<StreamPlan>,
    acknowledge: Option<Lsn>,
}

impl LogBased {
    /// `unreadable`: streams that are left out of this run; their bookmarks are to be served later.
    async fn prepare(
        ctx: &mut Context,
        env: &Env,
        client: &Client,
        mut plans: Vec<StreamPlan>,
        unreadable: &[String],
    ) -> Result<LogBased> {
        if plans.is_empty() {
            return Ok(LogBased { source: None, copies: plans, streamed: Vec::new(), acknowledge: None });
        }
        let mut source = prepare::prepare(env, client, &mut plans, &ctx.state).await?;
        let (streamed, copies): (Vec<_>, Vec<_>) =
            plans.into_iter().partition(|plan| is_streamed(plan, &ctx.state) && !source.copy_again.contains(&plan.id));
        for plan in &copies {
            let oid = ctx.state.bookmark(&plan.id).table_oid();
            if oid.is_some_and(|oid| oid != plan.table.oid) {
                tracing::warn!("{}: the table was dropped and made again; copying it again", plan.id);
            }
            ctx.state.announce_copy(&plan.id);
        }
        // What the given state says is stored, and no position that means "where the slot stands".
        let is_waited_for = |id: &&String| !ctx.state.copy_unfinished(id) && ctx.state.bookmark(id).lsn().is_some();
        let left_out: Vec<String> = unreadable.iter().filter(is_waited_for).cloned().collect();
        let ids = streamed.iter().map(|plan| &plan.id).chain(&left_out);
        let stored = ids.map(|id| ctx.state.bookmark(id).lsn()).min().flatten();
        source.streams.extend(left_out);
        let acknowledge = stored.filter(|lsn| *lsn != 1).map(Lsn).filter(|lsn| *lsn > source.confirmed_flush);
        Ok(LogBased { source: Some(source), copies, streamed, acknowledge })
    }
}

async fn run(
    ctx: &mut Context,
    env: &Env,
    client: &Client,
    log_based: LogBased,
    others: Vec<StreamPlan>,
) -> Result<()> {
    let LogBased { source, copies, streamed, acknowledge } = log_based;
    let mut source = source;
    let floor = source.as_ref().map_or(Lsn::INVALID, |s| s.confirmed_flush.max(acknowledge.unwrap_or_default()));
    let exported = source.as_mut().and_then(|source| source.exported.take());
    let publications = source.as_ref().map_or_else(Vec::new, |source| source.publications.clone());
    let mut copier = Copier::new(env, exported, floor, publications);
    let mut tables: Option<Session> = None;
    let mut streamed: Vec<(StreamPlan, Start)> = streamed
        .into_iter()
        .map(|plan| {
            let lsn = ctx.state.bookmark(&plan.id).lsn().filter(|lsn| *lsn != 1).map(Lsn);
            (plan, Start::Bookmark(lsn))
        })
        .collect();

    // Copies first: a snapshot holds back vacuum, and a new slot's waits for the first of them.
    let mut queue: Vec<StreamPlan> = copies.into_iter().chain(others).collect();
    let interrupted = ctx.state.currently_syncing().map(str::to_owned);
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
        ctx.state.set_currently_syncing(Some(&plan.id));
        match plan.method {
            ReplicationMethod::LogBased => {
                if let Some(copied) = copier.copy(ctx, &mut plan).await? {
                    streamed.push((plan, Start::Snapshot(copied)));
                }
                copies_left -= 1;
                if copies_left == 0 {
                    copier.close().await;
                }
            }
            method => {
                let session = match &mut tables {
                    Some(session) => session,
                    none => none.insert(env.tables().session().await?),
                };
                if method == ReplicationMethod::FullTable {
                    full_table::sync(ctx, env, session, &mut plan).await?;
                } else {
                    ctx.cancels(env.tables(), session);
                    incremental::sync(ctx, session, &mut plan, env.config.limit()).await?;
                }
            }
        }
        ctx.state.set_currently_syncing(None);
        ctx.write_state_between_streams().await?;
    }
    ctx.cancels_nothing();
    ctx.state.set_currently_syncing(None);
    ctx.write_state().await?;
    ctx.hand_over().await?;
    if let Some(session) = tables {
        session.close().await;
    }
    if let Some(source) = &mut source
        && !streamed.is_empty()
    {
        stream::run(ctx, env, client, source, streamed, acknowledge).await?;
    }
    Ok(())
}
