//! The files that hold a table's rows.

use crate::error::Result;
use crate::pg::tree::with_tree;
use crate::pg::wire::Session;
use crate::state::Progress;
use crate::sync::plan::StreamPlan;

/// The heaps of a table: its own, or those of its partitions.
pub(crate) struct Heaps {
    pub(super) heaps: Vec<Heap>,
    /// The bytes of a page.
    pub(super) page: u64,
    /// Whether the table's own is the only one.
    pub(super) is_own: bool,
}

pub(super) struct Heap {
    pub(super) oid: u32,
    pub(super) pages: u64,
    /// The pages of its large values.
    toast: u64,
    /// `relfilenode`.
    file: u32,
}

impl Heaps {
    /// Reads which heaps a table has; `None` if it can't be read in ranges of pages by this role, which is logged.
    pub(crate) async fn read(session: &mut Session, plan: &StreamPlan) -> Result<Option<Heaps>> {
        let oid = plan.table.oid;
        let allowed = session.query_bool(&format!("SELECT pg_catalog.has_table_privilege({oid}, 'SELECT')")).await?;
        if !allowed {
            tracing::info!("{}: copied by one connection: the role may not read all columns", plan.id);
            return Ok(None);
        }
        let tree = match plan.has_only_own_rows() {
            true => format!("WITH tree(oid) AS (SELECT {oid}::oid)"),
            false => with_tree(&format!("{oid}::oid")),
        };
        // 2 is the heap, in which rows stay where they are.
        let sql = format!(
            "{tree} \
             SELECT c.oid, c.relkind <> 'p', c.relkind IN ('r', 'm') AND c.relam = 2, c.relfilenode, \
               coalesce(pg_catalog.pg_relation_size(c.oid), 0) / pg_catalog.current_setting('block_size')::int8, \
               coalesce(pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0)), 0) \
                 / pg_catalog.current_setting('block_size')::int8, \
               pg_catalog.current_setting('block_size') \
             FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid"
        );
        let rows = session.query(&sql).await?;
        let text = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let number = |row: &[Option<String>], at: usize| text(row, at).parse::<u64>().unwrap_or(0);
        let id = |row: &[Option<String>], at: usize| text(row, at).parse::<u32>().unwrap_or(0);
        let says = |row: &[Option<String>], at: usize| text(row, at) == "t";
        if rows.iter().any(|row| says(row, 1) && !says(row, 2)) {
            tracing::info!("{}: copied by one connection: some of its rows are in no heap of this server", plan.id);
            return Ok(None);
        }
        let page = rows.first().map_or(0, |row| number(row, 6)).max(1);
        let mut heaps: Vec<Heap> = rows
            .iter()
            .filter(|row| says(row, 1))
            .map(|row| Heap { oid: id(row, 0), pages: number(row, 4), toast: number(row, 5), file: id(row, 3) })
            .collect();
        heaps.sort_unstable_by_key(|heap| heap.oid);
        let is_own = matches!(heaps.as_slice(), [only] if only.oid == oid);
        Ok(Some(Heaps { heaps, page, is_own }))
    }

    /// Returns the files, as a bookmark holds them.
    pub(crate) fn files(&self) -> Vec<u32> {
        self.heaps.iter().map(|heap| heap.file).collect()
    }

    /// Whether every row is in the page in which it was when a copy was so far, or in a partition that came since: that the log has
    /// its rows is told by [`why_copy_anew`](crate::sync::alterations::Alterations::why_copy_anew). A table's first file has its oid for a number.
    pub(crate) fn hold(&self, progress: &Progress) -> bool {
        self.heaps.iter().all(|heap| progress.files.contains(&heap.file) || heap.file == heap.oid)
    }

    /// Returns the bytes of the pages before this one, and of all pages.
    pub(crate) fn bytes(&self, before: u64) -> (u64, u64) {
        let of = |pages: u64| pages * self.page;
        let sent = self.heaps.iter().map(|heap| heap.pages.min(before)).sum();
        (of(sent), of(self.heaps.iter().map(|heap| heap.pages).sum()))
    }

    /// Returns the number of pages of the largest.
    pub(crate) fn longest(&self) -> u64 {
        self.heaps.iter().map(|heap| heap.pages).max().unwrap_or(0)
    }

    /// Returns how many pages have so many bytes, what they hold in large values included.
    pub(super) fn pages_of(&self, bytes: u64) -> u64 {
        let sum = |of: fn(&Heap) -> u64| self.heaps.iter().map(of).sum::<u64>();
        let (heap, toast) = (sum(|heap| heap.pages).max(1), sum(|heap| heap.toast));
        let share = u128::from(bytes / self.page) * u128::from(heap) / u128::from(heap + toast);
        u64::try_from(share).unwrap_or(u64::MAX).max(1)
    }
}
