//! The copy that a LOG_BASED stream starts with: a snapshot whose place in the log is known exactly.
//!
//! A slot made for the purpose exports a snapshot that sees the transactions committed before its position C and no
//! others, so the copy holds them, and the log from C on holds the rest. Reading a position and then selecting would lose
//! a transaction that is in the log and not yet visible.

mod held_commits;
mod membership;
mod secondary;

use std::time::Duration;

use tokio::time::Instant;

use held_commits::HeldCommits;
use membership::Membership;
use secondary::Secondary;

use crate::sync::output::Context;
use super::rows::{TableSource, copy_table};
use crate::sync::plan::StreamPlan;
use crate::sync::present_columns::PresentColumns;
use crate::sync::transaction_snapshot::{BEGIN, CopySnapshot, TransactionSnapshot};
use crate::sync::env::{Env, next_version, version_now};
use crate::discovery::{Scope, discover};
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::quote;
use crate::pg::wire::Session;
use crate::replication::slot::{ExportedSnapshot, Lifetime, is_no_slot_now, is_standby};
use crate::state::Copy;

/// Streams whose copies start within this time of each other share a snapshot. An older one holds back vacuum for longer
/// than it is worth.
const SHARED_FOR: Duration = Duration::from_secs(60);
/// How often a table may be rewritten between the snapshot and the lock.
const REWRITES: usize = 5;

/// Copies streams, one after the other.
pub(crate) struct Copier<'a> {
    env: &'a Env,
    /// Of the slot that this run made, if it did: that one serves itself.
    exported: Option<ExportedSnapshot>,
    /// The slot's position, and not before what this run acknowledges.
    floor: Lsn,
    /// What the slot is read with; none where no publication decides what is sent.
    publications: Vec<String>,
    session: Option<Session>,
    open: Option<OpenSnapshot>,
    secondary: Option<Secondary<'a>>,
}

/// A transaction that holds a snapshot.
#[derive(Clone)]
struct OpenSnapshot {
    taken: Instant,
    place: Place,
}

/// Where a copy stands in the log.
#[derive(Clone)]
enum Place {
    /// It holds the transactions committed before this.
    At(Lsn),
    /// It holds the transactions that the snapshot sees, all of them committed before `until`.
    Snapshot { snapshot: TransactionSnapshot, until: Lsn, held: HeldCommits },
}

impl<'a> Copier<'a> {
    /// `floor`: the slot's position, or what this run acknowledges if that is later.
    pub(crate) fn new(env: &'a Env, exported: Option<ExportedSnapshot>, floor: Lsn, publications: Vec<String>) -> Self {
        let secondary = env.secondary.as_ref().map(Secondary::new);
        Copier { env, exported, floor, publications, session: None, open: None, secondary }
    }

    /// Copies a stream. A copy that comes back has no position in the log, and its bookmark stays unfinished: the caller has
    /// to stream the table in this run, until it is past what the snapshot sees.
    pub(crate) async fn copy(&mut self, ctx: &mut Context, plan: &mut StreamPlan) -> Result<Option<CopySnapshot>> {
        tracing::info!("{}: copying the table before its changes are streamed", plan.id);
        let bookmark = ctx.state.bookmark(&plan.id);
        let first_run = bookmark.version().is_none() && bookmark.lsn().is_none();
        let version = next_version(bookmark);
        let oid = Some(plan.table.oid);
        // Until its changes are streamed, a copy that no slot stands behind has the position of the main slot.
        let floor = self.floor;
        let env = self.env;
        if !plan.key_properties.is_empty()
            && let Some(session) = self.begin_on_secondary().await?
        {
            ctx.state.set_log_based(&plan.id, floor.0, version, Copy::Unfinished, oid);
            let mut source = TableSource::new(env, env.tables(), session).in_transaction();
            copy_table(ctx, &mut source, plan, version, first_run).await?;
            session.query("COMMIT").await?;
            ctx.state.set_log_based(&plan.id, floor.0, version, Copy::Finished, oid);
            return Ok(None);
        }
        let (place, session) = self.snapshot_for(plan).await?;
        let mut source = TableSource::new(env, &env.primary, session).in_transaction();
        match place {
            Place::At(lsn) => {
                ctx.state.set_log_based(&plan.id, lsn.0, version, Copy::Unfinished, oid);
                copy_table(ctx, &mut source, plan, version, first_run).await?;
                ctx.state.set_log_based(&plan.id, lsn.0, version, Copy::Finished, oid);
                Ok(None)
            }
            Place::Snapshot { snapshot, until, held } => {
                ctx.state.set_log_based(&plan.id, floor.0, version, Copy::Unfinished, oid);
                copy_table(ctx, &mut source, plan, version, first_run).await?;
                Ok(Some(CopySnapshot::new(snapshot, until, held.of(&plan.table))))
            }
        }
    }

    /// A session in a transaction of the secondary's that a copy with a key can be read in, if there is one.
    async fn begin_on_secondary(&mut self) -> Result<Option<&mut Session>> {
        let Some(secondary) = &mut self.secondary else { return Ok(None) };
        let mut published = String::new();
        if !self.publications.is_empty() {
            let session = match &mut self.session {
                Some(session) => session,
                none => none.insert(self.env.primary.session().await?),
            };
            let snapshot = TransactionSnapshot::read(session).await?;
            published = Membership::read(session, &self.publications, &snapshot).await?.rows;
        }
        let session = secondary.begin(self.floor, &self.publications, &published).await?;
        if session.is_none() {
            tracing::info!("the secondary is no standby; copying from the primary");
        }
        Ok(session)
    }

