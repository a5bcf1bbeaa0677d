//! Which transactions a snapshot sees.

/// `pg_current_snapshot()`: which transactions were visible, by ids with their epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionSnapshot {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl TransactionSnapshot {
    /// Reads the text `xmin:xmax:xid,xid,…`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (xmin, xmax, running) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let running =
            running.split(',').filter(|xid| !xid.is_empty()).map(|xid| xid.parse().ok()).collect::<Option<_>>()?;
        Some(TransactionSnapshot { xmin, xmax, running })
    }

    /// Returns the oldest id that was running; that of the next transaction if none was.
    pub(crate) fn xmin(&self) -> u64 {
        self.xmin
    }

    /// Returns the id from which on it sees no transaction.
    pub(crate) fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Returns the id, without its epoch, before which no transaction was running.
    pub(crate) fn oldest(&self) -> u32 {
        self.xmin as u32
    }

    /// Returns one that sees what committed before this transaction began, which is none of the future.
    pub(crate) fn before(&self, xid: u32) -> TransactionSnapshot {
        let age = (self.xmax as u32).wrapping_sub(xid);
        let limit = self.xmax.saturating_sub(age.into());
        TransactionSnapshot { xmin: limit, xmax: limit, running: Vec::new() }
    }

    /// Returns it, or, where many transactions were running, one which sees less.
    pub(crate) fn short(&self) -> TransactionSnapshot {
        const MANY: usize = 16;
        let TransactionSnapshot { xmin, running, .. } = self;
        if running.len() > MANY {
            return TransactionSnapshot { xmin: *xmin, xmax: xmin + 1, running: vec![*xmin] };
        }
        self.clone()
    }

    /// Returns the text of the [short](Self::short) one.
    pub(crate) fn in_short(&self) -> String {
        let TransactionSnapshot { xmin, xmax, running } = self.short();
        let running: Vec<String> = running.iter().map(u64::to_string).collect();
        format!("{xmin}:{xmax}:{}", running.join(","))
    }

    /// Whether it sees what the owner of this id has written, which may be a subtransaction: of these, a snapshot does not say which
    /// are running.
    pub(crate) fn sees_writer(&self, xid: u32) -> bool {
        let limit = if self.running.is_empty() { self.xmax } else { self.xmin };
        (xid.wrapping_sub(limit as u32) as i32) < 0
    }

    /// Whether it sees what the owner of this id has written, and nothing that began before that had committed can come to be seen later.
    pub(crate) fn is_behind(&self, xid: u32) -> bool {
        self.running.is_empty() && self.sees_writer(xid)
    }

    /// Whether no transaction with this id had begun.
    pub(crate) fn precedes(&self, xid: u32) -> bool {
        (xid.wrapping_sub(self.xmax as u32) as i32) >= 0
    }

    /// Whether it sees a committed transaction with this id; the log writes ids without their epoch.
    pub(crate) fn sees(&self, xid: u32) -> bool {
        // A signed distance in the circle of 2^32 ids: no two ids in use are further apart than half of it.
        let before = |limit: u64| (xid.wrapping_sub(limit as u32) as i32) < 0;
        before(self.xmin) || (before(self.xmax) && !self.running.iter().any(|&running| running as u32 == xid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_was_committed_before_it() {
        let snapshot = TransactionSnapshot::parse("10:15:10,12").unwrap();
        for (xid, seen) in [(9, true), (10, false), (11, true), (12, false), (14, true), (15, false), (16, false)] {
            assert_eq!(snapshot.sees(xid), seen, "{xid}");
        }
        assert_eq!([14, 15, 16].map(|xid| snapshot.precedes(xid)), [false, true, true]);
        assert_eq!(TransactionSnapshot::parse("10:10:").unwrap().running, Vec::<u64>::new());
        assert_eq!(TransactionSnapshot::parse("10:x:"), None);
    }

    #[test]
    fn in_short_it_sees_no_more() {
        let few = TransactionSnapshot::parse("10:15:10,12").unwrap();
        assert_eq!(few.in_short(), "10:15:10,12");
        let many = TransactionSnapshot { xmin: 10, xmax: 90, running: (10..40).collect() };
        let short = TransactionSnapshot::parse(&many.in_short()).unwrap();
        assert!((0..100).all(|xid| many.sees(xid) || !short.sees(xid)));
        assert!(short.sees(9));
    }

    #[test]
    fn subtransactions_count_as_running_beside_a_transaction_that_is() {
        let writers = |text: &str| {
            let snapshot = TransactionSnapshot::parse(text).unwrap();
            [9, 10, 11, 12].map(|xid| snapshot.sees_writer(xid))
        };
        assert_eq!(writers("10:12:10"), [true, false, false, false]);
        let behind = |text: &str| TransactionSnapshot::parse(text).unwrap().is_behind(9);
        assert_eq!((behind("12:12:"), behind("9:9:"), behind("10:12:10")), (true, false, false));
        assert_eq!(writers("12:12:"), [true, true, true, false]);
    }

    #[test]
    fn ids_are_compared_across_the_wrap_of_their_epoch() {
        let epoch = 1u64 << 32;
        let snapshot = TransactionSnapshot { xmin: epoch + 3, xmax: epoch + 5, running: vec![epoch + 3] };
        for (xid, seen) in [(u32::MAX, true), (3, false), (4, true), (5, false)] {
            assert_eq!(snapshot.sees(xid), seen, "{xid}");
        }
    }
}
