//! What has to be known of a table, and of those below it, to read it by `xmin`.

use super::window::Window;
use crate::error::{Error, Result, to_run};
use crate::pg::connect::Client;
use crate::pg::error::query_error;
use crate::pg::quote;
use crate::pg::row::Fields as _;
use crate::pg::tree::with_tree;
use crate::pg::wire::Session;
use crate::sync::plan::StreamPlan;

/// Returns why a stream can't be read by `xmin`, if it can't.
pub(crate) async fn refusal(client: &Client, plan: &StreamPlan, user: &str) -> Result<Option<Error>> {
    let refused = |why: &str| Error::usage(format!("stream \"{}\" can't be replicated by xmin: {why}", plan.id));
    if plan.table.kind.is_view() {
        let error = refused("it is a view, whose rows don't say when they were written");
        return Ok(Some(error.hint("set its replication-key to a column, or its replication-method to FULL_TABLE")));
    }
    // 2 is the heap. Tables have no other method before PostgreSQL 12, and this is 0 then.
    let sql = format!(
        "{} SELECT pg_catalog.has_table_privilege($1::oid, 'SELECT') \
                   OR pg_catalog.has_column_privilege($1::oid, 'xmin', 'SELECT'), \
                   array(SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM tree \
                         JOIN pg_catalog.pg_class c ON c.oid = tree.oid \
                         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                         WHERE c.relkind = 'f' OR c.relkind = 'r' AND c.relam NOT IN (0, 2) ORDER BY 1)",
        with_tree("$1::oid")
    );
    let row = client.query_one(&sql, &[&plan.table.oid]).await;
    let row = row.map_err(|e| query_error("cannot look up what a table consists of", e))?;
    if !row.field::<bool>(0)? {
        let table = quote::qualified(&plan.table.schema, &plan.table.name);
        let sql = format!("GRANT SELECT (xmin) ON {table} TO {}", quote::ident(user));
        return Ok(Some(refused("the role may not read this column").hint(to_run(&[sql]))));
    }
    let without: Vec<String> = row.field(1)?;
    Ok((!without.is_empty()).then(|| {
        refused(&format!("rows of {} have none, which is foreign or stored in another way", without.join(", ")))
            .hint("set its replication-key to a column, or its replication-method to FULL_TABLE")
    }))
}

/// Returns those of a stream's tables whose columns were altered, or which came to be below another one, by transactions of the
/// window: a new column has values in rows that nobody has written to since, and a partition that is attached brings such rows.
pub(super) async fn altered(session: &mut Session, plan: &StreamPlan, window: Window) -> Result<Vec<u32>> {
    // Being attached, or made to inherit, counts as an alteration of each column: it changes attinhcount.
    let altered = |table: &str| {
        format!(
            "EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = {table} AND a.attnum > 0 \
             AND NOT a.attisdropped AND {})",
            window.holds("a.xmin", false)
        )
    };
    let sql = format!(
        "WITH RECURSIVE tree(oid, altered) AS (\
         SELECT t.oid, {} FROM (SELECT {}::oid) t(oid) UNION \
         SELECT i.inhrelid, tree.altered OR {} FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid) \
         SELECT DISTINCT oid FROM tree WHERE altered ORDER BY oid",
        altered("t.oid"),
        plan.table.oid,
        altered("i.inhrelid")
    );
    let rows = session.query(&sql).await?;
    Ok(rows.into_iter().flatten().flatten().filter_map(|oid| oid.parse().ok()).collect())
}
