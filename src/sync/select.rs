//! Which streams are read, and how: the catalog's choice, or everything.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::copy::xmin;
use super::env::Env;
use super::form::is_singers;
use super::plan::StreamPlan;
use super::stream::prepare::slot::obstacle;
use crate::catalog::{Catalog, CatalogEntry};
use crate::discovery::{Scope, discover, nothing_readable};
use crate::error::{Error, Result, to_run};
use crate::method::ReplicationMethod;
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::table::{ReplicaIdentity, Table};
use crate::replication::slot::Slot;
use crate::state::State;

/// The streams to read.
#[derive(Default)]
pub(crate) struct Selected {
    /// The selected streams that can be read.
    pub plans: Vec<StreamPlan>,
    /// Those that can't.
    pub left_out: Vec<LeftOut>,
}

/// A selected stream that can't be read, as far as the catalog and the server's say.
pub(crate) struct LeftOut {
    /// `tap_stream_id`
    pub id: String,
    /// The method that the catalog names, or the default.
    pub method: Option<ReplicationMethod>,
    /// Why, and what to do.
    pub error: Error,
}

impl LeftOut {
    /// Whether the log may be needed from the stream's bookmark on.
    pub(crate) fn may_be_log_based(&self) -> bool {
        self.method.is_none_or(|method| method == ReplicationMethod::LogBased)
    }
}

