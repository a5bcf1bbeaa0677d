//! Which streams are read, and how: the catalog's choice, or everything.

use std::collections::HashSet;

use super::env::Env;
use super::plan::StreamPlan;
use super::stream::prepare::slot::obstacle;
use crate::catalog::Catalog;
use crate::discovery::{Scope, discover, nothing_readable};
use crate::error::{Error, Result, to_run};
use crate::method::ReplicationMethod;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::table::{ReplicaIdentity, Table};
use crate::replication::slot::Slot;

/// The streams to read.
#[derive(Default)]
pub(crate) struct Selected {
    /// The selected streams that exist.
    pub plans: Vec<StreamPlan>,
    /// The selected streams that the server does not have.
    pub missing: Vec<String>,
    /// The streams that the server has and the role may not read.
    pub unreadable: Vec<Unreadable>,
    /// The errors for what the catalog asks for and can't have.
    pub refused: Vec<Error>,
}

/// A stream that the role may not read.
pub(crate) struct Unreadable {
    /// `tap_stream_id`
    pub id: String,
    /// The method that the catalog names, or the default.
    pub method: Option<ReplicationMethod>,
    /// The SQL that lets the role read it.
    pub grants: Vec<String>,
}

impl Selected {
    /// Returns the ids of streams that the role may not read.
    pub(crate) fn unreadable_ids(&self) -> Vec<String> {
        self.unreadable.iter().map(|stream| stream.id.clone()).collect()
    }

    /// Returns an error if streams were left out.
    pub(crate) fn left_out(&self) -> Result<()> {
        let (message, hint) = match (self.missing.join(", "), self.unreadable_ids().join(", ")) {
            (missing, unreadable) if missing.is_empty() && unreadable.is_empty() => return Ok(()),
            (missing, unreadable) if unreadable.is_empty() => (
                format!("these selected streams do not exist: {missing}"),
                "the others were read; deselect them or run --discover again",
            ),
            (missing, unreadable) => (
                format!(
                    "the role may not read the selected streams {unreadable}{}{missing}",
                    if missing.is_empty() { "" } else { ", and these do not exist: " }
                ),
                "the others were read; GRANT SELECT on the tables and USAGE on their schemas to the role: until then the slot \
                 keeps what comes after their bookmarks",
            ),
        };
        Err(Error::run(message).hint(hint))
    }
}

/// Compiles the plans of the selected streams.
pub(crate) async fn select(client: &Client, env: &Env, catalog: Option<Catalog>) -> Result<Selected> {
    let mut defaults = Defaults { env, log_based: None };
    let mut selected = Selected::default();
    let Some(catalog) = catalog else {
        let schemas = &env.config.filter_schemas;
        let tables = discover(client, Scope::All((!schemas.is_empty()).then_some(schemas))).await?;
        if tables.is_empty() {
            return Err(nothing_readable(&env.config.dbname));
        }
        let oids: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
        for table in tables {
            // A partitioned table is read through its root.
            if table.partition_root.is_some_and(|root| oids.contains(&root)) {
                continue;
            }
            let method = defaults.method(&table, true).await?;
            selected.plans.push(StreamPlan::new(table, None, method, None, &env.types));
        }
        return Ok(selected);
    };

    let wanted: Vec<(String, String)> = catalog
        .streams
        .iter()
        .map(|entry| (entry.schema_name().unwrap_or_default().to_owned(), entry.table_name.clone()))
        .collect();
    if wanted.is_empty() {
        tracing::warn!("the catalog selects no stream");
        return Ok(selected);
    }
    let mut tables = discover(client, Scope::Tables(&wanted)).await?;
    for (entry, (schema, name)) in catalog.streams.into_iter().zip(wanted) {
        let Some(found) = tables.iter().position(|table| table.schema == schema && table.name == name) else {
            let method = entry.replication_method().or(env.config.default_replication_method);
            let id = entry.tap_stream_id;
            match missing_grants(client, &schema, &name).await? {
                Some(grants) => selected.unreadable.push(Unreadable { id, method, grants }),
                None => selected.missing.push(id),
            }
            continue;
        };
        let table = tables.swap_remove(found);
        let method = match entry.replication_method() {
            Some(method) => method,
            None => defaults.method(&table, false).await?,
        };
        if method == ReplicationMethod::LogBased
            && let Some(why) = without_log(&table)
        {
            let error = Error::usage(format!(
                "stream \"{}\" can't be LOG_BASED: {why}, so that no log has its rows",
                entry.tap_stream_id
            ));
            selected.refused.push(error.hint("set its replication-method to FULL_TABLE or INCREMENTAL"));
            continue;
        }
        let replication_key = entry.replication_key().map(str::to_owned);
        let plan = StreamPlan::new(table, Some(entry), method, replication_key, &env.types);
        if let Some(key) = plan.key_properties.iter().find(|key| plan.table.column(key).is_none()) {
            let error = Error::usage(format!("stream \"{}\" has no column \"{key}\" to be its key", plan.id));
            selected.refused.push(error.hint("change view-key-properties in the table's metadata in the catalog"));
        } else if plan.columns.is_empty() {
            tracing::warn!("{}: no column is selected; skipping the stream", plan.id);
        } else {
            selected.plans.push(plan);
        }
    }
    Ok(selected)
}

