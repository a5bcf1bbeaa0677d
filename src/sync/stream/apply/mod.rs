//! A change goes to the streams that want it, which are described anew when their tables change.

mod checks;
mod layout;
pub(crate) mod pointer;
mod question;
mod record;
mod refresh;
mod shape;

use std::collections::HashSet;

use crate::config::{OnTruncate, UnchangedToast};
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::table::TableKind;
use crate::positions::TransactionSnapshot;
use crate::replication::publication;
use crate::replication::{Change, Message, OldTuple, Relation, RelationId};
use crate::sync::alterations::Alterations;
use crate::sync::env::{Env, version_now};
use crate::sync::failures::Failures;
use crate::sync::output::Output;
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::stream::prepare::Source;
use crate::sync::visibility::{settled, wait_visible};
use layout::{Catalogs, Route, Routes, differs};
use pointer::{Failed, LookUps, of_another_key};
use record::{NoLead, RecordWriter, Unfit};
use refresh::Describer;
use shape::RowChange;

/// Turns changes into records.
pub(crate) struct Applier<'a> {
    pub client: &'a Client,
    pub streams: Vec<Live>,
    failures: &'a mut Failures,
    env: &'a Env,
    look_ups: LookUps,
    describer: Describer<'a>,
    routes: Routes,
    /// What was altered of the tables before the run.
    at_start: Alterations,
    /// What was altered by the time when names were last looked up.
    alterations: Alterations,
    /// A transaction that need not be seen for it.
    settled_for: Option<u32>,
    /// Where the partitions are that the server was asked for, and what was seen when this was last found to be all of them.
    whole_schemas: Option<HashSet<String>>,
    all_partitions: Option<TransactionSnapshot>,
    is_pgoutput: bool,
    /// Whether the server was asked for some names only.
    names_are_filtered: bool,
    /// The stream whose root was described last, with the relation: pgoutput describes the partition that a change is of right behind it.
    root: Option<(usize, RelationId)>,
    /// The partition that was described behind a root: the next change is of it if it comes under the root's name.
    behind_root: Option<(usize, RelationId, u32)>,
    /// Partitions that changes were of, by stream, until it was checked that they are still there.
    leaves: HashSet<(usize, u32)>,
    /// The last transaction with a row that was taken by the name of its table, until names and columns were checked.
    unchecked: Option<u32>,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(
        env: &'a Env,
        client: &'a Client,
        source: &Source,
        streams: Vec<Live>,
        failures: &'a mut Failures,
    ) -> Self {
        let is_published = !source.publications.is_empty();
        let publication = is_published.then(|| env.config.publication(&source.slot).to_owned());
        Applier {
            client,
            streams,
            failures,
            env,
            look_ups: LookUps::default(),
            describer: Describer { client, publication },
            routes: Routes::default(),
            at_start: source.alterations.clone(),
            alterations: source.alterations.clone(),
            settled_for: None,
            is_pgoutput: is_published,
            whole_schemas: source.whole_schemas.clone().filter(|schemas| !schemas.is_empty()),
            all_partitions: None,
            names_are_filtered: source.whole_schemas.is_some(),
            root: None,
            behind_root: None,
            leaves: HashSet::new(),
            unchecked: None,
        }
    }

    /// Appends the records of a change of this transaction; `lsn` is the change's own position.
    pub(crate) async fn apply(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        message: Message<'_>,
    ) -> Result<u64> {
        if let Some(relation) = &message.relation {
            self.describe(output, transaction, relation).await?;
        }
        let tuple = |(OldTuple::Key(old) | OldTuple::Full(old))| old;
        let (relation, change) = match message.change {
            Change::Insert { relation, new } => (relation, RowChange { old: None, new: Some(new) }),
            Change::Update { relation, old, new } => (relation, RowChange { old: old.map(tuple), new: Some(new) }),
            Change::Delete { relation, old } => (relation, RowChange { old: Some(tuple(old)), new: None }),
            Change::Truncate { relations } => {
                self.behind_root = None;
                for relation in relations {
                    self.truncate(output, transaction, relation).await?;
                }
                return Ok(0);
            }
            Change::Begin { .. } | Change::Commit { .. } | Change::Other => return Ok(0),
        };
        self.row(output, transaction, lsn, relation, change).await
    }

    /// Whether as many lines wait for values as should be looked up at once.
    pub(crate) fn is_full(&self, output: &mut Output) -> bool {
        self.look_ups.is_full(output)
    }

    /// Reads what the buffered lines lack from the tables.
    pub(crate) async fn fill_holes(&mut self, output: &mut Output) -> Result<()> {
        let failed = self.look_ups.fill(self.env, self.client, &mut self.streams, output).await?;
        failed.into_iter().for_each(|failed| self.fail(output, failed));
        Ok(())
    }

    /// Ends a stream: its changes are left out from here on, and its bookmark stays.
    fn fail(&mut self, output: &mut Output, (stream, error): Failed) {
        let live = &mut self.streams[stream];
        live.failed = true;
        output.ledger().fail(stream);
        self.failures.add(&live.plan.id, &error);
    }

    /// Takes what the log says of a table.
    async fn describe(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        relation: &Relation<'_>,
    ) -> Result<()> {
        match relation.oid {
            None => self.renew_alterations(transaction).await?,
            Some(oid) => self.note_leaf(relation.id, oid),
        }
        let catalogs = catalogs(self.client, &self.alterations, &self.at_start, transaction);
        let route = self.routes.describe(&catalogs, &self.streams, relation, transaction).await?;
        self.settle_names(route, transaction).await?;
        for target in 0..self.routes.targets(route).len() {
            let stream = self.routes.targets(route)[target].stream;
            let live = &self.streams[stream];
            if differs(live, relation) && !live.is_described_after(transaction) {
                self.refresh(output, stream, transaction).await?;
            }
        }
        Ok(())
    }

    /// Takes note of a relation that follows that of a root.
    fn note_leaf(&mut self, relation: RelationId, table: u32) {
        self.behind_root = self.root.take().map(|(stream, root)| (stream, root, table));
        let is_root = |live: &Live| live.plan.table.oid == table && live.plan.table.kind == TableKind::Partitioned;
        self.root = self.streams.iter().position(is_root).map(|stream| (stream, relation));
    }

    /// Returns where the changes of a table go.
    async fn route(&mut self, relation: RelationId, transaction: &Transaction) -> Result<Route> {
        let Some(route) = self.routes.find(relation) else {
            return Err(Error::run(format!("a change names the relation {}, which was not described", relation.0)));
        };
        if !self.routes.is_settled(route, transaction) {
            self.renew_alterations(transaction).await?;
            let catalogs = catalogs(self.client, &self.alterations, &self.at_start, transaction);
            self.routes.look_up(&catalogs, &self.streams, route, transaction).await?;
            self.settle_names(route, transaction).await?;
        }
        Ok(route)
    }

    /// Reads what was altered by now, if the table of a name was looked up later than that was read: it may have been renamed meanwhile,
    /// and so may any other have got its name.
    async fn settle_names(&mut self, route: Route, transaction: &Transaction) -> Result<()> {
        if !self.routes.is_younger(route) {
            return Ok(());
        }
        let seen = self.seen_with(transaction.xid).await?;
        self.alterations = self.at_start.again(self.client, seen).await?;
        self.routes.aim(&self.alterations, &self.streams, route);
        Ok(())
    }

    /// Reads what was altered by now, if this transaction may be younger than what is known.
    async fn renew_alterations(&mut self, transaction: &Transaction) -> Result<()> {
        if self.alterations.seen.sees(transaction.xid) || self.settled_for == Some(transaction.xid) {
            return Ok(());
        }
        let seen = self.seen_with(transaction.xid).await?;
        self.alterations = self.at_start.again(self.client, seen).await?;
        self.settled_for = Some(transaction.xid);
        Ok(())
    }

    /// Returns a snapshot that sees the tables as this transaction has left them. It need not be visible for that: a commit may
    /// wait for a synchronous standby.
    async fn seen_with(&self, xid: u32) -> Result<TransactionSnapshot> {
        match settled(self.client, &self.alterations.tables()).await? {
            Some(snapshot) => Ok(snapshot),
            None => wait_visible(self.client, std::iter::once(xid)).await,
        }
    }

    async fn row(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        relation: RelationId,
        change: RowChange<'_>,
    ) -> Result<u64> {
        if let Some((stream, root, leaf)) = self.behind_root.take()
            && root == relation
            && output.ledger().wants(stream)
            && !self.at_start.has_part(self.streams[stream].plan.table.oid, leaf)
        {
            self.leaves.insert((stream, leaf));
        }
        let route = self.route(relation, transaction).await?;
        let by_name = self.routes.is_by_name(route);
        if by_name {
            self.unchecked = Some(transaction.xid);
        }
        let mut records = 0;
        for at in 0..self.routes.targets(route).len() {
            let target = &self.routes.targets(route)[at];
            let stream = target.stream;
            if !output.ledger().wants(stream) {
                continue;
            }
            if target.uncertain {
                records += self.point(output, transaction, lsn, (route, at), &change);
                continue;
            }
            let live = &self.streams[stream];
            // Where the log has names only, its rows are all that shows that a table changed.
            let mut may_have_changed = by_name && !live.is_described_after(transaction);
            if may_have_changed && target.shape.is_contradicted(&change) {
                self.refresh(output, stream, transaction).await?;
                may_have_changed = false;
            }
            let mut written = self.write(output, transaction, lsn, (route, at), &change, may_have_changed);
            if may_have_changed && written.is_err() {
                self.refresh(output, stream, transaction).await?;
                written = self.write(output, transaction, lsn, (route, at), &change, false);
            }
            records += match written {
                Ok(records) => records,
                // A value of the key is not in the log, or not of its type: something else may lead to the row.
                Err(Unfit) => self.point(output, transaction, lsn, (route, at), &change),
            };
        }
        Ok(records)
    }

    /// Writes the records of a row change for one of the streams that it goes to.
    fn write(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        target: (Route, usize),
        change: &RowChange<'_>,
        may_have_changed: bool,
    ) -> Result<u64, Unfit> {
        let (stream, mut writer) = self.writer(transaction, lsn, target);
        writer.may_have_changed = may_have_changed;
        writer.write(output, stream, change)
    }

    /// Takes a row change for a pointer to a row of one of the streams.
    fn point(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        target: (Route, usize),
        change: &RowChange<'_>,
    ) -> u64 {
        let uncertain = self.routes.targets(target.0)[target.1].uncertain;
        let (stream, writer) = self.writer(transaction, lsn, target);
        let pointed = if writer.looks_up { writer.point(output, stream, uncertain, change) } else { Err(NoLead) };
        pointed.unwrap_or_else(|NoLead| {
            let plan = &self.streams[stream].plan;
            let is_insert = change.old.is_none();
            if uncertain && is_insert && !plan.key_properties.iter().any(|key| self.streams[stream].was_altered(key)) {
                // An insert has the whole key: it is another table's.
                return 0;
            }
            let error = of_another_key(&self.streams[stream].plan);
            self.fail(output, (stream, error));
            0
        })
    }

    fn writer<'w>(
        &'w mut self,
        transaction: &'w Transaction,
        lsn: Lsn,
        (route, target): (Route, usize),
    ) -> (usize, RecordWriter<'w>) {
        let target = &self.routes.targets(route)[target];
        let live = &mut self.streams[target.stream];
        let writer = RecordWriter {
            transaction,
            lsn,
            shape: &target.shape,
            looks_up: !live.plan.key_properties.is_empty(),
            omits_unchanged: self.env.config.unchanged_toast == UnchangedToast::Omit && !live.in_slices,
            may_have_changed: false,
            is_past: live.is_past(transaction),
            written: 0,
            live,
        };
        (target.stream, writer)
    }

    /// Describes a stream's table again, after this transaction.
    async fn refresh(&mut self, output: &mut Output, stream: usize, transaction: &Transaction) -> Result<()> {
        self.fill_holes(output).await?;
        self.describer.refresh(output, &mut self.streams, stream, transaction, &self.at_start).await?;
        self.routes.reshape(&self.alterations, &self.streams, stream);
        Ok(())
    }

    /// Takes a TRUNCATE of a table.
    async fn truncate(&mut self, output: &mut Output, transaction: &Transaction, relation: RelationId) -> Result<()> {
        let route = self.route(relation, transaction).await?;
        for target in self.routes.targets(route) {
            if output.ledger().wants(target.stream) {
                let live = &mut self.streams[target.stream];
                if target.uncertain {
                    live.truncated = true;
                    tracing::warn!(
                        "{}: a table was truncated that may have been this one, or a partition of it, under another name; \
                         remove the stream's bookmark to copy it again",
                        live.plan.id
                    );
                    continue;
                }
                truncate(output, live, target.own, self.env.config.on_truncate);
            }
        }
        Ok(())
    }

    /// Checks, before anything after this transaction may be skipped, that the server was asked for every partition: one may
    /// have been attached meanwhile that lies in another schema.
    pub(crate) async fn check_partitions(&mut self, transaction: &Transaction) -> Result<()> {
        let Some(schemas) = &self.whole_schemas else { return Ok(()) };
        if self.all_partitions.as_ref().is_some_and(|snapshot| snapshot.sees(transaction.xid)) {
            return Ok(());
        }
        let snapshot = wait_visible(self.client, std::iter::once(transaction.xid)).await?;
        for live in self.streams.iter().filter(|live| live.plan.table.kind == TableKind::Partitioned) {
            let leaves = publication::leaves(self.client, live.plan.table.oid).await?;
            if let Some(leaf) = leaves.into_iter().find(|leaf| !schemas.contains(&leaf.schema)) {
                return Err(Error::transient(format!(
                    "{}: a partition in the schema \"{}\" was attached, which this run does not read",
                    live.plan.id, leaf.schema
                ))
                .hint("run again: the next run reads it too"));
            }
        }
        self.all_partitions = Some(snapshot);
        Ok(())
    }
}

