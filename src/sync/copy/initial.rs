//! The copy that a LOG_BASED stream starts with: a snapshot whose place in the log is known exactly.
//!
//! A slot made for the purpose exports a snapshot that sees the transactions committed before its position C and no
//! others, so the copy holds them, and the log from C on holds the rest. Reading a position and then selecting would lose
//! a transaction that is in the log and not yet visible. Where no such slot can be made, or a standby is read, the log of the same
//! run decides what the copy lacks; and a table with a key is read in slices, each in a snapshot of its own ([`Slices`](crate::positions::Slices)).

mod copied;
mod held_commits;
mod membership;
mod secondary;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use copied::{Copied, Copying, tell};
use held_commits::HeldCommits;
use membership::Membership;
use secondary::Secondary;

use super::held::{Present, describe_held};
use super::parallel;
use super::query::copy_snapshot;
use super::ranges::{Heaps, Ranges, why_not};
use super::reading::Reading;
use super::rows::RowQuery;
use super::sessions::Sessions;
use super::snapshot::Snapshot;
use super::table::TableCopy;
use super::watermark::Watermark;
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::{Client, Server};
use crate::pg::wire::Session;
use crate::positions::{Bookmarkable, CopyPosition, CopySnapshot, Track, TransactionSnapshot};
use crate::replication::slot::{ExportedSnapshot, Lifetime, is_no_slot_now, is_standby};
use crate::state::{Copy, Progress};
use crate::sync::alterations::Alterations;
use crate::sync::env::{Env, version_now};
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;
use crate::sync::visibility::{visible_to, wait_visible};

/// The time within which streams share a snapshot. An older one holds back vacuum for longer than it is worth.
const SHARED_FOR: Duration = Duration::from_secs(60);
/// The number of times that a table may be rewritten between the snapshot and the lock.
const REWRITES: usize = 5;

/// A copier of streams, one after the other.
pub(crate) struct Copier<'a> {
    env: &'a Env,
    /// The snapshot of the slot that this run made, if it made one. A copy in it needs no other slot.
    exported: Option<ExportedSnapshot>,
    origin: Origin,
    sessions: Sessions<'a>,
    open: Option<OpenSnapshot>,
    secondary: Option<Secondary<'a>>,
    /// When no table is begun any more, and no slice.
    late: Option<Instant>,
    /// Whether a table was begun.
    has_begun: bool,
}

/// What the changes of copied tables come from.
pub(crate) struct Origin {
    /// The position from which the slot can serve, whatever this run acknowledges.
    pub(crate) floor: Bookmarkable,
    /// The publications that the slot is read with; empty where none decides what is sent.
    pub(crate) publications: Vec<String>,
    /// What was altered of the tables.
    pub(crate) alterations: Alterations,
    /// The streams that are copied in one piece.
    pub(crate) whole: HashSet<String>,
}

/// A snapshot, and its place in the log.
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
    /// It is the secondary's, and sees what that has replayed, all of which committed before this.
    Replayed(Lsn),
}

impl Place {
    /// Returns the server that it is of.
    fn server<'e>(&self, env: &'e Env) -> &'e Server {
        if matches!(self, Place::Replayed(_)) { env.tables() } else { &env.primary }
    }

    /// Returns the position of a table's copy.
    fn of_copy(&self, plan: &StreamPlan) -> CopyPosition {
        match self {
            Place::Exact(lsn) => CopyPosition::Exact(*lsn),
            Place::Replayed(until) => CopyPosition::Replayed(*until),
            Place::Visible { transactions, until, held } => {
                CopyPosition::Visible(CopySnapshot::new(transactions.clone(), *until, held.of(&plan.table)))
            }
        }
    }
}

impl<'a> Copier<'a> {
    /// Returns a copier. `exported`: the snapshot of a slot that this run made; `clients`: the run's connections to the primary, and to
    /// where tables are read.
    pub(crate) fn new(
        env: &'a Env,
        exported: Option<ExportedSnapshot>,
        origin: Origin,
        clients: (&'a Client, &'a Client),
    ) -> Self {
        let secondary = env.secondary.as_ref().map(|server| Secondary::new(server, clients.1));
        let time = env.config.max_copy().map_or(env.config.max_run(), |most| most.min(env.config.max_run()));
        Copier {
            env,
            exported,
            origin,
            sessions: Sessions::new(&env.primary, clients.0),
            open: None,
            secondary,
            late: Instant::now().checked_add(time),
            has_begun: false,
        }
    }