/// Returns the SQL that lets the role read a table or view; `None` where there is none of that name.
async fn missing_grants(client: &Client, schema: &str, name: &str) -> Result<Option<Vec<String>>> {
    let sql = "SELECT current_user::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE'), \
               pg_catalog.has_any_column_privilege(c.oid, 'SELECT') \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname::text = $1 AND c.relname::text = $2 AND c.relkind IN ('r', 'p', 'v', 'm')";
    let row = client.query_opt(sql, &[&schema, &name]).await.map_err(|e| query_error("cannot look up a table", e))?;
    let Some(row) = row else { return Ok(None) };
    let role = quote::ident(row.field(0)?);
    let usage = format!("GRANT USAGE ON SCHEMA {} TO {role}", quote::ident(schema));
    let select = format!("GRANT SELECT ON {} TO {role}", quote::qualified(schema, name));
    let grants = [(row.field::<bool>(1)?, usage), (row.field::<bool>(2)?, select)];
    Ok(Some(grants.into_iter().filter(|(granted, _)| !granted).map(|(_, sql)| sql).collect()))
}

/// Returns what may hide rows of a table from the role.
pub(crate) fn hidden_rows(plan: &StreamPlan, env: &Env) -> Option<String> {
    plan.table.row_security.then(|| {
        let sql = format!("ALTER ROLE {} BYPASSRLS", quote::ident(&env.config.user));
        format!("row-level security may hide rows of this table from the role; to show them {}", to_run(&[sql]))
    })
}

/// The replication method of streams whose entry names none.
struct Defaults<'a> {
    env: &'a Env,
    /// Whether the server can serve LOG_BASED, or why not; `None` before it was asked.
    log_based: Option<Result<(), String>>,
}

impl Defaults<'_> {
    /// Returns the method for a table. `views_too`: nobody chose the table, so that a default of LOG_BASED does not
    /// hold for it if it is a view or unlogged.
    async fn method(&mut self, table: &Table, views_too: bool) -> Result<ReplicationMethod> {
        let without_log = without_log(table);
        match self.env.config.default_replication_method {
            Some(ReplicationMethod::LogBased) if views_too && without_log.is_some() => {}
            Some(method) => return Ok(method),
            None => {}
        }
        let reason = if let Some(why) = without_log {
            Err(why.to_owned())
        } else if table.primary_key().is_empty() && table.replica_identity != ReplicaIdentity::Full {
            Err("it has neither a primary key nor REPLICA IDENTITY FULL".to_owned())
        } else if table.replica_identity == ReplicaIdentity::None {
            Err("it has no replica identity".to_owned())
        } else {
            match &self.log_based {
                Some(answer) => answer.clone(),
                None => {
                    let answer = ask(self.env).await?;
                    self.log_based.insert(answer).clone()
                }
            }
        };
        let (method, why) = match reason {
            Ok(()) => (ReplicationMethod::LogBased, "it has a key and the server a slot".to_owned()),
            Err(why) => (ReplicationMethod::FullTable, why),
        };
        tracing::info!("{}: reading by {method} ({why})", table.stream_id());
        Ok(method)
    }
}

/// Returns why no log has the changes of a table, if none has.
fn without_log(table: &Table) -> Option<&'static str> {
    if table.kind.is_view() {
        Some("it is a view")
    } else if !table.logged {
        Some("it is unlogged")
    } else {
        None
    }
}

/// Asks the server whether it can serve LOG_BASED, or why not.
async fn ask(env: &Env) -> Result<Result<(), String>> {
    let client = env.primary.connect().await?;
    if let Some((why, _)) = obstacle(&client).await? {
        return Ok(Err(why));
    }
    let candidates = env.config.slot_candidates();
    let slot = Slot::find(&client, &candidates).await?;
    if slot.is_none() && !env.config.create_replication_slot {
        return Ok(Err(format!("there is no replication slot {}", candidates.join(" or "))));
    }
    Ok(Ok(()))
}
