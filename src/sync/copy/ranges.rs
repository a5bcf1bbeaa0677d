//! Which pages of a table one query reads, and in which order.

mod heaps;

use crate::pg::table::TableKind;
use crate::pg::wire::Session;
use crate::sync::copy::rows::RowQuery;
use crate::sync::plan::StreamPlan;

pub(crate) use heaps::Heaps;

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

/// A range of pages: those of every heap that have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// How many came before it.
    pub index: usize,
    start: u64,
    /// The first page behind it; `None`: it is open.
    pub end: Option<u64>,
}

/// Ranges that together hold every row from a page on, each row once, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    /// How many pages each heap has, in order.
    heaps: Vec<u64>,
    /// How many pages a range has at least, of all heaps together.
    each: u64,
    /// The condition that excludes rows of tables that came to be below this one after it was divided.
    tables: String,
    /// The first page of the next range.
    at: u64,
    /// How many ranges came so far.
    came: usize,
    ended: bool,
}

impl Range {
    /// Makes one up.
    #[cfg(test)]
    pub(crate) fn for_test(index: usize, end: Option<u64>) -> Range {
        Range { index, start: 0, end }
    }
}

impl Ranges {
    /// Returns one range of all pages.
    pub(crate) fn whole() -> Ranges {
        Ranges { heaps: Vec::new(), each: 1, tables: String::new(), at: 0, came: 0, ended: false }
    }

    /// Divides a table for so many connections.
    pub(crate) fn for_connections(heaps: &Heaps, connections: usize) -> Ranges {
        let all = heaps.heaps.iter().map(|heap| heap.pages).sum::<u64>();
        let each = all.div_ceil(connections as u64 * PER_CONNECTION).max(SMALLEST / heaps.page);
        Ranges::divide(heaps, each, 0)
    }

    /// Divides a table, from a page on, into ranges of so many bytes.
    pub(crate) fn of_bytes(heaps: &Heaps, bytes: u64, from: u64) -> Ranges {
        Ranges::divide(heaps, heaps.pages_of(bytes), from)
    }

    fn divide(heaps: &Heaps, each: u64, from: u64) -> Ranges {
        let mut pages: Vec<u64> = heaps.heaps.iter().map(|heap| heap.pages).collect();
        pages.sort_unstable();
        let oids: Vec<String> = heaps.heaps.iter().map(|heap| heap.oid.to_string()).collect();
        let tables = match heaps.is_own {
            true => String::new(),
            false => format!(" AND tableoid = ANY ('{{{}}}'::pg_catalog.oid[])", oids.join(",")),
        };
        Ranges { heaps: pages, each: each.max(1), tables, at: from, came: 0, ended: false }
    }

    /// Returns the SQL for the rows of `query` that are in a range.
    pub(crate) fn sql(&self, query: &RowQuery, range: &Range) -> String {
        let Range { start, end, .. } = range;
        let end = match end {
            None if *start == 0 => return query.sql(),
            None => String::new(),
            Some(end) => format!(" AND ctid < '({end},0)'"),
        };
        query.within(Some(&format!("ctid >= '({start},0)'{end}{}", self.tables)))
    }

    /// Whether a range was taken.
    pub(crate) fn has_begun(&self) -> bool {
        self.came > 0
    }

    /// Whether a range is left.
    pub(crate) fn is_left(&self) -> bool {
        !self.ended
    }

    /// Returns the first page behind a range that begins at this one; `None` if there is no page left behind it.
    fn end(&self, mut at: u64) -> Option<u64> {
        let mut wanted = self.each;
        for (shorter, &end) in self.heaps.iter().enumerate() {
            // The heaps that reach up to here.
            let heaps = (self.heaps.len() - shorter) as u64;
            let pages = end.saturating_sub(at).saturating_mul(heaps);
            if pages >= wanted {
                at += wanted.div_ceil(heaps);
                return (at < *self.heaps.last()?).then_some(at);
            }
            wanted -= pages;
            at = at.max(end);
        }
        None
    }
}

impl Iterator for Ranges {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        if self.ended {
            return None;
        }
        let range = Range { index: self.came, start: self.at, end: self.end(self.at) };
        self.came += 1;
        match range.end {
            Some(end) => self.at = end,
            None => self.ended = true,
        }
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(mut heaps: Vec<u64>, each: u64, from: u64) -> Ranges {
        heaps.sort_unstable();
        Ranges { heaps, each, at: from, ..Ranges::whole() }
    }

    /// The first pages of the ranges.
    fn starts(heaps: Vec<u64>, each: u64, from: u64) -> Vec<u64> {
        ranges(heaps, each, from).map(|range| range.start).collect()
    }

    #[test]
    fn ranges_are_alike() {
        assert_eq!(starts(vec![100], 25, 0), [0, 25, 50, 75]);
        assert_eq!(starts(vec![50, 50], 25, 0), [0, 13, 26, 39]);
        assert_eq!(starts(vec![100, 10], 28, 0), [0, 18, 46, 74]);
        assert_eq!(starts(vec![10, 0, 20], 5, 0), [0, 3, 6, 9, 13, 18]);
        assert_eq!(starts(vec![100], 25, 60), [60, 85]);
        assert_eq!(starts(vec![100], 25, 100), [100]);
        assert_eq!(starts(vec![100], 25, 300), [300]);
    }

    #[test]
    fn a_small_table_is_one_range() {
        for pages in [vec![], vec![0], vec![99], vec![50, 49], vec![100]] {
            assert_eq!(starts(pages, 100, 0), [0]);
        }
        assert_eq!(starts(vec![101], 100, 0), [0, 100]);
        assert_eq!(Ranges::whole().collect::<Vec<_>>(), [Range { index: 0, start: 0, end: None }]);
    }

    proptest! {
        #[test]
        fn ranges_follow_each_other_and_none_is_large(
            pages in prop::collection::vec(0u64..5000, 0..20), each in 1u64..5000, from in 0u64..6000,
        ) {
            let all: Vec<Range> = ranges(pages.clone(), each, from).collect();
            prop_assert_eq!(all[0].start, from);
            prop_assert!(all.windows(2).all(|pair| pair[0].end == Some(pair[1].start) && pair[0].start < pair[1].start));
            prop_assert!(all.iter().enumerate().all(|(index, range)| range.index == index));
            prop_assert_eq!(all.last().unwrap().end, None);
            let size = |start: u64, end: u64| pages.iter().map(|&n| n.min(end) - n.min(start)).sum::<u64>();
            for range in &all {
                prop_assert!(size(range.start, range.end.unwrap_or(u64::MAX)) < each + pages.len() as u64 + 1);
            }
        }
    }
}