    /// Copies a stream, or goes on with it, as far as there is time: a table with a key in slices, in snapshots that are soon
    /// replaced, others in one. Returns from where on its changes have to be streamed in this run; `None` if a later run can do
    /// that, or has to copy the table.
    pub(crate) async fn copy(&mut self, output: &mut Output, plan: &mut StreamPlan) -> Result<Option<Track>> {
        let id = &plan.id;
        let mut copying = Copying::of(plan, &output.state);
        if self.is_late() && self.has_begun {
            tracing::info!("{id}: there is no time left to copy it in this run");
            return Ok(copying.copied.map(|copied| Track::Slices(copied.slices)));
        }
        self.has_begun = true;
        match &copying.copied {
            None => tracing::info!("{id}: copying the table before its changes are streamed"),
            Some(_) => tracing::info!("{id}: going on with the copy of the table"),
        }
        loop {
            if let ControlFlow::Break(track) = self.read_snapshot(output, plan, &mut copying).await? {
                return Ok(track);
            }
        }
    }

    /// Reads what there is time for in one snapshot. Breaks with what the copy comes to in this run.
    async fn read_snapshot(
        &mut self,
        output: &mut Output,
        plan: &mut StreamPlan,
        copying: &mut Copying,
    ) -> Result<ControlFlow<Option<Track>>> {
        let (id, oid) = (plan.id.clone(), plan.table.oid);
        let (mut open, altered) = self.snapshot_for(plan, copying.from()).await?;
        let heaps = self.heaps(&mut open, plan).await?;
        copying.check(&id, heaps.as_ref(), &output.state);
        if altered && copying.copied.is_some() {
            self.look_again().await?;
            copying.begin_anew(&id, "columns were added or altered while it was copied", &output.state);
        }
        let from = copying.from();
        let mut reading = Reading::of(RowQuery::of(plan), copying.version);
        let definition = copying.definition(&id, &self.origin.alterations, oid)?;
        let progress = heaps.as_ref().map(|heaps| Progress {
            page: copying.page(),
            files: heaps.files(),
            definition: definition.clone(),
        });
        self.divide(&mut open, plan, heaps.as_ref().zip(progress), &mut reading).await?;
        let mut position = open.place.of_copy(plan);
        copying.narrow(&mut position);
        if (reading.watermark.is_some() || from.is_some()) && !position.holds_until(from.unwrap_or_default()) {
            // What a later slice lacks of a transaction that an earlier run has streamed would never come again.
            self.end(open).await?;
            copying.wait(&id).await?;
            return Ok(ControlFlow::Continue(()));
        }
        copying.waits = None;
        let place = position.bookmark(self.origin.floor);
        let alterations = &self.origin.alterations;
        let copied = copying.copied.get_or_insert_with(|| {
            output.state.set_log_based(&id, place, copying.version, Copy::Unfinished, oid);
            let known = match position {
                CopyPosition::Exact(_) => Some(definition.clone()),
                // The bookmark may lie before what was altered.
                CopyPosition::Visible(_) | CopyPosition::Replayed(_) => alterations.definition_at_slot(oid),
            };
            if let Some(known) = known {
                output.state.set_definition(&id, &known);
            }
            Copied::begin(place.lsn(), definition)
        });
        if !copying.announced || altered {
            TableCopy { plan, version: copying.version, first_run: copying.first_run }.begin(output);
            (copying.announced, copying.first_run) = (true, false);
        }
        copy_snapshot(output, self.env, open.place.server(self.env), &mut open.snapshot, plan, &mut reading).await?;
        copied.add(&position);
        if let Some(mark) = reading.watermark {
            copied.progress = mark.into_progress();
        }
        if reading.ranges.is_left() {
            output.state.set_progress(&id, &copied.progress);
            if let Some(heaps) = &heaps {
                tell(&id, heaps, &copied.progress, copying.began, self.is_late());
            }
            self.end(open).await?;
            output.write_state().await?;
            let track = Track::Slices(copied.slices);
            return Ok(if self.is_late() { ControlFlow::Break(Some(track)) } else { ControlFlow::Continue(()) });
        }
        if !copied.is_of_one_snapshot {
            self.look_again().await?;
            if let Some(why) = self.origin.alterations.why_copy_anew(oid, &copied.progress.definition) {
                copying.begin_anew(&id, &format!("{why} while it was copied"), &output.state);
                self.end(open).await?;
                return Ok(ControlFlow::Continue(()));
            }
        }
        output.activate_version(&id, copying.version);
        self.keep(open).await?;
        Ok(ControlFlow::Break(match position {
            CopyPosition::Visible(copy) if copied.is_of_one_snapshot => Some(Track::AfterCopy(copy)),
            CopyPosition::Exact(_) | CopyPosition::Replayed(_) if copied.is_of_one_snapshot => {
                output.state.finish_copy(&id, place);
                None
            }
            _ => {
                let longest = heaps.map_or(0, |heaps| heaps.longest());
                copied.progress.page = copied.progress.page.max(longest);
                output.state.set_progress(&id, &copied.progress);
                copied.slices.complete();
                Some(Track::Slices(copied.slices))
            }
        }))
    }

