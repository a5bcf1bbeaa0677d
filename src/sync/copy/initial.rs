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

use super::sessions::Sessions;
use super::snapshot::Snapshot;
use super::table::TableCopy;
use crate::discovery::{Scope, discover};
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Server;
use crate::pg::wire::Session;
use crate::positions::{Bookmarkable, CopyPosition, CopySnapshot, TransactionSnapshot};
use crate::replication::slot::{ExportedSnapshot, Lifetime, is_no_slot_now, is_standby};
use crate::state::Copy;
use crate::sync::env::{Env, next_version, version_now};
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;
use crate::sync::present_columns::PresentColumns;
use crate::sync::visibility::visible_to;

/// The time within which streams share a snapshot. An older one holds back vacuum for longer than it is worth.
const SHARED_FOR: Duration = Duration::from_secs(60);
/// The number of times that a table may be rewritten between the snapshot and the lock.
const REWRITES: usize = 5;

/// A copier of streams, one after the other.
pub(crate) struct Copier<'a> {
    env: &'a Env,
    /// The snapshot of the slot that this run made, if it made one. A copy in it needs no other slot.
    exported: Option<ExportedSnapshot>,
    /// The position from which the slot can serve, whatever this run acknowledges.
    floor: Bookmarkable,
    /// The publications that the slot is read with; empty where none decides what is sent.
    publications: Vec<String>,
    sessions: Sessions<'a>,
    open: Option<OpenSnapshot>,
    secondary: Option<Secondary<'a>>,
}

/// A snapshot on the primary, and its place in the log.
struct OpenSnapshot {
    snapshot: Snapshot,
    taken: Instant,
    place: Place,
}

/// The place of a snapshot in the log.
enum Place {
    /// It sees the transactions that committed before this, and no others.
    Exact(Lsn),
    /// It sees what it sees, all of which committed before `until`.
    Visible { transactions: TransactionSnapshot, until: Lsn, held: HeldCommits },
}

impl Place {
    /// Returns the position of a table's copy.
    fn of_copy(&self, plan: &StreamPlan) -> CopyPosition {
        match self {
            Place::Exact(lsn) => CopyPosition::Exact(*lsn),
            Place::Visible { transactions, until, held } => {
                CopyPosition::Visible(CopySnapshot::new(transactions.clone(), *until, held.of(&plan.table)))
            }
        }
    }
}

impl<'a> Copier<'a> {
    /// Returns a copier. `exported`: the snapshot of a slot that this run made; `publications`: what the slot is read
    /// with.
    pub(crate) fn new(
        env: &'a Env,
        exported: Option<ExportedSnapshot>,
        floor: Bookmarkable,
        publications: Vec<String>,
    ) -> Self {
        let secondary = env.secondary.as_ref().map(Secondary::new);
        Copier { env, exported, floor, publications, sessions: Sessions::new(&env.primary), open: None, secondary }
    }

    /// Copies a stream. If it returns a snapshot, the copy has no position in the log and its bookmark stays
    /// unfinished: the caller has to stream the table in this run, until it is past what the snapshot sees.
    pub(crate) async fn copy(&mut self, output: &mut Output, plan: &mut StreamPlan) -> Result<Option<CopySnapshot>> {
        tracing::info!("{}: copying the table before its changes are streamed", plan.id);
        let bookmark = output.state.bookmark(&plan.id);
        let (first_run, version) = (bookmark.is_new(), next_version(bookmark));
        let (id, oid) = (plan.id.clone(), plan.table.oid);
        let env = self.env;
        if !plan.key_properties.is_empty()
            && let Some(mut snapshot) = self.begin_on_secondary().await?
        {
            // Until its changes are streamed, a copy that no slot stands behind has the position of the main slot.
            output.state.set_log_based(&id, self.floor, version, Copy::Unfinished, oid);
            TableCopy { plan, version, first_run }.copy_snapshot(output, env, env.tables(), &mut snapshot).await?;
            if let Some(secondary) = &mut self.secondary {
                secondary.end(snapshot).await?;
            }
            output.state.set_log_based(&id, self.floor, version, Copy::Finished, oid);
            return Ok(None);
        }
        let floor = self.floor;
        let open = self.snapshot_for(plan).await?;
        let position = open.place.of_copy(plan);
        let bookmark = position.bookmark(floor);
        output.state.set_log_based(&id, bookmark, version, Copy::Unfinished, oid);
        let copy = TableCopy { plan, version, first_run };
        let copied = copy.copy_snapshot(output, env, &env.primary, &mut open.snapshot).await;
        if copied.is_err() {
            // What failed in a transaction has ended it.
            self.open = None;
        }
        copied?;
        match position {
            CopyPosition::Exact(_) => {
                output.state.set_log_based(&id, bookmark, version, Copy::Finished, oid);
                Ok(None)
            }
            CopyPosition::Visible(copy) => Ok(Some(copy)),
        }
    }

