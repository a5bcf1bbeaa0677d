//! A change goes to the streams that want it, which are described anew when their tables change.

pub(crate) mod layout;
pub(crate) mod pointer;
pub(crate) mod record;

use std::collections::HashSet;

use crate::config::OnTruncate;
use crate::discovery::{Scope, discover, hidden_columns};
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::pg::table::TableKind;
use crate::positions::TransactionSnapshot;
use crate::replication::publication::{self, Publications};
use crate::replication::{Change, OldTuple, TableRef};
use crate::sync::env::{Env, version_now};
use crate::sync::output::Output;
use crate::sync::plan::StreamPlan;
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::stream::prepare::Source;
use crate::sync::stream::prepare::published::leave_out;
use crate::sync::visibility::wait_visible;
use layout::{Route, Routes, Shape, differs, identity_differs, wanted_by};
use pointer::Toast;
use record::{RecordWriter, RowChange, Unfit};

/// Turns changes into records.
pub(crate) struct Applier<'a> {
    pub env: &'a Env,
    pub client: &'a Client,
    pub streams: Vec<Live>,
    pub toast: Toast,
    /// What pgoutput is asked for; wal2json knows no publications.
    publication: Option<String>,
    /// Where the partitions are that the server was asked for, and what was seen when this was last found to be all of them.
    whole_schemas: Option<HashSet<String>>,
    all_partitions: Option<TransactionSnapshot>,
    routes: Routes,
    /// Shapes of the tuples at hand, where each names its columns.
    new_shape: Shape,
    old_shape: Shape,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(env: &'a Env, client: &'a Client, source: &Source, streams: Vec<Live>) -> Self {
        let toast = Toast::new(env.config.unchanged_toast);
        let publication = (source.plugin.name() == "pgoutput").then(|| env.config.publication(&source.slot).to_owned());
        Applier {
            env,
            client,
            streams,
            toast,
            publication,
            whole_schemas: source.whole_schemas.clone().filter(|schemas| !schemas.is_empty()),
            all_partitions: None,
            routes: Routes::default(),
            new_shape: Shape::default(),
            old_shape: Shape::default(),
        }
    }

    /// Appends the records of a change of this transaction; `lsn` is the change's own position.
    pub(crate) async fn apply(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        change: Change<'_>,
    ) -> Result<u64> {
        match change {
            Change::Relation(relation) => {
                let targets = wanted_by(self.client, &self.streams, relation.oid, transaction).await?;
                for &stream in &targets {
                    let live = &self.streams[stream];
                    if differs(live, &relation) && !live.is_described_after(transaction) {
                        self.refresh(output, stream, transaction).await?;
                    }
                }
                self.routes.relation(&self.streams, targets, &relation);
                Ok(0)
            }
            Change::Insert { table, new } => {
                self.row(output, transaction, lsn, table, RowChange { old: None, new: Some(new) }).await
            }
            Change::Update { table, old, new } => {
                self.row(output, transaction, lsn, table, RowChange { old, new: Some(new) }).await
            }
            Change::Delete { table, old } => {
                self.row(output, transaction, lsn, table, RowChange { old: Some(old), new: None }).await
            }
            Change::Truncate { tables } => {
                for table in tables {
                    let route = self.look_up(table, transaction).await?;
                    for target in self.routes.targets(route) {
                        let live = &mut self.streams[target.stream];
                        if output.ledger().wants(target.stream) {
                            truncate(output, live, table, self.env.config.on_truncate);
                        }
                    }
                }
                Ok(0)
            }
            Change::Begin { .. } | Change::Commit { .. } | Change::Other => Ok(0),
        }
    }

    async fn look_up(&mut self, table: TableRef<'_>, transaction: &Transaction) -> Result<Route> {
        if let Some(route) = self.routes.find(table, transaction) {
            return Ok(route);
        }
        match table {
            TableRef::Name(schema, name) => {
                self.routes.name(self.client, &self.streams, (schema, name), transaction).await
            }
            TableRef::Oid(oid) => {
                Err(Error::run(format!("a change names the relation {oid}, which was not described")))
            }
        }
    }

    async fn row(
        &mut self,
        output: &mut Output,
        transaction: &Transaction,
        lsn: Lsn,
        table: TableRef<'_>,
        change: RowChange<'_>,
    ) -> Result<u64> {
        let route = self.look_up(table, transaction).await?;
        let named = matches!(table, TableRef::Name(..));
        let mut records = 0;
        for target in 0..self.routes.targets(route).len() {
            let stream = self.routes.targets(route)[target].stream;
            if !output.ledger().wants(stream) {
                continue;
            }
            // Where tuples name their columns, they are all that tells of a table that changed.
            let mut may_have_changed = named && !self.streams[stream].is_described_after(transaction);
            if named && !self.fill_shapes(stream, &change) && may_have_changed {
                self.refresh(output, stream, transaction).await?;
                self.fill_shapes(stream, &change);
                may_have_changed = false;
            }
            while !(named && self.streams[stream].replaced) {
                let live = &mut self.streams[stream];
                let shapes = if named {
                    (&self.new_shape, &self.old_shape)
                } else {
                    let shape = &self.routes.targets(route)[target].shape;
                    (shape, shape)
                };
                let fetches = self.toast.fetches(live);
                let debug_lsn = self.env.config.debug_lsn;
                let writer = RecordWriter { live, transaction, lsn, debug_lsn, fetches, may_have_changed, written: 0 };
                match writer.write(output, stream, shapes, &change) {
                    Ok(written) => {
                        records += written;
                        break;
                    }
                    Err(Unfit(_)) if may_have_changed => {
                        self.refresh(output, stream, transaction).await?;
                        self.fill_shapes(stream, &change);
                        may_have_changed = false;
                    }
                    Err(Unfit(column)) => return Err(of_another_key(&self.streams[stream].plan, column)),
                }
            }
        }
        Ok(records)
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

    /// Works out what the values of a change are that names its columns. False if these are not the columns that the table
    /// is known to have.
    fn fill_shapes(&mut self, stream: usize, change: &RowChange<'_>) -> bool {
        let live = &self.streams[stream];
        let mut as_known = true;
        if let Some(new) = &change.new {
            as_known &= self.new_shape.fill_by_name(live, new);
            // An update leaves out what it left alone.
            as_known &= change.old.is_some() || self.new_shape.is_whole(live);
        }
        if let Some(OldTuple::Key(old) | OldTuple::Full(old)) = &change.old {
            as_known &= self.old_shape.fill_by_name(live, old) && !identity_differs(live, old);
        }
        as_known
    }

    /// Describes a stream's table again, after this transaction, and announces it if it changed.
    async fn refresh(&mut self, output: &mut Output, stream: usize, transaction: &Transaction) -> Result<()> {
        let live = &mut self.streams[stream];
        let snapshot = wait_visible(self.client, std::iter::once(transaction.xid)).await?;
        let wanted = [(live.plan.table.schema.clone(), live.plan.table.name.clone())];
        let found = discover(self.client, Scope::Tables(&wanted)).await?.into_iter().next();
        let hidden = hidden_columns(self.client, live.plan.table.oid).await?;
        live.described(snapshot, hidden.into_iter().map(String::into_bytes).collect());
        let table = match found {
            Some(table) if table.oid == live.plan.table.oid => table,
            found => {
                let again = if found.is_some() { " and made again: the next run copies it" } else { "" };
                live.replaced = found.is_some();
                tracing::warn!("{}: the table was renamed or dropped{again}", live.plan.id);
                return Ok(());
            }
        };
        let publications = match &self.publication {
            Some(name) => Some(Publications::read(self.client, name).await?),
            None => None,
        };
        // The holes name columns of the plan as it was.
        self.toast.fill(self.env, self.client, &mut self.streams, output).await?;
        let live = &mut self.streams[stream];
        let before = (live.plan.schema.clone(), live.plan.key_properties.clone());
        live.plan.refresh(table, &self.env.types);
        if let Some(publications) = &publications {
            leave_out(&mut live.plan, publications, self.env);
        }
        if (&live.plan.schema, &live.plan.key_properties) != (&before.0, &before.1) {
            tracing::info!("{}: the table changed; sending its schema again", live.plan.id);
            live.announce(output, self.env.config.debug_lsn);
        }
        self.routes.reshape(&self.streams, stream);
        Ok(())
    }
}

/// A table was truncated that this stream has the rows of: all of them, or those of a partition.
fn truncate(output: &mut Output, live: &mut Live, table: TableRef<'_>, on_truncate: OnTruncate) {
    let whole = match table {
        TableRef::Oid(oid) => live.plan.table.oid == oid,
        TableRef::Name(schema, name) => live.plan.table.schema == schema && live.plan.table.name == name,
    };
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