    /// Says what is read in a snapshot of a copy that is so far.
    async fn divide(
        &self,
        open: &mut OpenSnapshot,
        plan: &StreamPlan,
        heaps: Option<(&Heaps, Progress)>,
        reading: &mut Reading,
    ) -> Result<()> {
        let (env, session) = (self.env, open.snapshot.session());
        let Some((heaps, progress)) = heaps else {
            if parallel::is_possible(env, session, plan) {
                parallel::divide(env, session, plan, reading).await?;
            }
            return Ok(());
        };
        let page = progress.page;
        reading.ranges = Ranges::of_bytes(heaps, env.slicing.bytes, page);
        let (sent, all) = heaps.bytes(page);
        let rows = u128::from(plan.table.row_estimate.unsigned_abs()) * u128::from(sent) / u128::from(all.max(1));
        reading.before = u64::try_from(rows).unwrap_or(0);
        let is_divided = reading.ranges.clone().nth(1).is_some();
        if is_divided || page > 0 {
            reading.watermark = Some(Watermark::new(&plan.id, progress, env.slicing.state_interval));
            let old = open.taken.checked_add(env.slicing.snapshot_age);
            reading.until = [old, self.late].into_iter().flatten().min();
        }
        reading.several =
            is_divided && parallel::is_possible(env, session, plan) && parallel::may_export(session, plan).await?;
        Ok(())
    }

    /// Reads what was altered by now.
    async fn look_again(&mut self) -> Result<()> {
        let client = self.sessions.client();
        let seen = wait_visible(client, std::iter::empty()).await?;
        self.origin.alterations = self.origin.alterations.again(client, seen).await?;
        Ok(())
    }

    /// Returns the heaps of a table that can be copied in slices: by its key the target tells a row that comes again, and the log has
    /// those that move.
    async fn heaps(&self, open: &mut OpenSnapshot, plan: &StreamPlan) -> Result<Option<Heaps>> {
        let session = open.snapshot.session();
        if plan.key_properties.is_empty() || self.origin.whole.contains(&plan.id) || why_not(session, plan).is_some() {
            return Ok(None);
        }
        Heaps::read(session, plan).await
    }

    fn is_late(&self) -> bool {
        self.late.is_some_and(|late| Instant::now() >= late)
    }

    /// Returns a snapshot on the secondary that sees everything that committed before this, if there is a secondary.
    async fn on_secondary(&mut self, position: Lsn) -> Result<Option<OpenSnapshot>> {
        let Some(secondary) = &mut self.secondary else { return Ok(None) };
        let mut published = String::new();
        if !self.origin.publications.is_empty() {
            let mut session = self.sessions.take().await?;
            let snapshot = visible_to(&mut session).await?;
            published = Membership::read(&mut session, &self.origin.publications, &snapshot).await?.rows;
            self.sessions.give_back(session);
        }
        let Some(mut snapshot) = secondary.begin(position, &self.origin.publications, &published).await? else {
            tracing::info!("the secondary is no standby; copying from the primary");
            return Ok(None);
        };
        let taken = Instant::now();
        // The position is read after the snapshot.
        let sql = "SELECT pg_catalog.pg_last_wal_replay_lsn() FROM pg_catalog.pg_class LIMIT 1";
        let place = Place::Replayed(position_of(snapshot.session(), sql).await?);
        Ok(Some(OpenSnapshot { snapshot, taken, place }))
    }

