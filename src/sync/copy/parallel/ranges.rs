//! Which tables are read in ranges of their pages, and which ranges those are.

use crate::error::Result;
use crate::pg::table::TableKind;
use crate::pg::tree::with_tree;
use crate::pg::wire::Session;
use crate::sync::copy::rows::RowQuery;
use crate::sync::plan::StreamPlan;

/// The number of ranges for each connection: enough that all end at about the same time, however unlike the ranges are.
const PER_CONNECTION: u64 = 16;
/// The size in bytes from which a range is worth a query.
const SMALLEST: u64 = 4 * 1024 * 1024;

/// Returns why a table can't be read in ranges, as far as that is known without a query.
pub(crate) fn why_not(session: &Session, plan: &StreamPlan) -> Option<String> {
    let version = session.server_version();
    if !version.scans_tid_ranges() {
        return Some(format!("the server is PostgreSQL {version}, and ranges of a table are read from 14 on"));
    }
    (plan.table.kind == TableKind::View).then(|| "it is a view".to_owned())
}

/// Ranges of pages that together hold every row, each row once.
pub(crate) struct Ranges {
    /// The first page of each range, which goes up to the next one; the last is open.
    starts: Vec<u64>,
    /// The condition that excludes rows of tables that came to be below this one after it was divided.
    tables: String,
}

impl Ranges {
    /// Divides a table; `None` if that can't be done or is not worth it.
    pub(crate) async fn of(session: &mut Session, plan: &StreamPlan, connections: usize) -> Result<Option<Ranges>> {
        let oid = plan.table.oid;
        let allowed = session
            .query_bool(&format!(
                "SELECT pg_catalog.has_table_privilege({oid}, 'SELECT') \
                 AND pg_catalog.has_function_privilege('pg_catalog.pg_export_snapshot()', 'EXECUTE')"
            ))
            .await?;
        if !allowed {
            tracing::info!(
                "{}: copied by one connection: the role may not read all columns, or not export a snapshot",
                plan.id
            );
            return Ok(None);
        }
        let tree = match plan.has_only_own_rows() {
            true => format!("WITH tree(oid) AS (SELECT {oid}::oid)"),
            false => with_tree(&format!("{oid}::oid")),
        };
        // 2 is the heap, in which rows stay where they are.
        let sql = format!(
            "{tree} \
             SELECT c.oid, c.relkind IN ('r', 'm') AND c.relam = 2, \
             pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8, \
             pg_catalog.current_setting('block_size') \
             FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind <> 'p'"
        );
        let tables = session.query(&sql).await?;
        let field = |row: &Vec<Option<String>>, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        if tables.iter().any(|row| field(row, 1) != "t") {
            tracing::info!("{}: copied by one connection: some of its rows are in no heap of this server", plan.id);
            return Ok(None);
        }
        let pages = tables.iter().map(|row| field(row, 2).parse().unwrap_or(0)).collect();
        let page = tables.first().and_then(|row| field(row, 3).parse().ok()).unwrap_or(8192);
        let starts = divide(pages, connections as u64 * PER_CONNECTION, SMALLEST / page);
        let oids: Vec<String> = tables.iter().map(|row| field(row, 0)).collect();
        let tables = match oids.as_slice() {
            [only] if *only == oid.to_string() => String::new(),
            _ => format!(" AND tableoid = ANY ('{{{}}}'::pg_catalog.oid[])", oids.join(",")),
        };
        Ok((starts.len() > 1).then_some(Ranges { starts, tables }))
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Returns the SQL for the rows of `query` that are in a range.
    pub(crate) fn query(&self, query: &RowQuery, range: usize) -> Option<String> {
        let start = self.starts.get(range)?;
        let end = self.starts.get(range + 1).map_or(String::new(), |end| format!(" AND ctid < '({end},0)'"));
        Some(query.within(Some(&format!("ctid >= '({start},0)'{end}{}", self.tables))))
    }
}

/// Returns the first pages of at most about `count` ranges that hold about as many pages as each other, at least
/// `smallest`, of tables with these numbers of pages.
fn divide(mut pages: Vec<u64>, count: u64, smallest: u64) -> Vec<u64> {
    pages.sort_unstable();
    let each = pages.iter().sum::<u64>().div_ceil(count).max(smallest).max(1);
    let mut starts = vec![0];
    // Where the walk is, and how many pages the last range has up to there.
    let (mut at, mut filled) = (0, 0);
    for (shorter, &end) in pages.iter().enumerate() {
        // Tables that reach up to here.
        let tables = (pages.len() - shorter) as u64;
        while (end - at) * tables >= each - filled {
            at += (each - filled).div_ceil(tables);
            filled = 0;
            starts.push(at);
        }
        filled += (end - at) * tables;
        at = end;
    }
    // A range that starts at the end of the longest table is empty.
    if starts.len() > 1 && starts.last() == pages.last() {
        starts.pop();
    }
    starts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_alike() {
        assert_eq!(divide(vec![100], 4, 1), [0, 25, 50, 75]);
        assert_eq!(divide(vec![50, 50], 4, 1), [0, 13, 26, 39]);
        assert_eq!(divide(vec![100, 10], 4, 1), [0, 18, 46, 74]);
        assert_eq!(divide(vec![10, 0, 20], 100, 5), [0, 3, 6, 9, 13, 18]);
    }

    #[test]
    fn a_small_table_is_one_range() {
        for pages in [vec![], vec![0], vec![99], vec![50, 49], vec![100]] {
            assert_eq!(divide(pages, 32, 100), [0]);
        }
        assert_eq!(divide(vec![101], 32, 100), [0, 100]);
    }

    proptest! {
        #[test]
        fn ranges_are_in_order_and_none_is_large(
            pages in prop::collection::vec(0u64..5000, 0..20), count in 1u64..100, smallest in 1u64..50,
        ) {
            let starts = divide(pages.clone(), count, smallest);
            prop_assert_eq!(starts[0], 0);
            prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]));
            let each = pages.iter().sum::<u64>().div_ceil(count).max(smallest);
            let size = |start: u64, end: u64| pages.iter().map(|&n| n.min(end) - n.min(start)).sum::<u64>();
            let ends = starts[1..].iter().copied().chain([u64::MAX]);
            for (&start, end) in starts.iter().zip(ends) {
                prop_assert!(size(start, end) < each + pages.len() as u64 + 1);
            }
        }
    }
}
