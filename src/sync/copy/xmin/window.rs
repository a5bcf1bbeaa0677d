//! Which rows transactions of a span of time have written, as a condition on `xmin`.

/// The most ids that a condition lists. A statement of this many has some 100 KB.
const LISTED: u32 = 16 * 1024;
/// How many rows a table has to have for each id of a list: what the list costs, and what it saves for a row, are that far apart.
const ROWS_OF_AN_ID: i64 = 32;
/// The least ids that a list must have for the server to hash it.
const HASHED: u32 = 9;

/// The ids that transactions had which began in a span of time, without their epoch as rows have them: those from `first` to
/// `last`, in the circle of 2^32 ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    first: u32,
    last: u32,
}

impl Window {
    /// Returns the ids from one to another, both with their epoch and included; `None` if half of all ids are between them.
    ///
    /// What any transaction from `first` to `last` has written is in the window. What others have written is not, unless it is so
    /// old that its ids are in use for another time: a frozen row keeps its id.
    pub(super) fn new(first: u64, last: u64) -> Option<Window> {
        (last.checked_sub(first)? < 1 << 31).then_some(Window { first: first as u32, last: last as u32 })
    }

    /// Whether a list of the ids pays where a table has so many rows; negative: nobody knows.
    pub(super) fn is_worth_a_list(self, rows: i64) -> bool {
        self.count() <= LISTED && !(0..i64::from(self.count()) * ROWS_OF_AN_ID).contains(&rows)
    }

    fn count(self) -> u32 {
        self.last.wrapping_sub(self.first).saturating_add(1)
    }

    /// Returns the condition that an id is in the window, an SQL expression of the type `xid`.
    ///
    /// `xid` has no order, and no cast to a type that has one. Its binary form, whose bytes are the digits from the highest on, is
    /// compared instead: unlike `age`, which is faster, `xidsend` may be called by several processes that scan a table together,
    /// as they do for count(*). With `listed` an id is looked up in a list first, which takes a quarter of the time where the server
    /// [hashes](crate::pg::ServerVersion::hashes_lists) it.
    pub(super) fn holds(self, xid: &str, listed: bool) -> String {
        let Window { first, last } = self;
        let bound = |comparison: &str, id: u32| {
            format!("pg_catalog.xidsend({xid}) {comparison} pg_catalog.decode('{id:08x}', 'hex')")
        };
        let joined = if first <= last { "AND" } else { "OR" };
        let range = format!("({} {joined} {})", bound(">=", first), bound("<=", last));
        if !listed {
            return range;
        }
        // Ids past the last one fill a list up: nobody has them yet.
        let ids: Vec<String> = (0..self.count().max(HASHED)).map(|n| first.wrapping_add(n).to_string()).collect();
        format!("({xid} = ANY ('{{{}}}'::pg_catalog.xid[]) AND {range})", ids.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Window {
        fn has(self, xid: u32) -> bool {
            match self.first <= self.last {
                true => (self.first..=self.last).contains(&xid),
                false => xid >= self.first || xid <= self.last,
            }
        }
    }

    const EPOCH: u64 = 1 << 32;

    #[test]
    fn conditions() {
        let condition = |first, last, hashed| Window::new(first, last).unwrap().holds("xmin", hashed);
        let range = "(pg_catalog.xidsend(xmin) >= pg_catalog.decode('000002d6', 'hex') \
                     AND pg_catalog.xidsend(xmin) <= pg_catalog.decode('000002d7', 'hex'))";
        assert_eq!(condition(726, 727, false), range);
        let listed = "xmin = ANY ('{726,727,728,729,730,731,732,733,734}'::pg_catalog.xid[])";
        assert_eq!(condition(726, 727, true), format!("({listed} AND {range})"));
        let wrapped = "(pg_catalog.xidsend(xmin) >= pg_catalog.decode('fffffffe', 'hex') \
                       OR pg_catalog.xidsend(xmin) <= pg_catalog.decode('00000005', 'hex'))";
        assert_eq!(condition(EPOCH - 2, EPOCH + 5, false), wrapped);
        assert!(condition(EPOCH - 2, EPOCH + 5, true).starts_with("(xmin = ANY ('{4294967294,4294967295,0,1,"));
    }

    #[test]
    fn a_list_pays_where_there_are_many_rows() {
        let listed = Window::new(1, LISTED.into()).unwrap();
        for (rows, pays) in [(-1, true), (0, false), (500_000, false), (i64::from(LISTED) * 32, true)] {
            assert_eq!(listed.is_worth_a_list(rows), pays, "{rows}");
        }
        assert!(!Window::new(0, LISTED.into()).unwrap().is_worth_a_list(i64::MAX));
        assert!(Window::new(7, 7).unwrap().is_worth_a_list(32));
    }

    #[test]
    fn half_of_all_ids_is_too_much() {
        assert_eq!(Window::new(5, 5).unwrap(), Window { first: 5, last: 5 });
        assert!(Window::new(0, (1 << 31) - 1).is_some());
        for (first, last) in [(0, 1 << 31), (7, EPOCH + 7), (7, 5 * EPOCH), (6, 5)] {
            assert_eq!(Window::new(first, last), None, "{first} {last}");
        }
    }

    proptest! {
        /// Whatever epoch the ids are of: none that is needed is missed, and of those within 2^32 none is taken in vain.
        #[test]
        fn what_was_written_is_in_it(first in 0..5 * EPOCH, width in 0..1u64 << 31, back in 0..EPOCH) {
            let last = first + width;
            let window = Window::new(first, last).unwrap();
            let xid = last.saturating_sub(back);
            prop_assert_eq!(window.has(xid as u32), xid >= first);
        }
    }
}