    /// Returns a snapshot that sees the table's rows, and whose transaction holds the table so that this stays so; and whether the
    /// table was described anew for it. `from`: it has to see everything that committed before this.
    async fn snapshot_for(&mut self, plan: &mut StreamPlan, from: Option<Lsn>) -> Result<(OpenSnapshot, bool)> {
        let (env, mut altered) = (self.env, false);
        for _ in 0..REWRITES {
            let mut open = self.fresh_snapshot(plan, from).await?;
            env.query_in_hand.set(open.place.server(env), open.snapshot.session());
            if open.snapshot.lock_and_see(plan).await? {
                // A column that came since counts as known to the next run.
                let client = match (&self.secondary, &open.place) {
                    (Some(secondary), Place::Replayed(_)) => secondary.client(),
                    _ => self.sessions.client(),
                };
                altered |= describe_held(Present::Client(client), open.place.server(env), plan).await?;
                return Ok((open, altered));
            }
            tracing::info!("{}: rewritten since the snapshot was taken; taking another", plan.id);
            self.end(open).await?;
        }
        Err(Error::stream(format!("the table of \"{}\" is rewritten again and again", plan.id))
            .hint("copy it when nobody alters or truncates it"))
    }

    /// Returns the open snapshot where it is fresh enough, else another.
    async fn fresh_snapshot(&mut self, plan: &StreamPlan, from: Option<Lsn>) -> Result<OpenSnapshot> {
        if !plan.key_properties.is_empty() {
            let position = from.unwrap_or_default().max(self.origin.floor.lsn());
            if let Some(open) = self.on_secondary(position).await? {
                return Ok(open);
            }
        }
        match self.open.take() {
            Some(open) if open.taken.elapsed() < SHARED_FOR => return Ok(open),
            Some(open) => self.end(open).await?,
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
                let place = current_place(snapshot.session(), held, &self.origin.publications).await?;
                (snapshot, place)
            }
        };
        Ok(OpenSnapshot { snapshot, taken: Instant::now(), place })
    }

    /// Keeps a snapshot for the next stream, where it may share it.
    async fn keep(&mut self, open: OpenSnapshot) -> Result<()> {
        if matches!(open.place, Place::Replayed(_)) {
            return self.end(open).await;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Ends a snapshot's transaction.
    async fn end(&mut self, open: OpenSnapshot) -> Result<()> {
        match (&mut self.secondary, open.place) {
            (Some(secondary), Place::Replayed(_)) => secondary.end(open.snapshot).await,
            _ => {
                self.sessions.give_back(open.snapshot.end().await?);
                Ok(())
            }
        }
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

/// Returns the place of a transaction's snapshot. A writer that is older than a table's membership in a publication has
/// changes that are not published, and that the snapshot does not see either. (A slot waits for such writers when it is
/// made.)
async fn current_place(session: &mut Session, held: HeldCommits, publications: &[String]) -> Result<Place> {
    let transactions = visible_to(session).await?;
    // The position is read after the snapshot, in which everything visible was committed before it.
    let until = position_of(session, "SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
    if !publications.is_empty() && !Membership::read(session, publications, &transactions).await?.settled {
        return Err(Error::stream("a transaction that is still writing is older than a change of a publication").hint(
            "run again when it has ended; or free a replication slot (max_replication_slots), for which the server waits itself",
        ));
    }
    Ok(Place::Visible { transactions, until, held })
}

/// Reads a position of the log.
async fn position_of(session: &mut Session, sql: &str) -> Result<Lsn> {
    let position = session.query_value(sql).await?.and_then(|lsn| lsn.parse().ok());
    position.ok_or_else(|| Error::run("the server does not say where its WAL ends"))
}