/// Compiles the plans of the selected streams.
pub(crate) async fn select(client: &Client, env: &Env, catalog: Option<Catalog>, state: &State) -> Result<Selected> {
    let mut defaults = Defaults { env, log_based: None };
    let mut selected = Selected::default();
    let Some(catalog) = catalog else {
        let schemas = &env.config.filter_schemas;
        let tables = discover(client, Scope::All((!schemas.is_empty()).then_some(schemas))).await?;
        if tables.is_empty() {
            return Err(nothing_readable(&env.config.dbname));
        }
        check_patterns(env, &tables)?;
        let tables: Vec<Table> = tables.into_iter().filter(|table| env.patterns.selects(&table.stream_id())).collect();
        if tables.is_empty() {
            tracing::warn!("the patterns select no stream");
        }
        let oids: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
        for table in tables {
            // A partition is read through its root.
            if table.ancestors.iter().any(|root| oids.contains(root)) {
                continue;
            }
            let method = defaults.method(&table, true).await?;
            let plan = StreamPlan::new(table, None, method, None, env);
            match filtered_log(&plan) {
                None if plan.columns.is_empty() => {
                    tracing::warn!("{}: no column is selected; skipping the stream", plan.id);
                }
                Some(error) => selected.left_out.push(LeftOut { id: plan.id, method: Some(method), error }),
                None => selected.plans.push(plan),
            }
        }
        selected.left_out.extend(unreadable(client, env, state, &selected.plans).await?);
        selected.left_out.extend(of_one_id(&mut selected.plans));
        check_options(env, &selected);
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
    let tables = discover(client, Scope::Tables(&wanted)).await?.into_iter();
    let mut tables: HashMap<_, _> = tables.map(|table| ((table.schema.clone(), table.name.clone()), table)).collect();
    let mut streams: HashMap<&(String, String), String> = HashMap::new();
    for (entry, wanted) in catalog.streams.into_iter().zip(&wanted) {
        let id = entry.tap_stream_id.clone();
        let method = entry.replication_method().or(env.config.default_replication_method());
        if let Some(other) = streams.insert(wanted, id.clone()) {
            let (schema, table) = wanted;
            let what = format!("stream \"{id}\" is the table {}, as \"{other}\" is", quote::qualified(schema, table));
            let error = Error::usage(what).hint("deselect one of them in the catalog");
            selected.left_out.push(LeftOut { id, method, error });
            streams.insert(wanted, other);
            continue;
        }
        match planned(client, &mut defaults, &mut tables, entry, wanted).await? {
            Ok(plan) if plan.columns.is_empty() => {
                tracing::warn!("{id}: no column is selected; skipping the stream");
            }
            Ok(plan) => selected.plans.push(plan),
            Err(error) => selected.left_out.push(LeftOut { id, method, error }),
        }
    }
    check_options(env, &selected);
    Ok(selected)
}

/// Compiles the plan of a stream in the catalog, whose table is one of `tables`, or returns why there can be none.
async fn planned(
    client: &Client,
    defaults: &mut Defaults<'_>,
    tables: &mut HashMap<(String, String), Table>,
    entry: CatalogEntry,
    wanted: &(String, String),
) -> Result<Result<StreamPlan>> {
    let id = &entry.tap_stream_id;
    let (schema, name) = wanted;
    let Some(table) = tables.remove(wanted) else {
        return Ok(Err(match Unreadable::find(client, Named::Table(schema, name)).await? {
            Some(unreadable) => unreadable.error(id),
            None => Error::stream(format!("{id}: there is no such table or view"))
                .hint(format!("{KEPT}; run --discover again, or deselect it")),
        }));
    };
    let method = match entry.replication_method() {
        Some(method) => method,
        None => defaults.method(&table, false).await?,
    };
    if method == ReplicationMethod::LogBased
        && let Some(why) = without_log(&table)
    {
        let error = Error::usage(format!("stream \"{id}\" can't be LOG_BASED: {why}, so that no log has all its rows"));
        return Ok(Err(error.hint("set its replication-method to FULL_TABLE or INCREMENTAL")));
    }
    let replication_key = entry.replication_key().map(str::to_owned);
    let plan = StreamPlan::new(table, Some(entry), method, replication_key, defaults.env);
    if let Some(error) = filtered_log(&plan) {
        return Ok(Err(error));
    }
    if plan.is_by_xmin()
        && let Some(error) = xmin::refusal(client, &plan, &defaults.env.config.user).await?
    {
        return Ok(Err(error));
    }
    let unknown = plan.key_properties.iter().find(|key| plan.table.column(key).is_none() || is_singers(key));
    let error = unknown.map(|key| {
        Error::usage(format!("stream \"{}\" has no column \"{key}\" to be its key, or none that can be sent", plan.id))
            .hint("change table-key-properties, or view-key-properties, in the table's metadata in the catalog")
    });
    Ok(error.map_or(Ok(plan), Err))
}

/// Takes out tables that would have one stream between them: a hyphen in a name is like that between schema and table.
fn of_one_id(plans: &mut Vec<StreamPlan>) -> Vec<LeftOut> {
    let mut tables: HashMap<String, Vec<String>> = HashMap::new();
    for plan in plans.iter() {
        let table = quote::qualified(&plan.table.schema, &plan.table.name);
        tables.entry(plan.id.clone()).or_default().push(table);
    }
    tables.retain(|_, tables| tables.len() > 1);
    plans.retain(|plan| !tables.contains_key(&plan.id));
    let left_out = |(id, tables): (String, Vec<String>)| {
        let error = Error::stream(format!("stream \"{id}\" would be all of these tables: {}", tables.join(", ")));
        let error = error.hint("run with a catalog that selects one of them, or rename the others");
        LeftOut { id, method: None, error }
    };
    tables.into_iter().map(left_out).collect()
}

/// What becomes of a stream that may be read again.
const KEPT: &str = "the bookmark stays, and of LOG_BASED the slot keeps what comes after it";

/// How a table is named.
enum Named<'a> {
    /// By schema and name.
    Table(&'a str, &'a str),
    /// By both in a stream's id.
    Stream(&'a str),
}

/// A table or view that is there and that the role may not read.
struct Unreadable {
    schema: String,
    /// `tap_stream_id`
    id: String,
    /// The SQL that lets the role read it; none where it has no columns.
    grants: Vec<String>,
}

impl Unreadable {
    /// Looks for one. Of a name that the role may read, there is none.
    async fn find(client: &Client, named: Named<'_>) -> Result<Option<Unreadable>> {
        let (condition, parameters): (_, Vec<&(dyn ToSql + Sync)>) = match &named {
            Named::Table(schema, name) => ("n.nspname::text = $1 AND c.relname::text = $2", vec![schema, name]),
            Named::Stream(id) => ("n.nspname::text || '-' || c.relname::text = $1", vec![id]),
        };
        Ok(Unreadable::look_up(client, condition, &parameters).await?.into_iter().next())
    }

    /// Returns the tables of which a condition on `pg_class c` and `pg_namespace n` holds, also those that the role may read.
    async fn look_up(client: &Client, condition: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Unreadable>> {
        let sql = format!(
            "SELECT n.nspname::text, c.relname::text, current_user::text, \
             pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.has_any_column_privilege(c.oid, 'SELECT') \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE {condition} AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY 1, 2"
        );
        let rows = client.query(&sql, parameters).await.map_err(|e| query_error("cannot look up a table", e))?;
        let table = |row: &Row| {
            let (schema, name, role): (String, &str, _) = (row.field(0)?, row.field(1)?, quote::ident(row.field(2)?));
            let usage = format!("GRANT USAGE ON SCHEMA {} TO {role}", quote::ident(&schema));
            let select = format!("GRANT SELECT ON {} TO {role}", quote::qualified(&schema, name));
            let grants = [(row.field::<bool>(3)?, usage), (row.field::<bool>(4)?, select)];
            let grants = grants.into_iter().filter(|(granted, _)| !granted).map(|(_, sql)| sql).collect();
            Ok(Unreadable { id: format!("{schema}-{name}"), schema, grants })
        };
        rows.iter().map(table).collect()
    }

    fn error(&self, id: &str) -> Error {
        match self.grants.as_slice() {
            [] => Error::stream(format!("{id}: it has no column to read")),
            grants => {
                Error::stream(format!("{id}: the role may not read it")).hint(format!("{KEPT}; {}", to_run(grants)))
            }
        }
    }
}

/// Returns the streams of a run without a catalog that were read before and that the role may not read any more.
async fn unreadable(client: &Client, env: &Env, state: &State, plans: &[StreamPlan]) -> Result<Vec<LeftOut>> {
    let mut left_out = Vec::new();
    let wanted = |id: &&str| env.patterns.selects(id) && plans.iter().all(|plan| plan.id != *id);
    for id in state.log_based().filter(wanted) {
        let Some(unreadable) = Unreadable::find(client, Named::Stream(id)).await? else { continue };
        let schemas = &env.config.filter_schemas;
        if !unreadable.grants.is_empty() && (schemas.is_empty() || schemas.contains(&unreadable.schema)) {
            let error = unreadable.error(id);
            left_out.push(LeftOut { id: id.to_owned(), method: None, error });
        }
    }
    Ok(left_out)
}

/// Returns the tables and views that `filter_schemas` or the patterns ask for and that the role may not read, by their streams' ids, each
/// with the SQL that lets it. A run without a catalog passes over them.
pub(crate) async fn unread(client: &Client, env: &Env) -> Result<Vec<(String, Vec<String>)>> {
    let schemas = &env.config.filter_schemas;
    if schemas.is_empty() && env.patterns.is_empty() {
        return Ok(Vec::new());
    }
    let condition = "NOT c.relispartition AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
                     AND (n.nspname::text = ANY ($1) OR pg_catalog.cardinality($1) = 0) \
                     AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
                              AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT'))";
    let tables = Unreadable::look_up(client, condition, &[schemas]).await?.into_iter();
    Ok(tables.filter(|table| env.patterns.selects(&table.id)).map(|table| (table.id, table.grants)).collect())
}

/// Returns what a user should know of a stream's rows, columns and key before it is read.
pub(crate) fn warnings(plan: &StreamPlan, env: &Env) -> Vec<String> {
    let mut warnings = Vec::new();
    let columns = plan.singers_columns();
    if !columns.is_empty() {
        warnings.push(format!(
            "left out, since the messages have another use for columns of these names: {}; to have them, rename them or read a view \
             that does",
            columns.join(", ")
        ));
    }
    let named = plan.named_key();
    if plan.key_properties.is_empty() && !named.is_empty() {
        warnings.push(format!(
            "the key that the catalog names ({}) counts for nothing in LOG_BASED, which needs one that the server knows of: give the \
             table a primary key, or choose another replication method",
            named.join(", ")
        ));
    }
    if plan.is_by_xmin() && env.config.limit().is_some() {
        warnings.push(
            "`limit` does not count for it: rows by xmin have no order to go on from, so that a run reads all"
                .to_owned(),
        );
    }
    if plan.table.row_security {
        let sql = format!("ALTER ROLE {} BYPASSRLS", quote::ident(&env.config.user));
        warnings.push(format!(
            "row-level security may hide rows of this table from the role; to show them {}",
            to_run(&[sql])
        ));
    }
    warnings
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
        match self.env.config.default_replication_method() {
            Some(ReplicationMethod::LogBased) if views_too && without_log.is_some() => {}
            Some(method) => return Ok(method),
            None => {}
        }
        let reason = if let Some(why) = without_log {
            Err(why)
        } else if table.primary_key().is_empty() && table.replica_identity != ReplicaIdentity::Full {
            Err("it has neither a primary key nor REPLICA IDENTITY FULL".to_owned())
        } else if table.replica_identity == ReplicaIdentity::None {
            Err("it has no replica identity".to_owned())
        } else if self.env.config.where_clauses(&table.stream_id()).is_some() {
            Err("it has custom_where_clauses".to_owned())
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

/// Returns the error for a stream that has conditions, and is to be read from the log, which has none.
fn filtered_log(plan: &StreamPlan) -> Option<Error> {
    (plan.method == ReplicationMethod::LogBased && plan.filter.is_some()).then(|| {
        Error::usage(format!("stream \"{}\" can't be LOG_BASED with `custom_where_clauses`: the log has every row", plan.id)).hint(
            "take them out of `stream_options` and filter the rows in the publication (PostgreSQL 15 and later) or behind the tap; or choose \
             another replication method",
        )
    })
}

/// Checks that each pattern matches one of these tables, or a column of one.
pub(crate) fn check_patterns(env: &Env, tables: &[Table]) -> Result<()> {
    if env.patterns.is_empty() {
        return Ok(());
    }
    let streams =
        tables.iter().map(|table| (table.stream_id(), table.columns.iter().map(|c| c.name.as_str()).collect()));
    env.patterns.check(&streams.collect::<Vec<_>>())
}

/// Warns of options for streams that are not selected: a name may be misspelt, and what its conditions hide would be sent.
fn check_options(env: &Env, selected: &Selected) {
    let ids =
        || selected.plans.iter().map(|plan| &plan.id).chain(selected.left_out.iter().map(|left_out| &left_out.id));
    for id in env.config.streams_with_options().filter(|id| ids().all(|selected| selected != id)) {
        tracing::warn!("`stream_options` are for \"{id}\", which is no selected stream");
    }
}

/// Returns why no log has all changes of a table, if none has.
fn without_log(table: &Table) -> Option<String> {
    let leaves = &table.unlogged_leaves;
    if table.kind.is_view() {
        Some("it is a view".to_owned())
    } else if !table.logged {
        Some("it is unlogged".to_owned())
    } else if !leaves.is_empty() {
        Some(format!("it has partitions that are unlogged or on a foreign server ({})", leaves.join(", ")))
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