    /// A session on the primary in a transaction whose snapshot sees the table's rows, and which holds the table so that
    /// this stays so. What was rewritten or truncated since the snapshot looks empty to it, and no log tells of it.
    async fn snapshot_for(&mut self, plan: &mut StreamPlan) -> Result<(Place, &mut Session)> {
        for _ in 0..REWRITES {
            let (_, session) = self.snapshot().await?;
            if sees_rows(session, plan).await? {
                let present = PresentColumns::read(session, plan.table.oid).await?;
                if !plan.table.columns.iter().all(|column| present.has(column)) {
                    refresh(self.env, plan).await?;
                }
                return self.snapshot().await;
            }
            tracing::info!("{}: rewritten since the snapshot was taken; taking another", plan.id);
            session.query("COMMIT").await?;
            self.open = None;
        }
        Err(Error::transient(format!("the table of \"{}\" is rewritten again and again", plan.id))
            .hint("copy it when nobody alters or truncates it"))
    }

    /// A session on the primary that is in a transaction with a fresh enough snapshot.
    async fn snapshot(&mut self) -> Result<(Place, &mut Session)> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(self.env.primary.session().await?),
        };
        if let Some(open) = &self.open {
            if open.taken.elapsed() < SHARED_FOR {
                return Ok((open.place.clone(), session));
            }
            session.query("COMMIT").await?;
            self.open = None;
        }
        let exported = match self.exported.take() {
            Some(exported) => Some(exported),
            None => {
                let name = format!("tap_postgres_rs_copy_{}_{}", session.process_id(), version_now());
                match ExportedSnapshot::create(&self.env.primary, &name, "pgoutput", Lifetime::Temporary).await {
                    Ok(exported) => Some(exported),
                    // A standby's snapshot does not list the transactions that are running.
                    Err(error) if is_no_slot_now(&error) && !is_standby(session).await? => {
                        tracing::info!(
                            "no temporary slot for the copy ({error}); its changes are streamed in this run instead"
                        );
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let place = match exported {
            Some(exported) => {
                session.query(BEGIN).await?;
                let sql = format!("SET TRANSACTION SNAPSHOT {}", quote::literal(&exported.snapshot));
                session.query(&sql).await?;
                let place = Place::At(exported.consistent_point);
                exported.close().await;
                place
            }
            None => {
                let held = HeldCommits::read(session).await?;
                session.query(BEGIN).await?;
                current_snapshot(session, held, &self.publications).await?
            }
        };
        self.open = Some(OpenSnapshot { taken: Instant::now(), place: place.clone() });
        Ok((place, session))
    }

    /// Ends the transactions.
    pub(crate) async fn close(&mut self) {
        self.open = None;
        if let Some(session) = self.session.take() {
            session.close().await;
        }
        if let Some(secondary) = self.secondary.take() {
            secondary.close().await;
        }
        if let Some(exported) = self.exported.take() {
            exported.close().await;
        }
    }
}

/// Describes a table again that was altered since it was discovered.
async fn refresh(env: &Env, plan: &mut StreamPlan) -> Result<()> {
    let client = env.primary.connect().await?;
    let wanted = [(plan.table.schema.clone(), plan.table.name.clone())];
    let found = discover(&client, Scope::Tables(&wanted)).await?;
    match found.into_iter().find(|table| table.oid == plan.table.oid) {
        Some(table) => {
            plan.refresh(table, &env.types);
            Ok(())
        }
        None => Err(Error::transient(format!("the table of \"{}\" was dropped during the run", plan.id))
            .hint("run again: a table made anew under its name is another table")),
    }
}

/// The place of a transaction's snapshot. A writer that is older than a table's membership in a publication has changes
/// that are not published, and that the snapshot does not see either. (A slot waits for such writers when it is made.)
async fn current_snapshot(session: &mut Session, held: HeldCommits, publications: &[String]) -> Result<Place> {
    let snapshot = TransactionSnapshot::read(session).await?;
    // The position is read after the snapshot, in which everything visible was committed before it.
    let until = session.query_value("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
    let until = until
        .and_then(|lsn| lsn.parse().ok())
        .ok_or_else(|| Error::run("the server does not say where its WAL ends"))?;
    if !publications.is_empty() && !Membership::read(session, publications, &snapshot).await?.settled {
        return Err(Error::transient("a transaction that is still writing is older than a change of a publication").hint(
            "run again when it has ended; or free a replication slot (max_replication_slots), for which the server waits itself",
        ));
    }
    Ok(Place::Snapshot { snapshot, until, held })
}

/// Takes a lock that keeps the table as it is, and says whether the transaction's snapshot sees its rows: the snapshot's
/// idea of the files against the current one.
pub(crate) async fn sees_rows(session: &mut Session, plan: &StreamPlan) -> Result<bool> {
    // Not LOCK TABLE, which a role that may read but some of the columns may not.
    session.query(&format!("SELECT FROM {} LIMIT 0", plan.own_rows())).await?;
    let sql = format!(
        "WITH RECURSIVE tree(oid) AS (SELECT {oid}::oid UNION ALL SELECT i.inhrelid FROM tree \
         JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid) \
         SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = {oid}) AND NOT EXISTS \
         (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r' \
         AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid))",
        oid = plan.table.oid
    );
    session.query_bool(&sql).await
}
