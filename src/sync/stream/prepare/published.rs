//! What the publications send of the streams of a run, and what they lack.

use std::collections::{HashMap, HashSet};

use super::slot::SlotChoice;
use crate::error::{Error, Result, to_run};
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::row::Fields as _;
use crate::pg::table::{Table, TableKind};
use crate::replication::publication::{self, Publications};
use crate::replication::slot::{Slot, create_sql};
use crate::sync::env::Env;
use crate::sync::failures::Failures;
use crate::sync::plan::{StreamPlan, oids};

/// The publications of a slot, compared with the streams that are to be read.
pub(crate) struct Coverage<'p> {
    name: String,
    /// The publications that exist.
    pub publications: Publications,
    /// The streams that the publications don't send.
    pub missing: Vec<&'p StreamPlan>,
    /// The SQL that makes what is missing.
    pub statements: Vec<String>,
    /// Which of the missing tables, once they are published, have the changes of their partitions come under their names.
    hiding: HashSet<u32>,
}

impl<'p> Coverage<'p> {
    /// Reads the publications with this name.
    pub(crate) async fn read(client: &Client, name: &str, plans: &'p [StreamPlan]) -> Result<Coverage<'p>> {
        let mut publications = Publications::read(client, name, &oids(plans)).await?;
        let mut missing: Vec<&StreamPlan> = Vec::new();
        for plan in plans {
            let mut covered = publications.covers(client, &plan.table).await?;
            if !covered && plan.table.kind == TableKind::Partitioned {
                // A leaf may have been made since the publications were read.
                publications = Publications::read(client, name, &oids(plans)).await?;
                covered = publications.covers(client, &plan.table).await?;
            }
            if !covered {
                missing.push(plan);
            }
        }
        let exists = publications.names().iter().any(|known| known == name);
        let mut statements = Vec::new();
        if !exists || !missing.is_empty() {
            let tables: Vec<&Table> = missing.iter().map(|plan| &plan.table).collect();
            statements = publication::publish_sql(client, name, &publications, &tables).await?;
        }
        let hiding = hiding(client, name, &publications, &missing).await?;
        Ok(Coverage { name: name.to_owned(), publications, missing, statements, hiding })
    }

    /// Fails for a publication that is missing and that the run won't make.
    pub(crate) fn check_exists(&self, env: &Env, choice: &SlotChoice) -> Result<()> {
        let exists = self.publications.names().contains(&self.name);
        match &choice.slot {
            _ if exists => Ok(()),
            Some(slot) => Err(self.too_late(slot, &self.name)),
            None if env.config.create_replication_slot => Ok(()),
            None => {
                let tables: Vec<&Table> = self.missing.iter().map(|plan| &plan.table).collect();
                Err(publication::unpublished(&self.name, &tables, &self.statements))
            }
        }
    }

    /// Returns why a stream's changes don't come under its name, whatever the run may set up.
    pub(crate) async fn refused(
        &self,
        client: &Client,
        env: &Env,
        choice: &SlotChoice,
        plan: &StreamPlan,
    ) -> Result<Option<Error>> {
        let will_hide = |root: &&StreamPlan| {
            plan.table.ancestors.contains(&root.table.oid)
                && self.hiding.contains(&root.table.oid)
                && self.is_made(env, choice, &root.table)
        };
        if self.publications.hides_partition(&plan.table) || self.missing.iter().any(will_hide) {
            let error = Error::usage(format!(
                "stream \"{}\" is a partition, and the publication \"{}\" sends its changes under the name of its root",
                plan.id, self.name
            ));
            return Ok(Some(error.hint("select the root instead, or deselect it where it is selected too")));
        }
        if !self.missing.iter().any(|missing| missing.id == plan.id) {
            return Ok(None);
        }
        if self.is_made(env, choice, &plan.table) {
            return Ok(None);
        }
        let tables = [&plan.table];
        if let Some(slot) = &choice.slot
            && let Some(absent) = self.publications.absent(&self.name, &tables)
        {
            return Ok(Some(self.too_late(slot, &absent)));
        }
        let statements = publication::publish_sql(client, &self.name, &self.publications, &tables).await?;
        Ok(Some(publication::unpublished(&self.name, &tables, &statements)))
    }

    /// Whether the run publishes a table that is missing.
    fn is_made(&self, env: &Env, choice: &SlotChoice, table: &Table) -> bool {
        let is_in_time = choice.slot.is_none() || self.publications.absent(&self.name, &[table]).is_none();
        env.config.create_replication_slot && is_in_time
    }

    /// Returns the error for a publication that the slot would not see: it would be younger.
    fn too_late(&self, slot: &Slot, absent: &str) -> Error {
        let mut sql = vec![slot.drop_sql()];
        sql.extend_from_slice(&self.statements);
        sql.push(create_sql(&slot.name, &slot.plugin, slot.failover));
        Error::run(format!("the publication \"{absent}\" does not exist, and the slot is there already")).hint(format!(
            "name the right publication with publication_name; a table with REPLICA IDENTITY FULL needs no publication of its \
             own; else, since a slot can't see a younger publication, drop the slot and let a run with \
             create_replication_slot make both, or {}",
            to_run(&sql)
        ))
    }
}

/// Returns those of these tables that hide their partitions where a run publishes them: it does so through the root, unless
/// somebody else made the publication that they go into.
async fn hiding(
    client: &Client,
    name: &str,
    publications: &Publications,
    missing: &[&StreamPlan],
) -> Result<HashSet<u32>> {
    let mut roots: Vec<&Table> = missing.iter().map(|plan| &plan.table).collect();
    roots.retain(|table| table.kind == TableKind::Partitioned && client.server_version().publishes_partitioned());
    if roots.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = "SELECT pubname::text FROM pg_catalog.pg_publication WHERE pubname::text = ANY ($1) AND NOT pubviaroot";
    let rows = client
        .query(sql, &[&publications.names()])
        .await
        .map_err(|e| query_error("cannot read the publications", e))?;
    let by_leaves: Vec<String> = rows.iter().map(|row| row.field(0)).collect::<Result<_>>()?;
    roots.retain(|table| !by_leaves.contains(&publication::publication_of(name, table)));
    Ok(roots.into_iter().map(|table| table.oid).collect())
}

/// Returns the publications to read with, and the streams that had to be added to them. Leaves out those that can't be.
pub(crate) async fn publications(
    env: &Env,
    client: &Client,
    choice: &SlotChoice,
    plans: &mut Vec<StreamPlan>,
    failures: &mut Failures,
) -> Result<(Publications, Vec<String>)> {
    let name = env.config.publication(&choice.name);
    let mut refused = HashMap::new();
    let coverage = Coverage::read(client, name, plans).await?;
    coverage.check_exists(env, choice)?;
    for plan in plans.iter() {
        let error = coverage.refused(client, env, choice, plan).await?;
        refused.extend(error.map(|error| (plan.id.clone(), error)));
    }
    failures.refuse(plans, |plan| refused.remove(&plan.id));
    let coverage = Coverage::read(client, name, plans).await?;
    if coverage.statements.is_empty() {
        return Ok((coverage.publications, Vec::new()));
    }
    let mut added: Vec<String> = coverage.missing.iter().map(|plan| plan.id.clone()).collect();
    if let Err(error) = publication::publish(client, &coverage.statements).await {
        tracing::debug!("publishing each by itself: {error}");
        for plan in &coverage.missing {
            let known = Publications::read(client, name, &oids(plans)).await?;
            let statements = publication::publish_sql(client, name, &known, &[&plan.table]).await?;
            if let Err(error) = publication::publish(client, &statements).await {
                refused.insert(plan.id.clone(), error);
            }
        }
        added.retain(|id| !refused.contains_key(id));
        failures.refuse(plans, |plan| refused.remove(&plan.id));
    }
    Ok((Publications::read(client, name, &oids(plans)).await?, added))
}

/// Leaves out what the publications don't send, and logs it.
pub(crate) fn settle_columns(plans: &mut Vec<StreamPlan>, publications: &Publications, failures: &mut Failures) {
    failures.refuse(plans, |plan| check_key(plan, publications).err());
    for plan in plans.iter_mut() {
        leave_out(plan, publications);
        for warning in publications.warnings(&plan.table) {
            tracing::warn!("{}: {warning}", plan.id);
        }
    }
}

/// Fails for a key that the publications don't send.
pub(crate) fn check_key(plan: &StreamPlan, publications: &Publications) -> Result<()> {
    let unpublished = publications.unpublished_columns(&plan.table);
    let Some(key) = plan.key_properties.iter().find(|key| unpublished.contains(key)) else { return Ok(()) };
    let error = Error::stream(format!("the publication does not publish the key column \"{key}\" of \"{}\"", plan.id));
    if !publications.can_send(&plan.table, key) {
        return Err(
            error.hint("generated columns are published from PostgreSQL 18 on: choose another replication method")
        );
    }
    Err(error.hint(format!("add it to the publication's column list{}", all_columns(plan, publications))))
}

/// Leaves columns out of a stream that its publication does not publish, and logs those that were in it.
pub(crate) fn leave_out(plan: &mut StreamPlan, publications: &Publications) {
    if let Some(warning) = warning_of_columns(plan, publications) {
        tracing::warn!("{}: {warning}", plan.id);
    }
    plan.leave_out(publications.unpublished_columns(&plan.table));
}

/// Returns a warning of selected columns that the publications don't send.
pub(crate) fn warning_of_columns(plan: &StreamPlan, publications: &Publications) -> Option<String> {
    let mut columns = publications.unpublished_columns(&plan.table);
    columns.retain(|name| plan.position(name).is_some());
    let (unlisted, unsent): (Vec<_>, Vec<_>) =
        columns.into_iter().partition(|name| publications.can_send(&plan.table, name));
    let unlisted = (!unlisted.is_empty()).then(|| {
        format!(
            "the publication does not publish {}; left out of the stream until its column list does{}",
            unlisted.join(", "),
            all_columns(plan, publications)
        )
    });
    let unsent = (!unsent.is_empty()).then(|| {
        format!(
            "the publication does not publish {}; left out of the stream: generated columns are published from PostgreSQL 18 on",
            unsent.join(", ")
        )
    });
    let told: Vec<String> = [unsent, unlisted].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Returns the end of an advice on columns.
fn all_columns(plan: &StreamPlan, publications: &Publications) -> String {
    publications.all_columns_sql(&plan.table).map(|sql| format!("; {}", to_run(&sql))).unwrap_or_default()
}
