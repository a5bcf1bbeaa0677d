//! A change becomes records.

use super::live::{Live, Transaction};
use super::route::{Routes, Shape, Target, differs, wanted_by};
use super::toast::{Missing, Toast};
use crate::discovery::{Scope, discover};
use crate::error::{Error, Result};
use crate::pg::Lsn;
use crate::pg::connect::Client;
use crate::replication::{Change, OldTuple, TableRef, Tuple, Value};
use crate::singer::JsonBuf;
use crate::sync::Env;
use crate::sync::context::Context;

/// Turns changes into records.
pub(super) struct Applier<'a> {
    pub env: &'a Env,
    pub client: &'a Client,
    pub streams: Vec<Live>,
    pub toast: Toast,
    routes: Routes,
    /// Shapes of the tuples at hand, where each names its columns.
    new_shape: Shape,
    old_shape: Shape,
}

/// A row change: at least one of the rows is there.
struct RowChange<'t> {
    old: Option<OldTuple<'t>>,
    new: Option<Tuple<'t>>,
}

impl<'a> Applier<'a> {
    pub(super) fn new(env: &'a Env, client: &'a Client, streams: Vec<Live>) -> Self {
        let toast = Toast::new(env.config.unchanged_toast);
        Applier {
            env,
            client,
            streams,
            toast,
            routes: Routes::default(),
            new_shape: Shape::default(),
            old_shape: Shape::default(),
        }
    }

    /// Appends the records of a change of this transaction; `lsn` is the change's own position.
    pub(super) async fn apply(
        &mut self,
        ctx: &mut Context,
        transaction: &Transaction,
        lsn: Lsn,
        change: Change<'_>,
    ) -> Result<u64> {
        match change {
            Change::Relation(relation) => {
                let targets = wanted_by(self.client, &self.streams, relation.oid).await?;
                for &stream in &targets {
                    if differs(&self.streams[stream], &relation) {
                        let names = relation.columns.iter().map(|column| column.name.as_bytes());
                        self.refresh(ctx, stream, names).await?;
                    }
                }
                self.routes.relation(&self.streams, targets, &relation);
                Ok(0)
            }
            Change::Insert { table, new } => {
                self.row(ctx, transaction, lsn, table, RowChange { old: None, new: Some(new) }).await
            }
            Change::Update { table, old, new } => {
                self.row(ctx, transaction, lsn, table, RowChange { old, new: Some(new) }).await
            }
            Change::Delete { table, old } => {
                self.row(ctx, transaction, lsn, table, RowChange { old: Some(old), new: None }).await
            }
            Change::Truncate { tables } => {
                for table in tables {
                    self.look_up(table).await?;
                    for target in self.routes.get(table).unwrap_or_default() {
                        let live = &self.streams[target.stream];
                        if live.wants(transaction) {
                            tracing::warn!(
                                "{}: the table was truncated; Singer has no message for it, so the target keeps its rows",
                                live.plan.id
                            );
                        }
                    }
                }
                Ok(0)
            }
            Change::Begin { .. } | Change::Commit { .. } | Change::Other => Ok(0),
        }
    }

    async fn look_up(&mut self, table: TableRef<'_>) -> Result<()> {
        match table {
            _ if self.routes.get(table).is_some() => Ok(()),
            TableRef::Name(schema, name) => self.routes.name(self.client, &self.streams, schema, name).await,
            TableRef::Oid(oid) => {
                Err(Error::run(format!("a change names the relation {oid}, which was not described")))
            }
        }
    }

    async fn row(
        &mut self,
        ctx: &mut Context,
        transaction: &Transaction,
        lsn: Lsn,
        table: TableRef<'_>,
        change: RowChange<'_>,
    ) -> Result<u64> {
        self.look_up(table).await?;
        let targets = self.routes.get(table).map_or(0, <[Target]>::len);
        let mut records = 0;
        for target in 0..targets {
            let named = matches!(table, TableRef::Name(..));
            let stream = match self.routes.get(table).and_then(|targets| targets.get(target)) {
                Some(target) => target.stream,
                None => break,
            };
            if !self.streams[stream].wants(transaction) {
                continue;
            }
            if named {
                self.fill_shapes(ctx, stream, &change).await?;
            }
            let live = &mut self.streams[stream];
            let shapes = match self.routes.get(table).and_then(|targets| targets.get(target)) {
                Some(target) if !named => (&target.shape, &target.shape),
                _ => (&self.new_shape, &self.old_shape),
            };
            let writer = RecordWriter { live, transaction, lsn, debug_lsn: self.env.config.debug_lsn };
            records += writer.write(ctx, &mut self.toast, stream, shapes, &change);
        }
        Ok(records)
    }

