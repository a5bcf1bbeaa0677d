//! A change goes to the streams that want it, which are described anew when their tables change.

mod layout;
pub(crate) mod pointer;
mod record;
mod refresh;
mod shape;

use std::collections::HashSet;

use crate::config::OnTruncate;
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::table::TableKind;
use crate::positions::TransactionSnapshot;
use crate::replication::publication;
use crate::replication::{Change, Message, OldTuple, Relation, RelationId};
use crate::sync::env::{Env, version_now};
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::stream::prepare::Source;
use crate::sync::visibility::wait_visible;
use layout::{Route, Routes, differs};
use pointer::LookUps;
use record::{RecordWriter, Unfit};
use refresh::Describer;
use shape::RowChange;

/// Turns changes into records.
pub(crate) struct Applier<'a> {
    pub env: &'a Env,
    pub client: &'a Client,
    pub streams: Vec<Live>,
    pub look_ups: LookUps,
    describer: Describer<'a>,
    /// Where the partitions are that the server was asked for, and what was seen when this was last found to be all of them.
    whole_schemas: Option<HashSet<String>>,
    all_partitions: Option<TransactionSnapshot>,
    routes: Routes,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(env: &'a Env, client: &'a Client, source: &Source, streams: Vec<Live>) -> Self {
        let is_published = !source.publications.is_empty();
        let publication = is_published.then(|| env.config.publication(&source.slot).to_owned());
        Applier {
            env,
            client,
            streams,
            look_ups: LookUps::new(env.config.unchanged_toast),
            describer: Describer { env, client, publication },
            whole_schemas: source.whole_schemas.clone().filter(|schemas| !schemas.is_empty()),
            all_partitions: None,
            routes: Routes::default(),
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
                for relation in relations {
                    self.truncate(output, transaction, relation).await?;
                }
                return Ok(0);
            }
            Change::Begin { .. } | Change::Commit { .. } | Change::Other => return Ok(0),
        };
        self.row(output, transaction, lsn, relation, change).await
    }

    /// Takes what the log says of a table.
    async fn describe(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        relation: &Relation<'_>,
    ) -> Result<()> {
        let route = self.routes.describe(self.client, &self.streams, relation, transaction).await?;
        for target in 0..self.routes.targets(route).len() {
            let stream = self.routes.targets(route)[target].stream;
            let live = &self.streams[stream];
            if differs(live, relation) && !live.is_described_after(transaction) {
                self.refresh(output, stream, transaction).await?;
            }
        }
        Ok(())
    }

    /// Returns where the changes of a table go.
    async fn route(&mut self, relation: RelationId, transaction: &Transaction) -> Result<Route> {
        let Some(route) = self.routes.find(relation) else {
            return Err(Error::run(format!("a change names the relation {}, which was not described", relation.0)));
        };
        if !self.routes.is_settled(route, transaction) {
            self.routes.look_up(self.client, &self.streams, route, transaction).await?;
        }
        Ok(route)
    }

    async fn row(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        relation: RelationId,
        change: RowChange<'_>,
    ) -> Result<u64> {
        let route = self.route(relation, transaction).await?;
        let by_name = self.routes.is_by_name(route);
        let mut records = 0;
        for at in 0..self.routes.targets(route).len() {
            let target = &self.routes.targets(route)[at];
            let stream = target.stream;
            if !output.ledger().wants(stream) {
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
            records += written.map_err(|Unfit(column)| of_another_key(&self.streams[stream].plan, column))?;
        }
        Ok(records)
    }

    /// Writes the records of a row change for one of the streams that it goes to.
    fn write(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        (route, target): (Route, usize),
        change: &RowChange<'_>,
        may_have_changed: bool,
    ) -> Result<u64, Unfit> {
        let target = &self.routes.targets(route)[target];
        let live = &mut self.streams[target.stream];
        if live.replaced && self.routes.is_by_name(route) {
            return Ok(0);
        }
        let fetches = self.look_ups.fetches(live);
        let debug_lsn = self.env.config.debug_lsn;
        let shape = &target.shape;
        let writer = RecordWriter { live, transaction, lsn, shape, debug_lsn, fetches, may_have_changed, written: 0 };
        writer.write(output, target.stream, change)
    }

    /// Describes a stream's table again, after this transaction.
    async fn refresh(&mut self, output: &mut Output, stream: usize, transaction: &Transaction) -> Result<()> {
        self.describer.refresh(output, &mut self.streams, &mut self.look_ups, stream, transaction).await?;
        self.routes.reshape(&self.streams, stream);
        Ok(())
    }

    /// Takes a TRUNCATE of a table.
    async fn truncate(&mut self, output: &mut Output, transaction: &Transaction, relation: RelationId) -> Result<()> {
        let route = self.route(relation, transaction).await?;
        for target in self.routes.targets(route) {
            if output.ledger().wants(target.stream) {
                let live = &mut self.streams[target.stream];
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
            tracing::warn!(
                "{}: the table was truncated; Singer has no message for it, so the target keeps its rows",
                live.plan.id
            );
        }
    }
}

fn of_another_key(plan: &StreamPlan, column: usize) -> Error {
    let key = &plan.columns[column].name;
    Error::run(format!("{}: the log has a change from before \"{key}\" was the key that it is now", plan.id))
        .hint("remove the stream's bookmark to copy the table again")
}
