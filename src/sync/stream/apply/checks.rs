//! What has to hold before a bookmark moves, and what is told when a run has caught up.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::Applier;
use crate::error::{Error, Result};
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::tree::with_tree;
use crate::sync::output::Output;
use crate::sync::stream::live::{Live, Transaction};
use crate::sync::stream::prepare::definitions::{PARTITIONS_GONE, other_files};
use crate::sync::visibility::{settled, wait_visible};

impl Applier<'_> {
    /// Checks, before a bookmark may move, that the rows that were taken by the names of their tables were of these tables, and of
    /// the columns that they are described with.
    ///
    /// # Errors
    /// A table got another name, or a column another type, while its changes were read.
    pub(crate) async fn check_names(&mut self, output: &mut Output) -> Result<()> {
        if self.is_pgoutput {
            return Ok(());
        }
        let xid = self.unchecked.take();
        if settled(self.client, &self.alterations.tables()).await?.is_none() {
            // Somebody may have altered a table, and nobody sees it yet.
            let Some(xid) = xid else { return Ok(()) };
            wait_visible(self.client, std::iter::once(xid)).await?;
        }
        let now = self.at_start.after(self.client, &self.at_start.seen).await?;
        for stream in 0..self.streams.len() {
            let live = &self.streams[stream];
            if live.failed {
                continue;
            }
            let (id, oid) = (&live.plan.id, live.plan.table.oid);
            if self.names_are_filtered && now.moved_after(oid, &self.at_start.seen) {
                self.env.names_to_check.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(Error::transient(format!(
                    "{id}: a table was renamed or moved to another schema while its changes were read by its name"
                ))
                .hint("run again: the next run reads the changes of all names"));
            }
            if now.columns_after(oid, live.described_by()) {
                let before = types(live);
                self.refresh(
                    output,
                    stream,
                    &Transaction::new(0, xid.unwrap_or(self.at_start.seen.oldest().wrapping_sub(1))),
                )
                .await?;
                let after = types(&self.streams[stream]);
                let is_other = |(name, ty, typmod): &(String, u32, i32)| {
                    after.iter().any(|(other, t, m)| other == name && (t, m) != (ty, typmod))
                };
                if before.iter().any(is_other) {
                    let id = &self.streams[stream].plan.id;
                    return Err(Error::transient(format!("{id}: the type of a column changed during the run"))
                        .hint("run again: the next run begins with the table as it is then"));
                }
            }
        }
        output.ledger().checked();
        Ok(())
    }

    /// Tells of partitions that changes were of and that are not there any more: their rows stay in the target.
    pub(crate) async fn check_leaves(&mut self, output: &Output) -> Result<()> {
        let leaves = std::mem::take(&mut self.leaves);
        let mut of_stream: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (stream, leaf) in leaves {
            of_stream.entry(stream).or_default().push(leaf);
        }
        for (stream, leaves) in of_stream {
            let live = &mut self.streams[stream];
            let plan = &live.plan;
            let known = output.state.bookmark(&plan.id).definition();
            live.lost_partitions |= known.is_some_and(|known| self.at_start.lacks_partitions(plan.table.oid, &known));
            if live.lost_partitions || live.failed {
                continue;
            }
            let sql = format!(
                "{} SELECT EXISTS (SELECT FROM pg_catalog.unnest($2::oid[]) leaf WHERE leaf NOT IN (SELECT oid FROM tree))",
                with_tree("$1::oid")
            );
            let row = self.client.query_one(&sql, &[&plan.table.oid, &leaves]).await;
            let row = row.map_err(|e| query_error("cannot list the partitions", e))?;
            if row.field(0)? {
                tracing::warn!("{}: {}", plan.id, PARTITIONS_GONE);
                live.lost_partitions = true;
            }
        }
        Ok(())
    }

    /// Takes note that everything has come that the tables had when the run began: what was altered before is past for the next
    /// run. Tells what became of rows without the log.
    pub(crate) fn caught_up(&self, output: &mut Output) {
        for live in self.streams.iter().filter(|live| !live.failed) {
            let (id, oid) = (&live.plan.id, live.plan.table.oid);
            if let Some(altered) = self.at_start.of(oid) {
                output.state.set_definition(id, &altered.definition);
            }
            // A TRUNCATE that the log has was told of, and a copy has what it has.
            let warning = other_files(&live.plan, &self.at_start, self.is_pgoutput);
            let warning = warning.filter(|_| live.resumed && !live.truncated);
            if let Some(warning) = warning {
                tracing::warn!("{id}: {warning}");
            }
        }
    }
}

/// Returns the types of a table's columns, by name.
fn types(live: &Live) -> Vec<(String, u32, i32)> {
    live.plan.table.columns.iter().map(|column| (column.name.clone(), column.ty.oid, column.typmod)).collect()
}