    /// Works out what the values of a change are that names its columns; a column that is not known, or not there any
    /// more, means that the table changed.
    async fn fill_shapes(&mut self, ctx: &mut Context, stream: usize, change: &RowChange<'_>) -> Result<()> {
        let mut unknown = Vec::new();
        if let Some(new) = &change.new {
            unknown.extend(self.new_shape.fill_by_name(&self.streams[stream], new));
            let live = &self.streams[stream];
            if change.old.is_none() && self.new_shape.selected() < live.plan.columns.len() {
                let mut columns = live.plan.columns.iter().enumerate();
                let missing = columns
                    .find(|(at, column)| !self.new_shape.columns.contains(&Some(*at)) && live.expects(&column.name));
                unknown.extend(missing.map(|(_, column)| column.name.as_bytes()));
            }
        }
        if let Some(OldTuple::Key(old) | OldTuple::Full(old)) = &change.old {
            unknown.extend(self.old_shape.fill_by_name(&self.streams[stream], old));
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<Vec<u8>> = unknown.into_iter().map(<[u8]>::to_vec).collect();
        self.refresh(ctx, stream, unknown.iter().map(Vec::as_slice)).await?;
        if let Some(new) = &change.new {
            self.new_shape.fill_by_name(&self.streams[stream], new);
        }
        if let Some(OldTuple::Key(old) | OldTuple::Full(old)) = &change.old {
            self.old_shape.fill_by_name(&self.streams[stream], old);
        }
        Ok(())
    }

    /// Discovers a stream's table again and announces it if it changed. `seen` are columns that made it necessary: those
    /// that are still unknown (or still there) afterwards belong to the past and are no reason to look again.
    async fn refresh<'n>(
        &mut self,
        ctx: &mut Context,
        stream: usize,
        seen: impl Iterator<Item = &'n [u8]>,
    ) -> Result<()> {
        let live = &mut self.streams[stream];
        let wanted = [(live.plan.table.schema.clone(), live.plan.table.name.clone())];
        let found = discover(self.client, Scope::Tables(&wanted)).await?;
        live.remember(seen);
        let Some(table) = found.into_iter().next().filter(|table| table.oid == live.plan.table.oid) else {
            tracing::warn!("{}: the table was dropped; what the log still has of it is sent", live.plan.id);
            return Ok(());
        };
        // The holes name columns of the plan as it was.
        self.toast.fill(&self.env.primary, &mut self.streams, ctx).await?;
        let live = &mut self.streams[stream];
        let before = live.plan.schema.clone();
        live.plan.refresh(table, &self.env.types);
        if live.plan.schema != before {
            tracing::info!("{}: the table changed; sending its schema again", live.plan.id);
            live.announce(ctx, self.env.config.debug_lsn);
        }
        Ok(())
    }
}

/// Writes the records of one row change for one stream.
struct RecordWriter<'a> {
    live: &'a mut Live,
    transaction: &'a Transaction,
    lsn: Lsn,
    debug_lsn: bool,
}