    /// Returns a snapshot on the secondary that a copy with a key can be read in, if there is one.
    async fn begin_on_secondary(&mut self) -> Result<Option<Snapshot>> {
        let Some(secondary) = &mut self.secondary else { return Ok(None) };
        let mut published = String::new();
        if !self.publications.is_empty() {
            let mut session = self.sessions.take().await?;
            let snapshot = visible_to(&mut session).await?;
            published = Membership::read(&mut session, &self.publications, &snapshot).await?.rows;
            self.sessions.give_back(session);
        }
        let snapshot = secondary.begin(self.floor.lsn(), &self.publications, &published).await?;
        if snapshot.is_none() {
            tracing::info!("the secondary is no standby; copying from the primary");
        }
        Ok(snapshot)
    }

    /// Returns a snapshot on the primary that sees the table's rows, and whose transaction holds the table so that this stays
    /// so.
    async fn snapshot_for(&mut self, plan: &mut StreamPlan) -> Result<&mut OpenSnapshot> {
        for _ in 0..REWRITES {
            let mut open = self.fresh_snapshot().await?;
            if open.snapshot.lock_and_see(plan).await? {
                let present = PresentColumns::read(open.snapshot.session(), plan.table.oid).await?;
                // A column that came since counts as known to the next run.
                if !present.are(&plan.table.columns) {
                    refresh(self.env, &self.env.primary, plan).await?;
                }
                return Ok(self.open.insert(open));
            }
            tracing::info!("{}: rewritten since the snapshot was taken; taking another", plan.id);
            self.sessions.give_back(open.snapshot.end().await?);
        }
        Err(Error::stream(format!("the table of \"{}\" is rewritten again and again", plan.id))
            .hint("copy it when nobody alters or truncates it"))
    }

    /// Returns the open snapshot where it is fresh enough, else another.
    async fn fresh_snapshot(&mut self) -> Result<OpenSnapshot> {
        match self.open.take() {
            Some(open) if open.taken.elapsed() < SHARED_FOR => return Ok(open),
            Some(open) => self.sessions.give_back(open.snapshot.end().await?),
            None => {}
        }
        let mut session = self.sessions.take().await?;
        let (snapshot, place) = match self.export(&mut session).await? {
            Some(exported) => {
                let snapshot = Snapshot::begin_with(session, &exported.snapshot).await?;
                let place = Place::Exact(exported.consistent_point);
                exported.close().await;
                (snapshot, place)
            }
            None => {
                let held = HeldCommits::read(&mut session).await?;
                let mut snapshot = Snapshot::begin(session).await?;
                let place = current_place(snapshot.session(), held, &self.publications).await?;
                (snapshot, place)
            }
        };
        Ok(OpenSnapshot { snapshot, taken: Instant::now(), place })
    }

    /// Returns the snapshot of the slot that this run made, or of a temporary one; `None` where there can be none now.
    async fn export(&mut self, session: &mut Session) -> Result<Option<ExportedSnapshot>> {
        if let Some(exported) = self.exported.take() {
            return Ok(Some(exported));
        }
        let name = format!("tap_postgres_rs_copy_{}_{}", session.process_id(), version_now());
        match ExportedSnapshot::create(&self.env.primary, &name, "pgoutput", Lifetime::Temporary).await {
            Ok(exported) => Ok(Some(exported)),
            // A standby's snapshot does not list the transactions that are running.
            Err(error) if is_no_slot_now(&error) && !is_standby(session).await? => {
                tracing::info!(
                    "no temporary slot for the copy ({error}); its changes are streamed in this run instead"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the transactions.
    pub(crate) async fn close(self) {
        if let Some(open) = self.open {
            open.snapshot.close().await;
        }
        self.sessions.close().await;
        if let Some(secondary) = self.secondary {
            secondary.close().await;
        }
        if let Some(exported) = self.exported {
            exported.close().await;
        }
    }
}

/// Describes a table again, on this server, that was altered since it was discovered.
pub(super) async fn refresh(env: &Env, server: &Server, plan: &mut StreamPlan) -> Result<()> {
    let client = server.connect().await?;
    let wanted = [(plan.table.schema.clone(), plan.table.name.clone())];
    let found = discover(&client, Scope::Tables(&wanted)).await?;
    match found.into_iter().find(|table| table.oid == plan.table.oid) {
        Some(table) => {
            plan.refresh(table, &env.types);
            Ok(())
        }
        None => Err(Error::stream(format!("the table of \"{}\" was dropped during the run", plan.id))
            .hint("run again: a table made anew under its name is another table")),
    }
}

/// Returns the place of a transaction's snapshot. A writer that is older than a table's membership in a publication has
/// changes that are not published, and that the snapshot does not see either. (A slot waits for such writers when it is
/// made.)
async fn current_place(session: &mut Session, held: HeldCommits, publications: &[String]) -> Result<Place> {
    let transactions = visible_to(session).await?;
    // The position is read after the snapshot, in which everything visible was committed before it.
    let until = session.query_value("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
    let until = until
        .and_then(|lsn| lsn.parse().ok())
        .ok_or_else(|| Error::run("the server does not say where its WAL ends"))?;
    if !publications.is_empty() && !Membership::read(session, publications, &transactions).await?.settled {
        return Err(Error::stream("a transaction that is still writing is older than a change of a publication").hint(
            "run again when it has ended; or free a replication slot (max_replication_slots), for which the server waits itself",
        ));
    }
    Ok(Place::Visible { transactions, until, held })
}