/// Takes a TRUNCATE of a table that this stream has the rows of: all of them, or those of a partition.
fn truncate(output: &mut Output, live: &mut Live, whole: bool, on_truncate: OnTruncate) {
    live.truncated = true;
    match on_truncate {
        OnTruncate::ActivateVersion if whole => {
            live.begin_version(version_now().max(live.version.saturating_add(1)));
            let id = &live.plan.id;
            output.state.set_version(id, live.version);
            output.activate_version(id, live.version);
            tracing::info!("{id}: the table was truncated; going on under a new version");
        }
        OnTruncate::ActivateVersion => {
            tracing::warn!(
                "{}: a partition was truncated; no version is of its rows alone, so the target keeps them",
                live.plan.id
            );
        }
        OnTruncate::Warn => {
            let what = if whole { "the table" } else { "a partition" };
            tracing::warn!(
                "{}: {what} was truncated; Singer has no message for it, so the target keeps its rows",
                live.plan.id
            );
        }
    }
}

/// Returns what names of tables are looked up with. Where a transaction began after the run did, what was altered before that is
/// no news.
fn catalogs<'c>(
    client: &'c Client,
    alterations: &'c Alterations,
    at_start: &Alterations,
    transaction: &Transaction,
) -> Catalogs<'c> {
    let is_new = at_start.seen.precedes(transaction.xid);
    Catalogs { client, alterations, since: if is_new { at_start.seen.oldest() } else { at_start.since } }
}