impl RecordWriter<'_> {
    /// Returns how many records the change became.
    fn write(
        mut self,
        ctx: &mut Context,
        toast: &mut Toast,
        stream: usize,
        (new_shape, old_shape): (&Shape, &Shape),
        change: &RowChange<'_>,
    ) -> u64 {
        let before = self.live.records;
        let old = change.old.map(|old| match old {
            OldTuple::Key(old) | OldTuple::Full(old) => old,
        });
        let Some(new) = change.new else {
            if let Some(old) = old {
                self.delete(ctx, old_shape, &old);
            }
            return self.live.records - before;
        };
        if let Some(old) = &old
            && self.key_changed(new_shape, &new, old_shape, old)
        {
            self.delete(ctx, old_shape, old);
        }
        ctx.before_record();
        let out = &mut ctx.out.buf;
        self.live.plan.start_record(out);
        let mut missing = Missing::default();
        for (index, column) in new_shape.columns.iter().enumerate() {
            let Some(column) = *column else { continue };
            match new.value(index) {
                Some(Value::Unchanged) => {
                    let old = old.as_ref().and_then(|old| identity_value(old_shape, old, column));
                    self.unchanged(out, column, old, &mut missing);
                }
                Some(Value::Text(text)) => self.property(out, column, Some(text)),
                Some(Value::Null) | None => self.property(out, column, None),
            }
        }
        // wal2json leaves unchanged columns out altogether.
        if !new.name(0).is_empty() && change.old.is_some() && new_shape.selected() < self.live.plan.columns.len() {
            for column in 0..self.live.plan.columns.len() {
                if !new_shape.columns.contains(&Some(column)) {
                    let old = old.as_ref().and_then(|old| identity_value(old_shape, old, column));
                    self.unchanged(out, column, old, &mut missing);
                }
            }
        }
        if !missing.is_empty() {
            let value = |name: &String| {
                let column = self.live.plan.position(name)?;
                match value_of(new_shape, &new, column)? {
                    Value::Text(text) => Some(self.live.plan.columns[column].codec.as_printed(text)),
                    Value::Null | Value::Unchanged => None,
                }
            };
            let key = self.live.plan.key_properties.iter().map(value).collect();
            toast.add(stream, key, self.transaction.xid, missing);
            ctx.progress.incomplete = toast.is_pending();
        }
        out.raw(br#""_sdc_deleted_at":null"#);
        self.end(out);
        self.live.records - before
    }

    /// A record that says that the old row is gone, if it says which one that was.
    fn delete(&mut self, ctx: &mut Context, shape: &Shape, old: &Tuple<'_>) {
        if !shape.identifies(self.live) {
            return;
        }
        ctx.before_record();
        let out = &mut ctx.out.buf;
        self.live.plan.start_record(out);
        for (index, (column, identity)) in shape.columns.iter().zip(&shape.identity).enumerate() {
            match (*column, identity, old.value(index)) {
                (Some(column), true, Some(Value::Text(text))) => self.property(out, column, Some(text)),
                (Some(column), true, Some(Value::Null)) => self.property(out, column, None),
                _ => {}
            }
        }
        out.raw(br#""_sdc_deleted_at":"#);
        out.raw(self.transaction.deleted_at().as_bytes());
        self.end(out);
    }

    /// Whether a key column has another value in the new row, so that the target has to forget the old one.
    fn key_changed(&self, new_shape: &Shape, new: &Tuple<'_>, old_shape: &Shape, old: &Tuple<'_>) -> bool {
        let keys = &self.live.plan.key_properties;
        !keys.is_empty()
            && old_shape.identifies(self.live)
            && keys.iter().filter_map(|key| self.live.plan.position(key)).any(|column| {
                let new = value_of(new_shape, new, column);
                new.is_some_and(|new| new != Value::Unchanged && Some(new) != value_of(old_shape, old, column))
            })
    }

    /// `"name":value,` — the comma is always right, because a column of the stream phase ends the record.
    fn property(&mut self, out: &mut JsonBuf, column: usize, text: Option<&[u8]>) {
        self.live.plan.columns[column].encode(text, out);
        out.byte(b',');
    }

    fn unchanged(&mut self, out: &mut JsonBuf, column: usize, old: Option<Value<'_>>, missing: &mut Missing) {
        match old {
            Some(Value::Text(text)) => self.property(out, column, Some(text)),
            Some(Value::Null) => self.property(out, column, None),
            Some(Value::Unchanged) | None => missing.push(out.len(), column),
        }
    }

    fn end(&mut self, out: &mut JsonBuf) {
        if self.debug_lsn {
            out.raw(br#","_sdc_lsn":""#);
            out.raw(itoa::Buffer::new().format(self.lsn.0).as_bytes());
            out.byte(b'"');
        }
        self.live.end.write(out);
        self.live.records += 1;
        self.live.counter.add(1);
    }
}

/// The value of a plan's column in a tuple.
fn value_of<'t>(shape: &Shape, tuple: &Tuple<'t>, column: usize) -> Option<Value<'t>> {
    tuple.value(shape.columns.iter().position(|c| *c == Some(column))?)
}

/// The value of a plan's column in an old row, where the row really has it: outside of the identity pgoutput fills in
/// NULL.
fn identity_value<'t>(shape: &Shape, old: &Tuple<'t>, column: usize) -> Option<Value<'t>> {
    let at = shape.columns.iter().position(|c| *c == Some(column))?;
    if shape.identity[at] { old.value(at) } else { None }
}
